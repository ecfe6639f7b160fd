//! Answers `GetBlobs` from the store; what is not held is handed back to be pulled from upstream.
//!
//! Callers: `service::content` and `service::pulled`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::Result;
use monofs_proto::{convert, v1};
use monofs_store::repo::{RepoReader, RepoStore};

use crate::answer::{AnswerPieces, MessageBytes};
use crate::chunk_span::ChunkSpan;
use crate::served::ServedCounters;

/// Chunks of a large blob that are read from the disk ahead of the one that is sent.
const READ_AHEAD_CHUNKS: u32 = 8;

/// What the store holds of some spans, message by message; the rest is kept in `missing`. Blocking;
/// holds an LMDB snapshot only while it fills one message.
pub(crate) struct HeldPieces {
    pub store: Arc<RepoStore>,
    spans: VecDeque<ChunkSpan>,
    message_bytes: MessageBytes,
    /// Spans of which something is not held; complete when done.
    pub missing: Vec<ChunkSpan>,
}

impl HeldPieces {
    /// Answers `spans` from `store`.
    pub fn new(store: Arc<RepoStore>, spans: Vec<ChunkSpan>) -> Self {
        Self {
            store,
            spans: spans.into(),
            message_bytes: MessageBytes::default(),
            missing: Vec::new(),
        }
    }
}

impl AnswerPieces for HeldPieces {
    type Message = v1::GetBlobsResponse;

    fn is_done(&self) -> bool {
        self.spans.is_empty()
    }

    fn next(&mut self, served: &ServedCounters) -> Result<Option<v1::GetBlobsResponse>> {
        let mut message = v1::GetBlobsResponse::default();
        let mut bytes = 0;
        let bytes_max = self.message_bytes.next();
        let reader = self.store.read()?;
        while bytes < bytes_max {
            let Some(span) = self.spans.pop_front() else {
                break;
            };
            // A span is answered chunk by chunk, so that a large one is cut at the message's end.
            let Some(frame) = first_held(&reader, &span)? else {
                self.missing.push(span);
                continue;
            };
            bytes += frame.len();
            message.chunks.push(first_chunk(&span, frame));
            let rest = ChunkSpan {
                first: span.first + 1,
                ..span
            };
            if rest.first < rest.end {
                self.spans.push_front(rest);
            }
        }
        served.add_chunks(message.chunks.len(), bytes);
        Ok((!message.chunks.is_empty()).then_some(message))
    }
}

/// The frame of the first chunk of a span, if its blob is held.
fn first_held<'r>(reader: &'r RepoReader<'_>, span: &ChunkSpan) -> Result<Option<&'r [u8]>> {
    if span.is_large() {
        // Chunks of a large blob count only once the whole was verified.
        if !reader.has_blob(&span.oid) {
            return Ok(None);
        }
        if span.first.is_multiple_of(READ_AHEAD_CHUNKS / 2) {
            let ahead = span.first..span.first.saturating_add(READ_AHEAD_CHUNKS);
            reader.will_need(&span.oid, ahead);
        }
    }
    reader.chunk(&span.oid, span.first)
}

fn first_chunk(span: &ChunkSpan, frame: &[u8]) -> v1::BlobChunk {
    v1::BlobChunk {
        oid: convert::oid_bytes(&span.oid),
        index: span.first,
        frame: Bytes::copy_from_slice(frame),
    }
}

/// The chunks of a span that are in the store although the rest of the blob still arrives.
/// Blocking.
pub(crate) struct ArrivingPieces {
    store: Arc<RepoStore>,
    /// What is left: it begins with the first chunk that is not in the store yet when done.
    pub span: ChunkSpan,
    done: bool,
}

impl ArrivingPieces {
    /// Answers `span` from `store`.
    pub fn new(store: Arc<RepoStore>, span: ChunkSpan) -> Self {
        Self {
            store,
            span,
            done: false,
        }
    }
}

impl AnswerPieces for ArrivingPieces {
    type Message = v1::GetBlobsResponse;

    fn is_done(&self) -> bool {
        self.done
    }

    fn next(&mut self, served: &ServedCounters) -> Result<Option<v1::GetBlobsResponse>> {
        let mut message = v1::GetBlobsResponse::default();
        let mut bytes = 0;
        let reader = self.store.read()?;
        let span = &mut self.span;
        while bytes < MessageBytes::MAX && !self.done {
            let Some(frame) = reader.arriving_chunk(&span.oid, span.first)? else {
                self.done = true;
                break;
            };
            bytes += frame.len();
            message.chunks.push(first_chunk(span, frame));
            span.first += 1;
            self.done = span.first == span.end;
        }
        served.add_chunks(message.chunks.len(), bytes);
        Ok((!message.chunks.is_empty()).then_some(message))
    }
}
