//! The catalogue's memory against a plain scan of what was put in.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use monofs_model::{
    Consistency, ContentMode, DisplayPath, NodeId, Oid, RefName, Repository, RepositoryState,
    Snapshot, SourceUrl,
};
use monofs_testkit::random::{Rng, seed_or};

use super::copies::{CopyCounts, copies};
use super::index::CatalogIndex;
use super::listing::{CatalogListing, PAGE_BYTES};
use super::memory::{CatalogMemory, CatalogPosition};
use super::path_key::path_key;

const STEPS: usize = 3000;

fn position(revision: u64) -> CatalogPosition {
    CatalogPosition {
        epoch: "e".into(),
        revision,
    }
}

pub(super) fn entry(path: &str) -> Repository {
    Repository {
        path: DisplayPath::new(path).unwrap(),
        source: SourceUrl::new("https://forge.example/x.git").unwrap(),
        ref_name: RefName::new("main").unwrap(),
        state: RepositoryState::Ingesting,
        snapshot: None,
        generation: 0,
        generation_time: None,
        root_time: None,
        holders: vec![],
        content: ContentMode::Eager,
        consistency: Consistency::Eventual,
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: None,
    }
}

pub(super) fn a_snapshot() -> Snapshot {
    let oid = Oid::from_bytes(&[1; 20]).unwrap();
    Snapshot {
        commit: oid,
        root: oid,
        commit_time: 1,
        trees: 1,
        blobs: 1,
        bytes: 1,
        submodules: vec![],
        generations: None,
    }
}

/// Another state of an entry.
fn change(rng: &mut Rng, entry: &mut Repository) {
    let oid = |byte: u64| Oid::from_bytes(&[byte as u8; 20]).unwrap();
    match rng.below(7) {
        6 => {
            let outer = || DisplayPath::new("a").unwrap();
            entry.shadowed_by = rng.one_in(2).then(outer);
        }
        0 => entry.state = RepositoryState::Failed,
        1 => {
            entry.last_error = if rng.one_in(2) {
                "refused".into()
            } else {
                String::new()
            }
        }
        2 => entry.refreshed_at += rng.below(50) as i64,
        3 => {
            let pinned = "0123456789012345678901234567890123456789";
            entry.ref_name = RefName::new(if rng.one_in(2) { pinned } else { "main" }).unwrap();
        }
        4 => {
            let ids = ["a", "b", "c"]
                .iter()
                .filter(|_| rng.one_in(2))
                .map(|id| NodeId::new(id).unwrap());
            entry.holders = ids.collect();
        }
        _ => {
            entry.state = RepositoryState::Ready;
            entry.generation += 1;
            let (commit, root) = (oid(rng.below(200)), oid(9));
            entry.snapshot = Some(Snapshot {
                commit,
                root,
                commit_time: 1,
                trees: 1,
                blobs: 1,
                bytes: 1,
                submodules: vec![],
                generations: None,
            });
        }
    }
}

/// Paths of several depths, with names of which one is the beginning of another.
fn random_path(rng: &mut Rng) -> String {
    let name =
        |rng: &mut Rng| ["a", "a-b", "a.b", "ab", "b", "zz"][rng.below(6) as usize].to_owned();
    let depth = 1 + rng.below(3);
    (0..depth).map(|_| name(rng)).collect::<Vec<_>>().join("/")
}

fn assert_index(memory: &CatalogMemory, seed: u64) {
    let mut scanned = CatalogIndex::default();
    for entry in memory.below("", "") {
        scanned.add(&path_key(entry.repository.path.as_str()).into(), entry);
    }
    assert!(
        *memory.index() == scanned,
        "seed {seed}: {:#?}\nis not\n{scanned:#?}",
        memory.index()
    );
}

fn assert_lookups(memory: &CatalogMemory, expected: &BTreeMap<Vec<String>, Repository>, seed: u64) {
    let all: Vec<&Repository> = memory
        .below("", "")
        .map(|entry| &*entry.repository)
        .collect();
    assert_eq!(all, expected.values().collect::<Vec<_>>(), "seed {seed}");
    for prefix in ["", "a", "a/a", "a-b", "ab/zz", "b", "nothing"] {
        let depth = prefix.split('/').filter(|name| !name.is_empty()).count();
        let inside =
            |path: &&Vec<String>| depth == 0 || path[..depth.min(path.len())].join("/") == prefix;
        let below: Vec<String> = expected
            .keys()
            .filter(inside)
            .map(|path| path.join("/"))
            .collect();
        let mut paged: Vec<String> = Vec::new();
        loop {
            let after = paged.last().cloned().unwrap_or_default();
            let page: Vec<String> = memory
                .below(prefix, &after)
                .take(3)
                .map(|entry| entry.repository.path.to_string())
                .collect();
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, below, "seed {seed}, below '{prefix}'");
        let published = expected
            .iter()
            .filter(|(path, entry)| inside(path) && entry.snapshot.is_some());
        let mut names: Vec<String> = published
            .filter_map(|(path, _)| path.get(depth).cloned())
            .collect();
        names.dedup();
        let mut listed: Vec<String> = Vec::new();
        loop {
            let after = listed.last().cloned().unwrap_or_default();
            let page = memory.names(prefix, &after, 2);
            if page.is_empty() {
                break;
            }
            listed.extend(page.into_iter().map(|(name, _)| name));
        }
        assert_eq!(listed, names, "seed {seed}, names in '{prefix}'");
    }
}

/// The copies are counted as if every entry were looked at.
fn assert_copies(memory: &CatalogMemory, expected: &BTreeMap<Vec<String>, Repository>, seed: u64) {
    for (wanted, serving) in [(1, "abc"), (2, "ab"), (2, "c"), (3, "abc"), (2, "")] {
        let serving: HashSet<NodeId> = serving
            .chars()
            .map(|id| NodeId::new(&id.to_string()).unwrap())
            .collect();
        let mut scanned = CopyCounts::default();
        for entry in expected
            .values()
            .filter(|entry| entry.state == RepositoryState::Ready)
        {
            let live = entry
                .holders
                .iter()
                .filter(|holder| serving.contains(*holder))
                .count();
            scanned.held += live as u64;
            if live < wanted {
                scanned.missing += (wanted - live) as u64;
                scanned.below.push(path_key(entry.path.as_str()).into());
                scanned.lost += u64::from(live == 0);
            }
        }
        scanned.below.sort();
        assert_eq!(
            copies(memory, wanted, &serving),
            scanned,
            "seed {seed}, {wanted} on {serving:?}"
        );
    }
}

/// Which entries lie inside others, and which one a path lies in: the longest that is shown.
fn assert_nesting(
    memory: &CatalogMemory,
    expected: &BTreeMap<Vec<String>, Repository>,
    rng: &mut Rng,
    seed: u64,
) {
    let around = |path: &[String]| -> Vec<&Repository> {
        let prefixes = (1..path.len()).map(|depth| path[..depth].to_vec());
        prefixes.filter_map(|outer| expected.get(&outer)).collect()
    };
    let nested: Vec<&Repository> = memory.nested().map(|entry| &*entry.repository).collect();
    let naive = expected
        .iter()
        .filter(|(path, entry)| entry.shadowed_by.is_some() || !around(path).is_empty())
        .map(|(_, entry)| entry);
    assert_eq!(nested, naive.collect::<Vec<_>>(), "seed {seed}");

    let path = random_path(rng);
    let components: Vec<String> = path.split('/').map(str::to_owned).collect();
    let mut all = around(&components);
    all.extend(expected.get(&components));
    let longest = all.iter().rev().find(|entry| entry.is_shown());
    let resolved = memory.resolve(&path).map(|(entry, _)| &*entry.repository);
    assert_eq!(
        resolved,
        longest.or(all.last()).copied(),
        "seed {seed}, {path}"
    );
}

#[test]
fn the_index_equals_a_scan_after_any_changes() {
    let seed = seed_or(1);
    let mut rng = Rng::new(seed);
    let mut memory = CatalogMemory::new(position(0));
    let mut expected: BTreeMap<Vec<String>, Repository> = BTreeMap::new();
    let mut followed: BTreeMap<String, Arc<Repository>> = BTreeMap::new();
    let mut at = position(0);
    for step in 1..=STEPS {
        let path = DisplayPath::new(&random_path(&mut rng)).unwrap();
        let components: Vec<String> = path.components().map(str::to_owned).collect();
        match rng.below(8) {
            0 if expected.remove(&components).is_some() => drop(memory.remove(&path, step as u64)),
            1 => memory.looked(&path, rng.below(1000) as i64),
            _ => {
                let overlaps = memory
                    .overlapping(&path)
                    .iter()
                    .any(|entry| entry.repository.path != path);
                let naive = expected
                    .values()
                    .any(|other| other.path != path && other.path.overlaps(&path));
                assert_eq!(overlaps, naive, "seed {seed}, {path}");
                let mut now = expected
                    .get(&components)
                    .cloned()
                    .unwrap_or_else(|| entry(path.as_str()));
                change(&mut rng, &mut now);
                memory.put(now.clone(), step as u64, step as u64);
                expected.insert(components, now);
            }
        }
        if rng.one_in(20) {
            assert_index(&memory, seed);
            assert_lookups(&memory, &expected, seed);
            assert_nesting(&memory, &expected, &mut rng, seed);
            assert_copies(&memory, &expected, seed);
            let changes = memory.changes_since(&at).unwrap();
            followed.extend(
                changes
                    .upserts
                    .into_iter()
                    .map(|entry| (entry.path.to_string(), entry)),
            );
            changes
                .removed
                .iter()
                .for_each(|path| drop(followed.remove(path)));
            at = changes.position;
            let visible = |entry: &Repository| {
                (
                    entry.path.to_string(),
                    entry.generation,
                    entry.holders.clone(),
                )
            };
            let published: Vec<_> = memory.published().map(|entry| visible(entry)).collect();
            let mut seen: Vec<_> = followed.values().map(|entry| visible(entry)).collect();
            seen.sort_by_key(|(path, ..)| path_key(path));
            assert_eq!(seen, published, "seed {seed}");
        }
    }
}

#[test]
fn a_path_lies_in_the_longest_repository_that_is_shown() {
    let mut memory = CatalogMemory::new(position(0));
    let shown = |path: &str| Repository {
        state: RepositoryState::Ready,
        snapshot: Some(a_snapshot()),
        ..entry(path)
    };
    memory.put(shown("h/a"), 1, 1);
    memory.put(shown("h/a/in"), 2, 2);
    memory.put(entry("h/a/new"), 3, 3);
    let resolved = |memory: &CatalogMemory, path: &str| {
        let (entry, rest) = memory.resolve(path).unwrap();
        (entry.repository.path.to_string(), rest)
    };
    assert_eq!(resolved(&memory, "h/a/in/x"), ("h/a/in".into(), "x".into()));
    assert_eq!(
        resolved(&memory, "h/a/other"),
        ("h/a".into(), "other".into())
    );
    assert_eq!(
        resolved(&memory, "h/a/new/x"),
        ("h/a".into(), "new/x".into()),
        "it has no commit yet"
    );
    let shadowed = Repository {
        shadowed_by: Some(DisplayPath::new("h/a").unwrap()),
        ..shown("h/a/in")
    };
    memory.put(shadowed, 4, 4);
    assert_eq!(resolved(&memory, "h/a/in/x"), ("h/a".into(), "in/x".into()));
    // It is told apart until that is recorded, also when there is nothing around it any more.
    memory.remove(&DisplayPath::new("h/a").unwrap(), 5);
    assert_eq!(memory.nested().count(), 1);
    memory.put(shown("h/a/in"), 6, 6);
    assert_eq!(memory.nested().count(), 0);
}

#[test]
fn every_lookup_agrees_with_the_paths() {
    let mut memory = CatalogMemory::new(position(0));
    for (number, path) in ["h/a/x", "h/a-b", "h/a.b/y/z", "top"].iter().enumerate() {
        memory.put(entry(path), number as u64 + 1, number as u64 + 1);
    }
    let resolved = |path: &str| {
        memory
            .resolve(path)
            .map(|(entry, rest)| (entry.repository.path.to_string(), rest))
    };
    assert_eq!(
        resolved("/h/a/x/src/main.rs"),
        Some(("h/a/x".into(), "src/main.rs".into()))
    );
    assert_eq!(resolved("h/a-b"), Some(("h/a-b".into(), String::new())));
    assert_eq!(resolved("h/a"), None);
    // A path with the character that stands for a slash inside lies in no entry.
    assert_eq!(resolved("h\0a\0x"), None);
    let id = DisplayPath::new("h/a.b/y/z").unwrap().storage_id();
    assert_eq!(
        memory.by_id(&id).unwrap().repository.path.as_str(),
        "h/a.b/y/z"
    );
}

#[test]
fn a_listing_stays_useful_while_little_changes() {
    let mut memory = CatalogMemory::new(position(0));
    let published = |path: &str, generation: u64| {
        let mut entry = entry(path);
        entry.snapshot = Some(a_snapshot());
        Repository {
            generation,
            state: RepositoryState::Ready,
            ..entry
        }
    };
    for number in 0..3000 {
        memory.put(published(&format!("h/{number}"), 1), number + 1, number + 1);
    }
    let all: Vec<_> = memory.published().cloned().collect();
    let listing = CatalogListing::encode(memory.position.clone(), &all);
    assert!(listing.pages.len() > 1);
    assert!(
        listing
            .pages
            .iter()
            .all(|page| page.len() < PAGE_BYTES + 1024)
    );
    assert!(listing.is_useful(&memory));
    for change in 0..1000 {
        memory.put(published("h/7", 2 + change), 3001 + change, 3001 + change);
        assert!(listing.is_useful(&memory));
    }
    assert_eq!(
        memory
            .changes_since(&listing.position)
            .unwrap()
            .upserts
            .len(),
        1
    );
    memory.put(published("h/7", 5000), 5000, 5000);
    assert!(!listing.is_useful(&memory));
    assert!(CatalogListing::encode(position(0), &[]).pages.len() == 1);
}
