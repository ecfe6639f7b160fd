//! Looks into the tree without a mount, for the HTTP API and the web page: what is at a path, and
//! the bytes of a file.
//!
//! Invariants: nothing of this host's own files is ever read; symlinks are shown, never followed;
//! directory records and contents are verified as a client does before anybody sees them; of one
//! request at most [`contents::READ_AHEAD`] chunks or one directory record are in memory, and of
//! all requests [`cache::BYTES_MAX`] bytes of records are kept; who leaves ends the work, because
//! dropping a future here drops every call that it made.

mod ask;
pub mod cache;
mod contents;
pub mod found;
mod path;
mod records;

use std::sync::Arc;

use monofs_model::tree::EntryKind;
use monofs_model::{DisplayPath, Error, Repository, Result};

use crate::parts::Parts;
use crate::parts::Work;
pub use contents::{read, read_small};
pub use found::{Child, Directory, Found, Inside, Namespace, PAGE, PAGE_MAX, Paging, kind_word};
use monofs_control::Control;
use monofs_members::fleet::Fleet;
pub use path::{TreePath, shown};

/// What is at `path`. Errors: `NotFound`; `Refused` while the repository has no commit;
/// `Unavailable` when no holder answers.
pub async fn look(state: &Arc<Parts>, path: &TreePath, paging: &Paging) -> Result<Found> {
    // A path that lies in no repository is a name above repositories.
    let text = path.text();
    let Some((repository, _)) = state.control.catalog.resolve(&text) else {
        return namespace(&state.control, path, &text, paging);
    };

    // Inside a repository the path leads down to an entry, and only a directory is listed.
    let inside = descend(&state.fleet, &state.work, path, repository).await?;
    if inside.kind != EntryKind::Directory {
        return Ok(Found::Entry(inside));
    }
    let record = records::get(&state.fleet, &state.work.records, &inside).await?;
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
fn namespace(control: &Control, path: &TreePath, text: &str, paging: &Paging) -> Result<Found> {
    if !path.is_text() {
        return Err(not_found(path));
    }
    let limit = paging.limit();
    let names = control.catalog.names(text, &paging.after, limit);
    if names.is_empty()
        && !path.is_root()
        && (paging.after.is_empty() || control.catalog.names(text, "", 1).is_empty())
    {
        return Err(match control.catalog.page(text, "", 1).first() {
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
    fleet: &Fleet,
    work: &Work,
    path: &TreePath,
    repository: Arc<Repository>,
) -> Result<Inside> {
    // The walk starts at the root of the commit on show, and stays in that commit when another one
    // is published meanwhile.
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

    // Each name leads one record down; a name below a file leads nowhere.
    for name in path.below(depth) {
        if here.kind != EntryKind::Directory {
            return Err(not_found(path));
        }
        let record = records::get(fleet, &work.records, &here).await?;
        let entry = record.find(name).ok_or_else(|| not_found(path))?;
        (here.kind, here.oid, here.size) = (entry.kind, entry.oid, entry.size);
        here.rest.push(name.clone());
    }
    Ok(here)
}

/// Whether a repository has something of its own at a path inside it, or a file on the way; a
/// submodule is none. Errors: no holder gives its directories.
pub(crate) async fn has_name(
    fleet: &Fleet,
    work: &Work,
    repository: &Arc<Repository>,
    path: &DisplayPath,
) -> Result<bool> {
    // A repository without a commit has nothing of its own anywhere.
    let Some(snapshot) = repository.snapshot.clone() else {
        return Ok(false);
    };
    let mut here = Inside {
        repository: repository.clone(),
        oid: snapshot.root,
        snapshot,
        rest: Vec::new(),
        kind: EntryKind::Directory,
        size: 0,
    };

    // A file on the way takes the name, too, since no directory can be there; a submodule leaves it
    // free.
    for name in path.components().skip(repository.path.components().count()) {
        if here.kind != EntryKind::Directory {
            break;
        }
        let record = records::get(fleet, &work.records, &here).await?;
        let Some(entry) = record.find(name.as_bytes()) else {
            return Ok(false);
        };
        (here.kind, here.oid) = (entry.kind, entry.oid);
        here.rest.push(name.as_bytes().to_vec());
    }
    Ok(here.kind != EntryKind::Submodule)
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

#[cfg(test)]
mod tests;
