//! What is asked for: names of records and chunks. Plain data below every module that makes or
//! serves requests.

use monofs_model::Oid;
use monofs_store::frame::chunk_len;

use crate::shown::DirectoryKey;

/// A chunk of a content, by its blob and index.
pub type ChunkKey = (Oid, u32);

/// One thing that is fetched: a directory record, a generation node, or a chunk of a content by its
/// index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentKey {
    Tree(Oid),
    Generations(Oid),
    Chunk(Oid, u32),
}

impl ContentKey {
    /// The record of a directory, and its node if it has one.
    pub fn of_directory(directory: &DirectoryKey) -> impl Iterator<Item = Self> + use<> {
        let node = directory.node.map(Self::Generations);
        std::iter::once(Self::Tree(directory.tree)).chain(node)
    }
}

/// Whether a reader waits for what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// A reader waits.
    Awaited,
    /// It is fetched ahead of readers.
    Ahead,
}

/// Consecutive chunks of one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub blob: Oid,
    /// Bytes of the whole content.
    pub size: u64,
    /// Index of the first chunk.
    pub first: u32,
    /// Number of chunks.
    pub count: u32,
}

impl Span {
    /// Bytes of its chunks, decoded.
    pub fn bytes(&self) -> u64 {
        let chunks = u64::from(self.first)..u64::from(self.first) + u64::from(self.count);
        chunks.map(|index| chunk_len(self.size, index) as u64).sum()
    }

    /// Its chunks, each as blob and index.
    pub fn chunks(&self) -> impl Iterator<Item = (Oid, u32)> + use<> {
        let blob = self.blob;
        (self.first..self.first.saturating_add(self.count)).map(move |index| (blob, index))
    }

    /// The keys of its chunks.
    pub fn keys(&self) -> impl Iterator<Item = ContentKey> + use<> {
        self.chunks()
            .map(|(blob, index)| ContentKey::Chunk(blob, index))
    }
}
