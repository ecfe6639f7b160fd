//! The thread that puts on disk what was taken in, in batches.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use monofs_model::{Oid, Result};
use monofs_store::cache::CacheStore;

use super::backlog::{Backlog, ENTRY_BYTES, PENDING_BYTES_HIGH};
use crate::counters::Counters;
use crate::want::ChunkKey;

/// A write begins when this much waits for it: a second batch gathers meanwhile.
const WRITE_BATCH_BYTES: usize = PENDING_BYTES_HIGH / 2;
/// How long content may wait for more of its kind. Each write copies pages of the cache's index,
/// whatever it brings.
const GATHER: Duration = Duration::from_millis(250);

/// Something for the writer to do.
pub(super) enum WriteJob {
    Tree(Oid, Bytes),
    Chunk(ChunkKey, Bytes),
    Value(&'static str, Vec<u8>),
    /// Answers when everything before it is on disk.
    Flush(Sender<()>),
    Stop,
}

/// The thread that writes.
pub(super) struct CacheWriter {
    pub store: Arc<CacheStore>,
    pub backlog: Arc<Backlog>,
    pub counters: Arc<Counters>,
    pub inbox: Receiver<WriteJob>,
}

/// What is written at once.
#[derive(Default)]
struct WriteBatch {
    trees: Vec<(Oid, Bytes)>,
    chunks: Vec<(Oid, u32, Bytes)>,
    bytes: usize,
    /// Callers that wait until this batch is on disk.
    flushed: Vec<Sender<()>>,
    is_last: bool,
}

impl WriteBatch {
    fn is_due(&self) -> bool {
        self.bytes >= WRITE_BATCH_BYTES || self.is_last || !self.flushed.is_empty()
    }

    fn chunk_keys(&self) -> impl Iterator<Item = ChunkKey> {
        self.chunks.iter().map(|(blob, index, _)| (*blob, *index))
    }
}

impl CacheWriter {
    /// Writes until it is told to stop, or until the cache is gone.
    pub fn run(self) {
        while let Some(batch) = self.next_batch() {
            let is_last = batch.is_last;
            self.write(batch);
            if is_last {
                return;
            }
        }
    }

    /// Gathers the next batch. `None`: nothing more will come.
    fn next_batch(&self) -> Option<WriteBatch> {
        let first = self.inbox.recv().ok()?;
        let until = Instant::now() + GATHER;
        let mut batch = WriteBatch::default();
        self.take(first, &mut batch);
        while !batch.is_due() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(job) = self.inbox.recv_timeout(left) else {
                break;
            };
            self.take(job, &mut batch);
        }
        Some(batch)
    }

    fn take(&self, job: WriteJob, batch: &mut WriteBatch) {
        match job {
            WriteJob::Tree(tree, bytes) => {
                batch.bytes += bytes.len() + ENTRY_BYTES;
                batch.trees.push((tree, bytes));
            }
            WriteJob::Chunk((blob, index), frame) => {
                batch.bytes += frame.len() + ENTRY_BYTES;
                batch.chunks.push((blob, index, frame));
            }
            WriteJob::Value(name, value) => {
                self.note(self.store.kv_put(name, &value));
            }
            WriteJob::Flush(done) => batch.flushed.push(done),
            WriteJob::Stop => batch.is_last = true,
        }
    }

    fn write(&self, batch: WriteBatch) {
        if !batch.trees.is_empty() {
            self.note(self.store.put_trees(&batch.trees));
        }
        if !batch.chunks.is_empty() && self.note(self.store.put_chunks(&batch.chunks)) {
            self.backlog.trust_again(batch.chunk_keys());
        }
        // Written or refused: it is not kept in memory any longer.
        let trees = batch.trees.iter().map(|(tree, _)| tree);
        self.backlog.remove(trees, batch.chunk_keys(), batch.bytes);
        let written = batch.trees.len() + batch.chunks.len();
        self.counters.cache_written.add(written as u64);
        for done in &batch.flushed {
            // The caller may have gone.
            let _ = done.send(());
        }
    }

    /// Remembers how a write went. True: it went well.
    fn note(&self, result: Result<()>) -> bool {
        let error = result.err().map(|error| error.to_string());
        let before = self.backlog.set_last_error(error.clone());
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
