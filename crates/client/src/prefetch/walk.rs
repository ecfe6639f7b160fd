//! Walks: when the files of several directories of one repository are read within a short time, the contents of the
//! others are streamed ahead of the reader.
//!
//! A walk lists the repository's directories depth first, starts where the reader is, and goes on in the direction in which
//! the reader moves. It keeps a window of bytes ahead that grows while its bytes are used, stops while they are not, and ends
//! when they are not used for a while. A miss elsewhere moves it there, with a window of its own: the reader of a whole tree
//! comes back for the rest (parallel tools visit directories in no fixed order). What the reader itself asks for is a
//! request of its own and waits for nothing here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use monofs_model::{EntryKind, Oid, Result, StorageId};
use tokio::sync::watch;

use super::{Marks, absent, directory_tree, small_file};
use crate::content::{Content, Span};
use crate::fs::{ChunkWant, Fs};
use crate::fuse::Shared;
use crate::repo::Repo;

/// A walk is assumed when this many directories were missed within this time.
const WALK_DIRECTORIES: usize = 3;
const WALK_WITHIN: Duration = Duration::from_secs(2);
/// A walk ends when nothing it fetched was used for this long.
const WALK_IDLE: Duration = Duration::from_secs(3);
/// How often a walk that waits for its reader looks again.
const WALK_POLL: Duration = Duration::from_millis(10);
/// Bytes ahead of the reader: at first, and at most.
const WINDOW_BYTES: (u64, u64) = (16 << 20, 256 << 20);
/// Bytes fetched ahead and not used yet, in all places where the reader was.
const AHEAD_BYTES_MAX: u64 = 1 << 30;
/// Moves of the reader that decide the direction.
const VOTES_MAX: i32 = 3;
/// One request of a walk.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_FILES: usize = 1024;
/// Requests of one walk at a time.
const BATCHES_MAX: usize = 3;
/// Directories of one repository that a walk knows; of a larger one, those that come first.
const LIST_MAX: usize = 1 << 18;
/// Repositories whose misses are remembered.
const REPOS_MAX: usize = 256;

/// The directories missed lately, and the walk that follows them.
#[derive(Default)]
struct Track {
    missed: VecDeque<(Oid, Instant)>,
    /// Where the reader of a running walk is.
    walk: Option<watch::Sender<Oid>>,
}

/// All walks of a mount.
#[derive(Default)]
pub(super) struct Walks {
    tracks: Mutex<HashMap<StorageId, Track>>,
}

impl Walks {
    /// A small file was not at hand. Starts a walk, or moves the one that runs.
    pub fn missed(&self, shared: &Arc<Shared>, want: &ChunkWant) {
        let Some(tree) = directory_tree(&shared.fs, want.directory) else { return };
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        if tracks.len() >= REPOS_MAX {
            tracks.retain(|_, track| track.walk.as_ref().is_some_and(|walk| !walk.is_closed()));
        }
        let track = tracks.entry(want.repo.storage_id().clone()).or_default();
        let now = Instant::now();
        track.missed.retain(|(missed, at)| *missed != tree && now.duration_since(*at) < WALK_WITHIN);
        track.missed.push_back((tree, now));
        if let Some(walk) = track.walk.as_ref().filter(|walk| !walk.is_closed()) {
            walk.send_replace(tree);
        } else if track.missed.len() >= WALK_DIRECTORIES {
            let (place, reader) = watch::channel(tree);
            track.walk = Some(place);
            let trail: Vec<Oid> = track.missed.drain(..).map(|(tree, _)| tree).collect();
            let walk =
                Walk { shared: shared.clone(), repo: want.repo.clone(), reader, window: WINDOW_BYTES.0, elsewhere: 0 };
            shared.spawner.spawn(async move {
                let repo = walk.repo.storage_id().clone();
                match walk.run(&trail).await {
                    Ok(()) => tracing::debug!(%repo, "a walk ended"),
                    Err(error) => tracing::debug!(%repo, %error, "a walk was given up"),
                }
            });
        }
    }
}

struct Walk {
    shared: Arc<Shared>,
    repo: Arc<Repo>,
    reader: watch::Receiver<Oid>,
    window: u64,
    /// Bytes that were waiting for the reader when it turned up in another place.
    elsewhere: u64,
}

impl Walk {
    fn fs(&self) -> &Fs {
        &self.shared.fs
    }

    fn marks(&self) -> &Marks {
        &self.shared.fs.marks
    }

    async fn run(mut self, trail: &[Oid]) -> Result<()> {
        let content = self.shared.content.clone();
        let list = self.directories(&content).await?;
        let index: HashMap<Oid, usize> = list.iter().enumerate().rev().map(|(n, tree)| (*tree, n)).collect();
        let places: Vec<usize> = trail.iter().filter_map(|tree| index.get(tree).copied()).collect();
        let mut cursor = Cursor::new(places.first().copied().unwrap_or(0), list.len());
        places.iter().skip(1).for_each(|place| cursor.move_to(*place));
        let mut running = FuturesUnordered::new();
        let mut used = self.marks().used_bytes();
        let mut grown = used;
        let mut last_use = Instant::now();
        loop {
            if self.reader.has_changed().unwrap_or(false) {
                let tree = *self.reader.borrow_and_update();
                if let Some(place) = index.get(&tree) {
                    cursor.move_to(*place);
                    self.elsewhere = self.marks().waiting_bytes();
                }
            }
            let now = self.marks().used_bytes();
            if now != used {
                (used, last_use) = (now, Instant::now());
            }
            if used - grown > self.window / 2 {
                (self.window, grown) = ((self.window * 2).min(WINDOW_BYTES.1), used);
            }
            let waiting = self.marks().waiting_bytes();
            let in_window = waiting < AHEAD_BYTES_MAX && waiting.saturating_sub(self.elsewhere) < self.window;
            let may_fetch = in_window && running.len() < BATCHES_MAX;
            let batch = if may_fetch { self.batch(&list, &mut cursor) } else { Vec::new() };
            if !batch.is_empty() {
                self.fs().cache.room().await;
                self.marks().mark(&batch);
                let (content, repo) = (content.clone(), self.repo.clone());
                running.push(async move { content.ahead(&repo, &batch).await });
                continue;
            }
            if cursor.is_done() && running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                Some(result) = running.next() => result?,
                () = tokio::time::sleep(WALK_POLL) => {
                    if last_use.elapsed() > WALK_IDLE {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The trees of all directories of the snapshot being served, depth first in the order of listings. One that occurs
    /// again is left out: its contents are the same.
    async fn directories(&self, content: &Content) -> Result<Vec<Oid>> {
        let mut list = Vec::new();
        let mut seen = HashSet::new();
        let mut pending = vec![self.repo.root()];
        while let Some(tree) = pending.pop().filter(|_| list.len() < LIST_MAX) {
            let mut record = self.fs().cache.record(&tree);
            if record.is_none() {
                content.tree(&self.repo, tree).await?;
                record = self.fs().cache.record(&tree);
            }
            let Some(record) = record else { continue };
            list.push(tree);
            let below = record.iter().filter(|entry| entry.kind == EntryKind::Directory).map(|entry| entry.oid);
            let start = pending.len();
            pending.extend(below.filter(|tree| seen.insert(*tree)));
            pending[start..].reverse();
        }
        Ok(list)
    }

    /// The next small files that are not at hand.
    fn batch(&self, list: &[Oid], cursor: &mut Cursor) -> Vec<Span> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_FILES {
            let Some(place) = cursor.next() else { break };
            let Some(record) = list.get(place).and_then(|tree| self.fs().cache.record(tree)) else { continue };
            let small: Vec<Span> = record.iter().filter_map(|entry| small_file(&entry)).collect();
            let missing = absent(self.fs(), small);
            bytes += missing.iter().map(|span| span.size).sum::<u64>();
            batch.extend(missing);
        }
        batch
    }
}

/// Visits every place of a list once, from where the reader is, in the direction in which it moves, and around.
struct Cursor {
    visited: Vec<bool>,
    left: usize,
    at: usize,
    /// Where the reader was last.
    reader: usize,
    /// Its latest moves: up counts one, down minus one.
    votes: i32,
}

impl Cursor {
    fn new(start: usize, len: usize) -> Self {
        Self { visited: vec![false; len], left: len, at: start, reader: start, votes: 0 }
    }

    /// The reader is in another place; what was visited stays so.
    fn move_to(&mut self, place: usize) {
        let vote = match place.cmp(&self.reader) {
            std::cmp::Ordering::Less => -1,
            std::cmp::Ordering::Equal => 0,
            std::cmp::Ordering::Greater => 1,
        };
        self.votes = (self.votes + vote).clamp(-VOTES_MAX, VOTES_MAX);
        (self.at, self.reader) = (place, place);
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }
}

impl Iterator for Cursor {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let len = self.visited.len();
        while self.visited[self.at] {
            self.at = if self.votes < 0 { (self.at + len - 1) % len } else { (self.at + 1) % len };
        }
        self.visited[self.at] = true;
        self.left -= 1;
        Some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_visits_everything_once_whatever_the_reader_does() {
        let mut rising = Cursor::new(3, 5);
        assert_eq!(rising.by_ref().collect::<Vec<_>>(), [3, 4, 0, 1, 2]);
        assert!(rising.is_done());
        let mut falling = Cursor::new(2, 5);
        falling.move_to(1);
        assert_eq!(falling.by_ref().take(3).collect::<Vec<_>>(), [1, 0, 4]);
        falling.move_to(4);
        falling.move_to(3);
        assert_eq!(falling.collect::<Vec<_>>(), [3, 2]);
        assert_eq!(Cursor::new(0, 0).next(), None);
    }
}
