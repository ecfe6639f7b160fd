//! Verifies and stores pulled contents as they arrive, in one thread that may block.
//!
//! Invariants: a small blob enters the store after its bytes matched its id; of a large one the
//! chunks enter as they arrive and count as held after the whole matched.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::oid::ObjectHasher;
use monofs_model::{Error, ObjectKind, Oid, Result, StorageId};
use monofs_proto::v1;
use monofs_store::frame;
use monofs_store::repo::{LargeWriter, RepoStore};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::answer::AnswerSink;
use crate::chunk_span::{ChunkSpan, chunks_of};
use crate::flights::PullFlights;

/// Frames are written to the store in batches of about this many bytes.
const WRITE_BATCH_BYTES: usize = 8 << 20;
/// And of at most this many frames: each may touch a page of its own, which LMDB keeps in memory
/// until the commit.
const WRITE_BATCH_ITEMS: usize = 4096;
/// Large contents that may arrive at the same time, chunk by chunk.
const LARGE_ARRIVING_MAX: usize = 16;

/// Where a reader gets the small contents that are pulled for it, as they arrive.
pub(crate) struct ReaderTap {
    sink: AnswerSink<v1::GetBlobsResponse>,
    /// What the reader was too slow for, or was held already: it comes from the store later.
    skipped: Mutex<Vec<ChunkSpan>>,
}

impl ReaderTap {
    /// Sends to `sink`.
    pub fn new(sink: AnswerSink<v1::GetBlobsResponse>) -> Self {
        Self {
            sink,
            skipped: Mutex::default(),
        }
    }

    /// Leaves these to the store.
    pub fn skip(&self, spans: impl IntoIterator<Item = ChunkSpan>) {
        self.skipped.lock().extend(spans);
    }

    /// What the reader did not get although it is held.
    pub fn take_skipped(&self) -> Vec<ChunkSpan> {
        std::mem::take(&mut self.skipped.lock())
    }

    /// Sends verified contents unless the reader is slow: other readers wait for the same pull.
    fn offer(&self, tapped: TappedChunks) {
        let TappedChunks { chunks, spans } = tapped;
        let message = v1::GetBlobsResponse {
            chunks,
            ..Default::default()
        };
        if self.sink.try_send(Ok(message)).is_err() {
            self.skip(spans);
        }
    }
}

/// Contents of one message that a reader waits for.
#[derive(Default)]
struct TappedChunks {
    chunks: Vec<v1::BlobChunk>,
    spans: Vec<ChunkSpan>,
}

/// See the module.
pub(super) struct PulledWriter<'a> {
    store: &'a RepoStore,
    /// Is told how many chunks of a large blob are in the store.
    flights: &'a PullFlights,
    id: &'a StorageId,
    /// What was asked for.
    spans: HashMap<Oid, ChunkSpan>,
    tap: Option<Arc<ReaderTap>>,
    arriving: HashMap<Oid, ArrivingBlob<'a>>,
    batch: Vec<(Oid, Bytes)>,
    batch_bytes: usize,
}

/// A large blob that is arriving.
struct ArrivingBlob<'a> {
    next: u32,
    hasher: ObjectHasher,
    writer: LargeWriter<'a>,
}

impl<'a> PulledWriter<'a> {
    /// For `spans` of the repository `id`; small contents that are verified are also offered to
    /// `tap`.
    pub fn new(
        store: &'a RepoStore,
        flights: &'a PullFlights,
        id: &'a StorageId,
        spans: &[ChunkSpan],
        tap: Option<Arc<ReaderTap>>,
    ) -> Self {
        Self {
            store,
            flights,
            id,
            spans: spans.iter().map(|span| (span.oid, *span)).collect(),
            tap,
            arriving: HashMap::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    /// Stores all of `frames`. Errors: `Corrupt` for what was not asked for, does not match its id
    /// or comes out of order; those of the store.
    pub fn run(mut self, mut frames: mpsc::Receiver<Vec<v1::BlobChunk>>) -> Result<()> {
        let mut raw = Vec::new();
        while let Some(chunks) = frames.blocking_recv() {
            let mut tapped = TappedChunks::default();
            for chunk in chunks {
                let span = self.take(&chunk, &mut raw)?;
                if !span.is_large() {
                    tapped.chunks.push(chunk);
                    tapped.spans.push(span);
                }
            }
            if let Some(tap) = &self.tap
                && !tapped.chunks.is_empty()
            {
                tap.offer(tapped);
            }
            if self.batch_bytes >= WRITE_BATCH_BYTES || self.batch.len() >= WRITE_BATCH_ITEMS {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Verifies one chunk and puts it where it belongs; gives the span that it is of.
    fn take(&mut self, chunk: &v1::BlobChunk, raw: &mut Vec<u8>) -> Result<ChunkSpan> {
        let oid = Oid::from_bytes(&chunk.oid)?;
        let span = *self
            .spans
            .get(&oid)
            .ok_or_else(|| Error::corrupt(format!("blob {oid} was not asked for")))?;
        raw.clear();
        frame::decode_into(&chunk.frame, raw)?;
        if span.is_large() {
            self.take_large(span, chunk, raw)?;
        } else {
            oid.verify(ObjectKind::Blob, raw)?;
            self.batch_bytes += chunk.frame.len();
            self.batch.push((oid, chunk.frame.clone()));
        }
        Ok(span)
    }

    fn take_large(&mut self, span: ChunkSpan, chunk: &v1::BlobChunk, raw: &[u8]) -> Result<()> {
        // The first chunk begins the blob.
        if !self.arriving.contains_key(&span.oid) {
            self.begin_large(span)?;
        }
        let large = self
            .arriving
            .get_mut(&span.oid)
            .expect("was put there when it was not");

        // Each chunk is stored at once, for readers that wait for it.
        if chunk.index != large.next {
            return Err(Error::corrupt(format!(
                "blob {}: chunk {} where {} was due",
                span.oid, chunk.index, large.next
            )));
        }
        large.hasher.update(raw);
        large.writer.put(chunk.index, chunk.frame.clone())?;
        self.flights
            .arrived(self.id, &span.oid, large.writer.stored());
        large.next += 1;
        if large.next < chunks_of(span.size) {
            return Ok(());
        }

        // The last one decides whether the blob counts as held.
        let large = self.arriving.remove(&span.oid).expect("was there above");
        if large.hasher.finish() != span.oid {
            return Err(Error::corrupt(format!(
                "blob {}: the bytes do not match the object id",
                span.oid
            )));
        }
        large.writer.finish()
    }

    fn begin_large(&mut self, span: ChunkSpan) -> Result<()> {
        if self.arriving.len() >= LARGE_ARRIVING_MAX {
            return Err(Error::corrupt(format!(
                "more than {LARGE_ARRIVING_MAX} large contents arrive interleaved"
            )));
        }
        let large = ArrivingBlob {
            next: 0,
            hasher: ObjectHasher::new(span.oid.format(), ObjectKind::Blob, span.size),
            writer: self.store.begin_large(&span.oid, span.size)?,
        };
        self.flights.arrived(self.id, &span.oid, 0);
        self.arriving.insert(span.oid, large);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.store.put_blobs(&self.batch)?;
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
