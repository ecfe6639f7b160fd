//! The bytes of a file: chunk by chunk, each from the holder that answers first, verified before
//! they are given on.
//!
//! A file of one chunk is checked against its object id. Chunks of a larger one carry checksums,
//! and its node checked it whole; read from its start to its end, it is checked whole here too, and
//! ends with an error when it is not what it should be.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use monofs_model::limits::CHUNK_BYTES;
use monofs_model::oid::ObjectHasher;
use monofs_model::{Error, ObjectKind, Result};
use monofs_proto::{convert, v1};
use monofs_rpc::content::get_blobs;
use monofs_rpc::{Channel, Context};
use monofs_store::frame;

use super::ask::{self, SILENCE};
use super::found::Inside;
use monofs_members::fleet::{self, Fleet};

/// Chunks of one request that are fetched or wait to be sent.
pub(super) const READ_AHEAD: usize = 2;

/// The bytes of `file` in `range`, which is cut to its size, in pieces of at most [`CHUNK_BYTES`].
/// An error ends the stream: no holder gives a chunk, or the whole is not what its object id says.
pub fn read(
    fleet: Arc<Fleet>,
    file: Inside,
    range: Range<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    // The range is cut to the file and widened to whole chunks, since only chunks can be verified.
    // A read of a whole file of several chunks can be checked against the object id.
    let end = range.end.min(file.size);
    let start = range.start.min(end);
    let chunk = CHUNK_BYTES as u64;
    let chunks = if start == end && file.size > 0 {
        0..0
    } else {
        start / chunk..frame::chunk_count(end)
    };
    let whole = (start == 0 && end == file.size && file.size > chunk)
        .then(|| ObjectHasher::new(file.oid.format(), ObjectKind::Blob, file.size));
    let file = Arc::new(file);
    let mut whole = whole;
    let last = chunks.end;
    let oid = file.oid;

    // Chunks are fetched ahead and passed on in their order.
    let pieces = stream::iter(chunks).map(move |index| {
        let fleet = fleet.clone();
        let file = file.clone();
        async move { get(&fleet, &file, index).await.map(|raw| (index, raw)) }
    });

    // Each chunk is cut back to the range. The last one of a whole file is passed on only when the
    // object id matches.
    let checked = pieces.buffered(READ_AHEAD).map(move |piece| {
        let (index, raw) = piece?;
        if let Some(hasher) = &mut whole {
            hasher.update(&raw);
        }
        if index + 1 == last
            && let Some(hasher) = whole.take()
            && hasher.finish() != oid
        {
            return Err(Error::corrupt(format!(
                "file {oid}: the bytes do not match the object id"
            )));
        }
        let at = index * chunk;
        let from = start.saturating_sub(at);
        let to = (end - at).min(raw.len() as u64);
        Ok(raw.slice(from.min(to) as usize..to as usize))
    });

    // The first error is the end of the stream: no bytes follow it.
    let until_failed = checked.scan(false, |failed, piece| {
        let over = std::mem::replace(failed, piece.is_err());
        futures::future::ready((!over).then_some(piece))
    });
    until_failed
        .filter(|piece| {
            futures::future::ready(piece.as_ref().map_or(true, |bytes| !bytes.is_empty()))
        })
        .boxed()
}

/// The first `limit` bytes of `file`, all at once. Errors: as for [`read`].
pub async fn read_small(fleet: &Arc<Fleet>, file: &Inside, limit: usize) -> Result<Bytes> {
    let mut pieces = read(fleet.clone(), file.clone(), 0..limit as u64);
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes.into())
}

async fn get(fleet: &Arc<Fleet>, file: &Inside, index: u64) -> Result<Bytes> {
    // A chunk is asked for by its number in the file, alone, so that it can be fetched from another
    // holder when one fails.
    let first_chunk = u32::try_from(index)
        .map_err(|_| Error::invalid("this file is too long to be read here"))?;
    let repository = &file.repository;
    let span = v1::BlobSpan {
        oid: convert::oid_bytes(&file.oid),
        first_chunk,
        chunk_count: 1,
        size: file.size,
    };
    let request = v1::GetBlobsRequest {
        storage_id: repository.storage_id().to_string(),
        spans: vec![span],
        origin: Some(fleet::origin(
            &repository.source,
            &repository.ref_name,
            &file.snapshot.commit,
        )),
        ..Default::default()
    };

    // A node that holds the commit but not the contents can get them from the origin.
    ask::holders(fleet, repository, |channel| {
        fetch(channel, request.clone(), file, index)
    })
    .await
}

/// One chunk of one holder, verified.
async fn fetch(
    channel: Channel,
    request: v1::GetBlobsRequest,
    file: &Inside,
    index: u64,
) -> Result<Bytes> {
    // An answer may bring other chunks, so the one that was asked for is looked for.
    let mut answers = get_blobs(channel, &Context::new(SILENCE), request).await?;
    while let Some(answer) = answers.next().await {
        let wanted = |chunk: &v1::BlobChunk| {
            chunk.oid == file.oid.as_bytes() && u64::from(chunk.index) == index
        };
        if let Some(chunk) = answer?.chunks.into_iter().find(wanted) {
            // A chunk is checked before it is passed on: by its length, and when it is the whole
            // file by the object id.
            let raw = frame::decode(&chunk.frame)?;
            if raw.len() != frame::chunk_len(file.size, index) {
                return Err(Error::corrupt(format!(
                    "file {}: a chunk has the wrong length",
                    file.oid
                )));
            }
            if file.size <= CHUNK_BYTES as u64 {
                file.oid.verify(ObjectKind::Blob, &raw)?;
            }
            return Ok(Bytes::copy_from_slice(&raw));
        }
    }
    Err(Error::not_held(format!(
        "does not hold the file {}",
        file.oid
    )))
}
