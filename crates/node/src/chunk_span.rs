//! Runs of chunks of one blob: the unit in which contents are requested, pulled and served.

use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{Error, Oid, Result};
use monofs_proto::{convert, v1};
use monofs_store::frame;
use monofs_store::repo::RepoStore;

use crate::turns::RequestSize;

/// Most blobs of a small request, and most bytes of each.
const SMALL_SPANS: usize = 4;
const SMALL_BYTES: u64 = 64 << 10;
/// Spans requested from a server at a time.
const BATCH_SPANS: usize = 4096;

/// A run of chunks of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkSpan {
    pub oid: Oid,
    /// Raw bytes of the whole blob.
    pub size: u64,
    pub first: u32,
    /// One past the last chunk.
    pub end: u32,
}

impl ChunkSpan {
    /// All chunks of a blob.
    pub fn whole(oid: Oid, size: u64) -> Self {
        Self {
            oid,
            size,
            first: 0,
            end: chunks_of(size),
        }
    }

    /// A span of a request, cut to its blob. Errors: `Invalid`.
    pub fn from_wire(wire: &v1::BlobSpan) -> Result<Self> {
        let chunks = chunks_of(wire.size);
        let count = match wire.chunk_count {
            0 => u32::MAX,
            count => count,
        };
        let span = Self {
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
    }

    /// The span as other servers are asked for it.
    pub fn to_wire(self) -> v1::BlobSpan {
        v1::BlobSpan {
            oid: convert::oid_bytes(&self.oid),
            first_chunk: self.first,
            chunk_count: self.end - self.first,
            size: self.size,
        }
    }

    /// Whether the blob is more than one chunk.
    pub fn is_large(&self) -> bool {
        chunks_of(self.size) > 1
    }
}

/// [`frame::chunk_count`] in the width of the wire's chunk indexes.
pub(crate) fn chunks_of(size: u64) -> u32 {
    u32::try_from(frame::chunk_count(size)).unwrap_or(u32::MAX)
}

/// How many chunks these spans are.
pub(crate) fn chunk_total(spans: &[ChunkSpan]) -> u64 {
    spans
        .iter()
        .map(|span| u64::from(span.end - span.first))
        .sum()
}

/// How much work the answer to these spans is.
pub(crate) fn request_size(spans: &[ChunkSpan]) -> RequestSize {
    let is_small = spans.iter().all(|span| span.size <= SMALL_BYTES);
    match spans.len() <= SMALL_SPANS && is_small {
        true => RequestSize::Small,
        false => RequestSize::Large,
    }
}

/// The spans of a request. Errors: `Invalid`.
pub(crate) fn requested_spans(request: &v1::GetBlobsRequest) -> Result<Vec<ChunkSpan>> {
    if request.spans.len() > CONTENT_REQUEST_ITEMS_MAX {
        return Err(Error::invalid(format!(
            "more than {CONTENT_REQUEST_ITEMS_MAX} blobs in one request; ask for fewer at a time"
        )));
    }
    request.spans.iter().map(ChunkSpan::from_wire).collect()
}

/// Those of `spans` whose blob the store lacks. Blocking.
pub(crate) fn still_missing(store: &RepoStore, spans: Vec<ChunkSpan>) -> Result<Vec<ChunkSpan>> {
    let reader = store.read()?;
    Ok(spans
        .into_iter()
        .filter(|span| !reader.has_blob(&span.oid))
        .collect())
}

/// Splits off the first spans that fit into one request of `bytes_max` raw bytes; a larger blob
/// goes alone. The first part is empty only if `spans` is.
pub(crate) fn split_batch(spans: &[ChunkSpan], bytes_max: u64) -> (&[ChunkSpan], &[ChunkSpan]) {
    let mut bytes = 0;
    let fitting = spans.iter().take(BATCH_SPANS).take_while(|span| {
        let is_first = bytes == 0;
        bytes += span.size.max(1);
        is_first || bytes <= bytes_max
    });
    spans.split_at(fitting.count())
}

#[cfg(test)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_model::{ErrorKind, ObjectFormat, ObjectKind};

    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    fn parsed(first_chunk: u32, chunk_count: u32, size: u64) -> Result<ChunkSpan> {
        ChunkSpan::from_wire(&v1::BlobSpan {
            oid: vec![1; 20].into(),
            first_chunk,
            chunk_count,
            size,
        })
    }

    fn sized(size: u64) -> ChunkSpan {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, &size.to_le_bytes());
        ChunkSpan::whole(oid, size)
    }

    #[test]
    fn spans_stay_inside_their_blob() {
        assert_eq!(parsed(0, 0, 0).expect("an empty blob").end, 1);
        assert_eq!(parsed(1, 0, 3 * CHUNK).expect("the rest").end, 3);
        assert_eq!(parsed(1, 100, 3 * CHUNK).expect("cut").end, 3);
        assert_eq!(parsed(1, u32::MAX, 3 * CHUNK).expect("cut").end, 3);
        assert!(parsed(3, 1, 3 * CHUNK).is_err());
        assert_eq!(chunks_of(CHUNK), 1);
        assert_eq!(chunks_of(CHUNK + 1), 2);
    }

    #[test]
    fn a_size_beyond_all_numbers_of_chunks_is_cut_to_the_last_number() {
        let span = parsed(0, 0, u64::MAX).expect("a size is no error by itself");
        assert_eq!(span.end, u32::MAX);
        assert_eq!(chunk_total(&[span, span]), 2 * u64::from(u32::MAX));
    }

    #[test]
    fn requests_with_bad_ids_or_too_many_spans_are_invalid() {
        let bad = v1::BlobSpan {
            oid: vec![1; 19].into(),
            size: 1,
            ..Default::default()
        };
        let good = sized(1).to_wire();
        for spans in [vec![bad], vec![good; CONTENT_REQUEST_ITEMS_MAX + 1]] {
            let request = v1::GetBlobsRequest {
                spans,
                ..Default::default()
            };
            let error = requested_spans(&request).expect_err("it is refused");
            assert_eq!(error.kind, ErrorKind::Invalid);
        }
    }

    #[test]
    fn batches_hold_what_fits_and_a_larger_blob_goes_alone() {
        let spans = [sized(10), sized(20), sized(500), sized(1), sized(2)];
        let (first, rest) = split_batch(&spans, 30);
        assert_eq!(first.len(), 2, "both fit exactly");
        let (large, rest) = split_batch(rest, 30);
        assert_eq!(large.len(), 1);
        let (last, rest) = split_batch(rest, 30);
        assert_eq!(last.len(), 2);
        assert!(rest.is_empty());
        assert!(split_batch(rest, 30).0.is_empty());
    }

    #[test]
    fn batches_are_bounded_in_number_even_if_the_blobs_are_empty() {
        let spans = vec![sized(0); BATCH_SPANS + 1];
        let (batch, rest) = split_batch(&spans, u64::MAX);
        assert_eq!(batch.len(), BATCH_SPANS);
        assert_eq!(rest.len(), 1);
        assert_eq!(
            split_batch(&spans, 3).0.len(),
            3,
            "an empty blob counts as a byte"
        );
    }

    #[test]
    fn a_small_request_names_few_blobs_of_few_bytes() {
        let few = [sized(SMALL_BYTES); SMALL_SPANS];
        assert_eq!(request_size(&few), RequestSize::Small);
        let many = [sized(1); SMALL_SPANS + 1];
        assert_eq!(request_size(&many), RequestSize::Large);
        let long = [sized(SMALL_BYTES + 1)];
        assert_eq!(request_size(&long), RequestSize::Large);
    }
}
