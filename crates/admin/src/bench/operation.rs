//! What one request does, and what `--workload` takes.

use std::fmt;

/// Chunks of 1 MiB that one `read-large` asks for, at most.
pub const LARGE_CHUNKS_MAX: u32 = 4;

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadOperation {
    /// The router's catalogue: which repository is at this path.
    Resolve,
    /// One name in a directory: its record is asked for and searched. Large directories are asked
    /// more often.
    Lookup,
    /// All entries of a directory.
    List,
    /// A file of at most 64 KiB.
    ReadSmall,
    /// Up to four consecutive chunks of a file over 1 MiB.
    ReadLarge,
}

impl LoadOperation {
    /// The word used in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Lookup => "lookup",
            Self::List => "list",
            Self::ReadSmall => "read-small",
            Self::ReadLarge => "read-large",
        }
    }
}

impl fmt::Display for LoadOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is asked for as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Which repository is at a path (the router's catalogue)
    Resolve,
    /// One name in a random directory; large directories are asked more often
    Lookup,
    /// All entries of a random directory
    List,
    /// A random file of at most 64 KiB
    ReadSmall,
    /// Up to 4 MiB from the middle of a random file over 1 MiB
    ReadLarge,
    /// 5 % resolve, 45 % lookup, 15 % list, 30 % read-small, 5 % read-large
    Mixed,
}

impl Workload {
    /// The word used in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            other => other.only().as_str(),
        }
    }

    /// What it asks for alone; of `mixed`, what it asks for most.
    pub const fn only(self) -> LoadOperation {
        match self {
            Self::Resolve => LoadOperation::Resolve,
            Self::Lookup | Self::Mixed => LoadOperation::Lookup,
            Self::List => LoadOperation::List,
            Self::ReadSmall => LoadOperation::ReadSmall,
            Self::ReadLarge => LoadOperation::ReadLarge,
        }
    }

    /// Whether directories must be known.
    pub fn wants_trees(self) -> bool {
        self != Self::Resolve
    }
}

/// One thing to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadTask {
    pub operation: LoadOperation,
    /// Which repository, directory, small or large file of the corpus, by the operation.
    pub item: usize,
    /// Chooses inside the item: a name, or where to begin.
    pub random: u64,
}
