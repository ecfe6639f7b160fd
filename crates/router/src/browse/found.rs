//! What can be found in the tree, and which part of a directory is wanted.

use std::sync::Arc;

use monofs_model::tree::EntryKind;
use monofs_model::{Oid, Repository, Snapshot};

/// Default and largest number of names in one answer.
pub const PAGE: usize = 500;
pub const PAGE_MAX: usize = 5000;

/// Which part of a directory is wanted.
#[derive(Debug, Clone, Default)]
pub struct Paging {
    /// Of a directory of a repository: entries passed over.
    pub offset: usize,
    /// Of a directory of the namespace: only names after this one.
    pub after: String,
    /// 0 = [`PAGE`]; at most [`PAGE_MAX`].
    pub limit: usize,
    /// Of a directory of a repository: directories and submodules come before files.
    pub directories_first: bool,
}

impl Paging {
    /// The number of names to show.
    pub(super) fn limit(&self) -> usize {
        if self.limit == 0 {
            PAGE
        } else {
            self.limit.min(PAGE_MAX)
        }
    }
}

/// What is at a path.
pub enum Found {
    Namespace(Namespace),
    Directory(Directory),
    /// A file, an executable, a symlink or a submodule.
    Entry(Inside),
}

/// A directory above repositories.
pub struct Namespace {
    /// Each with its repository if it is one.
    pub names: Vec<(String, Option<Arc<Repository>>)>,
    /// Give it as [`Paging::after`] for the names that follow; `None` = there are no more.
    pub next: Option<String>,
}

/// A directory of a repository, or its root.
pub struct Directory {
    pub inside: Inside,
    /// Those of the page.
    pub entries: Vec<Child>,
    pub offset: usize,
    /// Entries of the whole directory.
    pub total: usize,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Need not be UTF-8.
    pub name: Vec<u8>,
    pub kind: EntryKind,
    /// Of a submodule: a commit of another repository.
    pub oid: Oid,
    /// Bytes of a file or symlink target; 0 for others.
    pub size: u64,
}

/// Something inside a repository, as of the commit that was published when it was looked up.
#[derive(Debug, Clone)]
pub struct Inside {
    pub repository: Arc<Repository>,
    pub snapshot: Snapshot,
    /// The names below the repository's root; none = the root itself.
    pub rest: Vec<Vec<u8>>,
    pub kind: EntryKind,
    pub oid: Oid,
    /// Bytes of a file or symlink target; 0 for others.
    pub size: u64,
}

impl Inside {
    /// Where a submodule comes from, if its repository says so.
    pub fn submodule_url(&self) -> Option<&str> {
        let path = self.rest.join(&b'/');
        self.snapshot
            .submodules
            .iter()
            .find(|module| module.path == path)
            .map(|module| module.url.as_str())
    }

    /// Whether it has bytes of its own that can be read: not a directory, and not a submodule.
    pub fn is_file(&self) -> bool {
        self.kind.is_blob()
    }
}

/// The word for a kind in JSON and on the page.
pub const fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Executable => "executable",
        EntryKind::Symlink => "symlink",
        EntryKind::Directory => "directory",
        EntryKind::Submodule => "submodule",
    }
}
