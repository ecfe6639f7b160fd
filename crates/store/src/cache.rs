//! The client's cache on disk: directory records and contents of all repositories, bounded, shared,
//! surviving restarts.
//!
//! Two generations of at most half the bound, each an LMDB environment and a file of frames. Writes
//! go to the current one; when it is full, the previous one is unlinked, current becomes previous,
//! and a new one starts. What is read from the previous generation is noted and copied to the
//! current one by the next writer, so what is used stays.
//!
//! ```text
//! <dir>/LOCK      one process per directory
//! <dir>/boot      the machine's boot id while the cache is open; see `marker`
//! <dir>/gen-<n>/  generations: the highest is current, the one below it previous
//! <dir>/values/   small named values, outside the bound and the generations
//! ```
//!
//! Invariants: generations together never exceed the bound, since nothing is put where there is no
//! room for it; readers take no lock that a writer holds while it works; a cache that cannot be
//! trusted is emptied, never an error to its user.

mod generation;
mod marker;
mod reader;
mod segment;

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use monofs_model::{Error, ErrorKind, Oid, Result};
use parking_lot::{Mutex, RwLock};

pub use self::reader::CacheReader;

use self::generation::{CacheRow, Generation};
use self::reader::IdleViews;
use crate::env::{EnvOptions, Environment, IfMissing, Table, TxnResult};
use crate::fault::{io_error, remove_dir};
use crate::lock::lock_directory;

/// Smallest bound: below, a generation would not hold a few chunks.
pub const CACHE_BYTES_MIN: u64 = 32 << 20;
/// Largest named value in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 20;
/// Longest name of a named value in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes promoted before each put, so that no put waits long.
const PROMOTE_BYTES: usize = 16 << 20;
/// A write transaction takes about this many bytes, or an eighth of a generation if that is less.
const PUT_BYTES: u64 = 32 << 20;

/// How a cache is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Both generations together, in bytes; at least [`CACHE_BYTES_MIN`].
    pub max_bytes: u64,
}

/// What a cache holds and did since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Bytes of the current generation's files.
    pub current_bytes: u64,
    /// Bytes of the previous generation's files.
    pub previous_bytes: u64,
    /// The bound of both together.
    pub max_bytes: u64,
    /// How often a generation was dropped to make room.
    pub rotations: u64,
    /// Generations that were dropped with what was in them, and their bytes.
    pub evicted: u64,
    pub evicted_bytes: u64,
    /// Rows copied from the previous generation because they were used.
    pub promoted: u64,
}

/// The generations that a view reads.
#[derive(Default)]
struct GenerationPair {
    /// `None` after the disk was too full to start one; the next put tries again.
    current: Option<Arc<Generation>>,
    previous: Option<Arc<Generation>>,
}

/// The cache. Shared by reference; any number of readers, one writer at a time.
pub struct CacheStore {
    dir: PathBuf,
    max_bytes: u64,
    /// Locked for the moment of copying or swapping the pointer only.
    pair: RwLock<Arc<GenerationPair>>,
    /// The right to write, and the number of the next generation.
    writer: Mutex<u64>,
    /// Hits in the previous generation.
    promote: Mutex<HashSet<CacheRow>>,
    idle: IdleViews,
    values: Environment,
    values_table: Table,
    rotations: AtomicU64,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    promoted: AtomicU64,
    _lock: File,
}

impl CacheStore {
    /// Opens the cache in `dir`, creating it when missing. Errors: `Refused` while another process
    /// uses it, `Invalid` for a bound that is too small.
    pub fn open(dir: &Path, options: &CacheOptions) -> Result<Self> {
        let max_bytes = options.max_bytes;
        if max_bytes < CACHE_BYTES_MIN {
            return Err(Error::invalid(format!(
                "a cache of {max_bytes} bytes is too small; give {CACHE_BYTES_MIN} or more"
            )));
        }
        let lock = lock_directory(dir, "client cache")?;
        if !marker::is_trusted(dir)? {
            tracing::warn!(dir = %dir.display(), "the machine went down while the cache was open: \
             emptying it");
            generation::remove_all(dir)?;
        }
        // From here on a crash of the machine is noticed by the next open.
        marker::write(dir)?;
        let (current, previous) = open_generations(dir, max_bytes / 2)?;
        let (values, values_table) = open_values(&dir.join("values"))?;
        let next = current.number() + 1;
        let pair = GenerationPair {
            current: Some(Arc::new(current)),
            previous: previous.map(Arc::new),
        };
        Ok(Self {
            dir: dir.to_owned(),
            max_bytes,
            pair: RwLock::new(Arc::new(pair)),
            writer: Mutex::new(next),
            promote: Mutex::default(),
            idle: IdleViews::default(),
            values,
            values_table,
            rotations: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            promoted: AtomicU64::new(0),
            _lock: lock,
        })
    }

    fn pair(&self) -> Arc<GenerationPair> {
        self.pair.read().clone()
    }

    /// Stores directory records.
    pub fn put_trees(&self, batch: &[(Oid, Bytes)]) -> Result<()> {
        let rows = batch
            .iter()
            .map(|(oid, record)| (CacheRow::tree(oid), &record[..]))
            .collect::<Vec<_>>();
        self.put(rows)
    }

    /// Stores frames of single chunks.
    pub fn put_chunks(&self, batch: &[(Oid, u32, Bytes)]) -> Result<()> {
        let rows = batch
            .iter()
            .map(|(oid, chunk, frame)| (CacheRow::chunk(oid, *chunk), &frame[..]))
            .collect::<Vec<_>>();
        self.put(rows)
    }

    fn put(&self, rows: Vec<(CacheRow, &[u8])>) -> Result<()> {
        let mut next = self.writer.lock();
        let _changing = self.idle.changing();
        self.promote_some()?;
        let part_bytes = PUT_BYTES.min(self.generation_bytes() / 8);
        let mut rest = &rows[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let taken = rest.iter().take_while(|(row, value)| {
                let fits = bytes < part_bytes;
                bytes += generation::row_bytes(row, value);
                fits
            });
            let (part, after) = rest.split_at(taken.count());
            self.put_part(&mut next, part)?;
            rest = after;
        }
        Ok(())
    }

    /// Puts rows in one transaction, making room by one rotation. Rows too large for any generation
    /// are passed over.
    fn put_part(&self, next: &mut u64, part: &[(CacheRow, &[u8])]) -> Result<()> {
        if let Some(current) = &self.pair().current {
            match current.put(part) {
                Ok(true) => return Ok(()),
                Err(e) if e.kind != ErrorKind::Full => return Err(e),
                // The generation or the disk is full: room must be made.
                Ok(false) | Err(_) => {}
            }
        }
        self.rotate(next)?.put(part).map(drop)
    }

    /// Copies noted hits of the previous generation to the current one; at most [`PROMOTE_BYTES`].
    fn promote_some(&self) -> Result<()> {
        match &*self.pair() {
            GenerationPair {
                current: Some(current),
                previous: Some(previous),
            } => self.promote_from(previous, current),
            _ => Ok(()),
        }
    }

    fn promote_from(&self, from: &Generation, to: &Generation) -> Result<()> {
        let noted = std::mem::take(&mut *self.promote.lock());
        if noted.is_empty() {
            return Ok(());
        }
        let (copied, left) = match from.copy_to(to, noted, PROMOTE_BYTES) {
            // Promotion is a favour: no room for it is no error.
            Err(e) if e.kind == ErrorKind::Full => (0, Vec::new()),
            copied => copied?,
        };
        self.promoted.fetch_add(copied, Ordering::Relaxed);
        self.promote.lock().extend(left);
        Ok(())
    }

    /// Drops the previous generation, makes the current one previous and starts a new one, which it
    /// gives. What was used of the dropped one moves to the new one. On a disk that is full even
    /// then, both go.
    fn rotate(&self, next: &mut u64) -> Result<Arc<Generation>> {
        let old = self.pair();
        self.rotations.fetch_add(1, Ordering::Relaxed);
        // Unlinked first, so that a full disk has room for the new one; readers and the copy below
        // keep it mapped.
        if let Some(gone) = &old.previous {
            self.evict(gone)?;
        }
        // On a disk that is full even then, the current one goes too.
        let started = match self.start(next) {
            Err(e) if e.kind == ErrorKind::Full => {
                *self.pair.write() = Arc::default();
                if let Some(gone) = &old.current {
                    self.evict(gone)?;
                }
                self.promote.lock().clear();
                drop(old);
                let current = self.start(next)?;
                *self.pair.write() = Arc::new(GenerationPair {
                    current: Some(current.clone()),
                    previous: None,
                });
                return Ok(current);
            }
            started => started?,
        };
        // From here on readers look into the new one first.
        *self.pair.write() = Arc::new(GenerationPair {
            current: Some(started.clone()),
            previous: old.current.clone(),
        });
        if let Some(gone) = &old.previous {
            self.promote_from(gone, &started)?;
            self.promote.lock().clear();
        }
        Ok(started)
    }

    fn evict(&self, gone: &Generation) -> Result<()> {
        self.evicted.fetch_add(1, Ordering::Relaxed);
        self.evicted_bytes
            .fetch_add(gone.disk_bytes(), Ordering::Relaxed);
        gone.unlink()
    }

    fn start(&self, next: &mut u64) -> Result<Arc<Generation>> {
        let number = *next;
        *next += 1;
        let started = Generation::open(&self.dir, number, self.generation_bytes());
        if started.is_err() {
            generation::remove(&self.dir, number)?;
        }
        started.map(Arc::new)
    }

    fn generation_bytes(&self) -> u64 {
        self.max_bytes / 2
    }

    /// The named value. Named values are durable and survive generations.
    pub fn kv_get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        let txn = self.values.read()?;
        let value = self.values_table.get(&txn, name.as_bytes());
        Ok(value
            .map_err(|e| self.values.error("read a value", e))?
            .map(<[u8]>::to_vec))
    }

    /// Replaces the named value.
    pub fn kv_put(&self, name: &str, value: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a value's name has 1 to {NAME_BYTES_MAX} bytes, not {}",
                name.len()
            )));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::full(format!(
                "value '{name}': {} bytes are over {VALUE_BYTES_MAX}",
                value.len()
            )));
        }
        self.values.write("write a value", |wtxn| -> TxnResult<()> {
            self.values_table.put(wtxn, name.as_bytes(), value)?;
            Ok(())
        })
    }

    /// What is held, and what was done since open.
    pub fn stats(&self) -> CacheStats {
        let pair = self.pair();
        CacheStats {
            current_bytes: pair
                .current
                .as_ref()
                .map_or(0, |current| current.disk_bytes()),
            previous_bytes: pair
                .previous
                .as_ref()
                .map_or(0, |previous| previous.disk_bytes()),
            max_bytes: self.max_bytes,
            rotations: self.rotations.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            evicted_bytes: self.evicted_bytes.load(Ordering::Relaxed),
            promoted: self.promoted.load(Ordering::Relaxed),
        }
    }
}

impl Drop for CacheStore {
    fn drop(&mut self) {
        let pair = self.pair();
        let synced = pair
            .previous
            .iter()
            .chain(&pair.current)
            .try_for_each(|generation| generation.sync());
        match synced.and_then(|()| marker::remove(&self.dir)) {
            Ok(()) => {}
            // The marker stays: harmless unless the machine goes down before the next open.
            Err(e) => tracing::warn!("the cache was not closed cleanly: {e}"),
        }
    }
}

/// Opens the two newest generations that can be used, the current one first, and removes the rest.
fn open_generations(dir: &Path, bytes_max: u64) -> Result<(Generation, Option<Generation>)> {
    let mut numbers = generation::list(dir)?;
    let mut opened = Vec::new();
    while let Some(number) = numbers.pop() {
        if opened.len() == 2 {
            generation::remove(dir, number)?;
            continue;
        }
        match Generation::open(dir, number, bytes_max) {
            // The bound may have been lowered since.
            Ok(found) if found.disk_bytes() > bytes_max => found.unlink()?,
            Ok(found) => opened.push(found),
            Err(e) if e.kind == ErrorKind::Full => return Err(e),
            Err(e) => {
                tracing::warn!("dropping a cache generation that does not open: {e}");
                generation::remove(dir, number)?;
            }
        }
    }
    let mut opened = opened.into_iter();
    match opened.next() {
        Some(current) => Ok((current, opened.next())),
        None => Ok((Generation::open(dir, 1, bytes_max)?, None)),
    }
}

/// Opens the named values. Damaged ones are dropped: the cache can be filled again.
fn open_values(dir: &Path) -> Result<(Environment, Table)> {
    match open_values_table(dir) {
        Err(e) if e.kind == ErrorKind::Corrupt => {
            tracing::warn!("dropping the cache's named values: {e}");
            remove_dir(dir)?;
            open_values_table(dir)
        }
        opened => opened,
    }
}

fn open_values_table(dir: &Path) -> Result<(Environment, Table)> {
    let env = Environment::open(dir, &EnvOptions::default(), 4, IfMissing::Create)?;
    let [table] = env.tables("values", ["values"], IfMissing::Create)?;
    Ok((env, table))
}

/// Removes the cache in `dir`. Errors: `Refused` while a process uses it.
pub fn wipe(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let _lock = lock_directory(dir, "client cache")?;
    generation::remove_all(dir)?;
    remove_dir(&dir.join("values"))?;
    marker::remove(dir)?;
    fs::read_dir(dir)
        .map(drop)
        .map_err(|e| io_error(dir, "list", &e))
}
