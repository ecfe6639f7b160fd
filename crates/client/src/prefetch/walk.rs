//! Walks: when the files of several directories of one repository are read within a short time, the
//! contents of the others are streamed ahead of the readers.
//!
//! A walk knows all directories of the repository and is told of each one that is listed or missed;
//! [`super::order`] tells from that where readers are and what comes next. It keeps a window of
//! bytes ahead of each reader, which grows while the reader uses it; what is ahead of all of them
//! fits into the memory for decoded contents, beside what [`super::flow`] adds to fill a long way.
//! It ends when nothing is heard for a while. What a reader itself asks for is a request of its own
//! and waits for nothing here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use monofs_content::cache::READY_BYTES_MAX;
use monofs_content::content::Content;
use monofs_content::evidence::NameKind;
use monofs_content::repo::Repo;
use monofs_content::spawner::Spawner;
use monofs_content::want::Span;
use monofs_model::{Error, Oid, Result, TreeRecord};
use monofs_store::frame::chunk_count;
use tokio::sync::{mpsc, oneshot};

use super::directories;
use super::flow::{RequestBounds, RequestFlow};
use super::order::{DirectoryOrders, READERS_MAX, WalkReaders, WindowBounds};
use super::select::{absent, is_file};
use crate::fs::Fs;

/// A walk ends when nothing was heard of its readers for this long.
const WALK_IDLE: Duration = Duration::from_secs(3);
/// How often a walk that waits for its readers looks what they used.
const WALK_POLL: Duration = Duration::from_millis(10);
/// Bytes ahead of one reader over a short way: those of all readers, and of one more that takes the
/// place of another, fit into the memory for decoded contents.
const WINDOW: WindowBounds = WindowBounds {
    first_bytes: 4 << 20,
    bytes_max: (READY_BYTES_MAX / (READERS_MAX + 1)) as u64,
};
/// Requests of one walk at a time.
const REQUESTS: RequestBounds = RequestBounds { least: 3, most: 32 };
/// Size of one request of a walk: it ends with the file that reaches one of the two.
const REQUEST_BYTES: u64 = 2 << 20;
const REQUEST_FILES: usize = 1024;
/// Chunks of a large file that are fetched ahead of its reader over a short way; those that follow
/// are fetched once the file is being read.
const LARGE_CHUNKS_MAX: usize = 4;
/// How often a walk that is told of a directory unknown to it lists the tree again.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// What a reader was seen to do with the directory of this tree.
#[derive(Debug, Clone, Copy)]
pub(super) enum DirectoryVisit {
    /// It is being listed.
    Listed(Oid),
    /// One of its files was not at hand.
    Missed(Oid),
}

/// The parts of the mount that a walk works with.
#[derive(Clone)]
pub(super) struct WalkParts {
    pub fs: Arc<Fs>,
    pub content: Content,
    pub spawner: Spawner,
}

/// Starts a walk that follows the readers seen in `visits`, as a task.
pub(super) fn start(parts: &WalkParts, repo: Arc<Repo>, visits: mpsc::Receiver<DirectoryVisit>) {
    let walk_parts = parts.clone();
    parts.spawner.spawn(async move {
        let id = repo.storage_id().clone();
        // Made here, since listing a large tree takes a while and the caller is a reader's miss.
        let walk = ReaderWalk::new(walk_parts, repo, visits);
        match walk.run().await {
            Ok(()) => tracing::debug!(repo = %id, "a walk ended"),
            Err(error) => tracing::debug!(repo = %id, %error, "a walk was given up"),
        }
    });
}

struct ReaderWalk {
    parts: WalkParts,
    repo: Arc<Repo>,
    visits: mpsc::Receiver<DirectoryVisit>,
    orders: DirectoryOrders,
    listed_at: Instant,
    /// A directory was visited that is not in `orders`.
    is_list_old: bool,
    readers: WalkReaders,
    flow: RequestFlow,
    /// What is to be fetched of a directory that did not fit into one request.
    begun: VecDeque<Span>,
    /// Bytes that readers had used of all that was fetched ahead, at the last look.
    used_bytes: u64,
    /// A reader was heard since that look.
    is_heard: bool,
    last_sign: Instant,
}

impl ReaderWalk {
    fn new(parts: WalkParts, repo: Arc<Repo>, visits: mpsc::Receiver<DirectoryVisit>) -> Self {
        let orders = directories::list(&parts.fs.cache, repo.root().tree);
        let now = Instant::now();
        Self {
            readers: WalkReaders::new(&orders, WINDOW),
            flow: RequestFlow::new(REQUESTS, now),
            used_bytes: parts.fs.marks.used_bytes(),
            parts,
            repo,
            visits,
            orders,
            listed_at: now,
            is_list_old: false,
            begun: VecDeque::new(),
            is_heard: false,
            last_sign: now,
        }
    }

    async fn run(mut self) -> Result<()> {
        let mut running = FuturesUnordered::new();
        loop {
            while let Ok(visit) = self.visits.try_recv() {
                self.note_visit(visit);
            }
            self.list_again_if_due();

            // As many requests as may be under way.
            if running.len() < self.flow.requests_max() {
                let batch = self.next_batch();
                if !batch.is_empty() {
                    self.parts.fs.cache.room().await;
                    running.push(self.request(batch));
                    continue;
                }
            }

            // Nothing to do before a reader moves on or a request is answered.
            if running.is_empty() && self.last_sign.elapsed() > WALK_IDLE {
                return Ok(());
            }
            tokio::select! {
                Some(begun) = running.next() => {
                    if let Some(begun) = begun? {
                        self.note_answer(begun);
                    }
                }
                Some(visit) = self.visits.recv() => self.note_visit(visit),
                () = tokio::time::sleep(WALK_POLL) => self.note_use(),
            }
        }
    }

    fn note_visit(&mut self, visit: DirectoryVisit) {
        self.is_heard = true;
        self.last_sign = Instant::now();
        let (DirectoryVisit::Listed(tree) | DirectoryVisit::Missed(tree)) = visit;
        match (self.orders.find(&tree), visit) {
            (Some(node), DirectoryVisit::Missed(_)) => self.readers.missed(node, &self.orders),
            (Some(node), DirectoryVisit::Listed(_)) => self.readers.visit(node, &self.orders),
            (None, _) => self.is_list_old = true,
        }
    }

    /// More of the tree has become known since it was listed.
    fn list_again_if_due(&mut self) {
        if self.is_list_old && self.listed_at.elapsed() > LIST_EVERY {
            self.orders = directories::list(&self.parts.fs.cache, self.repo.root().tree);
            self.readers = WalkReaders::new(&self.orders, WINDOW);
            self.listed_at = Instant::now();
            self.is_list_old = false;
        }
    }

    /// A request that began at `begun` was answered.
    fn note_answer(&mut self, begun: Instant) {
        self.flow.answered(begun, Instant::now());
        let wider = self.flow.widened() as u64 * REQUEST_BYTES;
        self.readers.widen(wider);
    }

    /// Readers whose listings the kernel has are not heard: what they used tells that they move on.
    fn note_use(&mut self) {
        let used = self.parts.fs.marks.used_bytes();
        if !self.is_heard && used != self.used_bytes {
            self.readers.consume(used - self.used_bytes);
            self.last_sign = Instant::now();
        }
        self.used_bytes = used;
        self.is_heard = false;
    }

    /// Fetches a batch, as a task of its own: contents are verified there, and batches side by
    /// side. Gives when it began, unless others were fetching all of it.
    fn request(&self, batch: Vec<Span>) -> impl Future<Output = Result<Option<Instant>>> + use<> {
        let begun = Instant::now();
        let (done, result) = oneshot::channel();
        let content = self.parts.content.clone();
        let repo = self.repo.clone();
        self.parts.spawner.spawn(async move {
            // A walk that was given up does not ask how it went.
            let _ = done.send(content.ahead(&repo, &batch).await);
        });
        async move {
            let asked = result
                .await
                .map_err(|_| Error::unavailable("the mount is ending"))??;
            Ok(asked.then_some(begun))
        }
    }

    /// The next files that are not at hand. A directory is begun when a reader's window has room
    /// for it, and then fetched to its end: in which order its files are read is not known.
    fn next_batch(&mut self) -> Vec<Span> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < REQUEST_BYTES && batch.len() < REQUEST_FILES {
            if let Some(span) = self.begun.pop_front() {
                bytes += span.bytes();
                batch.push(span);
                continue;
            }
            let Some((reader, node)) = self.readers.next(&self.orders) else {
                break;
            };
            let files = self.files(self.orders.oid(node));
            self.readers
                .fetched(reader, files.spans.iter().map(Span::bytes).sum());
            if files.is_part {
                self.readers.left_out(node);
            }
            self.begun = files.spans.into();
        }
        batch
    }

    /// The files of a directory that are to be fetched.
    fn files(&self, tree: &Oid) -> DirectoryFiles {
        let fs = &self.parts.fs;
        let used_bytes = fs.marks.used_bytes();
        let chunks_max = (LARGE_CHUNKS_MAX + self.flow.widened()) as u64;
        let mut spans = Vec::new();
        let mut is_part = false;
        let record = fs.cache.record(tree);
        // Kinds that the readers pass over are left out; of large files, only as much is fetched as
        // their readers read.
        for entry in record.iter().flat_map(TreeRecord::iter).filter(is_file) {
            let kind = NameKind::of(entry.name);
            if !fs.kinds.worth_fetching(kind, used_bytes) {
                is_part = true;
                continue;
            }
            fs.kinds.fetched(kind);
            let chunks = chunk_count(entry.size).min(chunks_max);
            let count = if chunks > 1 && fs.kinds.fetch_whole(kind) {
                chunks as u32
            } else {
                1
            };
            spans.push(Span {
                blob: entry.oid,
                size: entry.size,
                first: 0,
                count,
            });
        }
        DirectoryFiles {
            spans: absent(&fs.cache, spans),
            is_part,
        }
    }
}

/// What a walk fetches of a directory.
struct DirectoryFiles {
    /// Files that are not at hand; of large ones, what is likely to be read.
    spans: Vec<Span>,
    /// Kinds of files that the readers pass over were left out.
    is_part: bool,
}
