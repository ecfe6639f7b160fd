//! The fetcher's disk: which repositories are cached, how much they take, and which go first.
//!
//! ```text
//! <cache-dir>/lock                    held by the one fetcher that uses the directory
//! <cache-dir>/repos/<storage-id>/<n>  repositories
//! <cache-dir>/tmp/                    fetches under way; emptied at start
//! ```
//!
//! Invariants: what is under `repos` was whole when it was put there; a repository in use is
//! never evicted; after each fetch the sum is brought back under the limit, least recently
//! used first.

mod repository;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use monofs_model::{Error, Oid, Result, Snapshot, SourceUrl, StorageId};
use monofs_rpc::metrics::Counter;
use parking_lot::{Mutex, MutexGuard};

pub use repository::CachedRepo;

/// All cached repositories.
pub struct RepoCache {
    dir: PathBuf,
    bytes_max: u64,
    repos: Mutex<HashMap<StorageId, Arc<CachedRepo>>>,
    serial: AtomicU64,
    lock: Mutex<Option<File>>,
    /// Repositories that were evicted since the start, and their bytes.
    pub evicted: Counter,
    pub evicted_bytes: Counter,
}

/// A directory for a fetch under way; removed unless it is published.
pub struct Workspace {
    dir: PathBuf,
}

impl Workspace {
    /// Where to fetch into.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Published ones are gone from here; others are cleaned at the next start at the latest.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl RepoCache {
    /// Opens the cache and takes over what an earlier run left whole. Errors: `Refused` when
    /// another fetcher uses it.
    pub fn open(dir: &Path, bytes_max: u64) -> Result<Self> {
        let cannot = |e: std::io::Error| {
            Error::refused(format!(
                "cannot use the cache directory {}: {e}; check --cache-dir",
                dir.display()
            ))
        };

        // The lock comes before anything is removed: another fetcher may be writing to the
        // directory.
        fs::create_dir_all(dir.join("repos")).map_err(cannot)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(cannot)?;
        lock.try_lock().map_err(|_| {
            Error::refused(format!(
                "another fetcher uses the cache directory {}; give each its own --cache-dir",
                dir.display()
            ))
        })?;

        // Fetches that an earlier run left half done are of no use to this one.
        match fs::remove_dir_all(dir.join("tmp")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(cannot(e)),
            _ => fs::create_dir_all(dir.join("tmp")).map_err(cannot)?,
        }

        // Whole repositories are served again. The bound may be lower than in the run before.
        let (repos, serial) = load(&dir.join("repos")).map_err(cannot)?;
        let cache = Self {
            dir: dir.to_owned(),
            bytes_max,
            repos: Mutex::new(repos),
            serial: AtomicU64::new(serial),
            lock: Mutex::new(Some(lock)),
            evicted: Counter::default(),
            evicted_bytes: Counter::default(),
        };
        cache.evict(None, None);
        Ok(cache)
    }

    /// Lets another fetcher use the directory. Nothing may be fetched after this.
    pub fn close(&self) {
        self.lock.lock().take();
    }

    /// The cached repository, noted as used now.
    pub fn get(&self, id: &StorageId) -> Option<Arc<CachedRepo>> {
        let repo = self.lock().get(id).cloned();
        repo.inspect(|repo| repo.touch())
    }

    /// A directory to fetch into.
    pub fn workspace(&self, id: &StorageId) -> Result<Workspace> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join("tmp").join(format!("{id}-{serial}"));
        fs::create_dir_all(&dir)
            .map_err(|e| Error::internal(format!("create {}: {e}", dir.display())))?;
        Ok(Workspace { dir })
    }

    /// Makes a fetched repository the one of `id`; the one before goes when its last
    /// user is done.
    pub fn publish(
        &self,
        id: &StorageId,
        source: &SourceUrl,
        work: Workspace,
        snapshot: &Snapshot,
    ) -> Result<Arc<CachedRepo>> {
        CachedRepo::write_meta(work.dir(), source, &[snapshot.commit])?;
        let generation = self.serial.fetch_add(1, Ordering::Relaxed);
        let parent = self.dir.join("repos").join(id.as_str());
        let dir = parent.join(generation.to_string());
        let moved = fs::create_dir_all(&parent).and_then(|()| fs::rename(work.dir(), &dir));
        moved.map_err(|e| Error::internal(format!("publish {}: {e}", dir.display())))?;
        let repo = Arc::new(CachedRepo::create(
            id.clone(),
            source.clone(),
            generation,
            dir,
            snapshot,
        )?);
        // Its files are removed outside the lock.
        let before = self.lock().insert(id.clone(), repo.clone());
        before.inspect(|before| before.doom());
        Ok(repo)
    }

    /// Forgets `repo`, unless a newer generation has taken its place.
    pub fn discard(&self, repo: &CachedRepo) {
        let mut repos = self.lock();
        if repos
            .get(&repo.id)
            .is_some_and(|current| current.generation == repo.generation)
        {
            repos.remove(&repo.id);
        }
        drop(repos);
        repo.doom();
    }

    /// Removes what was idle for `age`, then the least recently used until the rest fits. Never
    /// `keep`, never one in use.
    pub fn evict(&self, age: Option<Duration>, keep: Option<&StorageId>) -> usize {
        let mut repos = self.lock();
        let mut idle: Vec<(SystemTime, StorageId)> = repos
            .values()
            .filter(|repo| Arc::strong_count(repo) == 1 && keep != Some(&repo.id))
            .map(|repo| (repo.used(), repo.id.clone()))
            .collect();
        idle.sort_by(|a, b| b.cmp(a));
        let mut sum: u64 = repos.values().map(|repo| repo.disk_bytes()).sum();
        let now = SystemTime::now();
        let mut evicted = Vec::new();
        while let Some((used, id)) = idle.pop() {
            let expired =
                age.is_some_and(|age| now.duration_since(used).is_ok_and(|idle| idle > age));
            if sum <= self.bytes_max && !expired {
                break;
            }
            if let Some(repo) = repos.remove(&id) {
                sum -= repo.disk_bytes();
                self.evicted.one();
                self.evicted_bytes.add(repo.disk_bytes());
                repo.doom();
                tracing::info!(
                    storage_id = %id,
                    source = %repo.source,
                    expired,
                    "evicted a repository from the cache"
                );
                evicted.push(repo);
            }
        }
        drop(repos);
        if sum > self.bytes_max {
            tracing::warn!(
                bytes = sum,
                limit = self.bytes_max,
                "the cache is over its limit: everything in it is in use"
            );
        }
        // Files are removed here, outside the lock.
        evicted.len()
    }

    /// Bytes of disk in use.
    pub fn disk_bytes(&self) -> u64 {
        self.lock().values().map(|repo| repo.disk_bytes()).sum()
    }

    /// The bound of [`RepoCache::disk_bytes`].
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Number of repositories.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a repository is cached with this commit.
    pub fn holds(&self, id: &StorageId, commit: &Oid) -> bool {
        self.lock().get(id).is_some_and(|repo| repo.holds(commit))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StorageId, Arc<CachedRepo>>> {
        self.repos.lock()
    }
}

type LoadedRepos = (HashMap<StorageId, Arc<CachedRepo>>, u64);

/// The newest usable generation of every repository, and the next free generation. Everything else
/// is removed.
fn load(dir: &Path) -> std::io::Result<LoadedRepos> {
    let mut repos = HashMap::new();
    let mut serial = 0;
    for entry in fs::read_dir(dir)? {
        let parent = entry?.path();
        let id = parent
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| StorageId::new(name).ok());
        let Some(id) = id else {
            remove_any(&parent)?;
            continue;
        };
        // The generations that are there; what has another name is removed.
        let mut generations: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&parent)? {
            let path = entry?.path();
            match path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.parse().ok())
            {
                Some(number) => generations.push((number, path)),
                None => remove_any(&path)?,
            }
        }
        // The newest one that can be opened stays.
        generations.sort();
        while let Some((number, path)) = generations.pop() {
            serial = serial.max(number + 1);
            if repos.contains_key(&id) {
                remove_any(&path)?;
                continue;
            }
            match CachedRepo::open(id.clone(), number, path.clone()) {
                Ok(repo) => {
                    repos.insert(id.clone(), Arc::new(repo));
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropped an unusable repository \
                     from the cache");
                    remove_any(&path)?;
                }
            }
        }
        if !repos.contains_key(&id) {
            fs::remove_dir(&parent)?;
        }
    }
    Ok((repos, serial))
}

fn remove_any(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}
