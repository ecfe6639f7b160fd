//! The repositories of this node: found, made, dropped, and set aside when they are corrupt.
//!
//! Invariants: what changes a repository's set of snapshots (adopt, retain, drop) holds its writer
//! lock; counts of hydrated contents are forgotten with the snapshots that they are about.
//!
//! Callers: everything that reads or writes a store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use monofs_model::{Error, ErrorKind, Oid, Result, StorageId};
use monofs_store::pool::RepoPool;
use monofs_store::repo::{GcReport, RepoMeta, RepoStore};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::blocking::blocking;
use crate::hydrated::HydratedCounts;
use crate::served::ServedCounters;

/// See the module.
pub(crate) struct NodeStores {
    pool: RepoPool,
    /// How much of each snapshot's contents is held.
    pub hydrated: HydratedCounts,
    served: Arc<ServedCounters>,
    /// One writer of snapshots per repository.
    writers: Mutex<HashMap<StorageId, Arc<tokio::sync::Mutex<()>>>>,
}

impl NodeStores {
    /// Opens the repositories below `root`, at most `open_max` of them at a time. Blocking. Errors:
    /// those of [`RepoPool::open`].
    pub fn open(root: &Path, open_max: usize, served: Arc<ServedCounters>) -> Result<Self> {
        Ok(Self {
            pool: RepoPool::open(root, open_max, Default::default())?,
            hydrated: HydratedCounts::default(),
            served,
            writers: Mutex::default(),
        })
    }

    /// The repositories on disk, for figures about all of them.
    pub fn pool(&self) -> &RepoPool {
        &self.pool
    }

    /// [`NodeStores::get_blocking`] for a task.
    pub async fn get(self: &Arc<Self>, id: &StorageId) -> Result<Arc<RepoStore>> {
        let stores = self.clone();
        let id = id.clone();
        blocking(move || stores.get_blocking(&id)).await
    }

    /// The store of a repository. Blocking. Errors: `NotHeld`.
    ///
    /// A store that turns out to be corrupt is set aside, so that the repository can be adopted
    /// again; the caller hears `NotHeld` from then on and asks another replica.
    pub fn get_blocking(&self, id: &StorageId) -> Result<Arc<RepoStore>> {
        match self.pool.get(id) {
            Ok(Some(store)) => Ok(store),
            Ok(None) => Err(Error::not_held(format!(
                "repository {id} is not on this node"
            ))),
            Err(error) if error.kind == ErrorKind::Corrupt => {
                tracing::error!(storage_id = %id, %error, "store is corrupt; set aside, will be \
                 adopted again");
                self.served.corrupt.one();
                self.pool.quarantine(id)?;
                self.hydrated.retain(id, &[]);
                Err(Error::not_held(format!(
                    "repository {id} was corrupt on this node and is set aside"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// The store of a repository if it is open; never waits for the disk.
    pub fn get_open(&self, id: &StorageId) -> Option<Arc<RepoStore>> {
        self.pool.get_open(id)
    }

    /// Whether `store` still is the repository's: it was neither dropped nor set aside.
    pub fn is_current(&self, id: &StorageId, store: &Arc<RepoStore>) -> bool {
        // A store that is in use stays open.
        self.pool
            .get_open(id)
            .is_some_and(|open| Arc::ptr_eq(&open, store))
    }

    /// The store of a repository with these facts, made when there is none.
    pub async fn get_or_create(self: &Arc<Self>, meta: &RepoMeta) -> Result<Arc<RepoStore>> {
        let stores = self.clone();
        let meta = meta.clone();
        blocking(move || match stores.get_blocking(&meta.storage_id) {
            Ok(store) => {
                if store.meta()? != meta {
                    store.set_meta(&meta)?;
                }
                Ok(store)
            }
            Err(error) if error.kind == ErrorKind::NotHeld => stores.pool.get_or_create(&meta),
            Err(error) => Err(error),
        })
        .await
    }

    /// All repositories, in order of their ids.
    pub async fn list(self: &Arc<Self>) -> Result<Vec<StorageId>> {
        let stores = self.clone();
        blocking(move || stores.pool.list()).await
    }

    /// The lock that every change of a repository's set of snapshots holds.
    pub async fn lock_writer(&self, id: &StorageId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut writers = self.writers.lock();
            // Locks that no task holds or waits for are in this table alone.
            writers.retain(|_, lock| Arc::strong_count(lock) > 1);
            writers.entry(id.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Removes a repository; gives whether there was one. The caller holds the writer lock.
    pub async fn drop_repository(self: &Arc<Self>, id: &StorageId) -> Result<bool> {
        let stores = self.clone();
        let dropped = id.clone();
        let existed = blocking(move || stores.pool.drop_repo(&dropped)).await;
        self.hydrated.retain(id, &[]);
        existed
    }

    /// Keeps only what these commits reach. The caller holds the writer lock. Errors: `NotHeld`.
    pub async fn retain(self: &Arc<Self>, id: &StorageId, commits: &[Oid]) -> Result<GcReport> {
        let store = self.get(id).await?;
        let kept = commits.to_vec();
        let report = blocking(move || store.gc(&kept)).await;
        self.hydrated.retain(id, commits);
        report
    }

    /// Bytes of disk that the stores use.
    pub fn disk_used(&self) -> u64 {
        self.pool.disk_bytes()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use monofs_model::{ContentMode, DisplayPath, ObjectFormat, RefName, SourceUrl};

    use super::*;

    fn stores(dir: &Path) -> Arc<NodeStores> {
        let stores = NodeStores::open(dir, 2, Arc::default());
        Arc::new(stores.expect("a directory of its own"))
    }

    fn meta(path: &str) -> RepoMeta {
        let path = DisplayPath::new(path).expect("a path");
        RepoMeta {
            storage_id: path.storage_id(),
            path,
            source: SourceUrl::new("https://h/r.git").expect("a source"),
            ref_name: RefName::new("main").expect("a ref"),
            content: ContentMode::Lazy,
            format: ObjectFormat::Sha1,
        }
    }

    #[tokio::test]
    async fn a_dropped_store_is_not_the_one_that_is_made_after_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = stores(dir.path());
        let meta = meta("h/r");
        let id = &meta.storage_id;
        let first = stores.get_or_create(&meta).await.expect("made");
        assert!(stores.is_current(id, &first));
        assert_eq!(stores.drop_repository(id).await, Ok(true));
        assert!(!stores.is_current(id, &first));
        let second = stores.get_or_create(&meta).await.expect("made again");
        assert!(!stores.is_current(id, &first));
        assert!(stores.is_current(id, &second));
    }

    #[tokio::test]
    async fn facts_are_those_of_the_last_adoption() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = stores(dir.path());
        let old = meta("h/r");
        let store = stores.get_or_create(&old).await.expect("made");
        let new = RepoMeta {
            content: ContentMode::Eager,
            ..old
        };
        stores.get_or_create(&new).await.expect("found");
        assert_eq!(store.meta(), Ok(new));
    }

    #[tokio::test]
    async fn writers_of_one_repository_wait_for_each_other_and_leave_no_lock_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = stores(dir.path());
        let first = meta("h/r").storage_id;
        let second = meta("h/other").storage_id;
        let writer = stores.lock_writer(&first).await;
        assert!(stores.lock_writer(&first).now_or_never().is_none());
        let other = stores.lock_writer(&second).now_or_never();
        assert!(other.is_some(), "another repository is free");
        drop(writer);
        drop(other);
        let again = stores.lock_writer(&first).now_or_never();
        assert!(again.is_some());
        assert_eq!(stores.writers.lock().len(), 1);
    }
}
