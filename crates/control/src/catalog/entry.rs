//! An entry of the catalogue in memory, and the keys and values of entries in the state store.
//!
//! A value is [`VERSION`] and a `monofs.v1.Repository`. A retained snapshot is the entry as it was,
//! with the time of its replacement in `refreshed_at`.

use std::sync::Arc;

use monofs_model::{DisplayPath, Error, NodeId, Oid, Repository, Result, Snapshot, StorageId};
use monofs_proto::v1;
use prost::Message;

/// Version of every value written.
const VERSION: u8 = 1;
pub(super) const REPO_PREFIX: &str = "repo/";
pub(super) const RETAINED_PREFIX: &str = "retained/";
pub(super) const BELOW_PREFIX: &str = "below/";
pub(super) const NAMES_KEY: &str = "names";

/// An entry as memory holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CatalogEntry {
    pub repository: Arc<Repository>,
    /// Of its key in the state store.
    pub revision: u64,
    /// When the source was last looked at, with success or without; seconds since the epoch.
    pub looked_at: i64,
}

/// A snapshot that was replaced (or whose repository was removed) and that readers may still be
/// looking at, or one that nodes were given and that was not published.
#[derive(Debug, Clone, PartialEq)]
pub struct RetainedSnapshot {
    pub path: DisplayPath,
    pub snapshot: Snapshot,
    /// The nodes that may hold it without being recorded as holders of the entry.
    pub holders: Vec<NodeId>,
    pub generation: u64,
    /// Seconds since the epoch.
    pub replaced_at: i64,
}

pub(super) fn repo_key(path: &DisplayPath) -> Vec<u8> {
    repo_key_at(path.as_str())
}

/// The key of the entry at `path`, if there is one.
pub(super) fn repo_key_at(path: &str) -> Vec<u8> {
    format!("{REPO_PREFIX}{path}").into_bytes()
}

/// The key that every creation below the directory `path` writes.
pub(super) fn below_key(path: &str) -> Vec<u8> {
    format!("{BELOW_PREFIX}{path}").into_bytes()
}

pub(super) fn retained_key(id: &StorageId, commit: &Oid) -> Vec<u8> {
    format!("{RETAINED_PREFIX}{id}/{commit}").into_bytes()
}

pub(super) fn encode_repository(repository: &Repository) -> Vec<u8> {
    encode(&v1::Repository::from(repository))
}

pub(super) fn decode_repository(value: &[u8]) -> Result<Repository> {
    decode(value)?.try_into()
}

/// The value of a retained snapshot of `repository`, whatever that one shows and whoever holds it.
pub(super) fn encode_retained(repository: &Repository, retained: &RetainedSnapshot) -> Vec<u8> {
    encode(&v1::Repository {
        refreshed_at: retained.replaced_at,
        ..v1::Repository::from(&Repository {
            snapshot: Some(retained.snapshot.clone()),
            holders: retained.holders.clone(),
            generation: retained.generation,
            ..repository.clone()
        })
    })
}

pub(super) fn decode_retained(value: &[u8]) -> Result<RetainedSnapshot> {
    let entry: Repository = decode(value)?.try_into()?;
    let snapshot = entry.snapshot.ok_or_else(|| {
        Error::corrupt(format!("retained entry of {} has no snapshot", entry.path))
    })?;
    Ok(RetainedSnapshot {
        path: entry.path,
        snapshot,
        holders: entry.holders,
        generation: entry.generation,
        replaced_at: entry.refreshed_at,
    })
}

/// The error for a request that names a path where no repository is.
pub fn no_repository(path: &str) -> Error {
    Error::not_found(format!(
        "no repository at '{}'; `monofs-admin repos` lists them",
        path.escape_debug()
    ))
}

fn encode(message: &v1::Repository) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&message.encode_to_vec());
    value
}

fn decode(value: &[u8]) -> Result<v1::Repository> {
    match value.split_first() {
        Some((&VERSION, message)) => v1::Repository::decode(message)
            .map_err(|e| Error::corrupt(format!("catalogue value: {e}"))),
        Some((version, _)) => Err(Error::refused(format!(
            "catalogue value has version {version}, this router knows {VERSION}; run a newer \
             monofs-router"
        ))),
        None => Err(Error::corrupt("catalogue value is empty")),
    }
}
