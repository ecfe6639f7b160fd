//! The directories above repositories: a tree of names made from the repositories' display paths.
//! A repository may lie inside another: then the outer one has a listing, too, whose names are joined
//! into its directories ([`super::joined`]).
//!
//! Invariant: a listing is immutable; a change makes new ones for the directories whose names
//! changed and no others, and each keeps the few before it, so that a listing in progress is not
//! torn. A change costs what the directories cost in which it changes names, whatever else there
//! is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use monofs_model::Repository;

use monofs_content::packed::Volume;
use monofs_content::repo::Repo;

/// Earlier versions of a listing that a reader in the middle of one may still ask for.
const HISTORY_MAX: u32 = 4;

/// What a name above repositories means.
#[derive(Debug, Clone)]
pub enum NamespaceChild {
    Directory,
    Repository(Arc<Repo>),
}

impl NamespaceChild {
    fn same(&self, other: &NamespaceChild) -> bool {
        match (self, other) {
            (NamespaceChild::Directory, NamespaceChild::Directory) => true,
            (NamespaceChild::Repository(a), NamespaceChild::Repository(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// A name and what it means.
type Name = (Arc<str>, NamespaceChild);

/// The names in one directory above repositories, sorted by bytes.
#[derive(Debug)]
pub struct NamespaceListing {
    pub version: u32,
    names: Arc<[Name]>,
    before: Option<Arc<NamespaceListing>>,
}

impl NamespaceListing {
    /// What `name` means here.
    pub fn find(&self, name: &[u8]) -> Option<&NamespaceChild> {
        let at = self
            .names
            .binary_search_by(|(have, _)| have.as_bytes().cmp(name))
            .ok()?;
        Some(&self.names[at].1)
    }

    /// The names from `position` on.
    pub fn from(&self, position: usize) -> impl Iterator<Item = (&str, &NamespaceChild)> {
        self.names
            .get(position..)
            .unwrap_or_default()
            .iter()
            .map(|(name, child)| (&**name, child))
    }

    fn without_history_below(&self, version: u32) -> Arc<NamespaceListing> {
        let before = self
            .before
            .as_ref()
            .filter(|before| before.version >= version);
        let before = before.map(|before| before.without_history_below(version));
        Arc::new(NamespaceListing {
            version: self.version,
            names: self.names.clone(),
            before,
        })
    }
}

/// The listing with this version, if it is `listing` or one of the few before it.
pub fn at_version(listing: &Arc<NamespaceListing>, version: u32) -> Option<Arc<NamespaceListing>> {
    let mut at = Some(listing);
    while let Some(listing) = at {
        if listing.version == version {
            return Some(listing.clone());
        }
        at = listing.before.as_ref();
    }
    None
}

/// The same for a version of which only the rest modulo `versions` is known.
pub fn at_short_version(
    listing: &Arc<NamespaceListing>,
    version: u64,
    versions: u64,
) -> Option<Arc<NamespaceListing>> {
    let mut at = Some(listing);
    while let Some(listing) = at {
        if u64::from(listing.version) % versions == version {
            return Some(listing.clone());
        }
        at = listing.before.as_ref();
    }
    None
}

/// A name whose meaning changed, in the directory above repositories at `parent`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameChange {
    pub parent: String,
    pub name: Arc<str>,
    /// It was there before and is gone or means something else now.
    pub retired: bool,
}

/// What happens to a name in a directory.
#[derive(Debug, Clone)]
enum NameEdit {
    /// A repository comes to it, or goes.
    Repository(Option<Arc<Repo>>),
    /// The directory that it names comes or goes.
    Directory,
}

/// What happens to names, by directory; of two repositories for one name the later one counts.
type Edits = HashMap<String, Vec<(Arc<str>, NameEdit)>>;

/// All repositories, and the directories that lead to them.
#[derive(Debug, Default)]
pub struct Namespace {
    listings: HashMap<String, Arc<NamespaceListing>>,
    totals: Totals,
}

/// Sums over all repositories.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub repositories: usize,
    pub volume: Volume,
    /// Memory of what is kept for every repository, touched or not; without what the allocator
    /// adds.
    pub memory_bytes: usize,
}

impl Totals {
    fn add(&mut self, repo: &Repo, name: &str) {
        let Volume { bytes, files } = repo.volume();
        self.repositories += 1;
        self.volume.bytes = self.volume.bytes.wrapping_add(bytes);
        self.volume.files = self.volume.files.wrapping_add(files);
        self.memory_bytes += memory_of(repo, name);
    }

    fn take(&mut self, repo: &Repo, name: &str) {
        let Volume { bytes, files } = repo.volume();
        self.repositories -= 1;
        self.volume.bytes = self.volume.bytes.wrapping_sub(bytes);
        self.volume.files = self.volume.files.wrapping_sub(files);
        self.memory_bytes -= memory_of(repo, name);
    }
}

fn memory_of(repo: &Repo, name: &str) -> usize {
    repo.memory_bytes() + std::mem::size_of::<Name>() + name.len()
}

impl Namespace {
    /// The repository at `path`.
    pub fn repo(&self, path: &str) -> Option<&Arc<Repo>> {
        let (parent, name) = split(path);
        match self.listings.get(parent)?.find(name.as_bytes())? {
            NamespaceChild::Repository(repo) => Some(repo),
            NamespaceChild::Directory => None,
        }
    }

    /// All repositories, in no particular order.
    pub fn repos(&self) -> impl Iterator<Item = &Arc<Repo>> {
        let children = self.listings.values().flat_map(|listing| listing.from(0));
        children.filter_map(|(_, child)| match child {
            NamespaceChild::Repository(repo) => Some(repo),
            NamespaceChild::Directory => None,
        })
    }

    /// Sums over all repositories.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Has `repo`, which is shown, serve another entry.
    pub fn set(&mut self, repo: &Repo, entry: Arc<Repository>) {
        let (_, name) = split(repo.path());
        self.totals.take(repo, name);
        repo.set(entry);
        self.totals.add(repo, name);
    }

    /// Whether a repository is at `path` or above it.
    fn lies_in_repository(&self, path: &str) -> bool {
        let ends = path.match_indices('/').map(|(end, _)| end);
        ends.chain([path.len()])
            .any(|end| self.repo(&path[..end]).is_some())
    }

    /// The names in the directory at `path`; the root is empty. For a path in a repository: those
    /// that lead to repositories inside it.
    pub fn listing(&self, path: &str) -> Option<&Arc<NamespaceListing>> {
        self.listings.get(path)
    }

    /// Adds and removes repositories, and says which names changed their meaning in directories
    /// that were there before. Looks at the directories with such names only.
    pub fn change(&mut self, added: Vec<Arc<Repo>>, removed: &[String]) -> Vec<NameChange> {
        let mut edits = Edits::new();
        for path in removed {
            let (parent, name) = split(path);
            edit(&mut edits, parent, name, NameEdit::Repository(None));
        }
        for repo in added {
            let (mut parent, name) = split(repo.path());
            let mut first = edit(
                &mut edits,
                parent,
                name,
                NameEdit::Repository(Some(repo.clone())),
            );
            while first && !parent.is_empty() && !self.listings.contains_key(parent) {
                let (above, name) = split(parent);
                first = edit(&mut edits, above, name, NameEdit::Directory);
                parent = above;
            }
        }
        let mut changes = Vec::new();
        // What is inside a directory comes after it, so a directory is looked at when all below it
        // has been.
        let mut paths: BTreeSet<String> = edits.keys().cloned().collect();
        while let Some(path) = paths.pop_last() {
            let names = edits.remove(&path).unwrap_or_default();
            if self.change_directory(&path, names, &mut changes) {
                let (parent, name) = split(&path);
                edit(&mut edits, parent, name, NameEdit::Directory);
                paths.insert(parent.to_owned());
            }
        }
        changes.sort();
        changes
    }

    /// Applies edits to one directory. True: it is empty now and gone, unless it is the root.
    fn change_directory(
        &mut self,
        path: &str,
        edits: Vec<(Arc<str>, NameEdit)>,
        changes: &mut Vec<NameChange>,
    ) -> bool {
        let old = self.listings.get(path).cloned();
        let report = old.is_some() || path.is_empty() || self.lies_in_repository(path);
        let mut changed = false;
        let totals = &mut self.totals;
        let listings = &self.listings;
        let is_directory = |name: &str| listings.contains_key(&join(path, name));
        let before = old.as_ref().map_or(&[][..], |old| &old.names);
        let names = merge(before, edits, is_directory, |name, was, is| {
            changed = true;
            if let Some(NamespaceChild::Repository(repo)) = was {
                totals.take(repo, name);
            }
            if let Some(NamespaceChild::Repository(repo)) = is {
                totals.add(repo, name);
            }
            if report {
                changes.push(NameChange {
                    parent: path.to_owned(),
                    name: name.clone(),
                    retired: was.is_some(),
                });
            }
        });
        if names.is_empty() && !path.is_empty() {
            return self.listings.remove(path).is_some();
        }
        // A new version, which keeps a few before it.
        if changed || old.is_none() {
            let version = old
                .as_ref()
                .map_or(1, |old| old.version.wrapping_add(1) & i32::MAX as u32);
            let before =
                old.map(|old| old.without_history_below(version.saturating_sub(HISTORY_MAX)));
            self.listings.insert(
                path.to_owned(),
                Arc::new(NamespaceListing {
                    version,
                    names: names.into(),
                    before,
                }),
            );
        }
        false
    }
}

/// True: it is the first edit of this directory.
fn edit(edits: &mut Edits, directory: &str, name: &str, change: NameEdit) -> bool {
    if let Some(names) = edits.get_mut(directory) {
        names.push((name.into(), change));
        return false;
    }
    edits
        .insert(directory.to_owned(), vec![(name.into(), change)])
        .is_none()
}

/// `old` with `edits` applied; tells the name and its old and new meaning where they differ.
/// `is_directory` says whether a name leads to repositories further down.
fn merge(
    old: &[Name],
    mut edits: Vec<(Arc<str>, NameEdit)>,
    is_directory: impl Fn(&str) -> bool,
    mut differ: impl FnMut(&Arc<str>, Option<&NamespaceChild>, Option<&NamespaceChild>),
) -> Vec<Name> {
    edits.sort_by(|a, b| a.0.cmp(&b.0));
    let mut names = Vec::with_capacity(old.len() + edits.len());
    let mut old = old.iter().peekable();
    let mut edits = edits.into_iter().peekable();
    while let Some((name, first)) = edits.next() {
        // What comes before it unchanged, and what the name was.
        while let Some(kept) = old.next_if(|(next, _)| *next < name) {
            names.push(kept.clone());
        }
        let was = old
            .next_if(|(next, _)| *next == name)
            .map(|(_, child)| child);
        // A repository wins over the directory that leads to others inside it.
        let mut repository = match was {
            Some(NamespaceChild::Repository(repo)) => Some(repo.clone()),
            _ => None,
        };
        let mut next = Some(first);
        while let Some(change) = next {
            if let NameEdit::Repository(changed) = change {
                repository = changed;
            }
            next = edits
                .next_if(|(next, _)| *next == name)
                .map(|(_, change)| change);
        }
        let is = match repository {
            Some(repo) => Some(NamespaceChild::Repository(repo)),
            None => is_directory(&name).then_some(NamespaceChild::Directory),
        };
        let same = match (was, &is) {
            (Some(was), Some(is)) => was.same(is),
            (was, is) => was.is_none() && is.is_none(),
        };
        if !same {
            differ(&name, was, is.as_ref());
        }
        names.extend(is.map(|child| (name, child)));
    }
    names.extend(old.cloned());
    names
}

/// The directory and the name of what is at `path`.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The path of `name` in the directory at `parent`.
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use monofs_model::{
        Consistency, ContentMode, DisplayPath, Oid, RefName, Repository, RepositoryState, Snapshot,
        SourceUrl,
    };

    use super::*;

    pub(crate) fn entry(path: &str, root: Oid, generation: u64) -> Arc<Repository> {
        let mut commit = [0x11; 20];
        commit[19] = generation as u8;
        Arc::new(Repository {
            path: DisplayPath::new(path).unwrap(),
            source: SourceUrl::new("https://example.org/x.git").unwrap(),
            ref_name: RefName::new("main").unwrap(),
            state: RepositoryState::Ready,
            snapshot: Some(Snapshot {
                commit: Oid::from_bytes(&commit).unwrap(),
                root,
                commit_time: 1_000_000 + generation as i64,
                trees: 1,
                blobs: 1,
                bytes: 1,
                submodules: vec![],
                generations: None,
            }),
            generation,
            generation_time: None,
            root_time: None,
            holders: vec![],
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 0,
            refreshed_at: 0,
            last_error: String::new(),
            shadowed_by: None,
        })
    }

    fn repo(path: &str) -> Arc<Repo> {
        Repo::new(entry(path, Oid::from_bytes(&[1; 20]).unwrap(), 1)).unwrap()
    }

    fn names(namespace: &Namespace, path: &str) -> Vec<String> {
        namespace
            .listing(path)
            .map(|l| l.from(0).map(|(name, _)| name.to_owned()).collect())
            .unwrap_or_default()
    }

    #[test]
    fn paths_of_any_depth_share_their_directories() {
        let mut namespace = Namespace::default();
        namespace.change(
            vec![repo("h/a/x"), repo("h/a/y"), repo("h/b"), repo("top")],
            &[],
        );
        assert_eq!(names(&namespace, ""), ["h", "top"]);
        assert_eq!(names(&namespace, "h"), ["a", "b"]);
        assert_eq!(names(&namespace, "h/a"), ["x", "y"]);
        assert!(namespace.listing("h/b").is_none());
        assert!(matches!(
            namespace.listing("h").unwrap().find(b"b"),
            Some(NamespaceChild::Repository(_))
        ));
    }

    #[test]
    fn only_names_that_changed_are_reported() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("h/a/x"), repo("h/b")], &[]);
        let version = namespace.listing("h").unwrap().version;
        let added = namespace.change(vec![repo("h/a/y")], &[]);
        assert_eq!(
            added,
            [NameChange {
                parent: "h/a".into(),
                name: "y".into(),
                retired: false
            }]
        );
        assert_eq!(namespace.listing("h").unwrap().version, version);
        // The last repository of a directory takes the directory with it.
        let removed = namespace.change(vec![], &["h/a/x".into(), "h/a/y".into()]);
        let paths: Vec<_> = removed
            .iter()
            .map(|c| (join(&c.parent, &c.name), c.retired))
            .collect();
        assert_eq!(
            paths,
            [
                ("h/a".into(), true),
                ("h/a/x".into(), true),
                ("h/a/y".into(), true)
            ]
        );
        assert_eq!(names(&namespace, "h"), ["b"]);
    }

    #[test]
    fn a_directory_that_becomes_a_repository_changes_its_meaning() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("h/a/x")], &[]);
        let changes = namespace.change(vec![repo("h/a")], &["h/a/x".into()]);
        assert!(changes.contains(&NameChange {
            parent: "h".into(),
            name: "a".into(),
            retired: true
        }));
        assert!(namespace.listing("h/a").is_none());
    }

    #[test]
    fn a_repository_may_lie_inside_another_whichever_comes_first() {
        for order in [["h/a", "h/a/x/y"], ["h/a/x/y", "h/a"]] {
            let mut namespace = Namespace::default();
            for path in order {
                namespace.change(vec![repo(path)], &[]);
            }
            let is_repository = |namespace: &Namespace| namespace.repo("h/a").is_some();
            assert!(is_repository(&namespace), "{order:?}");
            assert!(namespace.repo("h/a/x/y").is_some(), "{order:?}");
            assert_eq!(names(&namespace, "h/a"), ["x"]);
            assert_eq!(namespace.totals().repositories, 2);

            // The outer one goes, and its name still leads to the inner one.
            let mut other = Namespace::default();
            other.change(order.map(repo).into(), &[]);
            let changes = other.change(vec![], &["h/a".into()]);
            assert_eq!(changes.len(), 1, "{changes:?}");
            assert!(!is_repository(&other) && names(&other, "h") == ["a"]);

            // The inner one goes, and the name it had in the outer one is told.
            let changes = namespace.change(vec![], &["h/a/x/y".into()]);
            assert!(is_repository(&namespace) && namespace.listing("h/a").is_none());
            let told = |parent: &str, name: &str| {
                let is = |change: &&NameChange| change.parent == parent && *change.name == *name;
                changes.iter().find(is).is_some_and(|change| change.retired)
            };
            assert!(told("h/a", "x") && told("h/a/x", "y"), "{changes:?}");
            assert!(!told("h", "a"), "{changes:?}");
        }
    }

    #[test]
    fn a_few_earlier_listings_stay_readable() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("a")], &[]);
        let first = namespace.listing("").unwrap().version;
        for n in 0..HISTORY_MAX {
            namespace.change(vec![repo(&format!("b{n}"))], &[]);
            let now = namespace.listing("").unwrap();
            assert_eq!(at_version(now, first).unwrap().from(0).count(), 1);
        }
        namespace.change(vec![repo("z")], &[]);
        assert!(at_version(namespace.listing("").unwrap(), first).is_none());
    }

    /// The names of every directory that leads to a repository, made from all paths.
    fn names_of<'a>(
        paths: impl Iterator<Item = &'a String>,
    ) -> BTreeMap<String, BTreeMap<String, bool>> {
        let mut tree = BTreeMap::from([(String::new(), BTreeMap::new())]);
        for path in paths {
            let mut at = path.as_str();
            let mut is_repo = true;
            while !at.is_empty() {
                let (parent, name) = split(at);
                let names: &mut BTreeMap<String, bool> = tree.entry(parent.to_owned()).or_default();
                *names.entry(name.to_owned()).or_default() |= is_repo;
                (at, is_repo) = (parent, false);
            }
        }
        tree
    }

    fn shown(namespace: &Namespace) -> BTreeMap<String, BTreeMap<String, bool>> {
        let names = |listing: &Arc<NamespaceListing>| {
            listing
                .from(0)
                .map(|(name, child)| {
                    (
                        name.to_owned(),
                        matches!(child, NamespaceChild::Repository(_)),
                    )
                })
                .collect()
        };
        namespace
            .listings
            .iter()
            .map(|(path, listing)| (path.clone(), names(listing)))
            .collect()
    }

    #[test]
    fn changes_make_what_making_everything_anew_makes() {
        let seed = monofs_testkit::random::seed_or(1);
        let mut rng = monofs_testkit::random::Rng::new(seed);
        let mut namespace = Namespace::default();
        let mut all: BTreeMap<String, Arc<Repo>> = BTreeMap::new();
        for _ in 0..500 {
            let (mut removed, mut added) = (Vec::new(), Vec::new());
            for _ in 0..1 + rng.below(4) {
                let depth = 1 + rng.below(3);
                let name = |rng: &mut monofs_testkit::random::Rng| {
                    ["a", "a-b", "b", "c"][rng.below(4) as usize]
                };
                let path = (0..depth)
                    .map(|_| name(&mut rng))
                    .collect::<Vec<_>>()
                    .join("/");
                if added.iter().any(|repo: &Arc<Repo>| repo.path() == path) {
                    continue;
                }
                let gone = all.remove(&path).is_some();
                removed.extend(gone.then(|| path.clone()));
                if !gone || rng.one_in(2) {
                    let repo = repo(&path);
                    all.insert(path, repo.clone());
                    added.push(repo);
                }
            }
            let before = shown(&namespace);
            let changes = namespace.change(added, &removed);
            let after = shown(&namespace);
            assert_eq!(after, names_of(all.keys()), "seed {seed}");
            assert!(
                namespace
                    .repos()
                    .all(|repo| Arc::ptr_eq(repo, &all[repo.path()])),
                "seed {seed}"
            );
            assert_eq!(namespace.totals().repositories, all.len(), "seed {seed}");
            assert_eq!(
                namespace.totals().volume,
                Volume {
                    bytes: all.len() as u64,
                    files: 2 * all.len() as u64
                }
            );
            // Every name that came or went in a directory that was there is reported.
            for (path, names) in &before {
                let now = after.get(path).cloned().unwrap_or_default();
                for name in names
                    .keys()
                    .chain(now.keys())
                    .filter(|name| names.get(*name) != now.get(*name))
                {
                    let told =
                        |change: &NameChange| change.parent == *path && *change.name == **name;
                    assert!(
                        changes.iter().any(told),
                        "seed {seed}: {path}/{name} is not in {changes:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_change_touches_only_the_directories_whose_names_it_changes() {
        let path = |number: usize| format!("h/org-{:03}/project-{number:05}", number % 200);
        let mut namespace = Namespace::default();
        namespace.change((0..20_000).map(|number| repo(&path(number))).collect(), &[]);
        assert_eq!(
            (namespace.totals().repositories, namespace.listings.len()),
            (20_000, 202)
        );
        let per_repository = namespace.totals().memory_bytes / 20_000;
        assert!(
            per_repository < 512,
            "{per_repository} bytes per repository"
        );
        let before: HashMap<String, Arc<NamespaceListing>> = namespace.listings.clone();
        let changes = namespace.change(vec![repo("h/org-007/new")], &[path(7)]);
        assert_eq!(changes.len(), 2);
        let replaced = |(path, listing): (&String, &Arc<NamespaceListing>)| {
            !Arc::ptr_eq(listing, &before[path])
        };
        assert_eq!(
            namespace
                .listings
                .iter()
                .filter(|entry| replaced(*entry))
                .count(),
            1
        );
        assert!(namespace.repo("h/org-007/new").is_some() && namespace.repo(&path(7)).is_none());
    }
}
