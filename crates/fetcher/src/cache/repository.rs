//! One cached repository: a bare repository on disk, the commits it holds whole, and what is open
//! of it.
//!
//! ```text
//! <cache-dir>/repos/<storage-id>/<generation>/   a bare repository and monofs.toml
//! ```
//!
//! Invariant: `monofs.toml` names only commits whose every tree and blob was found here by a walk.
//! A generation that is replaced stays on disk until its last reader is done.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use monofs_model::{Error, ObjectFormat, Oid, Result, Snapshot, SourceUrl, StorageId};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::git::layout;
use crate::objects::{ObjectReader, PackFiles};

/// The file that makes a directory a cached repository.
const META_FILE: &str = "monofs.toml";
/// The layout of a cached repository; another one is fetched again.
const META_VERSION: u32 = 1;
/// Packs after which a repository is fetched afresh instead of growing by another one.
const PACKS_MAX: usize = 48;
/// Commits remembered; the oldest are forgotten first (their objects stay until the next fresh
/// fetch).
const COMMITS_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CachedRepoMeta {
    version: u32,
    source: SourceUrl,
    format: ObjectFormat,
    /// Oldest first.
    commits: Vec<String>,
}

/// A cached repository; it stays on disk as long as a value of this type lives.
pub struct CachedRepo {
    pub id: StorageId,
    pub source: SourceUrl,
    pub format: ObjectFormat,
    pub generation: u64,
    dir: PathBuf,
    doomed: AtomicBool,
    state: Mutex<RepoState>,
}

struct RepoState {
    packs: PackFiles,
    commits: Vec<Oid>,
    snapshots: HashMap<Oid, Snapshot>,
    disk_bytes: u64,
    used: SystemTime,
    /// When `used` was last written to disk.
    marked: Instant,
}

/// How often the time of last use is written to disk.
const MARK_PERIOD: Duration = Duration::from_secs(60);

impl CachedRepo {
    /// Opens what an earlier run left at `dir`. Errors: anything that makes it unusable.
    pub fn open(id: StorageId, generation: u64, dir: PathBuf) -> Result<Self> {
        let path = dir.join(META_FILE);
        let unusable =
            |e: &dyn std::fmt::Display| Error::corrupt(format!("{}: {e}", path.display()));
        let text = fs::read_to_string(&path).map_err(|e| unusable(&e))?;
        let used = fs::metadata(&path)
            .and_then(|m| m.modified())
            .map_err(|e| unusable(&e))?;
        let meta: CachedRepoMeta = toml::from_str(&text).map_err(|e| unusable(&e.message()))?;
        if meta.version != META_VERSION {
            return Err(unusable(&"written by another version"));
        }
        let commits: Vec<Oid> = meta
            .commits
            .iter()
            .map(|c| c.parse())
            .collect::<Result<_>>()?;
        layout::sweep(&dir)?;
        Self::assemble(id, meta.source, meta.format, generation, dir, commits, used)
    }

    /// A repository that was just fetched into `dir` and holds `snapshot`.
    pub fn create(
        id: StorageId,
        source: SourceUrl,
        generation: u64,
        dir: PathBuf,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        let format = snapshot.commit.format();
        let commits = vec![snapshot.commit];
        let repo = Self::assemble(
            id,
            source,
            format,
            generation,
            dir,
            commits,
            SystemTime::now(),
        )?;
        repo.lock()
            .snapshots
            .insert(snapshot.commit, snapshot.clone());
        Ok(repo)
    }

    fn assemble(
        id: StorageId,
        source: SourceUrl,
        format: ObjectFormat,
        generation: u64,
        dir: PathBuf,
        commits: Vec<Oid>,
        used: SystemTime,
    ) -> Result<Self> {
        let packs = PackFiles::open(&dir, format)?;
        let disk_bytes = layout::disk_bytes(&dir);
        let state = RepoState {
            packs,
            commits,
            snapshots: HashMap::new(),
            disk_bytes,
            used,
            marked: Instant::now(),
        };
        Ok(Self {
            id,
            source,
            format,
            generation,
            dir,
            doomed: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    /// Writes the metadata of a repository that is about to be published at `dir`.
    pub fn write_meta(dir: &Path, source: &SourceUrl, commits: &[Oid]) -> Result<()> {
        let format = commits.first().map_or(ObjectFormat::Sha1, Oid::format);
        let commits = commits.iter().map(Oid::to_string).collect();
        let meta = CachedRepoMeta {
            version: META_VERSION,
            source: source.clone(),
            format,
            commits,
        };
        let text = toml::to_string(&meta)
            .map_err(|e| Error::internal(format!("encode {META_FILE}: {e}")))?;
        let next = dir.join("monofs.toml.new");
        let written = fs::write(&next, text).and_then(|()| fs::rename(&next, dir.join(META_FILE)));
        written.map_err(|e| Error::internal(format!("write {}: {e}", next.display())))
    }

    /// The bare repository.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A reader for the calling thread.
    pub fn objects(&self) -> ObjectReader {
        self.lock().packs.reader()
    }

    /// The commits held whole, oldest first.
    pub fn commits(&self) -> Vec<Oid> {
        self.lock().commits.clone()
    }

    /// Whether `commit` is held whole.
    pub fn holds(&self, commit: &Oid) -> bool {
        self.lock().commits.contains(commit)
    }

    /// The snapshot of a commit that was walked in this run.
    pub fn snapshot(&self, commit: &Oid) -> Option<Snapshot> {
        self.lock().snapshots.get(commit).cloned()
    }

    /// Whether another commit may be added to it rather than fetching all afresh.
    pub fn can_grow(&self, source: &SourceUrl, format: ObjectFormat) -> bool {
        let few_packs =
            || layout::pack_indices(&self.dir).is_ok_and(|packs| packs.len() < PACKS_MAX);
        self.source == *source && self.format == format && !self.is_doomed() && few_packs()
    }

    /// Sees packs that a fetch has added.
    pub fn reopen(&self) -> Result<ObjectReader> {
        let packs = PackFiles::open(&self.dir, self.format)?;
        let mut state = self.lock();
        state.packs = packs;
        state.disk_bytes = layout::disk_bytes(&self.dir);
        Ok(state.packs.reader())
    }

    /// Remembers a commit that a walk found whole.
    pub fn add(&self, snapshot: &Snapshot) -> Result<()> {
        let mut state = self.lock();
        state.snapshots.insert(snapshot.commit, snapshot.clone());
        if state.commits.contains(&snapshot.commit) {
            return Ok(());
        }
        let mut commits = state.commits.clone();
        commits.push(snapshot.commit);
        if commits.len() > COMMITS_MAX {
            let forgotten = commits.remove(0);
            state.snapshots.remove(&forgotten);
        }
        Self::write_meta(&self.dir, &self.source, &commits)?;
        state.commits = commits;
        Ok(())
    }

    /// Notes that it was used now.
    pub fn touch(&self) {
        let mut state = self.lock();
        state.used = SystemTime::now();
        if state.marked.elapsed() > MARK_PERIOD {
            state.marked = Instant::now();
            let opened = fs::File::options()
                .write(true)
                .open(self.dir.join(META_FILE));
            // Only the order of eviction after a restart depends on it.
            let _ = opened.and_then(|file| file.set_modified(state.used));
        }
    }

    /// When it was last used.
    pub fn used(&self) -> SystemTime {
        self.lock().used
    }

    /// Bytes of disk it takes.
    pub fn disk_bytes(&self) -> u64 {
        self.lock().disk_bytes
    }

    /// It leaves the disk when the last user is done with it.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }

    fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, RepoState> {
        self.state.lock()
    }
}

impl Drop for CachedRepo {
    fn drop(&mut self) {
        if self.is_doomed() {
            if let Err(error) = fs::remove_dir_all(&self.dir) {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot remove a repository from \
                 the cache");
            }
            if let Some(parent) = self.dir.parent() {
                // Gone unless a newer generation lives there.
                let _ = fs::remove_dir(parent);
            }
        }
    }
}
