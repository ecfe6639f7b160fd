//! Contents ahead of readers: the small files of a directory with the first of them, the
//! directories that follow when somebody walks a tree, and the chunks that follow in a large file.

mod flow;
pub mod order;
mod walk;
mod window;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monofs_model::limits::{CHUNK_BYTES, CONTENT_REQUEST_ITEMS_MAX};
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid, Result};
use parking_lot::Mutex;

use crate::content::Content;
use crate::fs::Fs;
use crate::fs::identity::Ino;
use crate::fs::inode::What;
use crate::fuse::Shared;
use crate::want::{ChunkWant, Span, TreeWant};

use self::walk::Walks;
use self::window::Window;

/// Files up to this size are fetched with their directory.
pub const SMALL_FILE_BYTES: u64 = CHUNK_BYTES as u64;
/// Most directory records that are fetched with the one that is needed.
const NEIGHBOURS_MAX: usize = 256;
/// Largest window of a sequential read of a large file, in chunks.
const WINDOW_CHUNKS_MAX: u32 = 16;
/// Most large files whose reading is followed.
const STREAMS_MAX: usize = 256;

/// How a large file is being read.
#[derive(Debug, Clone, Copy)]
struct Stream {
    /// The chunk that comes next if the reading is sequential.
    next: u32,
    /// Chunks requested so far end here.
    requested: u32,
    window: u32,
}

/// Decides what to fetch ahead.
pub struct Prefetch {
    content: Content,
    enabled: bool,
    streams: Mutex<HashMap<Oid, Stream>>,
    walks: Walks,
    window: Mutex<Window>,
}

impl Prefetch {
    /// With `enabled` false, only what is asked for is fetched.
    pub fn new(content: Content, enabled: bool) -> Self {
        Self {
            content,
            enabled,
            streams: Mutex::default(),
            walks: Walks::default(),
            window: Mutex::default(),
        }
    }

    /// Gets the chunks that a read misses, and with them what is likely to be read next.
    pub async fn serve(&self, shared: &Arc<Shared>, want: &ChunkWant) -> Result<()> {
        let mut ahead = Vec::new();
        if self.enabled
            && want.span.size <= SMALL_FILE_BYTES
            && let Some(tree) = directory_tree(&shared.fs, want.directory)
        {
            let goes_on = self.walks.missed(shared, &want.repo, tree);
            ahead = self.siblings(&shared.fs, want, &tree, goes_on);
        }
        self.content.chunks(&want.repo, want.span, ahead).await
    }

    /// Gets the record of a directory, and with it those of its neighbours: whoever lists one is
    /// likely to list the next.
    pub async fn list(&self, fs: &Fs, want: &TreeWant) -> Result<()> {
        let neighbours = if self.enabled {
            neighbours(fs, want)
        } else {
            Vec::new()
        };
        self.content.tree(&want.repo, want.tree, neighbours).await
    }

    /// A directory is being listed from its start.
    pub fn listed(&self, fs: &Fs, directory: Ino) {
        let repository = fs.inodes.with(directory, |inode| match &inode.what {
            What::Entry {
                kind: EntryKind::Directory,
                oid,
                repo,
            } => Some((repo.clone(), *oid)),
            _ => None,
        });
        if let Some((repo, tree)) = repository.flatten().filter(|_| self.enabled) {
            self.walks.listed(repo.storage_id(), tree);
        }
    }

    /// The other small files of the directory that are not at hand, from the wanted one on and then
    /// from the start. `goes_on`: the directory's files are being read one after the other.
    fn siblings(&self, fs: &Fs, want: &ChunkWant, tree: &Oid, goes_on: bool) -> Vec<Span> {
        let Some(record) = fs.cache.record(tree) else {
            return Vec::new();
        };
        let at = record
            .iter()
            .position(|entry| entry.oid == want.span.blob)
            .unwrap_or(0);
        let small =
            |n: usize| small_file(&record.get(n)?).filter(|span| span.blob != want.span.blob);
        let window = || self.window.lock();
        let bytes_max = window().next(fs.marks.used_bytes(), goes_on);
        let mut bytes = 0;
        let in_budget = |span: &Span| {
            bytes += span.size;
            bytes <= bytes_max
        };
        let order = (at..record.len()).chain(0..at);
        let spans: Vec<Span> = order
            .filter_map(small)
            .take_while(in_budget)
            .take(CONTENT_REQUEST_ITEMS_MAX - 1)
            .collect();
        let spans = absent(fs, spans);
        window().fetched(spans.iter().map(|span| span.size).sum());
        spans
    }

    /// A chunk of a large file was read. If the reading is sequential, says which following chunks
    /// to fetch now.
    pub fn follow(&self, read: &Span) -> Option<Span> {
        if !self.enabled {
            return None;
        }
        let chunks = u32::try_from(monofs_store::frame::chunk_count(read.size)).unwrap_or(u32::MAX);
        let end = read.first + read.count;
        let mut streams = self.streams.lock();
        if streams.len() >= STREAMS_MAX && !streams.contains_key(&read.blob) {
            streams.clear();
        }
        let fresh = Stream {
            next: 0,
            requested: end,
            window: 1,
        };
        let stream = streams.entry(read.blob).or_insert(fresh);
        if read.first != stream.next && end != stream.next {
            // A jump: start over from here, and prefetch nothing until the reading goes on.
            *stream = Stream { next: end, ..fresh };
            return None;
        }
        stream.next = end;
        // Ask again when half of the window is used up.
        if stream.requested.saturating_sub(end) > stream.window / 2 || end >= chunks {
            return None;
        }
        let first = stream.requested.max(end);
        stream.window = (stream.window * 2).min(WINDOW_CHUNKS_MAX);
        let last = end.saturating_add(stream.window).min(chunks);
        stream.requested = last;
        let count = last.saturating_sub(first);
        (count > 0).then_some(Span {
            blob: read.blob,
            size: read.size,
            first,
            count,
        })
    }

    /// Fetches chunks of a large file ahead.
    pub async fn run_ahead(&self, fs: &Fs, read: ChunkWant, span: Span) {
        fs.cache.room().await;
        // Whoever reads them will ask again and see the error.
        let _ = self.content.ahead(&read.repo, &[span]).await;
    }
}

/// The trees of the directories beside the wanted one whose records are not at hand, from it on and
/// then from the start.
fn neighbours(fs: &Fs, want: &TreeWant) -> Vec<Oid> {
    let parent = fs.inodes.with(want.directory, |inode| inode.parent);
    let tree = parent
        .filter(|parent| *parent != want.directory)
        .and_then(|parent| directory_tree(fs, parent));
    let Some(record) = tree.and_then(|tree| fs.cache.record(&tree)) else {
        return Vec::new();
    };
    let directories = |entry: Entry<'_>| (entry.kind == EntryKind::Directory).then_some(entry.oid);
    let beside: Vec<Oid> = record.iter().filter_map(directories).collect();
    let at = beside
        .iter()
        .position(|tree| *tree == want.tree)
        .unwrap_or(0);
    let (before, from) = beside.split_at(at);
    let others = from
        .iter()
        .chain(before)
        .copied()
        .filter(|tree| *tree != want.tree);
    fs.cache.missing_records(others.take(NEIGHBOURS_MAX))
}

/// The tree that a directory shows now.
pub(crate) fn directory_tree(fs: &Fs, directory: Ino) -> Option<Oid> {
    fs.inodes.with(directory, |inode| match &inode.what {
        What::Entry {
            kind: EntryKind::Directory,
            oid,
            ..
        } => Some(*oid),
        _ => None,
    })?
}

/// The span of a file that is small enough to be fetched unasked.
pub(crate) fn small_file(entry: &Entry<'_>) -> Option<Span> {
    let fits = matches!(entry.kind, EntryKind::File | EntryKind::Executable)
        && entry.size <= SMALL_FILE_BYTES;
    fits.then_some(Span {
        blob: entry.oid,
        size: entry.size,
        first: 0,
        count: 1,
    })
}

/// Those of the spans that are not at hand as a whole.
fn absent(fs: &Fs, spans: Vec<Span>) -> Vec<Span> {
    let missing = fs.cache.missing_frames(spans.iter().flat_map(Span::chunks));
    let missing: HashSet<Oid> = missing.into_iter().map(|(blob, _)| blob).collect();
    spans
        .into_iter()
        .filter(|span| missing.contains(&span.blob))
        .collect()
}
