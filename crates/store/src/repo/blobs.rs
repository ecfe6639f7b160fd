//! Contents of a repository: frames keyed by blob oid and chunk number.
//!
//! Short blobs (one chunk) are put in batches. Long ones go through a [`LargeWriter`], which marks
//! the blob `pending` in the same transaction as its first chunk and unmarks it with its last, so a
//! half-written blob is never served and never outlives a crash.

use std::collections::HashSet;
use std::ops::{Bound, Range};

use bytes::Bytes;
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{Error, Oid, Result};

use super::store::{RepoReader, RepoStore};
use super::trees::parts;
use crate::env::{TxnResult, page_bytes};
use crate::frame;

/// Longest oid and a chunk number.
const CHUNK_KEY_BYTES_MAX: usize = 36;
/// A [`LargeWriter`] commits when it has gathered this many bytes.
const LARGE_BATCH_BYTES: usize = 8 << 20;
/// Rows removed per transaction.
const REMOVE_ROWS: usize = 4096;

/// The key of one chunk, on the stack.
pub(crate) struct ChunkKey {
    bytes: [u8; CHUNK_KEY_BYTES_MAX],
    len: usize,
}

impl ChunkKey {
    pub(crate) fn new(oid: &Oid, chunk: u32) -> Self {
        let raw = oid.as_bytes();
        let mut bytes = [0; CHUNK_KEY_BYTES_MAX];
        bytes[..raw.len()].copy_from_slice(raw);
        bytes[raw.len()..raw.len() + 4].copy_from_slice(&chunk.to_be_bytes());
        Self {
            bytes,
            len: raw.len() + 4,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Splits a key read back from disk.
    pub(crate) fn split(key: &[u8]) -> Result<(Oid, u32)> {
        let (oid, chunk) = key
            .split_last_chunk::<4>()
            .ok_or_else(|| Error::corrupt("a chunk's key is too short"))?;
        let oid =
            Oid::from_bytes(oid).map_err(|e| Error::corrupt(format!("a chunk's key: {e}")))?;
        Ok((oid, u32::from_be_bytes(*chunk)))
    }
}

impl RepoStore {
    /// Stores blobs of one chunk each. Verifies nothing: callers check the frame against the oid
    /// first.
    pub fn put_blobs(&self, batch: &[(Oid, Bytes)]) -> Result<()> {
        for part in parts(batch, |(_, frame)| frame.len()) {
            let mut held = self.held.lock();
            let added = self.env.write("put contents", |wtxn| -> TxnResult<u64> {
                let mut added = 0;
                for (oid, frame) in part {
                    let key = ChunkKey::new(oid, 0);
                    let found = self.tables.blobs.get(wtxn, key.as_bytes())?;
                    added += u64::from(found.is_none());
                    // Content-addressed rows mostly are the same, and rewriting them would copy
                    // pages.
                    if found != Some(frame) {
                        self.tables.blobs.put(wtxn, key.as_bytes(), frame)?;
                    }
                }
                Ok(added)
            })?;
            if let Some(held) = held.as_mut() {
                *held += added;
            }
        }
        Ok(())
    }

    /// Starts a blob of `size` bytes, usually one of several chunks. Errors: `Refused` while
    /// another writer writes the same blob. If the blob is already held, the writer takes the
    /// chunks and changes nothing.
    pub fn begin_large(&self, oid: &Oid, size: u64) -> Result<LargeWriter<'_>> {
        let chunks = u32::try_from(frame::chunk_count(size)).map_err(|_| {
            Error::invalid(format!(
                "blob {oid}: {size} bytes are more than the store can number"
            ))
        })?;
        // One writer per blob.
        if !self.writing.lock().insert(*oid) {
            return Err(Error::refused(format!(
                "blob {oid} is already being written"
            )));
        }
        let mut writer = LargeWriter {
            store: self,
            oid: *oid,
            size,
            chunks,
            next: 0,
            batch: Vec::new(),
            bytes: 0,
            mode: WriterStage::Fresh,
        };
        // From here on dropping the writer frees the oid again.
        if self.read()?.has_blob(oid) {
            writer.mode = WriterStage::Held;
        }
        Ok(writer)
    }

    /// Removes what was pending when the last process died.
    pub(super) fn remove_pending(&self) -> Result<()> {
        let pending = {
            let broken = |e| self.env.error("list half-written blobs", e);
            let txn = self.env.read()?;
            let rows = self.tables.pending.iter(&txn).map_err(broken)?;
            rows.map(|row| Oid::from_bytes(row.map_err(broken)?.0))
                .collect::<Result<Vec<_>>>()?
        };
        for oid in pending {
            tracing::info!(dir = %self.dir().display(), %oid, "removing a half-written blob");
            self.remove_chunks(&oid)?;
        }
        Ok(())
    }

    /// Removes all chunks of a blob and its pending mark, the mark last.
    fn remove_chunks(&self, oid: &Oid) -> Result<()> {
        loop {
            let done = self
                .env
                .write("remove a half-written blob", |wtxn| -> TxnResult<bool> {
                    // At most so many rows of the blob in one transaction.
                    let from = ChunkKey::new(oid, 0);
                    let to = ChunkKey::new(oid, u32::MAX);
                    let range = (
                        Bound::Included(from.as_bytes()),
                        Bound::Included(to.as_bytes()),
                    );
                    let mut keys = Vec::new();
                    for row in self.tables.blobs.range(wtxn, &range)?.take(REMOVE_ROWS) {
                        keys.push(row?.0.to_vec());
                    }
                    for key in &keys {
                        if ChunkKey::split(key)?.0 == *oid {
                            self.tables.blobs.delete(wtxn, key)?;
                        }
                    }
                    // The mark goes with the last rows, so that a crash before leaves it.
                    let done = keys.len() < REMOVE_ROWS;
                    if done {
                        self.tables.pending.delete(wtxn, oid.as_bytes())?;
                    }
                    Ok(done)
                })?;
            if done {
                return Ok(());
            }
        }
    }
}

impl RepoReader<'_> {
    /// The frame of one chunk of a blob that is wholly held.
    pub fn chunk(&self, oid: &Oid, index: u32) -> Result<Option<&[u8]>> {
        let broken = |e| self.error("read contents", e);
        let frame = self
            .store
            .tables
            .blobs
            .get(&self.txn, ChunkKey::new(oid, index).as_bytes())
            .map_err(broken)?;
        if frame.is_some() && self.is_pending(oid).map_err(broken)? {
            return Ok(None);
        }
        Ok(frame)
    }

    /// Has the kernel read these chunks of a long blob from the disk: faults of the map would bring
    /// in little at a time.
    pub fn will_need(&self, oid: &Oid, chunks: Range<u32>) {
        for frame in chunks.map_while(|index| self.chunk(oid, index).ok()?) {
            let page = page_bytes() as usize;
            let start = frame.as_ptr() as usize / page * page;
            let len = frame.as_ptr() as usize + frame.len() - start;
            // SAFETY: the range is a part of the map that `frame` borrows, rounded down to a page.
            // The advice starts reading and changes nothing; should it fail, the faults do the same
            // later.
            let _ = unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_WILLNEED) };
        }
    }

    /// The frame of one chunk, also of a blob that is still being written and was not verified as a
    /// whole. The caller verifies what it is put together to.
    pub fn arriving_chunk(&self, oid: &Oid, index: u32) -> Result<Option<&[u8]>> {
        let frame = self
            .store
            .tables
            .blobs
            .get(&self.txn, ChunkKey::new(oid, index).as_bytes());
        frame.map_err(|e| self.error("read contents", e))
    }

    /// Whether a blob is wholly held. A damaged database holds nothing.
    pub fn has_blob(&self, oid: &Oid) -> bool {
        matches!(self.chunk(oid, 0), Ok(Some(_)))
    }

    pub(super) fn is_pending(&self, oid: &Oid) -> heed::Result<bool> {
        Ok(self
            .store
            .tables
            .pending
            .get(&self.txn, oid.as_bytes())?
            .is_some())
    }

    pub(super) fn count_trees(&self) -> Result<u64> {
        self.store
            .tables
            .trees
            .len(&self.txn)
            .map_err(|e| self.error("count objects", e))
    }

    pub(super) fn count_blobs(&self) -> Result<u64> {
        let broken = |e| self.error("count objects", e);
        let mut blobs = 0;
        let keys = self
            .store
            .tables
            .blobs
            .remap_data_type::<heed::types::DecodeIgnore>();
        for row in keys.iter(&self.txn).map_err(broken)? {
            let (key, ()) = row.map_err(broken)?;
            blobs += u64::from(key.ends_with(&[0; 4]));
        }
        let pending = self.store.tables.pending.len(&self.txn).map_err(broken)?;
        Ok(blobs - pending.min(blobs))
    }
}

/// How far a [`LargeWriter`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriterStage {
    /// Nothing was written yet.
    Fresh,
    /// Chunks and the pending mark are on disk.
    MarkedObjects,
    /// The blob was there before: chunks are only counted.
    Held,
    Finished,
}

/// Writes one long blob chunk by chunk. Dropped without [`LargeWriter::finish`] it leaves nothing
/// behind.
pub struct LargeWriter<'s> {
    store: &'s RepoStore,
    oid: Oid,
    size: u64,
    chunks: u32,
    next: u32,
    batch: Vec<(u32, Bytes)>,
    bytes: usize,
    mode: WriterStage,
}

impl LargeWriter<'_> {
    /// Takes the next chunk; they come in order. Commits now and then.
    pub fn put(&mut self, index: u32, frame: Bytes) -> Result<()> {
        let oid = self.oid;
        if index != self.next || index >= self.chunks {
            return Err(Error::invalid(format!(
                "blob {oid}: chunk {index} came where {} of {} was due",
                self.next, self.chunks
            )));
        }
        let found = frame::raw_len(&frame)?;
        let expected = frame::chunk_len(self.size, u64::from(index));
        if found != expected {
            return Err(Error::corrupt(format!(
                "blob {oid}: chunk {index} has {found} bytes instead of {expected}"
            )));
        }
        self.next += 1;
        if self.mode == WriterStage::Held {
            return Ok(());
        }
        self.bytes += frame.len();
        self.batch.push((index, frame));
        // The first commits are small: a reader that waits for the beginning gets it soon.
        let due = (self.next as usize * CHUNK_BYTES / 2).min(LARGE_BATCH_BYTES);
        if self.bytes >= due {
            self.commit(false)
        } else {
            Ok(())
        }
    }

    /// Chunks that are in the store already, from the first on.
    pub fn stored(&self) -> u32 {
        self.next - self.batch.len() as u32
    }

    /// Makes the blob held. Call it only after the whole was verified against its oid.
    pub fn finish(mut self) -> Result<()> {
        if self.next != self.chunks {
            let Self {
                oid, next, chunks, ..
            } = self;
            return Err(Error::invalid(format!(
                "blob {oid}: only {next} of {chunks} chunks came"
            )));
        }
        if self.mode != WriterStage::Held {
            self.commit(true)?;
        }
        self.mode = WriterStage::Finished;
        Ok(())
    }

    /// Writes the chunks that were gathered; with the `last` ones the blob becomes held.
    fn commit(&mut self, last: bool) -> Result<()> {
        let store = self.store;
        let oid = self.oid;
        if !last {
            self.mode = WriterStage::MarkedObjects;
        }
        // With the last chunks the mark goes, in one transaction: the blob is held from then on.
        let mut held = store.held.lock();
        store.env.write("put contents", |wtxn| -> TxnResult<()> {
            for (index, frame) in &self.batch {
                store
                    .tables
                    .blobs
                    .put(wtxn, ChunkKey::new(&oid, *index).as_bytes(), frame)?;
            }
            if last {
                store.tables.pending.delete(wtxn, oid.as_bytes())?;
            } else {
                store
                    .tables
                    .pending
                    .put(wtxn, oid.as_bytes(), &self.size.to_be_bytes())?;
            }
            Ok(())
        })?;
        if let (true, Some(held)) = (last, held.as_mut()) {
            *held += 1;
        }
        self.batch.clear();
        self.bytes = 0;
        Ok(())
    }
}

impl Drop for LargeWriter<'_> {
    fn drop(&mut self) {
        if self.mode == WriterStage::MarkedObjects
            && let Err(e) = self.store.remove_chunks(&self.oid)
        {
            // It stays pending, so it is not served, and the next open removes it.
            tracing::warn!(oid = %self.oid, "cannot remove a half-written blob: {e}");
        }
        self.store.writing.lock().remove(&self.oid);
    }
}

/// Blobs that are being written, which `gc` leaves alone.
pub(super) fn pending_oids(store: &RepoStore) -> HashSet<Oid> {
    store.writing.lock().clone()
}
