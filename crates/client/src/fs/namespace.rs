//! The directories above repositories: a tree of names made from the repositories' display paths.
//!
//! Invariant: a listing is immutable; a change makes new ones for the directories whose names changed and no others, and
//! each keeps the few before it, so that a listing in progress is not torn.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::repo::Repo;

/// Earlier versions of a listing that a reader in the middle of one may still ask for.
const HISTORY_MAX: u32 = 4;

/// What a name above repositories means.
#[derive(Debug, Clone)]
pub enum Child {
    Directory,
    Repository(Arc<Repo>),
}

impl Child {
    fn same(&self, other: &Child) -> bool {
        match (self, other) {
            (Child::Directory, Child::Directory) => true,
            (Child::Repository(a), Child::Repository(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The names in one directory above repositories, sorted by bytes.
#[derive(Debug)]
pub struct Listing {
    pub version: u32,
    names: Vec<(Box<str>, Child)>,
    before: Option<Arc<Listing>>,
}

impl Listing {
    /// What `name` means here.
    pub fn find(&self, name: &[u8]) -> Option<&Child> {
        let at = self.names.binary_search_by(|(have, _)| have.as_bytes().cmp(name)).ok()?;
        Some(&self.names[at].1)
    }

    /// The names from `position` on.
    pub fn from(&self, position: usize) -> impl Iterator<Item = (&str, &Child)> {
        self.names.iter().skip(position).map(|(name, child)| (&**name, child))
    }

    fn without_history_below(&self, version: u32) -> Arc<Listing> {
        let before = self.before.as_ref().filter(|before| before.version >= version);
        let before = before.map(|before| before.without_history_below(version));
        Arc::new(Listing { version: self.version, names: self.names.clone(), before })
    }
}

/// The listing with this version, if it is `listing` or one of the few before it.
pub fn at_version(listing: &Arc<Listing>, version: u32) -> Option<Arc<Listing>> {
    let mut at = Some(listing);
    while let Some(listing) = at {
        if listing.version == version {
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
    pub name: Box<str>,
    /// It was there before and is gone or means something else now.
    pub retired: bool,
}

/// All repositories by path, and the directories that lead to them.
#[derive(Debug, Default)]
pub struct Namespace {
    repos: BTreeMap<String, Arc<Repo>>,
    listings: HashMap<String, Arc<Listing>>,
}

impl Namespace {
    /// The repository at `path`.
    pub fn repo(&self, path: &str) -> Option<&Arc<Repo>> {
        self.repos.get(path)
    }

    /// All repositories in path order.
    pub fn repos(&self) -> impl ExactSizeIterator<Item = &Arc<Repo>> {
        self.repos.values()
    }

    /// The names in the directory at `path`; the root is empty.
    pub fn listing(&self, path: &str) -> Option<&Arc<Listing>> {
        self.listings.get(path)
    }

    /// Adds and removes repositories, and says which names changed their meaning.
    pub fn change(&mut self, added: Vec<Arc<Repo>>, removed: &[String]) -> Vec<NameChange> {
        for path in removed {
            self.repos.remove(path);
        }
        for repo in added {
            self.repos.insert(repo.entry().path.as_str().to_owned(), repo);
        }
        let mut fresh = names_of(&self.repos);
        let mut changes = Vec::new();
        let mut paths: Vec<String> = self.listings.keys().cloned().collect();
        paths.extend(fresh.keys().filter(|path| !self.listings.contains_key(*path)).cloned());
        for path in paths {
            let names = fresh.remove(&path).unwrap_or_default();
            let old = self.listings.get(&path);
            let differing = differing(&path, old.map_or(&[][..], |old| &old.names), &names);
            if differing.is_empty() && old.is_some() {
                continue;
            }
            changes.extend(differing);
            if names.is_empty() && !path.is_empty() {
                self.listings.remove(&path);
                continue;
            }
            let version = old.map_or(1, |old| old.version.wrapping_add(1) & i32::MAX as u32);
            let before = old.map(|old| old.without_history_below(version.saturating_sub(HISTORY_MAX)));
            self.listings.insert(path, Arc::new(Listing { version, names, before }));
        }
        changes.sort();
        changes
    }
}

/// The names of every directory that leads to a repository.
fn names_of(repos: &BTreeMap<String, Arc<Repo>>) -> HashMap<String, Vec<(Box<str>, Child)>> {
    let mut tree: HashMap<String, BTreeMap<Box<str>, Child>> = HashMap::from([(String::new(), BTreeMap::new())]);
    for (path, repo) in repos {
        let mut parent = String::new();
        let mut components = path.split('/').peekable();
        while let Some(name) = components.next() {
            let names = tree.entry(parent.clone()).or_default();
            if components.peek().is_none() {
                names.insert(name.into(), Child::Repository(repo.clone()));
            } else {
                names.entry(name.into()).or_insert(Child::Directory);
                parent = join(&parent, name);
            }
        }
    }
    tree.into_iter().map(|(path, names)| (path, names.into_iter().collect())).collect()
}

/// The path of `name` in the directory at `parent`.
pub fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

fn differing(parent: &str, old: &[(Box<str>, Child)], new: &[(Box<str>, Child)]) -> Vec<NameChange> {
    let find = |names: &[(Box<str>, Child)], name: &str| {
        names.binary_search_by(|(have, _)| (**have).cmp(name)).ok().map(|at| names[at].1.clone())
    };
    let change = |name: &str, retired| NameChange { parent: parent.to_owned(), name: name.into(), retired };
    let gone_or_changed = old
        .iter()
        .filter(|(name, child)| !find(new, name).is_some_and(|now| now.same(child)))
        .map(|(name, _)| change(name, true));
    let added = new.iter().filter(|(name, _)| find(old, name).is_none()).map(|(name, _)| change(name, false));
    gone_or_changed.chain(added).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use monofs_model::{
        Consistency, ContentMode, DisplayPath, Oid, RefName, Repository, RepositoryState, Snapshot, SourceUrl,
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
            }),
            generation,
            holders: vec![],
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 0,
            refreshed_at: 0,
            last_error: String::new(),
        })
    }

    fn repo(path: &str) -> Arc<Repo> {
        Repo::new(entry(path, Oid::from_bytes(&[1; 20]).unwrap(), 1)).unwrap()
    }

    fn names(namespace: &Namespace, path: &str) -> Vec<String> {
        namespace.listing(path).map(|l| l.from(0).map(|(name, _)| name.to_owned()).collect()).unwrap_or_default()
    }

    #[test]
    fn paths_of_any_depth_share_their_directories() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("h/a/x"), repo("h/a/y"), repo("h/b"), repo("top")], &[]);
        assert_eq!(names(&namespace, ""), ["h", "top"]);
        assert_eq!(names(&namespace, "h"), ["a", "b"]);
        assert_eq!(names(&namespace, "h/a"), ["x", "y"]);
        assert!(namespace.listing("h/b").is_none());
        assert!(matches!(namespace.listing("h").unwrap().find(b"b"), Some(Child::Repository(_))));
    }

    #[test]
    fn only_names_that_changed_are_reported() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("h/a/x"), repo("h/b")], &[]);
        let version = namespace.listing("h").unwrap().version;
        let added = namespace.change(vec![repo("h/a/y")], &[]);
        assert_eq!(added, [NameChange { parent: "h/a".into(), name: "y".into(), retired: false }]);
        assert_eq!(namespace.listing("h").unwrap().version, version);
        // The last repository of a directory takes the directory with it.
        let removed = namespace.change(vec![], &["h/a/x".into(), "h/a/y".into()]);
        let paths: Vec<_> = removed.iter().map(|c| (join(&c.parent, &c.name), c.retired)).collect();
        assert_eq!(paths, [("h/a".into(), true), ("h/a/x".into(), true), ("h/a/y".into(), true)]);
        assert_eq!(names(&namespace, "h"), ["b"]);
    }

    #[test]
    fn a_directory_that_becomes_a_repository_changes_its_meaning() {
        let mut namespace = Namespace::default();
        namespace.change(vec![repo("h/a/x")], &[]);
        let changes = namespace.change(vec![repo("h/a")], &["h/a/x".into()]);
        assert!(changes.contains(&NameChange { parent: "h".into(), name: "a".into(), retired: true }));
        assert!(namespace.listing("h/a").is_none());
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
}
