//! Answers to content requests: closures of directory records, and blobs as frames.
//!
//! Blocking code: it runs on blocking threads and hands messages to a bounded channel, so a slow
//! reader slows the reading of objects down instead of filling memory. Blobs come in the order of
//! the pack, the chunks of one blob in order.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monofs_model::limits::{CHUNK_BYTES, STREAM_BLOB_BYTES};
use monofs_model::oid::ObjectHasher;
use monofs_model::{Error, ObjectKind, Oid, Result, StorageId};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_store::frame;
use tokio::sync::mpsc;
use tonic::Status;

use crate::cache::CachedRepo;
use crate::git::child::{self, ChildReader, GitChild};
use crate::git::{cli, ids, layout};
use crate::objects::ObjectReader;
use crate::records::{ClosureItem, EncodedRecords, TreeClosure};
use crate::source::{FetchLimits, FetchTask};

/// Raw bytes after which an answer is sent.
const MESSAGE_BYTES: usize = 1 << 20;
/// Items after which an answer is sent.
const MESSAGE_ITEMS: usize = 1024;
/// Answers that may wait for the reader.
pub const MESSAGES_WAITING: usize = 4;
/// Threads that read blobs for one request.
const READERS: usize = 2;
/// How long a reader may take no message before it is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Where answers go.
pub type AnswerSink<T> = mpsc::Sender<std::result::Result<T, Status>>;

/// Sends one message; false when the reader is gone or stuck. Must be called on a blocking thread.
fn send<T>(answers: &AnswerSink<T>, message: T) -> bool {
    let sending = answers.send_timeout(Ok(message), SEND_TIMEOUT);
    tokio::runtime::Handle::current().block_on(sending).is_ok()
}

/// Streams a closure of directory records.
pub fn send_trees(
    repo: &CachedRepo,
    records: &EncodedRecords,
    closure: &TreeClosure,
    answers: &AnswerSink<v1::GetTreesResponse>,
) -> Result<()> {
    // Records are gathered into messages; the walk goes on while the reader takes them.
    let mut message = v1::GetTreesResponse::default();
    let mut bytes = 0;
    let mut open = true;
    closure.walk(&repo.id, records, &repo.objects(), &mut |found| {
        match found {
            ClosureItem::Record(oid, record) => {
                bytes += record.bytes().len();
                message.trees.push(v1::TreeRecord {
                    oid: oid_bytes(&oid),
                    record: record.bytes().clone(),
                });
            }
            ClosureItem::Missing(oid) => message.missing.push(oid_bytes(&oid)),
        }
        if bytes >= MESSAGE_BYTES || message.trees.len() + message.missing.len() >= MESSAGE_ITEMS {
            bytes = 0;
            open = send(answers, std::mem::take(&mut message));
        }
        open
    })?;
    if open && (!message.trees.is_empty() || !message.missing.is_empty()) {
        send(answers, message);
    }
    Ok(())
}

/// A range of a blob's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRange {
    pub oid: Oid,
    pub first_chunk: u32,
    /// 0 = to the end.
    pub chunk_count: u32,
}

impl TryFrom<&v1::BlobSpan> for BlobRange {
    type Error = Error;

    fn try_from(wire: &v1::BlobSpan) -> Result<Self> {
        let oid = Oid::from_bytes(&wire.oid)?;
        Ok(Self {
            oid,
            first_chunk: wire.first_chunk,
            chunk_count: wire.chunk_count,
        })
    }
}

impl BlobRange {
    /// The chunks of a blob of `size` bytes that are asked for.
    fn chunks(&self, size: u64) -> std::ops::Range<u64> {
        let all = frame::chunk_count(size);
        let first = u64::from(self.first_chunk).min(all);
        let end = match self.chunk_count {
            0 => all,
            count => (first + u64::from(count)).min(all),
        };
        first..end
    }
}

/// Streams blobs from [`READERS`] threads. Returns when all is sent or the reader is gone.
pub fn send_blobs(
    repo: &Arc<CachedRepo>,
    mut spans: Vec<BlobRange>,
    answers: &AnswerSink<v1::GetBlobsResponse>,
    limits: FetchLimits,
) -> Result<()> {
    // All threads take spans from one list.
    sort_by_place(repo, &mut spans)?;
    let next = AtomicUsize::new(0);
    let runtime = tokio::runtime::Handle::current();
    let work = || {
        let _inside = runtime.enter();
        BlobReader {
            repo,
            objects: repo.objects(),
            answers,
            limits,
            batch: ChunkBatch::default(),
        }
        .run(&spans, &next)
    };
    if spans.len() < READERS {
        return work();
    }
    // The calling thread is one of the readers; the first error counts.
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..READERS).map(|_| scope.spawn(work)).collect();
        let mut result = work();
        for other in others {
            let ended = other
                .join()
                .unwrap_or_else(|_| Err(Error::internal("a thread that reads blobs panicked")));
            result = result.and(ended);
        }
        result
    })
}

/// Brings the spans into the order of the packs: deltas find their bases in memory, and disks read
/// forward.
fn sort_by_place(repo: &CachedRepo, spans: &mut [BlobRange]) -> Result<()> {
    if spans.len() < 2 {
        return Ok(());
    }
    let paths = layout::pack_indices(repo.dir())?;
    let indices: Vec<_> = paths
        .iter()
        .map(|path| layout::open_index(path, repo.format))
        .collect::<Result<_>>()?;
    // What is in no pack comes last.
    spans.sort_by_cached_key(|span| {
        let id = ids::to_gix(&span.oid);
        let place = |(number, index): (usize, &gix::odb::pack::index::File)| {
            if span.oid.format() != repo.format {
                return None;
            }
            index
                .lookup(id)
                .map(|at| (number, index.pack_offset_at_index(at)))
        };
        (
            indices
                .iter()
                .enumerate()
                .find_map(place)
                .unwrap_or((usize::MAX, 0)),
            span.first_chunk,
        )
    });
    Ok(())
}

/// Chunks on their way into one message.
#[derive(Default)]
struct ChunkBatch {
    message: v1::GetBlobsResponse,
    bytes: usize,
}

/// One thread that reads blobs.
struct BlobReader<'a> {
    repo: &'a CachedRepo,
    objects: ObjectReader,
    answers: &'a AnswerSink<v1::GetBlobsResponse>,
    limits: FetchLimits,
    batch: ChunkBatch,
}

impl BlobReader<'_> {
    fn run(mut self, spans: &[BlobRange], next: &AtomicUsize) -> Result<()> {
        let mut buffer = Vec::new();
        // A few neighbours at a time, so that each thread stays in one part of the pack.
        const RUN: usize = 16;
        loop {
            let start = next.fetch_add(RUN, Ordering::Relaxed);
            if start >= spans.len() {
                self.flush();
                return Ok(());
            }
            for span in &spans[start..spans.len().min(start + RUN)] {
                let result = self.one(span, &mut buffer);
                match result {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => {
                        // The other thread stops soon, too.
                        next.store(spans.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Sends one span; false when the reader is gone.
    fn one(&mut self, span: &BlobRange, buffer: &mut Vec<u8>) -> Result<bool> {
        // The size of a blob decides: a long one is never held whole, others are read at once. A
        // blob that the repository lacks is named as missing in the answer; it fails no other span.
        match self.objects.header(&span.oid)? {
            Some((ObjectKind::Blob, size)) if size > STREAM_BLOB_BYTES => self.stream(span, size),
            Some((ObjectKind::Blob, size)) => {
                self.objects.read_as(&span.oid, ObjectKind::Blob, buffer)?;
                for index in span.chunks(size) {
                    let start = index as usize * CHUNK_BYTES;
                    let raw = &buffer[start..start + frame::chunk_len(size, index)];
                    if !self.add(&span.oid, index, raw) {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Some((other, _)) => Err(Error::invalid(format!(
                "{} is a {}, not a blob",
                span.oid,
                other.as_str()
            ))),
            None => {
                self.batch.message.missing.push(oid_bytes(&span.oid));
                Ok(true)
            }
        }
    }

    /// Sends a long blob as `git` reads it: one chunk is held at a time.
    fn stream(&mut self, span: &BlobRange, size: u64) -> Result<bool> {
        let wanted = span.chunks(size);
        let mut blob = LongBlob::open(self.repo, &span.oid, self.limits)?;
        let mut hasher = ObjectHasher::new(self.repo.format, ObjectKind::Blob, size);
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        for index in 0..wanted.end {
            blob.next_chunk(&mut chunk, frame::chunk_len(size, index))?;
            hasher.update(&chunk);
            let last = index + 1 == frame::chunk_count(size);
            // The last chunk is held back until the whole is known to be right.
            if last
                && std::mem::replace(
                    &mut hasher,
                    ObjectHasher::new(self.repo.format, ObjectKind::Blob, 0),
                )
                .finish()
                    != span.oid
            {
                return Err(Error::corrupt(format!(
                    "blob {}: the bytes do not match the object id",
                    span.oid
                )));
            }
            if wanted.contains(&index) && !self.add(&span.oid, index, &chunk) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, oid: &Oid, index: u64, raw: &[u8]) -> bool {
        let frame = frame::encode(raw);
        self.batch.bytes += frame.len();
        self.batch.message.chunks.push(v1::BlobChunk {
            oid: oid_bytes(oid),
            index: index as u32,
            frame,
        });
        if self.batch.bytes >= MESSAGE_BYTES || self.batch.message.chunks.len() >= MESSAGE_ITEMS {
            return self.flush();
        }
        true
    }

    fn flush(&mut self) -> bool {
        let ChunkBatch { message, .. } = std::mem::take(&mut self.batch);
        if message.chunks.is_empty() && message.missing.is_empty() {
            return true;
        }
        send(self.answers, message)
    }
}

/// A blob that `git cat-file` writes.
struct LongBlob {
    reader: ChildReader,
    child: Option<GitChild>,
    oid: Oid,
}

impl LongBlob {
    fn open(repo: &CachedRepo, oid: &Oid, limits: FetchLimits) -> Result<Self> {
        let mut command = child::git();
        command
            .args(["-c", cli::BIG_FILE_THRESHOLD])
            .arg("--git-dir")
            .arg(repo.dir());
        command.args(["cat-file", "blob", &oid.to_string()]);
        // The reader at the other end may be slow: only its own deadline counts.
        let limits = FetchLimits {
            idle_timeout: limits.idle_timeout.max(2 * SEND_TIMEOUT),
            ..limits
        };
        let mut child = GitChild::spawn(command, &FetchTask::new(limits), |_| {})?;
        let (reader, writer) = child.take_pipes();
        drop(writer);
        Ok(Self {
            reader,
            child: Some(child),
            oid: *oid,
        })
    }

    fn next_chunk(&mut self, chunk: &mut Vec<u8>, len: usize) -> Result<()> {
        chunk.resize(len, 0);
        if self.reader.read_exact(chunk).is_ok() {
            return Ok(());
        }
        let said = self.child.take().map(GitChild::abort).unwrap_or_default();
        let said = crate::git::failure::one_line(&said);
        Err(Error::corrupt(format!(
            "blob {}: git cat-file ended early: {said}",
            self.oid
        )))
    }
}

/// The id of a repository in a request.
pub fn storage_id(text: &str) -> Result<StorageId> {
    StorageId::new(text)
}
