//! What `--format json` prints. Stable: fields are only ever added. Times are RFC 3339 or null, object ids hexadecimal,
//! sizes bytes.

use monofs_proto::v1;
use serde::Serialize;

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
            ref_name: if wire.ref_name.is_empty() { "HEAD".to_owned() } else { wire.ref_name.clone() },
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
            commits: wire.snapshots.iter().map(|snapshot| hex(&snapshot.commit)).collect(),
            directories: wire.trees,
            files: wire.blobs,
            disk_bytes: wire.disk_bytes,
            hydrated_files: wire.hydrated_blobs,
            total_files: wire.total_blobs,
            last_error: some(&wire.last_error),
        }
    }
}

/// A node or fetcher as the router knows it.
#[derive(Debug, Serialize)]
pub struct Member {
    pub id: String,
    pub state: &'static str,
    pub address: String,
    pub external_address: Option<String>,
    pub zone: Option<String>,
    pub weight: f64,
    pub version: String,
    pub capacity_bytes: Option<u64>,
    pub used_bytes: u64,
}

impl From<&v1::Member> for Member {
    fn from(wire: &v1::Member) -> Self {
        Self {
            id: wire.id.clone(),
            state: member_state(wire.state()),
            address: wire.address.clone(),
            external_address: some(&wire.external_address),
            zone: some(&wire.zone),
            weight: wire.weight,
            version: wire.version.clone(),
            capacity_bytes: Some(wire.capacity_bytes).filter(|bytes| *bytes > 0),
            used_bytes: wire.used_bytes,
        }
    }
}

/// The word for a member's state.
pub fn member_state(state: v1::MemberState) -> &'static str {
    match state {
        v1::MemberState::Joining => "joining",
        v1::MemberState::Active => "active",
        v1::MemberState::Suspect => "suspect",
        v1::MemberState::Down => "down",
        v1::MemberState::Recovering => "recovering",
        v1::MemberState::Draining => "draining",
        v1::MemberState::Drained => "drained",
        v1::MemberState::Unspecified => "unknown",
    }
}

/// A node with its own figures, when it could be asked.
#[derive(Debug, Serialize)]
pub struct Node {
    #[serde(flatten)]
    pub member: Member,
    pub figures: Option<NodeFigures>,
    pub error: Option<String>,
}

/// What a node says of itself.
#[derive(Debug, Serialize)]
pub struct NodeFigures {
    pub repositories: u64,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: u64,
    pub open_stores: u64,
    pub hydrations_running: u64,
    pub hydrations_queued: u64,
    pub trees_served: u64,
    pub chunks_served: u64,
    pub bytes_served: u64,
}

impl From<&v1::NodeStatus> for Node {
    fn from(wire: &v1::NodeStatus) -> Self {
        let figures = wire.stat.as_ref().map(|stat| NodeFigures {
            repositories: stat.repositories,
            disk_used_bytes: stat.disk_used_bytes,
            disk_free_bytes: stat.disk_free_bytes,
            open_stores: stat.open_stores,
            hydrations_running: stat.hydrations_running,
            hydrations_queued: stat.hydrations_queued,
            trees_served: stat.trees_served,
            chunks_served: stat.chunks_served,
            bytes_served: stat.bytes_served,
        });
        let member = Member::from(&wire.member.clone().unwrap_or_default());
        Self { member, figures, error: some(&wire.error) }
    }
}

/// A fetcher with its own figures, when it could be asked.
#[derive(Debug, Serialize)]
pub struct Fetcher {
    #[serde(flatten)]
    pub member: Member,
    pub figures: Option<FetcherFigures>,
    pub error: Option<String>,
}

/// What a fetcher says of itself.
#[derive(Debug, Serialize)]
pub struct FetcherFigures {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cached_repositories: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub fetches_running: u64,
    pub fetches_done: u64,
    pub fetches_failed: u64,
    pub bytes_fetched: u64,
}

impl From<&v1::FetcherStatus> for Fetcher {
    fn from(wire: &v1::FetcherStatus) -> Self {
        let figures = wire.stat.as_ref().map(|stat| FetcherFigures {
            cache_bytes: stat.cache_bytes,
            cache_bytes_max: stat.cache_bytes_max,
            cached_repositories: stat.cached_repositories,
            cache_hits: stat.cache_hits,
            cache_misses: stat.cache_misses,
            fetches_running: stat.fetches_running,
            fetches_done: stat.fetches_done,
            fetches_failed: stat.fetches_failed,
            bytes_fetched: stat.bytes_fetched,
        });
        let member = Member::from(&wire.member.clone().unwrap_or_default());
        Self { member, figures, error: some(&wire.error) }
    }
}

/// `None` for the wire's empty text.
pub fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
