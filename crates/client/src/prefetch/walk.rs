//! Walks: when the files of several directories of one repository are read within a short time, the
//! contents of the others are streamed ahead of the readers.
//!
//! A walk knows all directories of the repository and hears of each one that is listed or missed;
//! [`super::order`] tells from that where readers are and what comes next. It keeps a window of
//! bytes ahead of each reader, which grows while the reader uses it; what is ahead of all of them
//! fits into the memory for decoded contents, beside what [`super::flow`] adds to fill a long way.
//! It ends when nothing is heard for a while. What a reader itself asks for is a request of its own
//! and waits for nothing here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use monofs_model::{EntryKind, Error, Oid, Result, StorageId, TreeRecord};
use monofs_store::frame::chunk_count;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{mpsc, oneshot};

use super::absent;
use super::flow::Flow;
use super::order::{STREAMS_MAX, Streams, Tree};
use crate::cache::READY_BYTES_MAX;
use crate::evidence::{Marks, NameKind};
use crate::fs::Fs;
use crate::fuse::Shared;
use crate::repo::Repo;
use crate::want::Span;

/// A walk is assumed when this many directories were missed within this time.
const WALK_DIRECTORIES: usize = 3;
const WALK_WITHIN: Duration = Duration::from_secs(2);
/// A walk ends when nothing was heard of its readers for this long.
const WALK_IDLE: Duration = Duration::from_secs(3);
/// How often a walk that waits for its readers looks what they used.
const WALK_POLL: Duration = Duration::from_millis(10);
/// Bytes ahead of a reader: at first, and at most over a short way.
const WINDOW_BYTES: (u64, u64) = (4 << 20, (READY_BYTES_MAX / (STREAMS_MAX + 1)) as u64);
/// One request of a walk.
const BATCH_BYTES: u64 = 2 << 20;
const BATCH_FILES: usize = 1024;
/// Chunks of a large file that are fetched ahead of its reader over a short way; those that follow
/// are fetched once the file is being read.
const LARGE_CHUNKS_MAX: usize = 4;
/// Requests of one walk at a time: over a short way, and at most.
const BATCHES: (usize, usize) = (3, 32);
/// Directories of one repository that a walk knows; of a larger one, those that come first.
const LIST_MAX: usize = 1 << 17;
/// How often a walk that hears of a directory unknown to it lists the tree again.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// Repositories whose misses are remembered.
const REPOS_MAX: usize = 256;
/// Directories heard of and not looked at yet; more are not waited for.
const HEARD_MAX: usize = 256;

/// A reader turned to a directory, whose tree this is.
struct Turn {
    tree: Oid,
    /// One of its files was not at hand.
    missed: bool,
}

/// The directories missed lately, and the walk that follows them.
#[derive(Default)]
struct Track {
    missed: VecDeque<(Oid, Instant)>,
    walk: Option<mpsc::Sender<Turn>>,
}

impl Track {
    fn walk(&self) -> Option<&mpsc::Sender<Turn>> {
        self.walk.as_ref().filter(|walk| !walk.is_closed())
    }
}

/// All walks of a mount.
#[derive(Default)]
pub(super) struct Walks {
    tracks: Mutex<HashMap<StorageId, Track>>,
}

impl Walks {
    fn tracks(&self) -> MutexGuard<'_, HashMap<StorageId, Track>> {
        self.tracks.lock()
    }

    /// A directory is being listed. Tells the walk that runs in its repository.
    pub fn listed(&self, repo: &StorageId, tree: Oid) {
        if let Some(walk) = self.tracks().get(repo).and_then(Track::walk) {
            // A walk that is behind is not helped by more.
            let _ = walk.try_send(Turn {
                tree,
                missed: false,
            });
        }
    }

    /// A small file of this directory was not at hand. Starts a walk, or tells the one that runs.
    /// Returns whether that happened in the same directory a moment ago.
    pub fn missed(&self, shared: &Arc<Shared>, repo: &Arc<Repo>, tree: Oid) -> bool {
        let (again, begins) = self.note_miss(repo, tree);
        if let Some(heard) = begins {
            let walk = Walk {
                shared: shared.clone(),
                repo: repo.clone(),
                heard,
                begun: VecDeque::new(),
            };
            shared.spawner.spawn(async move {
                let repo = walk.repo.storage_id().clone();
                match walk.run().await {
                    Ok(()) => tracing::debug!(%repo, "a walk ended"),
                    Err(error) => tracing::debug!(%repo, %error, "a walk was given up"),
                }
            });
        }
        again
    }

    /// Remembers a miss. Returns whether the same directory was missed a moment ago, and what a
    /// walk is to hear if one is to start.
    fn note_miss(&self, repo: &Arc<Repo>, tree: Oid) -> (bool, Option<mpsc::Receiver<Turn>>) {
        let mut tracks = self.tracks();
        if tracks.len() >= REPOS_MAX {
            tracks.retain(|_, track| track.walk().is_some());
        }
        let track = tracks.entry(repo.storage_id().clone()).or_default();
        let now = Instant::now();
        track
            .missed
            .retain(|(_, at)| now.duration_since(*at) < WALK_WITHIN);
        let before = track.missed.len();
        track.missed.retain(|(missed, _)| *missed != tree);
        let again = track.missed.len() < before;
        track.missed.push_back((tree, now));
        if let Some(walk) = track.walk() {
            let _ = walk.try_send(Turn { tree, missed: true });
            return (again, None);
        }
        if track.missed.len() >= WALK_DIRECTORIES {
            let (walk, heard) = mpsc::channel(HEARD_MAX);
            for (tree, _) in track.missed.drain(..) {
                let _ = walk.try_send(Turn { tree, missed: true });
            }
            track.walk = Some(walk);
            return (again, Some(heard));
        }
        (again, None)
    }
}

struct Walk {
    shared: Arc<Shared>,
    repo: Arc<Repo>,
    heard: mpsc::Receiver<Turn>,
    /// What is to be fetched of a directory that did not fit into one request.
    begun: VecDeque<Span>,
}

impl Walk {
    fn fs(&self) -> &Fs {
        &self.shared.fs
    }

    fn marks(&self) -> &Marks {
        &self.shared.fs.marks
    }

    async fn run(mut self) -> Result<()> {
        let mut tree = self.directories();
        let mut listed = Instant::now();
        let mut streams = Streams::new(&tree, WINDOW_BYTES);
        let mut running = FuturesUnordered::new();
        let mut flow = Flow::new(BATCHES, Instant::now());
        let mut used = self.marks().used_bytes();
        let mut last_sign = Instant::now();
        let (mut heard, mut unknown) = (false, false);
        let mut next = None;
        loop {
            while let Some(turn) = next.take().or_else(|| self.heard.try_recv().ok()) {
                (heard, last_sign) = (true, Instant::now());
                match tree.find(&turn.tree) {
                    Some(node) if turn.missed => streams.missed(node, &tree),
                    Some(node) => streams.visit(node, &tree),
                    None => unknown = true,
                }
            }
            if unknown && listed.elapsed() > LIST_EVERY {
                // More of the tree has become known since.
                tree = self.directories();
                streams = Streams::new(&tree, WINDOW_BYTES);
                (listed, unknown) = (Instant::now(), false);
            }
            let may_fetch = running.len() < flow.requests_max();
            let chunks_max = LARGE_CHUNKS_MAX + flow.widened();
            let batch = if may_fetch {
                self.batch(&tree, &mut streams, chunks_max)
            } else {
                Vec::new()
            };
            if !batch.is_empty() {
                self.fs().cache.room().await;
                running.push(self.start(batch));
                continue;
            }
            if running.is_empty() && last_sign.elapsed() > WALK_IDLE {
                return Ok(());
            }
            tokio::select! {
                Some(begun) = running.next() => {
                    if let Some(begun) = begun? {
                        flow.answered(begun, Instant::now());
                        streams.widen(flow.widened() as u64 * BATCH_BYTES);
                    }
                }
                Some(turn) = self.heard.recv() => next = Some(turn),
                () = tokio::time::sleep(WALK_POLL) => {
                    let now = self.marks().used_bytes();
                    // Readers whose listings the kernel has are not heard.
                    if !heard && now != used {
                        streams.consume(now - used);
                        last_sign = Instant::now();
                    }
                    (used, heard) = (now, false);
                }
            }
        }
    }

    /// Fetches a batch, as a task of its own: contents are verified there, and batches side by
    /// side. Gives when it began, unless others were fetching all of it.
    fn start(&self, batch: Vec<Span>) -> impl Future<Output = Result<Option<Instant>>> + use<> {
        let begun = Instant::now();
        let (done, result) = oneshot::channel();
        let (content, repo) = (self.shared.content.clone(), self.repo.clone());
        self.shared.spawner.spawn(async move {
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

    /// The directories of the snapshot being served whose records are at hand, depth first in the
    /// order of listings. One that occurs again is left out: its contents are the same.
    fn directories(&self) -> Tree {
        let mut list: Vec<Oid> = Vec::new();
        let mut below: Vec<u32> = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![Step::Visit(self.repo.root())];
        while let Some(step) = pending.pop() {
            let tree = match step {
                Step::Visit(tree) if list.len() < LIST_MAX => tree,
                Step::Visit(_) => continue,
                Step::End(node) => {
                    below[node] = (list.len() - node - 1) as u32;
                    continue;
                }
            };
            let Some(record) = self.fs().cache.record(&tree) else {
                continue;
            };
            pending.push(Step::End(list.len()));
            list.push(tree);
            below.push(0);
            let children = record
                .iter()
                .filter(|entry| entry.kind == EntryKind::Directory)
                .map(|entry| entry.oid);
            let start = pending.len();
            pending.extend(children.filter(|tree| seen.insert(*tree)).map(Step::Visit));
            pending[start..].reverse();
        }
        Tree::new(list, &below)
    }

    /// The files of a directory that are not at hand, of large ones what is read of them; without
    /// kinds that the readers pass over. Also whether any was left out for that reason.
    /// `chunks_max`: most chunks of one file.
    fn files(&self, tree: &Oid, chunks_max: usize) -> (Vec<Span>, bool) {
        let (kinds, used) = (&self.fs().kinds, self.marks().used_bytes());
        let (mut files, mut left_out) = (Vec::new(), false);
        let record = self.fs().cache.record(tree);
        let entries = record.iter().flat_map(TreeRecord::iter);
        for entry in
            entries.filter(|entry| matches!(entry.kind, EntryKind::File | EntryKind::Executable))
        {
            let kind = NameKind::of(entry.name);
            if !kinds.worth_fetching(kind, used) {
                left_out = true;
                continue;
            }
            kinds.fetched(kind);
            let chunks = chunk_count(entry.size).min(chunks_max as u64);
            let count = if chunks > 1 && kinds.fetch_whole(kind) {
                chunks as u32
            } else {
                1
            };
            files.push(Span {
                blob: entry.oid,
                size: entry.size,
                first: 0,
                count,
            });
        }
        (absent(self.fs(), files), left_out)
    }

    /// The next files that are not at hand, of each `chunks_max` chunks at most. A directory is
    /// begun when a reader's window has room for it, and then fetched to its end: nobody knows in
    /// which order its files are read.
    fn batch(&mut self, tree: &Tree, streams: &mut Streams, chunks_max: usize) -> Vec<Span> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_FILES {
            if let Some(span) = self.begun.pop_front() {
                bytes += span.bytes();
                batch.push(span);
                continue;
            }
            let Some((stream, node)) = streams.next(tree) else {
                break;
            };
            let (files, left_out) = self.files(tree.oid(node), chunks_max);
            streams.fetched(stream, files.iter().map(Span::bytes).sum());
            if left_out {
                streams.left_out(node);
            }
            self.begun = files.into();
        }
        batch
    }
}

/// A step of listing all directories.
enum Step {
    Visit(Oid),
    /// Everything below the directory at this place of the list is in the list.
    End(usize),
}
