//! Contents ahead of readers: the small files of a directory with the first of them, the
//! directories that follow when a program walks a tree, and the chunks that follow in a large file.
//! `docs/prefetch.md` says why each part is there and what it gains.
//!
//! ```text
//! a miss in a small file   -> siblings of the file, within a window that follows their use
//!                          -> walks: several such directories in a short time start a walk
//! a read of a large file   -> file_streams: the next chunks while the reading is sequential
//! a missing record         -> records of the directories beside it
//! ```
//!
//! Invariant: what a reader waits for is asked for at once, and never waits for what is fetched
//! ahead. Called by the tasks that answer the kernel.

mod directories;
mod file_streams;
mod flow;
pub mod order;
pub mod select;
mod walk;
mod walks;
mod window;

use std::collections::HashSet;
use std::sync::Arc;

use monofs_content::content::Content;
use monofs_content::names::DirectoryNames;
use monofs_content::repo::Repo;
use monofs_content::shown::{DirectoryKey, NamedEntry};
use monofs_content::spawner::Spawner;
use monofs_content::want::Span;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{EntryKind, Oid, Result};
use parking_lot::Mutex;

use self::file_streams::FileStreams;
use self::select::{SMALL_FILE_BYTES, absent, small_file};
use self::walk::WalkParts;
use self::walks::Walks;
use self::window::{DirectoryReading, SiblingWindow};
use crate::fs::Fs;
use crate::fs::identity::Ino;
use crate::want::{ChunkWant, TreeWant};

/// Most directory records that are fetched with the one that is needed.
const NEIGHBOURS_MAX: usize = 256;

/// Whether anything is fetched ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrefetchMode {
    On,
    /// Only what is asked for is fetched.
    Off,
}

/// Decides what to fetch ahead.
pub struct Prefetch {
    fs: Arc<Fs>,
    content: Content,
    mode: PrefetchMode,
    files: FileStreams,
    walks: Walks,
    window: Mutex<SiblingWindow>,
}

impl Prefetch {
    /// For the readers of `fs`, from `content`; walks run as tasks of `spawner`.
    pub(crate) fn new(fs: Arc<Fs>, content: Content, spawner: Spawner, mode: PrefetchMode) -> Self {
        let walks = Walks::new(WalkParts {
            fs: fs.clone(),
            content: content.clone(),
            spawner,
        });
        Self {
            fs,
            content,
            mode,
            files: FileStreams::default(),
            walks,
            window: Mutex::default(),
        }
    }

    /// Gets the chunks that a read misses, and with them what is likely to be read next.
    pub async fn serve(&self, want: &ChunkWant) -> Result<()> {
        let ahead = self.siblings(want);
        self.content.chunks(&want.repo, want.span, ahead).await
    }

    /// Gets the record of a directory, and with it those of its neighbours: a program that lists
    /// one is likely to list the next.
    pub async fn list(&self, want: &TreeWant) -> Result<()> {
        let neighbours = match self.mode {
            PrefetchMode::On => neighbours(&self.fs, want),
            PrefetchMode::Off => Vec::new(),
        };
        self.content.tree(&want.repo, want.key, neighbours).await
    }

    /// A directory is being listed from its start.
    pub fn listed(&self, directory: Ino) {
        if self.mode == PrefetchMode::On
            && let Some((repo, shown)) = self.fs.repo_and_shown_of(directory)
        {
            self.walks.listed(repo.storage_id(), shown.tree);
        }
    }

    /// A chunk of a large file was read. If the reading is sequential, says which following chunks
    /// to fetch now.
    pub fn follow(&self, read: &Span) -> Option<Span> {
        match self.mode {
            PrefetchMode::On => self.files.follow(read),
            PrefetchMode::Off => None,
        }
    }

    /// Fetches chunks of a large file ahead.
    pub async fn run_ahead(&self, repo: &Arc<Repo>, span: Span) {
        self.fs.cache.room().await;
        // A reader of these chunks asks for them again, and sees the error.
        let _ = self.content.ahead(repo, &[span]).await;
    }

    /// The other small files of the directory of a wanted one that are not at hand, from the wanted
    /// one on and then from the start, as many as the window has room for.
    fn siblings(&self, want: &ChunkWant) -> Vec<Span> {
        if self.mode == PrefetchMode::Off || want.span.size > SMALL_FILE_BYTES {
            return Vec::new();
        }
        let Some(tree) = self.fs.tree_of(want.directory) else {
            return Vec::new();
        };
        let reading = self.walks.missed(&want.repo, tree);
        let Some(record) = self.fs.cache.record(&tree) else {
            return Vec::new();
        };
        let bytes_max = self.next_window_bytes(reading);

        // Files that fit into the window, in the order in which they are likely to be read.
        let at = record
            .iter()
            .position(|entry| entry.oid == want.span.blob)
            .unwrap_or(0);
        let mut bytes = 0;
        let spans: Vec<Span> = (at..record.len())
            .chain(0..at)
            .filter_map(|n| small_file(&record.get(n)?))
            .filter(|span| span.blob != want.span.blob)
            .take_while(|span| {
                bytes += span.size;
                bytes <= bytes_max
            })
            .take(CONTENT_REQUEST_ITEMS_MAX - 1)
            .collect();

        let spans = absent(&self.fs.cache, spans);
        let fetched = spans.iter().map(|span| span.size).sum();
        self.window.lock().fetched(fetched);
        spans
    }

    fn next_window_bytes(&self, reading: DirectoryReading) -> u64 {
        let used = self.fs.marks.used_bytes();
        self.window.lock().next(used, reading)
    }
}

/// The directories beside the wanted one whose records are not at hand, from it on and then from the
/// start.
fn neighbours(fs: &Fs, want: &TreeWant) -> Vec<DirectoryKey> {
    let parent = fs.inodes.with(want.directory, |inode| inode.parent);
    let shown = parent
        .filter(|parent| *parent != want.directory)
        .and_then(|parent| fs.repo_and_shown_of(parent))
        .filter(|(repo, _)| Arc::ptr_eq(repo, &want.repo))
        .map(|(_, shown)| shown);
    let Some(names) = shown.and_then(|shown| DirectoryNames::at_hand(&fs.cache, &shown)) else {
        return Vec::new();
    };
    let beside: Vec<DirectoryKey> = names.iter().filter_map(directory_key).collect();
    let at = beside.iter().position(|key| *key == want.key).unwrap_or(0);
    let (before, from) = beside.split_at(at);
    let others = from.iter().chain(before).filter(|key| **key != want.key);
    let others: Vec<DirectoryKey> = others.take(NEIGHBOURS_MAX).copied().collect();
    let missing = fs.cache.missing_records(others.iter().map(|key| key.tree));
    let missing: HashSet<Oid> = missing.into_iter().collect();
    let is_missing = |key: &DirectoryKey| missing.contains(&key.tree);
    others.into_iter().filter(is_missing).collect()
}

fn directory_key(named: NamedEntry<'_>) -> Option<DirectoryKey> {
    (named.entry.kind == EntryKind::Directory).then(|| named.shown().key())
}
