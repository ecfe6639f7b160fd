//! What directories and their names show: trees, and the generations in which names last changed.
//! Plain data that every other module may name.

use monofs_model::tree::Entry;
use monofs_model::{GenerationRef, Oid, Snapshot};

/// The generation of all names of a snapshot that has no generations: they show the commit's time.
pub const UNTOLD: u64 = 0;

/// What tells the names in a directory: its record, and the node that tells when they last changed,
/// if they did in several generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirectoryKey {
    pub tree: Oid,
    pub node: Option<Oid>,
}

impl DirectoryKey {
    /// A record alone.
    pub fn of_record(tree: Oid) -> Self {
        Self { tree, node: None }
    }
}

/// The tree that a directory shows, and when its names last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownTree {
    pub tree: Oid,
    pub generations: GenerationRef,
}

impl ShownTree {
    /// The root directory of a snapshot.
    pub fn root_of(snapshot: &Snapshot) -> Self {
        let untold = GenerationRef::Constant(UNTOLD);
        Self {
            tree: snapshot.root,
            generations: snapshot.generations.unwrap_or(untold),
        }
    }

    /// What tells its names.
    pub fn key(&self) -> DirectoryKey {
        DirectoryKey {
            tree: self.tree,
            node: self.generations.node(),
        }
    }
}

/// An entry of a directory, and when it last changed.
#[derive(Debug, Clone, Copy)]
pub struct NamedEntry<'a> {
    pub entry: Entry<'a>,
    pub generations: GenerationRef,
}

impl NamedEntry<'_> {
    /// What it shows, if it is a directory.
    pub fn shown(&self) -> ShownTree {
        ShownTree {
            tree: self.entry.oid,
            generations: self.generations,
        }
    }
}
