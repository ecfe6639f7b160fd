//! What of replaced snapshots the kernel still holds: the contents of pinned files, and whether a
//! directory is among the pinned inodes, by snapshot.
//!
//! Open files cannot be seen (opens are never sent to us), so in use is every inode that the kernel
//! has not forgotten although its name leads elsewhere now. The kernel forgets one that no process
//! holds as soon as it is told that the name changed.
//!
//! Invariant: an inode of a pinned repository is counted from when it is pinned until it is
//! forgotten or given back; [`super::inode::InodeTable`] is the only caller that counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_content::repo::{Repo, snapshot_of};
use monofs_model::{EntryKind, Oid};
use parking_lot::Mutex;

use super::inode::InodeTarget;

/// Most contents that are named, of all snapshots together; of those beyond it the whole snapshot
/// is in use.
const OIDS_MAX: usize = 65_536;
/// Most snapshots that are named.
const SNAPSHOTS_MAX: usize = 8192;

/// A replaced snapshot that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotUse {
    /// Where its repository is shown.
    pub path: String,
    pub commit: Oid,
    /// Contents of it that may be read.
    pub oids: Vec<Oid>,
    /// Anything of it may be read.
    pub whole: bool,
}

/// The pinned inodes of one pinned repository.
struct PinnedSnapshot {
    repo: Arc<Repo>,
    /// How many inodes have this content.
    oids: HashMap<Oid, u32>,
    directories: u32,
}

/// The pinned inodes of a mount.
#[derive(Default)]
pub struct PinnedInodes {
    /// By the address of the pinned repository, which each of them keeps alive.
    snapshots: Mutex<HashMap<usize, PinnedSnapshot>>,
    changes: AtomicU64,
}

fn key_of(repo: &Arc<Repo>) -> usize {
    Arc::as_ptr(repo) as usize
}

impl PinnedInodes {
    /// Counts an inode in, if it is pinned.
    pub(super) fn add(&self, what: &InodeTarget) {
        let Some((kind, oid, repo)) = pinned(what) else {
            return;
        };
        let mut snapshots = self.snapshots.lock();
        let snapshot = snapshots
            .entry(key_of(repo))
            .or_insert_with(|| PinnedSnapshot {
                repo: repo.clone(),
                oids: HashMap::new(),
                directories: 0,
            });
        match kind {
            EntryKind::Directory => snapshot.directories += 1,
            _ => *snapshot.oids.entry(oid).or_default() += 1,
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Counts an inode out, if it is pinned.
    pub(super) fn remove(&self, what: &InodeTarget) {
        let Some((kind, oid, repo)) = pinned(what) else {
            return;
        };
        let mut snapshots = self.snapshots.lock();
        let Some(snapshot) = snapshots.get_mut(&key_of(repo)) else {
            return;
        };
        match (kind, snapshot.oids.get_mut(&oid)) {
            (EntryKind::Directory, _) => {
                snapshot.directories = snapshot.directories.saturating_sub(1);
            }
            (_, Some(count)) if *count > 1 => *count -= 1,
            _ => drop(snapshot.oids.remove(&oid)),
        }
        if snapshot.directories == 0 && snapshot.oids.is_empty() {
            snapshots.remove(&key_of(repo));
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Another number after every change of what is in use.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Every snapshot that is in use, in the order of paths. `None`: more than can be named.
    pub fn list(&self) -> Option<Vec<SnapshotUse>> {
        // Flips of the holders alone pin the same commit more than once.
        let mut by_commit: BTreeMap<(String, Oid), SnapshotUse> = BTreeMap::new();
        let mut left = OIDS_MAX;
        for snapshot in self.snapshots.lock().values() {
            let path = snapshot.repo.path().to_owned();
            let commit = snapshot_of(&snapshot.repo.entry()).commit;
            let used = by_commit
                .entry((path.clone(), commit))
                .or_insert_with(|| SnapshotUse {
                    path,
                    commit,
                    oids: Vec::new(),
                    whole: false,
                });
            used.whole |= snapshot.directories > 0 || snapshot.oids.len() > left;
            let named = snapshot.oids.keys().take(left).copied();
            used.oids.extend(named);
            left -= left.min(snapshot.oids.len());
        }
        if by_commit.len() > SNAPSHOTS_MAX {
            return None;
        }
        let listed = by_commit.into_values().map(|mut used| {
            used.oids.sort_unstable();
            used.oids.dedup();
            used
        });
        Some(listed.collect())
    }
}

/// What a pinned inode counts as. A submodule has nothing to read.
fn pinned(what: &InodeTarget) -> Option<(EntryKind, Oid, &Arc<Repo>)> {
    match what {
        InodeTarget::Entry {
            kind, oid, repo, ..
        } if repo.is_pinned() && *kind != EntryKind::Submodule => Some((*kind, *oid, repo)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fs::namespace::tests::entry;

    fn oid(n: u32) -> Oid {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        Oid::from_bytes(&bytes).unwrap()
    }

    fn inode(kind: EntryKind, n: u32, repo: &Arc<Repo>) -> InodeTarget {
        InodeTarget::Entry {
            kind,
            oid: oid(n),
            generation: 1,
            repo: repo.clone(),
        }
    }

    fn repo(path: &str, generation: u64) -> Arc<Repo> {
        Repo::new(entry(path, oid(0), generation)).unwrap()
    }

    #[test]
    fn contents_are_named_by_snapshot_and_a_directory_makes_it_whole() {
        let in_use = PinnedInodes::default();
        let shown = repo("h/x", 1);
        in_use.add(&inode(EntryKind::File, 1, &shown));
        assert_eq!(in_use.list().unwrap(), [], "what is shown is not counted");
        // The same commit, pinned twice, and another one.
        let pins = [shown.pinned(), shown.pinned(), repo("h/x", 2).pinned()];
        in_use.add(&inode(EntryKind::File, 1, &pins[0]));
        in_use.add(&inode(EntryKind::File, 1, &pins[0]));
        in_use.add(&inode(EntryKind::Symlink, 2, &pins[1]));
        in_use.add(&inode(EntryKind::Submodule, 3, &pins[2]));
        in_use.add(&inode(EntryKind::Directory, 4, &pins[2]));
        let listed = in_use.list().unwrap();
        let told: Vec<_> = listed
            .iter()
            .map(|used| (&used.oids[..], used.whole))
            .collect();
        assert_eq!(told, [(&[oid(1), oid(2)][..], false), (&[][..], true)]);
        let changes = in_use.changes();
        in_use.remove(&inode(EntryKind::File, 1, &pins[0]));
        assert_ne!(in_use.changes(), changes);
        assert_eq!(in_use.list().unwrap(), listed, "one inode of two is left");
        in_use.remove(&inode(EntryKind::File, 1, &pins[0]));
        in_use.remove(&inode(EntryKind::Directory, 4, &pins[2]));
        let listed = in_use.list().unwrap();
        assert_eq!((listed.len(), &listed[0].oids[..]), (1, &[oid(2)][..]));
    }

    #[test]
    fn beyond_the_most_that_are_named_the_whole_snapshot_is_in_use() {
        let in_use = PinnedInodes::default();
        let pins = [repo("h/a", 1).pinned(), repo("h/b", 1).pinned()];
        for n in 0..OIDS_MAX as u32 {
            in_use.add(&inode(EntryKind::File, n, &pins[n as usize % 2]));
        }
        let whole = |in_use: &PinnedInodes| {
            let listed = in_use.list().unwrap();
            let named: usize = listed.iter().map(|used| used.oids.len()).sum();
            assert_eq!((listed.len(), named), (2, OIDS_MAX));
            listed.iter().filter(|used| used.whole).count()
        };
        assert_eq!(whole(&in_use), 0);
        in_use.add(&inode(EntryKind::File, u32::MAX, &pins[0]));
        assert_eq!(whole(&in_use), 1);
    }

    #[test]
    fn more_snapshots_than_can_be_named_are_not_named_in_part() {
        let in_use = PinnedInodes::default();
        let pin = |n: usize| {
            let pinned = repo(&format!("h/{n}"), 1).pinned();
            in_use.add(&inode(EntryKind::File, 1, &pinned));
        };
        (0..SNAPSHOTS_MAX).for_each(pin);
        let named = in_use.list().map(|listed| listed.len());
        assert_eq!(named, Some(SNAPSHOTS_MAX));
        pin(SNAPSHOTS_MAX);
        assert_eq!(in_use.list(), None);
    }
}
