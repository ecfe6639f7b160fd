//! What the creation and the removal of an entry compare and write, so that a creation inside another
//! repository happens only while that one is as it was looked into, and creations that cannot
//! collide do not meet.
//!
//! A repository may lie inside another that does not have its name. Whether it does is for the caller
//! to find out, who says which trees were looked into: [`EnclosingTree`]. An update of the outer one
//! that brings the name later is not prevented; then the inner one is recorded as shadowed.
//!
//! A creation at `a/b/c` puts `below/a` and `below/a/b` without looking at them. It happens only
//! while `below/a/b/c` and the entries at `a` and `a/b` (mostly: that there are none) are as memory
//! has them. Of two creations of which one lies inside the other, the inner one writes what the
//! outer one compares and the outer one writes what the inner one compares: the second one to be
//! committed is refused by the store, and looks again. Creations side by side write the same
//! `below/` keys and compare none of them.
//!
//! While a router runs that does not know of repositories inside others, none comes to lie so, and
//! failed entries that are in the way go.
//!
//! A removal deletes the `below/` keys of directories in which nothing is left, so there is one for
//! each directory of the catalogue at most, and one for a directory whose last two entries were
//! removed at the same moment, until it is used again. A key that is absent is as good as one that no creation
//! has written since: a state of before these keys needs nothing.
//!
//! Routers of before these keys compare and write `names` in each creation. What they create is
//! seen because `names` is compared here, too; with no such router nothing writes it, so it is in
//! no way. While one runs, as its row in the state says, it is also written here, so that it sees
//! what is created here: all creations of the cluster then exclude each other, as they did before.
//! An old router that has just started and whose row this one has not heard of yet is a matter of
//! milliseconds in a downgrade: its memory is newer than its row.

use std::collections::BTreeSet;

use monofs_model::{DisplayPath, Error, Oid, Repository, RepositoryState, Result};
use monofs_store::state::{Compare, Write};

use super::entry::{CatalogEntry, NAMES_KEY, below_key, encode_repository, repo_key, repo_key_at};
use super::memory::CatalogMemory;
use crate::state::StateTransaction;

/// A repository around a path, with the root tree in which the caller saw that it does not have the
/// name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnclosingTree {
    pub path: DisplayPath,
    pub root: Oid,
}

/// Which routers create entries at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreatingRouters {
    /// All know that a repository may lie inside another, and compare directories.
    AllNest,
    /// All compare the directories of their paths.
    AllCompareDirectories,
    /// Some compare `names` alone.
    SomeCompareNames,
}

/// The change that adds `repository`. Errors: `Refused` when its path is, encloses or lies inside
/// another's.
pub(super) fn creation(
    memory: &CatalogMemory,
    repository: &Repository,
    routers: CreatingRouters,
    looked_into: &[EnclosingTree],
) -> Result<StateTransaction> {
    let path = &repository.path;
    let failed = match routers {
        CreatingRouters::AllNest => {
            check_nesting(memory, path, looked_into)?;
            Vec::new()
        }
        _ => replaced_by(memory, path)?,
    };
    let own_below = memory.below_revision(path.as_str());
    // What a creation that collides with this one writes.
    let mut compares = vec![
        compare(repo_key(path), revision_at(memory, path.as_str())),
        compare(below_key(path.as_str()), own_below),
        compare(NAMES_KEY.into(), memory.names_revision),
    ];
    let mut writes = vec![put(repo_key(path), encode_repository(repository))];
    if routers == CreatingRouters::SomeCompareNames {
        writes.push(put(NAMES_KEY.into(), Vec::new()));
    }
    for directory in directories(path.as_str()) {
        compares.push(compare(
            repo_key_at(directory),
            revision_at(memory, directory),
        ));
        writes.push(put(below_key(directory), Vec::new()));
    }
    // Failed entries that are in the way go, unless they were brought back to life meanwhile. Of
    // those that enclose this one the revision is compared above.
    let mut emptied = BTreeSet::new();
    for entry in failed {
        let other = &entry.repository.path;
        writes.push(delete(repo_key(other)));
        if other.as_str().len() > path.as_str().len() {
            compares.push(compare(repo_key(other), entry.revision));
            emptied.extend(directories(other.as_str()).filter(|d| d.len() >= path.as_str().len()));
        }
    }
    let emptied = emptied
        .into_iter()
        .filter(|directory| memory.below_revision(directory) != 0);
    writes.extend(emptied.map(|directory| delete(below_key(directory))));
    Ok(StateTransaction { compares, writes })
}

/// What the removal of `entry` compares and writes beside what becomes of its snapshot.
pub(super) fn removal(memory: &CatalogMemory, entry: &CatalogEntry) -> StateTransaction {
    let path = entry.repository.path.as_str();
    let mut change = StateTransaction {
        compares: vec![compare(repo_key_at(path), entry.revision)],
        writes: vec![delete(repo_key_at(path))],
    };
    for directory in directories(path).chain([path]) {
        let revision = memory.below_revision(directory);
        let is_left = |entry: &CatalogEntry| entry.repository.path.as_str() != path;
        if revision != 0 && !memory.below(directory, "").take(2).any(is_left) {
            change
                .compares
                .push(compare(below_key(directory), revision));
            change.writes.push(delete(below_key(directory)));
        }
    }
    change
}

/// Errors: `Refused` when there is an entry with readers at `path`, or one around it that was not
/// looked into as it is now.
fn check_nesting(
    memory: &CatalogMemory,
    path: &DisplayPath,
    looked_into: &[EnclosingTree],
) -> Result<()> {
    let same = memory.get(path.as_str());
    if same.is_some_and(|same| same.repository.state != RepositoryState::Failed) {
        return Err(Error::refused(format!(
            "cannot add '{path}': '{path}' is already there; choose another --path"
        )));
    }
    for outer in memory.around(path) {
        let was_looked_into = |tree: &EnclosingTree| {
            let root = outer.snapshot.as_ref().map(|snapshot| snapshot.root);
            tree.path == outer.path && Some(tree.root) == root
        };
        if !looked_into.iter().any(was_looked_into) {
            return Err(Error::refused(format!(
                "cannot add '{path}': '{}' around it has just changed; try again",
                outer.path
            )));
        }
    }
    Ok(())
}

/// The failed entries that an entry at `path` replaces, without that at `path` itself. Errors:
/// `Refused` when there is one with readers.
fn replaced_by<'a>(memory: &'a CatalogMemory, path: &DisplayPath) -> Result<Vec<&'a CatalogEntry>> {
    let mut failed = Vec::new();
    for other in memory.overlapping(path) {
        let theirs = &other.repository.path;
        if other.repository.state != RepositoryState::Failed {
            let how = if theirs == path {
                "is already there"
            } else {
                "overlaps it; no repository can lie inside another while a router of an older \
                 version runs"
            };
            return Err(Error::refused(format!(
                "cannot add '{path}': '{theirs}' {how}; choose another --path"
            )));
        }
        if theirs != path {
            failed.push(other);
        }
    }
    Ok(failed)
}

/// The directories that `path` lies in, the outermost first.
fn directories(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// Of the key of the entry at `path`; 0 = there is none.
fn revision_at(memory: &CatalogMemory, path: &str) -> u64 {
    memory.get(path).map_or(0, |entry| entry.revision)
}

pub(super) fn compare(key: Vec<u8>, revision: u64) -> Compare {
    Compare { key, revision }
}

pub(super) fn put(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write::Put { key, value }
}

pub(super) fn delete(key: Vec<u8>) -> Write {
    Write::Delete { key }
}
