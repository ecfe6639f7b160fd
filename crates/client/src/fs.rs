//! The file system itself: names, attributes, listings, contents and extended attributes, as plain
//! synchronous functions.
//!
//! It knows neither the kernel's protocol nor the network. What is not in the cache is reported as
//! a [`crate::want::Miss`]; the caller (the FUSE adapter) has it fetched and calls again. So a hit
//! costs no task and no allocation, and a miss cannot block a kernel thread.
//!
//! Invariants:
//! - bytes behind an inode number never change; a directory's number is stable by path (see
//!   [`identity`]);
//! - all names of one reply come from one state: every walk from a directory's inode to its
//!   children happens under the read side of the switch lock, every change of state under the write
//!   side ([`switch`]);
//! - the lock is taken once by a thread, and never held while a document is made or while waiting
//!   for the network or the kernel ([`monofs_content::switch_lock`]).

pub mod attr;
pub mod control;
pub mod identity;
pub mod in_use;
pub mod inode;
mod joined;
pub mod lookup;
mod names;
pub mod namespace;
pub mod read;
pub mod readdir;
pub mod retire;
pub mod switch;
pub mod xattr;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use monofs_content::cache::Cache;
use monofs_content::evidence::{Marks, ReadKinds};
use monofs_content::packed::Volume;
use monofs_content::repo::Repo;
use monofs_content::shown::ShownTree;
use monofs_content::switch_lock::{SwitchGuard, SwitchLock};
use monofs_model::Oid;
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use self::control::DocumentName;
use self::identity::Ino;
use self::inode::{Inode, InodeTable, InodeTarget};
use self::namespace::Namespace;
use self::retire::RetiredDirectories;

/// Makes the text of a document below `.monofs`.
pub type Documents = Box<dyn Fn(DocumentName) -> Bytes + Send + Sync>;

/// One mounted tree.
pub struct Fs {
    pub(crate) inodes: InodeTable,
    pub(crate) cache: Arc<Cache>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) kinds: ReadKinds,
    documents: Documents,
    /// The switch lock: names and the inodes they lead to change only under its write side.
    world: SwitchLock<Namespace>,
    retired: RetiredDirectories,
    /// Seconds since the epoch; set by whoever applies changes of the catalogue.
    now: AtomicI64,
    document_number: AtomicU64,
}

impl Fs {
    /// An empty tree over `cache`. `documents` makes the texts below `.monofs`; `now` is in seconds
    /// since the epoch.
    pub fn new(cache: Arc<Cache>, marks: Arc<Marks>, documents: Documents, now: i64) -> Self {
        Self {
            inodes: InodeTable::new(now),
            cache,
            marks,
            kinds: ReadKinds::default(),
            documents,
            world: SwitchLock::default(),
            retired: RetiredDirectories::default(),
            now: AtomicI64::new(now),
            document_number: AtomicU64::new(identity::DOCUMENTS),
        }
    }

    /// Takes the switch lock to look at the names above repositories.
    #[track_caller]
    pub(crate) fn world(&self) -> SwitchGuard<RwLockReadGuard<'_, Namespace>> {
        self.world.read()
    }

    /// Takes the switch lock to change what names lead to.
    #[track_caller]
    fn world_mut(&self) -> SwitchGuard<RwLockWriteGuard<'_, Namespace>> {
        self.world.write()
    }

    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The repository that a directory belongs to, and what it shows now. `None` above repositories
    /// and for what is no directory.
    pub(crate) fn repo_and_shown_of(&self, directory: Ino) -> Option<(Arc<Repo>, ShownTree)> {
        self.inodes.with(directory, |inode| {
            let shown = inode.shown()?;
            match &inode.what {
                InodeTarget::Entry { repo, .. } => Some((repo.clone(), shown)),
                _ => None,
            }
        })?
    }

    /// What a directory of a repository shows now.
    pub(crate) fn shown_of(&self, directory: Ino) -> Option<ShownTree> {
        self.inodes.with(directory, Inode::shown)?
    }

    /// The tree that a directory of a repository shows now.
    pub(crate) fn tree_of(&self, directory: Ino) -> Option<Oid> {
        self.shown_of(directory).map(|shown| shown.tree)
    }

    /// The size of everything shown.
    pub fn volume(&self) -> Volume {
        self.world().totals().volume
    }

    /// How many inodes the kernel refers to.
    pub fn inode_count(&self) -> usize {
        self.inodes.count()
    }

    /// The kernel dropped `count` references to an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        self.inodes.forget(ino, count);
    }
}
