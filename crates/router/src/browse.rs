//! Looks into the tree without a mount, for the HTTP API and the web page: what is at a path, and
//! the bytes of a file.
//!
//! Invariants: nothing of this host's own files is ever read; symlinks are shown, never followed;
//! directory records and contents are verified as a client does before anybody sees them; of one
//! request at most [`contents::READ_AHEAD`] chunks or one directory record are in memory, and of
//! all requests [`records::BYTES_MAX`] bytes of records are kept; who leaves ends the work, because
//! dropping a future here drops every call that it made.

mod ask;
mod contents;
mod path;
mod records;

use std::sync::Arc;

use monofs_model::tree::EntryKind;
use monofs_model::{Error, Oid, Repository, Result, Snapshot};

use crate::RouterState;
pub(crate) use contents::{read, read_small};
pub(crate) use path::{TreePath, percent_decoded, percent_encoded, shown};
pub(crate) use records::Records;

/// Default and largest number of names in one answer.
pub(crate) const PAGE: usize = 500;
pub(crate) const PAGE_MAX: usize = 5000;

/// Which part of a directory is wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paging {
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
    fn limit(&self) -> usize {
        if self.limit == 0 {
            PAGE
        } else {
            self.limit.min(PAGE_MAX)
        }
    }
}

/// What is at a path.
pub(crate) enum Found {
    Namespace(Namespace),
    Directory(Directory),
    /// A file, an executable, a symlink or a submodule.
    Entry(Inside),
}

/// A directory above repositories.
pub(crate) struct Namespace {
    /// Each with its repository if it is one.
    pub names: Vec<(String, Option<Arc<Repository>>)>,
    /// Give it as [`Paging::after`] for the names that follow; `None` = there are no more.
    pub next: Option<String>,
}

/// A directory of a repository, or its root.
pub(crate) struct Directory {
    pub inside: Inside,
    /// Those of the page.
    pub entries: Vec<Child>,
    pub offset: usize,
    /// Entries of the whole directory.
    pub total: usize,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Child {
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
pub(crate) struct Inside {
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
pub(crate) const fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Executable => "executable",
        EntryKind::Symlink => "symlink",
        EntryKind::Directory => "directory",
        EntryKind::Submodule => "submodule",
    }
}

/// What is at `path`. Errors: `NotFound`; `Refused` while the repository has no commit;
/// `Unavailable` when no holder answers.
pub(crate) async fn look(
    state: &Arc<RouterState>,
    path: &TreePath,
    paging: &Paging,
) -> Result<Found> {
    let text = path.text();
    let Some((repository, _)) = state.catalog.resolve(&text) else {
        return namespace(state, path, &text, paging);
    };
    let inside = descend(state, path, repository).await?;
    if inside.kind != EntryKind::Directory {
        return Ok(Found::Entry(inside));
    }
    let record = records::get(state, &inside).await?;
    let total = record.len();
    let entries = records::page(
        record,
        paging.offset,
        paging.limit(),
        paging.directories_first,
    )
    .await?;
    Ok(Found::Directory(Directory {
        inside,
        entries,
        offset: paging.offset,
        total,
    }))
}

/// The directory above repositories that `path` names.
fn namespace(state: &RouterState, path: &TreePath, text: &str, paging: &Paging) -> Result<Found> {
    if !path.is_text() {
        return Err(not_found(path));
    }
    let limit = paging.limit();
    let names = state.catalog.names(text, &paging.after, limit);
    if names.is_empty()
        && !path.is_root()
        && (paging.after.is_empty() || state.catalog.names(text, "", 1).is_empty())
    {
        return Err(match state.catalog.page(text, "", 1).first() {
            Some(entry) => no_commit(entry),
            None => not_found(path),
        });
    }
    let next = if names.len() == limit {
        names.last().map(|(name, _)| name.clone())
    } else {
        None
    };
    Ok(Found::Namespace(Namespace { names, next }))
}

/// From the root of a repository down to the entry.
async fn descend(
    state: &Arc<RouterState>,
    path: &TreePath,
    repository: Arc<Repository>,
) -> Result<Inside> {
    let Some(snapshot) = repository.snapshot.clone() else {
        return Err(no_commit(&repository));
    };
    let depth = repository.path.components().count();
    let oid = snapshot.root;
    let mut here = Inside {
        repository,
        snapshot,
        rest: Vec::new(),
        kind: EntryKind::Directory,
        oid,
        size: 0,
    };
    for name in path.below(depth) {
        if here.kind != EntryKind::Directory {
            return Err(not_found(path));
        }
        let record = records::get(state, &here).await?;
        let entry = record.find(name).ok_or_else(|| not_found(path))?;
        (here.kind, here.oid, here.size) = (entry.kind, entry.oid, entry.size);
        here.rest.push(name.clone());
    }
    Ok(here)
}

fn not_found(path: &TreePath) -> Error {
    Error::not_found(format!("nothing at '{}'", path.shown()))
}

fn no_commit(entry: &Repository) -> Error {
    let why = if entry.last_error.is_empty() {
        String::new()
    } else {
        format!(" ({})", entry.last_error)
    };
    let state = match entry.state {
        monofs_model::RepositoryState::Failed => "its ingest failed",
        _ => "it is being ingested",
    };
    Error::refused(format!(
        "repository '{}' has no commit to show yet: {state}{why}",
        entry.path
    ))
}
