//! What a request of the kernel found missing.
//!
//! Plain data below every module that makes or serves requests: [`crate::fs`] tells with it what is
//! missing, [`crate::prefetch`] adds what is likely to be read next, [`monofs_content`] gets it.

use std::sync::Arc;

use monofs_content::repo::Repo;
use monofs_content::shown::DirectoryKey;
use monofs_content::want::Span;

use crate::errno::Errno;
use crate::fs::identity::Ino;

/// A directory record, or its generation node, that is needed and not here.
#[derive(Debug, Clone)]
pub struct TreeWant {
    pub repo: Arc<Repo>,
    pub key: DirectoryKey,
    /// The directory that the record describes, or described before a switch.
    pub directory: Ino,
}

/// Chunks of a file that are needed and not all here.
#[derive(Debug, Clone)]
pub struct ChunkWant {
    pub repo: Arc<Repo>,
    pub span: Span,
    /// The directory the file is in.
    pub directory: Ino,
}

/// Times of generations of a repository that are needed and not here.
#[derive(Debug, Clone)]
pub struct TimesWant {
    pub repo: Arc<Repo>,
    pub generations: Vec<u64>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum Miss {
    Tree(TreeWant),
    Times(TimesWant),
    Chunks(ChunkWant),
    Fail(Errno),
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        Miss::Fail(errno)
    }
}

/// An answer, or what is missing for one.
pub type Outcome<T> = std::result::Result<T, Miss>;
