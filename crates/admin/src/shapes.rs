//! What `--format json` prints. Stable: fields are only ever added. Times are RFC 3339 or null,
//! object ids hexadecimal, sizes bytes.

mod member;
mod operations;

use monofs_proto::v1;
use serde::Serialize;

pub use member::{Client, Fetcher, Node, Requests, member_state, total};
pub use operations::{Failover, Intent, Job, Maintenance, Move, Router, move_kind};

use crate::text::{hex, time};

/// A repository of the catalogue.
#[derive(Debug, Serialize)]
pub struct Repository {
    pub path: String,
    pub state: &'static str,
    pub source: String,
    #[serde(rename = "ref")]
    pub ref_name: String,
    pub commit: Option<String>,
    pub commit_time: Option<String>,
    pub root: Option<String>,
    pub directories: u64,
    pub files: u64,
    pub bytes: u64,
    pub submodules: usize,
    pub generation: u64,
    pub holders: Vec<String>,
    pub content: &'static str,
    pub consistency: &'static str,
    pub storage_id: String,
    pub created_at: Option<String>,
    pub refreshed_at: Option<String>,
    pub last_error: Option<String>,
}

impl From<&v1::Repository> for Repository {
    fn from(wire: &v1::Repository) -> Self {
        let snapshot = wire.snapshot.as_ref();
        Self {
            path: wire.path.clone(),
            state: repository_state(wire.state()),
            source: wire.source.clone(),
            ref_name: if wire.ref_name.is_empty() {
                "HEAD".to_owned()
            } else {
                wire.ref_name.clone()
            },
            commit: snapshot.map(|snapshot| hex(&snapshot.commit)),
            commit_time: snapshot.and_then(|snapshot| time(snapshot.commit_time)),
            root: snapshot.map(|snapshot| hex(&snapshot.root)),
            directories: snapshot.map_or(0, |snapshot| snapshot.trees),
            files: snapshot.map_or(0, |snapshot| snapshot.blobs),
            bytes: snapshot.map_or(0, |snapshot| snapshot.bytes),
            submodules: snapshot.map_or(0, |snapshot| snapshot.submodules.len()),
            generation: wire.generation,
            holders: wire.holders.clone(),
            content: match wire.content() {
                v1::ContentMode::Lazy => "lazy",
                v1::ContentMode::Eager | v1::ContentMode::Unspecified => "eager",
            },
            consistency: match wire.consistency() {
                v1::Consistency::Strong => "strong",
                v1::Consistency::Eventual | v1::Consistency::Unspecified => "eventual",
            },
            storage_id: wire.storage_id.clone(),
            created_at: time(wire.created_at),
            refreshed_at: time(wire.refreshed_at),
            last_error: some(&wire.last_error),
        }
    }
}

/// The word for a repository's state.
pub fn repository_state(state: v1::RepositoryState) -> &'static str {
    match state {
        v1::RepositoryState::Ingesting => "ingesting",
        v1::RepositoryState::Ready => "ready",
        v1::RepositoryState::Failed => "failed",
        v1::RepositoryState::Unspecified => "unknown",
    }
}

/// What one node holds of a repository.
#[derive(Debug, Serialize)]
pub struct Held {
    pub path: String,
    pub storage_id: String,
    pub commits: Vec<String>,
    pub directories: u64,
    pub files: u64,
    pub disk_bytes: u64,
    pub hydrated_files: u64,
    pub total_files: u64,
    pub last_error: Option<String>,
}

impl From<&v1::HeldRepository> for Held {
    fn from(wire: &v1::HeldRepository) -> Self {
        Self {
            path: wire.path.clone(),
            storage_id: wire.storage_id.clone(),
            commits: wire
                .snapshots
                .iter()
                .map(|snapshot| hex(&snapshot.commit))
                .collect(),
            directories: wire.trees,
            files: wire.blobs,
            disk_bytes: wire.disk_bytes,
            hydrated_files: wire.hydrated_blobs,
            total_files: wire.total_blobs,
            last_error: some(&wire.last_error),
        }
    }
}

/// `None` for the wire's empty text.
pub fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
