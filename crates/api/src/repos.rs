//! Repositories, their replicas, and the progress of an ingest.

use monofs_model::{Consistency, ContentMode, RepositoryState};
use monofs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::page::ListPage;
use crate::percent::percent_encoded;
use crate::tongue::{Time, not_command_line, not_http};
use crate::wire::{hex, said};

/// What stands for the remote's HEAD where a ref is told.
const HEAD: &str = "HEAD";

/// The ref as documents tell it.
pub fn ref_word(ref_name: &str) -> String {
    let word = if ref_name.is_empty() { HEAD } else { ref_name };
    word.to_owned()
}

/// The state of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RepositoryState)]
pub enum RepositoryCondition {
    /// Its first ingest has not ended.
    Ingesting,
    Ready,
    /// Its first ingest failed; readers do not see it.
    Failed,
    /// Kept, and not shown: a repository around it has its name.
    #[serde(skip_deserializing)]
    Shadowed,
    /// Of a newer version.
    #[serde(skip_deserializing)]
    Unknown,
}

impl RepositoryCondition {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ingesting => "ingesting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Shadowed => "shadowed",
            Self::Unknown => "unknown",
        }
    }

    /// The state of the catalogue; `None` for what it does not know.
    pub const fn state(self) -> Option<RepositoryState> {
        match self {
            Self::Ingesting => Some(RepositoryState::Ingesting),
            Self::Ready => Some(RepositoryState::Ready),
            Self::Failed => Some(RepositoryState::Failed),
            Self::Shadowed | Self::Unknown => None,
        }
    }
}

impl From<&v1::Repository> for RepositoryCondition {
    fn from(repository: &v1::Repository) -> Self {
        match repository.shadowed_by.is_empty() {
            true => repository.state().into(),
            false => Self::Shadowed,
        }
    }
}

impl From<&monofs_model::Repository> for RepositoryCondition {
    fn from(repository: &monofs_model::Repository) -> Self {
        match &repository.shadowed_by {
            None => repository.state.into(),
            Some(_) => Self::Shadowed,
        }
    }
}

impl From<v1::RepositoryState> for RepositoryCondition {
    fn from(state: v1::RepositoryState) -> Self {
        match state {
            v1::RepositoryState::Ingesting => Self::Ingesting,
            v1::RepositoryState::Ready => Self::Ready,
            v1::RepositoryState::Failed => Self::Failed,
            v1::RepositoryState::Unspecified => Self::Unknown,
        }
    }
}

impl From<RepositoryState> for RepositoryCondition {
    fn from(state: RepositoryState) -> Self {
        match state {
            RepositoryState::Ingesting => Self::Ingesting,
            RepositoryState::Ready => Self::Ready,
            RepositoryState::Failed => Self::Failed,
        }
    }
}

/// When contents come to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Content)]
pub enum ContentTiming {
    /// All of them, after a commit was published.
    Eager,
    /// Each when it is read first.
    Lazy,
}

/// How many replicas must hold a commit before it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Strictness)]
pub enum PublishRule {
    /// One.
    Eventual,
    /// All.
    Strong,
}

impl ContentTiming {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Lazy => "lazy",
        }
    }
}

impl PublishRule {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Strong => "strong",
        }
    }
}

/// A repository as the catalogue has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Repository)]
pub struct RepositoryDocument {
    /// Where it appears in the tree.
    pub path: String,
    /// The same, percent-encoded as one component of a URL.
    pub path_encoded: String,
    pub storage_id: String,
    pub source: String,
    /// `HEAD` = the remote's.
    #[serde(rename = "ref")]
    pub ref_name: String,
    pub state: RepositoryCondition,
    /// The commit that readers see.
    pub commit: Option<String>,
    pub commit_time: Option<Time>,
    /// The root directory of the commit.
    pub root: Option<String>,
    pub directories: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Number of submodules of the commit.
    pub submodules: Option<usize>,
    /// Grows by one with every commit that is published.
    pub generation: u64,
    /// Nodes that hold the commit.
    pub holders: Vec<String>,
    pub content: ContentTiming,
    pub consistency: PublishRule,
    pub created_at: Option<Time>,
    /// When the source was last looked at with success.
    pub refreshed_at: Option<Time>,
    /// Why the last ingest or refresh failed.
    pub last_error: Option<String>,
    /// The repository around it that has its name, so that it is kept and not shown.
    pub shadowed_by: Option<String>,
}

impl From<&v1::Repository> for RepositoryDocument {
    fn from(wire: &v1::Repository) -> Self {
        // What a repository without a commit has, and what only a commit has.
        let snapshot = wire.snapshot.as_ref();
        Self {
            path: wire.path.clone(),
            path_encoded: percent_encoded(wire.path.as_bytes()),
            storage_id: wire.storage_id.clone(),
            source: wire.source.clone(),
            ref_name: ref_word(&wire.ref_name),
            state: wire.into(),
            commit: snapshot.map(|snapshot| hex(&snapshot.commit)),
            commit_time: snapshot.and_then(|snapshot| Time::known(snapshot.commit_time)),
            root: snapshot.map(|snapshot| hex(&snapshot.root)),
            directories: snapshot.map(|snapshot| snapshot.trees),
            files: snapshot.map(|snapshot| snapshot.blobs),
            bytes: snapshot.map(|snapshot| snapshot.bytes),
            submodules: snapshot.map(|snapshot| snapshot.submodules.len()),
            generation: wire.generation,
            holders: wire.holders.clone(),
            content: match wire.content() {
                v1::ContentMode::Lazy => ContentTiming::Lazy,
                v1::ContentMode::Eager | v1::ContentMode::Unspecified => ContentTiming::Eager,
            },
            consistency: match wire.consistency() {
                v1::Consistency::Strong => PublishRule::Strong,
                v1::Consistency::Eventual | v1::Consistency::Unspecified => PublishRule::Eventual,
            },
            created_at: Time::known(wire.created_at),
            refreshed_at: Time::known(wire.refreshed_at),
            last_error: said(&wire.last_error),
            shadowed_by: said(&wire.shadowed_by),
        }
    }
}

impl From<&monofs_model::Repository> for RepositoryDocument {
    fn from(entry: &monofs_model::Repository) -> Self {
        // What a repository without a commit has, and what only a commit has.
        let snapshot = entry.snapshot.as_ref();
        Self {
            path: entry.path.to_string(),
            path_encoded: percent_encoded(entry.path.as_str().as_bytes()),
            storage_id: entry.storage_id().to_string(),
            source: entry.source.to_string(),
            ref_name: ref_word(entry.ref_name.as_str()),
            state: entry.into(),
            commit: snapshot.map(|snapshot| snapshot.commit.to_string()),
            commit_time: snapshot.and_then(|snapshot| Time::known(snapshot.commit_time)),
            root: snapshot.map(|snapshot| snapshot.root.to_string()),
            directories: snapshot.map(|snapshot| snapshot.trees),
            files: snapshot.map(|snapshot| snapshot.blobs),
            bytes: snapshot.map(|snapshot| snapshot.bytes),
            submodules: snapshot.map(|snapshot| snapshot.submodules.len()),
            generation: entry.generation,
            holders: entry.holders.iter().map(ToString::to_string).collect(),
            content: match entry.content {
                ContentMode::Eager => ContentTiming::Eager,
                ContentMode::Lazy => ContentTiming::Lazy,
            },
            consistency: match entry.consistency {
                Consistency::Eventual => PublishRule::Eventual,
                Consistency::Strong => PublishRule::Strong,
            },
            created_at: Time::known(entry.created_at),
            refreshed_at: Time::known(entry.refreshed_at),
            last_error: said(&entry.last_error),
            shadowed_by: entry.shadowed_by.as_ref().map(ToString::to_string),
        }
    }
}

/// A part of the list of repositories.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Repositories)]
pub struct RepositoryList {
    pub repositories: Vec<RepositoryDocument>,
    #[serde(flatten)]
    pub page: ListPage,
}

/// A submodule of a repository.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Submodule)]
pub struct SubmoduleDocument {
    /// Percent-encoded, below the root of the repository.
    pub path_encoded: String,
    pub url: String,
}

/// One repository in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct RepositoryInFull {
    pub repository: RepositoryDocument,
    pub replicas: Vec<ReplicaDocument>,
    /// Nodes that placement wants copies on now; `null` = not told.
    pub wanted: Option<Vec<String>>,
    /// The router that ingests or refreshes it right now.
    pub worked_on_by: Option<String>,
    pub submodules: Vec<SubmoduleDocument>,
}

/// What a node has of a repository.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Replica)]
pub struct ReplicaDocument {
    pub node_id: String,
    /// The catalogue counts on it.
    pub holder: bool,
    /// Placement wants a copy there; `null` = not told.
    pub wanted: Option<bool>,
    /// Commits that it holds, the published one among them if it is a good copy.
    pub commits: Vec<String>,
    /// It holds the published commit.
    pub current: Option<bool>,
    pub directories: Option<u64>,
    pub files: Option<u64>,
    /// Distinct contents of the commits held that are there, and in all.
    pub contents_held: Option<u64>,
    pub contents_total: Option<u64>,
    pub disk_bytes: Option<u64>,
    /// Of its hydration.
    pub last_error: Option<String>,
    /// Why the node could not be asked.
    pub error: Option<String>,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
    /// Replaced by the fields above.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    held: Option<HeldRepository>,
}

impl ReplicaDocument {
    /// As the node said; `wanted`: the nodes that placement wants copies on, if that is known;
    /// `commit` is the one that is published.
    pub fn new(
        status: &v1::ReplicaStatus,
        wanted: Option<&[String]>,
        commit: Option<&str>,
    ) -> Self {
        let held = status.held.as_ref().map(HeldRepository::from);
        let has = |commits: &[String]| commits.iter().any(|held| Some(held.as_str()) == commit);
        Self {
            node_id: status.node_id.clone(),
            holder: status.holder,
            wanted: wanted.map(|wanted| wanted.contains(&status.node_id)),
            current: held.as_ref().map(|held| has(&held.commits)),
            commits: held
                .as_ref()
                .map_or_else(Vec::new, |held| held.commits.clone()),
            directories: held.as_ref().map(|held| held.directories),
            files: held.as_ref().map(|held| held.files),
            contents_held: held.as_ref().map(|held| held.contents_held),
            contents_total: held.as_ref().map(|held| held.contents_total),
            disk_bytes: held.as_ref().map(|held| held.disk_bytes),
            last_error: held.as_ref().and_then(|held| held.last_error.clone()),
            error: said(&status.error),
            node: status.node_id.clone(),
            held,
        }
    }
}

/// What one node holds of a repository.
#[derive(Debug, Clone, Serialize)]
pub struct HeldRepository {
    pub path: String,
    pub storage_id: String,
    pub commits: Vec<String>,
    pub directories: u64,
    pub files: u64,
    /// Distinct contents of the commits held that are there, and in all.
    pub contents_held: u64,
    pub contents_total: u64,
    pub disk_bytes: u64,
    pub last_error: Option<String>,
    /// Replaced by `contents_held`.
    #[serde(skip_serializing_if = "not_command_line")]
    hydrated_files: u64,
    /// Replaced by `contents_total`.
    #[serde(skip_serializing_if = "not_command_line")]
    total_files: u64,
}

impl From<&v1::HeldRepository> for HeldRepository {
    fn from(wire: &v1::HeldRepository) -> Self {
        let snapshots = wire.snapshots.iter();
        Self {
            path: wire.path.clone(),
            storage_id: wire.storage_id.clone(),
            commits: snapshots.map(|snapshot| hex(&snapshot.commit)).collect(),
            directories: wire.trees,
            files: wire.blobs,
            contents_held: wire.hydrated_blobs,
            contents_total: wire.total_blobs,
            disk_bytes: wire.disk_bytes,
            last_error: said(&wire.last_error),
            hydrated_files: wire.hydrated_blobs,
            total_files: wire.total_blobs,
        }
    }
}

/// The commits that a repository showed, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Publications {
    pub path: String,
    pub publications: Vec<PublicationDocument>,
}

/// A commit that was published.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Publication)]
pub struct PublicationDocument {
    pub generation: u64,
    pub commit: String,
    /// `HEAD` = the remote's.
    #[serde(rename = "ref")]
    pub ref_name: String,
    pub commit_time: Time,
    pub published_at: Time,
    /// The router that published it.
    pub router_id: String,
    pub files: u64,
    pub bytes: u64,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: String,
}

impl From<&v1::Publication> for PublicationDocument {
    fn from(row: &v1::Publication) -> Self {
        Self {
            generation: row.generation,
            commit: hex(&row.commit),
            ref_name: ref_word(&row.ref_name),
            commit_time: Time::new(row.commit_time),
            published_at: Time::new(row.published_at),
            router_id: row.router_id.clone(),
            files: row.blobs,
            bytes: row.bytes,
            router: row.router_id.clone(),
        }
    }
}
