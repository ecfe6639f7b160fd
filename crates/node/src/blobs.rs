//! Answers `GetBlobs` from the store; what is not held is handed back to be pulled from upstream.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{Error, Oid, Result};
use monofs_proto::{convert, v1};
use monofs_store::frame;
use monofs_store::repo::RepoStore;

use crate::service::{MessageBytes, Pieces};
use crate::state::Served;

/// Most blobs of a small request, and most bytes of each.
const SMALL_SPANS: usize = 4;
const SMALL_BYTES: u64 = 64 << 10;

/// Chunks of a large blob that are read from the disk ahead of the one that is sent.
const READ_AHEAD_CHUNKS: u32 = 8;

/// A run of chunks of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub oid: Oid,
    /// Raw bytes of the whole blob.
    pub size: u64,
    pub first: u32,
    /// One past the last chunk.
    pub end: u32,
}

impl Span {
    /// All of a blob.
    pub fn whole(oid: Oid, size: u64) -> Self {
        Self {
            oid,
            size,
            first: 0,
            end: chunks_of(size),
        }
    }

    /// Whether the blob is more than one chunk.
    pub fn is_large(&self) -> bool {
        chunks_of(self.size) > 1
    }

    pub fn to_wire(self) -> v1::BlobSpan {
        v1::BlobSpan {
            oid: convert::oid_bytes(&self.oid),
            first_chunk: self.first,
            chunk_count: self.end - self.first,
            size: self.size,
        }
    }
}

/// [`frame::chunk_count`] in the width of the wire's chunk indexes.
pub(crate) fn chunks_of(size: u64) -> u32 {
    u32::try_from(frame::chunk_count(size)).unwrap_or(u32::MAX)
}

/// How many chunks these are.
pub(crate) fn chunks(spans: &[Span]) -> u64 {
    spans
        .iter()
        .map(|span| u64::from(span.end - span.first))
        .sum()
}

/// Whether the answer to these is little work.
pub(crate) fn is_small(spans: &[Span]) -> bool {
    spans.len() <= SMALL_SPANS && spans.iter().all(|span| span.size <= SMALL_BYTES)
}

/// Checks the spans of a request.
pub(crate) fn spans(request: &v1::GetBlobsRequest) -> Result<Vec<Span>> {
    if request.spans.len() > CONTENT_REQUEST_ITEMS_MAX {
        return Err(Error::invalid(format!(
            "more than {CONTENT_REQUEST_ITEMS_MAX} blobs in one request"
        )));
    }
    let span = |wire: &v1::BlobSpan| {
        let chunks = chunks_of(wire.size);
        let count = if wire.chunk_count == 0 {
            u32::MAX
        } else {
            wire.chunk_count
        };
        let span = Span {
            oid: Oid::from_bytes(&wire.oid)?,
            size: wire.size,
            first: wire.first_chunk,
            end: wire.first_chunk.saturating_add(count).min(chunks),
        };
        if span.first >= span.end {
            return Err(Error::invalid(format!(
                "blob {} has {chunks} chunks, not {}",
                span.oid, wire.first_chunk
            )));
        }
        Ok(span)
    };
    request.spans.iter().map(span).collect()
}

/// What the store holds of some spans, message by message; the rest is kept in `missing`. Blocking;
/// holds an LMDB snapshot only while it fills one message.
pub(crate) struct Held {
    pub store: Arc<RepoStore>,
    spans: VecDeque<Span>,
    message_bytes: MessageBytes,
    /// Spans of which something is not held; complete when done.
    pub missing: Vec<Span>,
}

impl Held {
    pub fn new(store: Arc<RepoStore>, spans: Vec<Span>) -> Self {
        Self {
            store,
            spans: spans.into(),
            message_bytes: MessageBytes::default(),
            missing: Vec::new(),
        }
    }
}

impl Pieces for Held {
    type Message = v1::GetBlobsResponse;

    fn is_done(&self) -> bool {
        self.spans.is_empty()
    }

    fn next(&mut self, served: &Served) -> Result<Option<v1::GetBlobsResponse>> {
        let mut message = v1::GetBlobsResponse::default();
        let (mut bytes, bytes_max) = (0, self.message_bytes.next());
        let reader = self.store.read()?;
        while bytes < bytes_max {
            let Some(span) = self.spans.pop_front() else {
                break;
            };
            // Chunks of a large blob count only once the whole was verified.
            let held = !span.is_large() || reader.has_blob(&span.oid);
            if held && span.is_large() && span.first.is_multiple_of(READ_AHEAD_CHUNKS / 2) {
                reader.will_need(
                    &span.oid,
                    span.first..span.first.saturating_add(READ_AHEAD_CHUNKS),
                );
            }
            match if held {
                reader.chunk(&span.oid, span.first)?
            } else {
                None
            } {
                Some(frame) => {
                    bytes += frame.len();
                    let (oid, frame) =
                        (convert::oid_bytes(&span.oid), Bytes::copy_from_slice(frame));
                    message.chunks.push(v1::BlobChunk {
                        oid,
                        index: span.first,
                        frame,
                    });
                    let rest = Span {
                        first: span.first + 1,
                        ..span
                    };
                    if rest.first < rest.end {
                        self.spans.push_front(rest);
                    }
                }
                None => self.missing.push(span),
            }
        }
        served.chunks(message.chunks.len(), bytes);
        Ok(Some(message).filter(|message| !message.chunks.is_empty()))
    }
}

/// The chunks of a span that are in the store although the rest of the blob still arrives.
/// Blocking.
pub(crate) struct Arriving {
    store: Arc<RepoStore>,
    /// What is left: it begins with the first chunk that is not in the store yet when done.
    pub span: Span,
    done: bool,
}

impl Arriving {
    pub fn new(store: Arc<RepoStore>, span: Span) -> Self {
        Self {
            store,
            span,
            done: false,
        }
    }
}

impl Pieces for Arriving {
    type Message = v1::GetBlobsResponse;

    fn is_done(&self) -> bool {
        self.done
    }

    fn next(&mut self, served: &Served) -> Result<Option<v1::GetBlobsResponse>> {
        let mut message = v1::GetBlobsResponse::default();
        let mut bytes = 0;
        let reader = self.store.read()?;
        let span = &mut self.span;
        while bytes < MessageBytes::MAX && !self.done {
            if let Some(frame) = reader.arriving_chunk(&span.oid, span.first)? {
                bytes += frame.len();
                let (oid, frame) = (convert::oid_bytes(&span.oid), Bytes::copy_from_slice(frame));
                message.chunks.push(v1::BlobChunk {
                    oid,
                    index: span.first,
                    frame,
                });
                span.first += 1;
                self.done = span.first == span.end;
            } else {
                self.done = true;
            }
        }
        served.chunks(message.chunks.len(), bytes);
        Ok(Some(message).filter(|message| !message.chunks.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;

    use super::*;

    #[test]
    fn spans_stay_inside_their_blob() {
        let wire = |first_chunk, chunk_count, size| v1::BlobSpan {
            oid: vec![1; 20].into(),
            first_chunk,
            chunk_count,
            size,
        };
        let one = |wire| {
            spans(&v1::GetBlobsRequest {
                spans: vec![wire],
                ..Default::default()
            })
        };
        let chunk = CHUNK_BYTES as u64;
        assert_eq!(one(wire(0, 0, 0)).expect("empty blob")[0].end, 1);
        assert_eq!(one(wire(1, 0, 3 * chunk)).expect("rest")[0].end, 3);
        assert_eq!(one(wire(1, 100, 3 * chunk)).expect("cut")[0].end, 3);
        assert_eq!(one(wire(1, u32::MAX, 3 * chunk)).expect("cut")[0].end, 3);
        assert!(one(wire(3, 1, 3 * chunk)).is_err());
        assert_eq!((chunks_of(chunk), chunks_of(chunk + 1)), (1, 2));
    }
}
