//! A repository as this mount shows it: the catalogue entry whose snapshot is being served.
//!
//! Invariant: the snapshot changes only in [`crate::fs::Fs::try_flip`], under the switch lock, together with the inodes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use monofs_model::{Oid, Repository, Snapshot, StorageId};

/// One mounted repository.
#[derive(Debug)]
pub struct Repo {
    storage_id: StorageId,
    entry: RwLock<Arc<Repository>>,
    closure_asked: AtomicBool,
}

impl Repo {
    /// A repository that readers see at `entry`'s snapshot. `None` without a snapshot: such entries are never shown.
    pub fn new(entry: Arc<Repository>) -> Option<Arc<Self>> {
        entry.snapshot.as_ref()?;
        let storage_id = entry.storage_id();
        Some(Arc::new(Self { storage_id, entry: RwLock::new(entry), closure_asked: AtomicBool::new(false) }))
    }

    /// The id under which nodes store it.
    pub fn storage_id(&self) -> &StorageId {
        &self.storage_id
    }

    /// The entry being served.
    pub fn entry(&self) -> Arc<Repository> {
        self.entry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The root tree being served.
    pub fn root(&self) -> Oid {
        snapshot_of(&self.entry()).root
    }

    /// Commit time of the snapshot being served.
    pub fn commit_time(&self) -> i64 {
        snapshot_of(&self.entry()).commit_time
    }

    /// Serves another entry from now on. Entries without a snapshot are ignored.
    pub(crate) fn set(&self, entry: Arc<Repository>) {
        if entry.snapshot.is_some() {
            *self.entry.write().unwrap_or_else(PoisonError::into_inner) = entry;
        }
    }

    /// True for the first caller only: whoever touches a repository first asks for the whole closure.
    pub(crate) fn first_touch(&self) -> bool {
        !self.closure_asked.swap(true, Ordering::Relaxed)
    }

    /// The first touch came to nothing: the next one is the first again.
    pub(crate) fn touch_again(&self) {
        self.closure_asked.store(false, Ordering::Relaxed);
    }
}

/// The snapshot of an entry that is being served.
pub fn snapshot_of(entry: &Repository) -> &Snapshot {
    entry.snapshot.as_ref().expect("Repo::new and Repo::set take only entries with a snapshot")
}
