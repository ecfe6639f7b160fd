//! The repositories of a node: one directory each, a bounded number of them open.
//!
//! ```text
//! <root>/LOCK                     one process per root
//! <root>/repos/<storage id>/      a repository
//! <root>/repos/<id>.corrupt-<n>/  one that was set aside
//! <root>/new/  <root>/trash/      repositories being made and removed; emptied at open
//! ```
//!
//! Invariants: a directory under `repos` named by a storage id is complete, since repositories are
//! made and removed elsewhere and renamed; an environment is opened and closed by one thread at a
//! time; only repositories that are not in use are closed to make room.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::{Error, Result, StorageId};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::env::{DATA_FILE, EnvOptions, EnvUsage};
use crate::fault::{io_error, remove_dir, sync_dir};
use crate::lock::lock_directory;
use crate::repo::{RepoMeta, RepoStore};

/// Default bound of open repositories: 3 file descriptors and some kilobytes each.
pub const OPEN_MAX: usize = 256;
/// Most copies of one repository that are set aside.
const QUARANTINE_MAX: u32 = 100;

struct OpenRepo {
    store: Arc<RepoStore>,
    /// When it was last asked for, in ticks of `PoolState::clock`.
    used: u64,
}

#[derive(Default)]
struct PoolState {
    open: HashMap<StorageId, OpenRepo>,
    /// Being opened, closed, made or removed by some thread.
    busy: HashSet<StorageId>,
    /// Admitted by `make_room` and not in `open` yet.
    opening: usize,
    clock: u64,
}

impl PoolState {
    fn use_open(&mut self, id: &StorageId) -> Option<Arc<RepoStore>> {
        self.clock += 1;
        let open = self.open.get_mut(id)?;
        open.used = self.clock;
        Some(open.store.clone())
    }
}

/// All repositories below one root.
pub struct RepoPool {
    root: PathBuf,
    max_open: usize,
    options: EnvOptions,
    state: Mutex<PoolState>,
    /// Notified when an id leaves `busy`.
    idle: Condvar,
    /// Makes names in `new` and `trash` unique.
    serial: AtomicU64,
    _lock: File,
}

/// The right to open, close or rename one repository. Other threads wait until it is dropped.
struct BusyRepo<'p> {
    pool: &'p RepoPool,
    id: StorageId,
}

impl Drop for BusyRepo<'_> {
    fn drop(&mut self) {
        self.pool.state.lock().busy.remove(&self.id);
        self.pool.idle.notify_all();
    }
}

impl RepoPool {
    /// Opens the pool at `root`, creating it when missing. Errors: `Refused` while another process
    /// uses it.
    pub fn open(root: &Path, max_open: usize, options: EnvOptions) -> Result<Self> {
        let lock = lock_directory(root, "repository store")?;
        for name in ["repos", "new", "trash"] {
            let dir = root.join(name);
            if name != "repos" {
                remove_dir(&dir)?;
            }
            fs::create_dir_all(&dir).map_err(|e| io_error(&dir, "create directory", &e))?;
        }
        Ok(Self {
            root: root.to_owned(),
            max_open: max_open.max(1),
            options,
            state: Mutex::default(),
            idle: Condvar::new(),
            serial: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// The repository, or `None` when there is none. Errors: `Corrupt` when it is damaged (see
    /// [`RepoPool::quarantine`]), `Unavailable` when too many others are in use.
    pub fn get(&self, id: &StorageId) -> Result<Option<Arc<RepoStore>>> {
        self.get_with(id, None)
    }

    /// The repository if it is open; never waits for the disk.
    pub fn get_open(&self, id: &StorageId) -> Option<Arc<RepoStore>> {
        self.state.lock().use_open(id)
    }

    /// The repository, made with these facts when there is none.
    pub fn get_or_create(&self, meta: &RepoMeta) -> Result<Arc<RepoStore>> {
        let found = self.get_with(&meta.storage_id, Some(meta))?;
        found.ok_or_else(|| {
            Error::internal(format!(
                "repository {}: made and not found",
                meta.storage_id
            ))
        })
    }

    /// The repository, opened if it is not, or made if there is none and `create` says of what.
    fn get_with(
        &self,
        id: &StorageId,
        create: Option<&RepoMeta>,
    ) -> Result<Option<Arc<RepoStore>>> {
        // One thread opens it; the others wait and find it open.
        let mut state = self.wait_idle(id);
        if let Some(store) = state.use_open(id) {
            return Ok(Some(store));
        }
        state.busy.insert(id.clone());
        drop(state);
        let _busy = BusyRepo {
            pool: self,
            id: id.clone(),
        };
        // The disk is used without the lock on the state.
        let dir = self.dir(id);
        if create.is_none() && !dir.exists() {
            return Ok(None);
        }
        self.make_room()?;
        let opened = match create {
            Some(meta) if !dir.exists() => self.create(meta, &dir),
            _ => RepoStore::open_existing_with(&dir, &self.options),
        };
        // What was admitted is open now, or has failed to open.
        let mut state = self.state.lock();
        state.opening -= 1;
        let store = Arc::new(opened?);
        let used = state.clock;
        state.open.insert(
            id.clone(),
            OpenRepo {
                store: store.clone(),
                used,
            },
        );
        Ok(Some(store))
    }

    /// Waits until no thread opens, closes or renames this repository.
    fn wait_idle(&self, id: &StorageId) -> MutexGuard<'_, PoolState> {
        let mut state = self.state.lock();
        while state.busy.contains(id) {
            self.idle.wait(&mut state);
        }
        state
    }

    /// Takes a repository out of the open ones and keeps every other thread from it.
    fn claim(&self, id: &StorageId) -> (BusyRepo<'_>, Option<OpenRepo>) {
        let mut state = self.wait_idle(id);
        state.busy.insert(id.clone());
        let open = state.open.remove(id);
        drop(state);
        (
            BusyRepo {
                pool: self,
                id: id.clone(),
            },
            open,
        )
    }

    fn create(&self, meta: &RepoMeta, dir: &Path) -> Result<RepoStore> {
        let made = self.scratch("new", &meta.storage_id);
        let created = RepoStore::open(&made, meta, &self.options).and_then(|store| {
            rename(&made, dir)?;
            Ok(store)
        });
        match created {
            Ok(mut store) => {
                store.moved_to(dir);
                Ok(store)
            }
            Err(e) => {
                if let Err(left) = remove_dir(&made) {
                    tracing::warn!(
                        "a repository that could not be made stays until the next start: {left}"
                    );
                }
                Err(e)
            }
        }
    }

    /// Closes those that are not in use, the least recently used first, until one more fits, and
    /// admits that one.
    fn make_room(&self) -> Result<()> {
        loop {
            let mut state = self.state.lock();
            if state.open.len() + state.opening < self.max_open {
                state.opening += 1;
                return Ok(());
            }
            let unused = state
                .open
                .iter()
                .filter(|(_, open)| Arc::strong_count(&open.store) == 1);
            let Some(id) = unused
                .min_by_key(|(_, open)| open.used)
                .map(|(id, _)| id.clone())
            else {
                let root = self.root.display();
                return Err(Error::unavailable(format!(
                    "{root}: all {} open repositories are in use; try again, or raise the bound",
                    self.max_open
                )));
            };
            // Closing takes time, so it happens without the lock.
            let closing = state.open.remove(&id);
            state.busy.insert(id.clone());
            drop(state);
            let busy = BusyRepo { pool: self, id };
            drop(closing);
            drop(busy);
        }
    }

    /// Removes a repository; gives whether there was one. Readers that still hold it keep reading
    /// until they let go.
    pub fn drop_repo(&self, id: &StorageId) -> Result<bool> {
        let (_busy, open) = self.claim(id);
        let dir = self.dir(id);
        if !dir.exists() {
            return Ok(false);
        }
        let trash = self.scratch("trash", id);
        rename(&dir, &trash)?;
        drop(open);
        // It is gone already; what cannot be removed now goes at the next start.
        if let Err(e) = remove_dir(&trash) {
            tracing::warn!("a dropped repository stays in the trash until the next start: {e}");
        }
        Ok(true)
    }

    /// Sets a damaged repository aside, so that a sound copy can take its place; gives where it is
    /// now.
    pub fn quarantine(&self, id: &StorageId) -> Result<PathBuf> {
        let (_busy, _open) = self.claim(id);
        let dir = self.dir(id);
        for n in 1..=QUARANTINE_MAX {
            let aside = self.root.join("repos").join(format!("{id}.corrupt-{n}"));
            if !aside.exists() {
                rename(&dir, &aside)?;
                return Ok(aside);
            }
        }
        Err(Error::full(format!(
            "{}: {QUARANTINE_MAX} damaged copies are kept already; remove some",
            dir.display()
        )))
    }

    /// All repositories, in order of their ids.
    pub fn list(&self) -> Result<Vec<StorageId>> {
        let dir = self.root.join("repos");
        let broken = |e: io::Error| io_error(&dir, "list", &e);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&dir).map_err(broken)? {
            let name = entry.map_err(broken)?.file_name();
            ids.extend(name.to_str().and_then(|name| StorageId::new(name).ok()));
        }
        ids.sort();
        Ok(ids)
    }

    /// Repositories that are open now.
    pub fn open_count(&self) -> usize {
        self.state.lock().open.len()
    }

    /// How full the open repositories are, together.
    pub fn usage(&self) -> EnvUsage {
        let state = self.state.lock();
        state
            .open
            .values()
            .map(|open| open.store.usage())
            .fold(EnvUsage::default(), |sum, one| EnvUsage {
                map_bytes: sum.map_bytes + one.map_bytes,
                used_bytes: sum.used_bytes + one.used_bytes,
                readers: sum.readers + one.readers,
            })
    }

    /// Bytes of all repositories' data files.
    pub fn disk_bytes(&self) -> u64 {
        let bytes = |id: &StorageId| {
            fs::metadata(self.dir(id).join(DATA_FILE)).map_or(0, |metadata| metadata.len())
        };
        self.list().unwrap_or_default().iter().map(bytes).sum()
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn dir(&self, id: &StorageId) -> PathBuf {
        self.root.join("repos").join(id.as_str())
    }

    fn scratch(&self, kind: &str, id: &StorageId) -> PathBuf {
        self.root.join(kind).join(format!(
            "{id}.{}",
            self.serial.fetch_add(1, Ordering::Relaxed)
        ))
    }
}

/// Renames a directory and makes the new name durable.
fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| io_error(from, &format!("rename to {}", to.display()), &e))?;
    sync_dir(
        to.parent()
            .expect("repositories have a directory above them"),
    )
}
