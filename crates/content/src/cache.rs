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

mod backlog;
mod ready;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use monofs_model::{
    Error, GenerationNode, ObjectFormat, ObjectKind, Oid, Result, StorageId, TreeRecord,
};
use monofs_store::cache::{CacheOptions, CacheStore};
use parking_lot::Mutex;

pub use self::backlog::PENDING_BYTES_MAX;
use self::backlog::{Backlog, ENTRY_BYTES};
pub use self::ready::READY_BYTES_MAX;
use self::ready::ReadyChunks;
use self::writer::{CacheWriter, WriteJob};
use crate::counters::Counters;
use crate::shown::DirectoryKey;
use crate::want::ChunkKey;

/// Bound of the validated records kept in memory.
pub const RECORD_MEMORY_BYTES: u64 = 48 << 20;
/// Records that are expected in memory.
const RECORDS_EXPECTED: usize = 16_384;

#[derive(Clone)]
struct TreeRecordWeight;

impl quick_cache::Weighter<Oid, TreeRecord> for TreeRecordWeight {
    fn weight(&self, _: &Oid, record: &TreeRecord) -> u64 {
        (record.bytes().len() + ENTRY_BYTES) as u64
    }
}

/// Bound of the decoded generation nodes kept in memory.
const GENERATIONS_MEMORY_BYTES: u64 = 8 << 20;
/// Generation nodes that are expected in memory.
const GENERATIONS_EXPECTED: usize = 4096;

#[derive(Clone)]
struct GenerationsWeight;

impl quick_cache::Weighter<Oid, Arc<GenerationNode>> for GenerationsWeight {
    fn weight(&self, _: &Oid, node: &Arc<GenerationNode>) -> u64 {
        (node.memory_bytes() + ENTRY_BYTES) as u64
    }
}

/// Everything at hand.
pub struct Cache {
    store: Arc<CacheStore>,
    counters: Arc<Counters>,
    records: quick_cache::sync::Cache<Oid, TreeRecord, TreeRecordWeight>,
    generations: quick_cache::sync::Cache<Oid, Arc<GenerationNode>, GenerationsWeight>,
    ready: ReadyChunks,
    backlog: Arc<Backlog>,
    jobs: Sender<WriteJob>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// How full one tier of the cache is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheTier {
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
        let backlog = Arc::new(Backlog::default());
        let (jobs, inbox) = channel();
        let writer = CacheWriter {
            store: store.clone(),
            backlog: backlog.clone(),
            counters: counters.clone(),
            inbox,
        };
        // One thread writes: batches are large, and a disk is one device.
        let thread = std::thread::Builder::new()
            .name("monofs-cache".into())
            .spawn(move || writer.run())
            .map_err(|e| Error::internal(format!("start the cache writer: {e}")))?;
        let records = quick_cache::sync::Cache::with_weighter(
            RECORDS_EXPECTED,
            RECORD_MEMORY_BYTES,
            TreeRecordWeight,
        );
        Ok(Arc::new(Self {
            store,
            counters,
            records,
            generations: quick_cache::sync::Cache::with_weighter(
                GENERATIONS_EXPECTED,
                GENERATIONS_MEMORY_BYTES,
                GenerationsWeight,
            ),
            ready: ReadyChunks::default(),
            backlog,
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
        let bytes = self.backlog.tree(tree).or_else(|| self.stored_tree(tree));
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

    /// The generation node with this id, if it is at hand.
    pub fn generations(&self, id: &Oid) -> Option<Arc<GenerationNode>> {
        if let Some(node) = self.generations.get(id) {
            return Some(node);
        }
        let bytes = self.backlog.tree(id).or_else(|| self.stored_tree(id))?;
        let node = Arc::new(GenerationNode::decode(&bytes).ok()?);
        self.generations.insert(*id, node.clone());
        Some(node)
    }

    /// What was kept of the times of a repository's generations in one row.
    pub fn times(&self, storage_id: &StorageId, row: u64) -> Option<Bytes> {
        let key = times_key(storage_id, row);
        self.backlog.tree(&key).or_else(|| self.stored_tree(&key))
    }

    /// Keeps times of a repository's generations in one row, in place of what was kept of it.
    pub fn put_times(&self, storage_id: &StorageId, row: u64, times: Bytes) {
        self.put_beside_records(times_key(storage_id, row), times);
    }

    /// Whether the record of a tree is at hand.
    pub fn has_record(&self, tree: &Oid) -> bool {
        self.records.contains_key(tree) || self.record(tree).is_some()
    }

    /// Whether all that tells the names in a directory is at hand.
    pub fn has_directory(&self, key: &DirectoryKey) -> bool {
        let has_node = key.node.is_none_or(|id| self.generations(&id).is_some());
        has_node && self.has_record(&key.tree)
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
        if let Some(frame) = self.backlog.chunk(&key) {
            self.counters.frames_in_memory.one();
            return Some(look(&frame));
        }
        if !self.backlog.is_distrusted(&key)
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
        let mut missing: Vec<Oid> = trees
            .filter(|tree| !self.records.contains_key(tree) && self.backlog.tree(tree).is_none())
            .collect();
        // The view of the disk is taken last: what is not pending any more is in it.
        let reader = self.store.read();
        missing.retain(|tree| reader.tree(tree).is_none());
        missing
    }

    /// Which of these chunks are not at hand.
    pub fn missing_frames(&self, keys: impl Iterator<Item = ChunkKey>) -> Vec<ChunkKey> {
        let mut missing: Vec<ChunkKey> = keys
            .filter(|key| !self.ready.has(key) && self.backlog.chunk(key).is_none())
            .collect();
        // As above.
        let reader = self.store.read();
        missing.retain(|key| !reader.has_chunk(&key.0, key.1) || self.backlog.is_distrusted(key));
        missing
    }

    /// The frame on disk is damaged: do as if it were not there until it is written again.
    pub fn distrust(&self, blob: &Oid, index: u32) {
        self.counters.corrupt.one();
        self.backlog.distrust((*blob, index));
    }

    /// Takes in a verified record.
    pub fn put_record(&self, tree: Oid, record: TreeRecord) {
        let bytes = record.bytes().clone();
        self.records.insert(tree, record);
        self.put_beside_records(tree, bytes);
    }

    /// Takes in a verified generation node.
    pub fn put_generations(&self, id: Oid, encoded: Bytes, node: GenerationNode) {
        self.generations.insert(id, Arc::new(node));
        self.put_beside_records(id, encoded);
    }

    fn put_beside_records(&self, key: Oid, value: Bytes) {
        if self.backlog.add_tree(key, &value) {
            self.send(WriteJob::Tree(key, value));
        } else {
            self.counters.cache_write_skipped.one();
        }
    }

    /// Takes in a verified frame and what it decodes to.
    pub fn put_frame(&self, blob: Oid, index: u32, frame: Bytes, raw: Bytes) {
        let key = (blob, index);
        self.ready.put(key, raw);
        if self.backlog.add_chunk(key, &frame) {
            self.send(WriteJob::Chunk(key, frame));
        } else {
            self.counters.cache_write_skipped.one();
        }
    }

    /// Waits until the writer has caught up enough for content that no reader waits for.
    pub async fn room(&self) {
        self.backlog.room().await;
    }

    /// A small named value.
    pub fn value(&self, name: &'static str) -> Option<Vec<u8>> {
        self.store.kv_get(name).ok().flatten()
    }

    /// Writes a small named value, some time soon.
    pub fn put_value(&self, name: &'static str, value: Vec<u8>) {
        self.send(WriteJob::Value(name, value));
    }

    fn send(&self, job: WriteJob) {
        // Fails only when the writer has stopped: then nothing is to be written any more.
        let _ = self.jobs.send(job);
    }

    /// Waits until everything taken in so far is on disk or was refused by it.
    pub fn flush(&self) {
        let (done, wait) = channel();
        self.send(WriteJob::Flush(done));
        // Fails when the writer has stopped, as above.
        let _ = wait.recv();
    }

    /// Writes what is pending and stops the writer.
    pub fn close(&self) {
        self.send(WriteJob::Stop);
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            // A writer that panicked has said so.
            let _ = writer.join();
        }
    }

    /// How full each tier is: what waits decoded, records in memory, frames and records that wait
    /// for the disk, the disk.
    pub fn tiers(&self) -> [CacheTier; 4] {
        let stats = self.store.stats();
        let disk = stats.current_bytes + stats.previous_bytes;
        let ready = self.ready.bytes() as u64;
        let pending = self.backlog.bytes() as u64;
        [
            ("ready", ready, READY_BYTES_MAX as u64),
            ("records_memory", self.records.weight(), RECORD_MEMORY_BYTES),
            ("frames_memory", pending, PENDING_BYTES_MAX as u64),
            ("disk", disk, stats.max_bytes),
        ]
        .map(|(name, bytes, limit_bytes)| CacheTier {
            name,
            bytes,
            limit_bytes,
        })
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
            pending_bytes: self.backlog.bytes() as u64,
            last_error: self.backlog.last_error(),
        }
    }
}

/// The key of a row of times, beside the records. It is the digest of no record.
fn times_key(storage_id: &StorageId, row: u64) -> Oid {
    let text = format!("times {storage_id} {row}");
    Oid::of(ObjectFormat::Sha256, ObjectKind::Blob, text.as_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_store::frame;

    use super::*;

    #[test]
    fn what_a_reader_waits_for_is_there_even_when_the_disk_is_behind() {
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
        assert!(cache.backlog.bytes() <= PENDING_BYTES_MAX + 2 * CHUNK_BYTES);
        cache.close();
    }
}
