//! What is at hand: validated directory records in memory, contents that were just fetched, and the
//! bounded store on disk.
//!
//! One writer thread puts what was fetched on disk, in batches; until then it stays in memory
//! (`pending`), so a reader never waits for the disk and nothing is fetched twice. A full or broken
//! disk costs the cache, not the reader: what cannot be written is served from memory while it is
//! there, counted, and reported in the status.
//!
//! Invariant: only verified content comes in here. The readers of records trust their bytes after
//! parsing.

mod ready;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use monofs_model::{Error, Oid, Result, TreeRecord};
use monofs_store::cache::{CacheOptions, CacheStore};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;

pub use self::ready::READY_BYTES_MAX;
use self::ready::Ready;
use crate::counters::Counters;

/// Bound of the validated records kept in memory.
pub const RECORD_MEMORY_BYTES: u64 = 48 << 20;
/// Bound of what waits for the writer; over it, content that somebody waits for is served without
/// being written.
pub const PENDING_BYTES_MAX: usize = 24 << 20;
/// Prefetching stops while more than this waits for the writer.
const PENDING_BYTES_HIGH: usize = PENDING_BYTES_MAX / 2;
/// A write begins when this much waits for it: a second batch gathers meanwhile.
const WRITE_BATCH_BYTES: usize = PENDING_BYTES_HIGH / 2;
/// How long content may wait for more of its kind. Each write copies pages of the cache's index,
/// whatever it brings.
const GATHER: Duration = Duration::from_millis(250);
/// Most frames remembered as damaged.
const DISTRUST_MAX: usize = 4096;
/// Cost of an entry besides its bytes.
const ENTRY_BYTES: usize = 96;

type ChunkKey = (Oid, u32);

enum Job {
    Tree(Oid, Bytes),
    Chunk(ChunkKey, Bytes),
    Value(&'static str, Vec<u8>),
    /// Answers when everything before it is on disk.
    Flush(Sender<()>),
    Stop,
}

#[derive(Default)]
struct Pending {
    trees: HashMap<Oid, Bytes>,
    chunks: HashMap<ChunkKey, Bytes>,
}

#[derive(Clone)]
struct ByBytes;

impl quick_cache::Weighter<Oid, TreeRecord> for ByBytes {
    fn weight(&self, _: &Oid, record: &TreeRecord) -> u64 {
        (record.bytes().len() + ENTRY_BYTES) as u64
    }
}

/// Everything at hand.
pub struct Cache {
    store: Arc<CacheStore>,
    counters: Arc<Counters>,
    records: quick_cache::sync::Cache<Oid, TreeRecord, ByBytes>,
    ready: Ready,
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and the readers share.
#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    pending_bytes: AtomicUsize,
    /// Frames found damaged on disk, until they are written again.
    distrusted: RwLock<HashSet<ChunkKey>>,
    room: Notify,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock()
    }
}

/// How full one tier of the cache is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    pub name: &'static str,
    pub bytes: u64,
    pub limit_bytes: u64,
}

/// The state of the cache, for the status document.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CacheStatus {
    pub disk_bytes: u64,
    pub disk_bytes_max: u64,
    pub memory_bytes: u64,
    pub pending_bytes: u64,
    /// Why the last write failed, if it did.
    pub last_error: Option<String>,
}

impl Cache {
    /// Opens the store in `dir`, bounded by `max_bytes`. Errors: `Refused` when another process
    /// uses it.
    pub fn open(dir: &Path, max_bytes: u64, counters: Arc<Counters>) -> Result<Arc<Self>> {
        let store = Arc::new(CacheStore::open(dir, &CacheOptions { max_bytes })?);
        let shared = Arc::new(Shared::default());
        let (jobs, inbox) = channel();
        let writer = Writer {
            store: store.clone(),
            shared: shared.clone(),
            counters: counters.clone(),
            inbox,
        };
        let thread = std::thread::Builder::new()
            .name("monofs-cache".into())
            .spawn(move || writer.run())
            .map_err(|e| Error::internal(format!("start the cache writer: {e}")))?;
        Ok(Arc::new(Self {
            store,
            counters,
            records: quick_cache::sync::Cache::with_weighter(16_384, RECORD_MEMORY_BYTES, ByBytes),
            ready: Ready::default(),
            shared,
            jobs,
            writer: Mutex::new(Some(thread)),
        }))
    }

    /// The record of a tree, if it is at hand.
    pub fn record(&self, tree: &Oid) -> Option<TreeRecord> {
        if let Some(record) = self.records.get(tree) {
            self.counters.records_in_memory.one();
            return Some(record);
        }
        let waiting = self.shared.pending().trees.get(tree).cloned();
        let bytes = match waiting {
            Some(bytes) => Some(bytes),
            None => self.stored_tree(tree),
        };
        let Some(record) = bytes.and_then(|bytes| TreeRecord::parse(bytes).ok()) else {
            self.counters.records_missed.one();
            return None;
        };
        self.counters.records_on_disk.one();
        self.records.insert(*tree, record.clone());
        Some(record)
    }

    fn stored_tree(&self, tree: &Oid) -> Option<Bytes> {
        self.store.read().tree(tree).map(Bytes::copy_from_slice)
    }

    /// Whether the record of a tree is at hand.
    pub fn has_record(&self, tree: &Oid) -> bool {
        self.records.contains_key(tree) || self.record(tree).is_some()
    }

    /// The bytes of a chunk, if they are here decoded.
    pub fn ready(&self, blob: &Oid, index: u32) -> Option<Bytes> {
        let raw = self.ready.get(&(*blob, index));
        if raw.is_some() {
            self.counters.contents_ready.one();
        }
        raw
    }

    /// The kernel has a chunk's bytes to the end: they need not be kept decoded.
    pub fn was_read(&self, blob: &Oid, index: u32) {
        self.ready.drop_read(&(*blob, index));
    }

    /// Looks at a frame, if it is at hand.
    pub fn with_frame<R>(
        &self,
        blob: &Oid,
        index: u32,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        let key = (*blob, index);
        if let Some(frame) = self.frame_in_memory(&key) {
            self.counters.frames_in_memory.one();
            return Some(look(&frame));
        }
        if !self.is_distrusted(&key)
            && let Some(frame) = self.store.read().chunk(blob, index)
        {
            self.counters.frames_on_disk.one();
            return Some(look(&frame));
        }
        self.counters.frames_missed.one();
        None
    }

    /// Which of these records are not at hand.
    pub fn missing_records(&self, trees: impl Iterator<Item = Oid>) -> Vec<Oid> {
        let here = |tree: &Oid| {
            self.records.contains_key(tree) || self.shared.pending().trees.contains_key(tree)
        };
        let mut missing: Vec<Oid> = trees.filter(|tree| !here(tree)).collect();
        // The view of the disk is taken last: what is not pending any more is in it.
        let reader = self.store.read();
        missing.retain(|tree| reader.tree(tree).is_none());
        missing
    }

    /// Which of these chunks are not at hand.
    pub fn missing_frames(&self, keys: impl Iterator<Item = ChunkKey>) -> Vec<ChunkKey> {
        let here = |key: &ChunkKey| self.ready.has(key) || self.frame_in_memory(key).is_some();
        let mut missing: Vec<ChunkKey> = keys.filter(|key| !here(key)).collect();
        let reader = self.store.read();
        missing.retain(|key| !reader.has_chunk(&key.0, key.1) || self.is_distrusted(key));
        missing
    }

    fn frame_in_memory(&self, key: &ChunkKey) -> Option<Bytes> {
        self.shared.pending().chunks.get(key).cloned()
    }

    fn is_distrusted(&self, key: &ChunkKey) -> bool {
        self.shared.distrusted.read().contains(key)
    }

    /// The frame on disk is damaged: do as if it were not there until it is written again.
    pub fn distrust(&self, blob: &Oid, index: u32) {
        self.counters.corrupt.one();
        let mut distrusted = self.shared.distrusted.write();
        if distrusted.len() < DISTRUST_MAX {
            distrusted.insert((*blob, index));
        }
    }

    /// Takes in a verified record.
    pub fn put_record(&self, tree: Oid, record: TreeRecord) {
        let bytes = record.bytes().clone();
        self.records.insert(tree, record);
        if self.reserve(bytes.len()) {
            self.shared.pending().trees.insert(tree, bytes.clone());
            self.send(Job::Tree(tree, bytes));
        }
    }

    /// Takes in a verified frame and what it decodes to.
    pub fn put_frame(&self, blob: Oid, index: u32, frame: Bytes, raw: Bytes) {
        let key = (blob, index);
        self.ready.put(key, raw);
        if self.reserve(frame.len()) {
            self.shared.pending().chunks.insert(key, frame.clone());
            self.send(Job::Chunk(key, frame));
        }
    }

    /// Takes room for something to be written; false when the writer is too far behind.
    fn reserve(&self, bytes: usize) -> bool {
        let before = self
            .shared
            .pending_bytes
            .fetch_add(bytes + ENTRY_BYTES, Ordering::AcqRel);
        if before > PENDING_BYTES_MAX {
            self.shared
                .pending_bytes
                .fetch_sub(bytes + ENTRY_BYTES, Ordering::AcqRel);
            self.counters.cache_write_skipped.one();
            return false;
        }
        true
    }

    /// Waits until the writer has caught up enough for content that nobody waits for.
    pub async fn room(&self) {
        while self.shared.pending_bytes.load(Ordering::Acquire) > PENDING_BYTES_HIGH {
            let room = self.shared.room.notified();
            if self.shared.pending_bytes.load(Ordering::Acquire) > PENDING_BYTES_HIGH {
                room.await;
            }
        }
    }

    /// A small named value.
    pub fn value(&self, name: &'static str) -> Option<Vec<u8>> {
        self.store.kv_get(name).ok().flatten()
    }

    /// Writes a small named value, some time soon.
    pub fn put_value(&self, name: &'static str, value: Vec<u8>) {
        self.send(Job::Value(name, value));
    }

    fn send(&self, job: Job) {
        // Fails only when the writer has stopped: then nothing is to be written any more.
        let _ = self.jobs.send(job);
    }

    /// Waits until everything taken in so far is on disk or was refused by it.
    pub fn flush(&self) {
        let (done, wait) = channel();
        self.send(Job::Flush(done));
        let _ = wait.recv();
    }

    /// Writes what is pending and stops the writer.
    pub fn close(&self) {
        self.send(Job::Stop);
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }

    /// How full each tier is: what waits decoded, records in memory, frames and records that wait
    /// for the disk, the disk.
    pub fn tiers(&self) -> [Tier; 4] {
        let tier = |name, bytes, limit_bytes| Tier {
            name,
            bytes,
            limit_bytes,
        };
        let stats = self.store.stats();
        let pending = self.shared.pending_bytes.load(Ordering::Relaxed) as u64;
        [
            tier("ready", self.ready.bytes() as u64, READY_BYTES_MAX as u64),
            tier("records_memory", self.records.weight(), RECORD_MEMORY_BYTES),
            tier("frames_memory", pending, PENDING_BYTES_MAX as u64),
            tier(
                "disk",
                stats.current_bytes + stats.previous_bytes,
                stats.max_bytes,
            ),
        ]
    }

    /// Generations of the cache on disk that were dropped, and their bytes.
    pub fn evicted(&self) -> (u64, u64) {
        let stats = self.store.stats();
        (stats.evicted, stats.evicted_bytes)
    }

    /// Its state now.
    pub fn status(&self) -> CacheStatus {
        let stats = self.store.stats();
        CacheStatus {
            disk_bytes: stats.current_bytes + stats.previous_bytes,
            disk_bytes_max: stats.max_bytes,
            memory_bytes: self.records.weight() + self.ready.bytes() as u64,
            pending_bytes: self.shared.pending_bytes.load(Ordering::Relaxed) as u64,
            last_error: self.shared.last_error.lock().clone(),
        }
    }
}

/// The thread that writes.
struct Writer {
    store: Arc<CacheStore>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    inbox: Receiver<Job>,
}

#[derive(Default)]
struct Batch {
    trees: Vec<(Oid, Bytes)>,
    chunks: Vec<(Oid, u32, Bytes)>,
    bytes: usize,
    flushed: Vec<Sender<()>>,
}

impl Writer {
    fn run(self) {
        let mut stopping = false;
        while !stopping {
            let Ok(first) = self.inbox.recv() else { return };
            let until = Instant::now() + GATHER;
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Tree(tree, bytes) => {
                        batch.bytes += bytes.len() + ENTRY_BYTES;
                        batch.trees.push((tree, bytes));
                    }
                    Job::Chunk((blob, index), frame) => {
                        batch.bytes += frame.len() + ENTRY_BYTES;
                        batch.chunks.push((blob, index, frame));
                    }
                    Job::Value(name, value) => {
                        self.note(self.store.kv_put(name, &value));
                    }
                    Job::Flush(done) => batch.flushed.push(done),
                    Job::Stop => stopping = true,
                }
                let is_due =
                    batch.bytes >= WRITE_BATCH_BYTES || stopping || !batch.flushed.is_empty();
                next = if is_due {
                    None
                } else {
                    self.inbox
                        .recv_timeout(until.saturating_duration_since(Instant::now()))
                        .ok()
                };
            }
            self.write(batch);
        }
    }

    fn write(&self, batch: Batch) {
        if !batch.trees.is_empty() {
            self.note(self.store.put_trees(&batch.trees));
        }
        let mut written = false;
        if !batch.chunks.is_empty() {
            written = self.note(self.store.put_chunks(&batch.chunks));
        }
        let distrusted = !self.shared.distrusted.read().is_empty();
        if distrusted && written {
            let mut distrusted = self.shared.distrusted.write();
            for (blob, index, _) in &batch.chunks {
                distrusted.remove(&(*blob, *index));
            }
        }
        let mut pending = self.shared.pending();
        batch
            .trees
            .iter()
            .for_each(|(tree, _)| drop(pending.trees.remove(tree)));
        batch
            .chunks
            .iter()
            .for_each(|(blob, index, _)| drop(pending.chunks.remove(&(*blob, *index))));
        drop(pending);
        self.counters
            .cache_written
            .add((batch.trees.len() + batch.chunks.len()) as u64);
        self.shared
            .pending_bytes
            .fetch_sub(batch.bytes, Ordering::AcqRel);
        self.shared.room.notify_waiters();
        for done in &batch.flushed {
            let _ = done.send(());
        }
    }

    /// Remembers how a write went. True: it went well.
    fn note(&self, result: Result<()>) -> bool {
        let error = result.err().map(|error| error.to_string());
        let before = {
            let mut last = self.shared.last_error.lock();
            std::mem::replace(&mut *last, error.clone())
        };
        let Some(error) = error else { return true };
        self.counters.cache_write_errors.one();
        if before.as_ref() != Some(&error) {
            tracing::warn!(
                error,
                "the cache cannot be written; serving goes on without it"
            );
        }
        false
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_store::frame;

    use super::*;

    #[test]
    fn what_somebody_waits_for_is_there_even_when_the_disk_is_behind() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 256 << 20, Arc::default()).unwrap();
        let mut noise = vec![0u8; CHUNK_BYTES];
        let blob = Oid::from_bytes(&[7; 20]).unwrap();
        for index in 0..2 * (PENDING_BYTES_MAX / CHUNK_BYTES) as u32 {
            noise.iter_mut().enumerate().for_each(|(n, byte)| {
                *byte = (n as u32)
                    .wrapping_mul(2_654_435_761 + 2 * index)
                    .to_be_bytes()[0]
            });
            cache.put_frame(blob, index, frame::encode(&noise), noise.clone().into());
            assert!(cache.missing_frames([(blob, index)].into_iter()).is_empty());
            assert_eq!(cache.ready(&blob, index).unwrap(), noise);
        }
        assert!(
            cache.shared.pending_bytes.load(Ordering::Relaxed)
                <= PENDING_BYTES_MAX + 2 * CHUNK_BYTES
        );
        cache.close();
    }
}
