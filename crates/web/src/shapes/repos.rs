//! Repositories, their replicas, and the progress of an ingest.

use monofs_model::{Consistency, ContentMode, RepositoryState};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Page, known, said};
use monofs_router::browse::percent_encoded;

/// The state of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RepositoryState)]
pub(crate) enum State {
    /// Its first ingest has not ended.
    Ingesting,
    Ready,
    /// Its first ingest failed; readers do not see it.
    Failed,
}

impl From<RepositoryState> for State {
    fn from(state: RepositoryState) -> Self {
        match state {
            RepositoryState::Ingesting => Self::Ingesting,
            RepositoryState::Ready => Self::Ready,
            RepositoryState::Failed => Self::Failed,
        }
    }
}

impl From<State> for RepositoryState {
    fn from(state: State) -> Self {
        match state {
            State::Ingesting => Self::Ingesting,
            State::Ready => Self::Ready,
            State::Failed => Self::Failed,
        }
    }
}

/// When contents come to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    /// All of them, after a commit was published.
    Eager,
    /// Each when it is read first.
    Lazy,
}

/// How many replicas must hold a commit before it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Strictness {
    /// One.
    Eventual,
    /// All.
    Strong,
}

/// A repository as the catalogue has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Repository {
    /// Where it appears in the tree.
    pub path: String,
    /// The same, percent-encoded as one component of a URL.
    pub path_encoded: String,
    pub storage_id: String,
    pub source: String,
    /// `null` = the remote's HEAD.
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    pub state: State,
    /// The commit that readers see.
    pub commit: Option<String>,
    pub commit_time: Option<i64>,
    pub directories: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    /// Grows by one with every commit that is published.
    pub generation: u64,
    /// Nodes that hold the commit.
    pub holders: Vec<String>,
    pub content: Content,
    pub consistency: Strictness,
    pub created_at: Option<i64>,
    /// When the source was last looked at with success.
    pub refreshed_at: Option<i64>,
    /// Why the last ingest or refresh failed.
    pub last_error: Option<String>,
}

impl From<&monofs_model::Repository> for Repository {
    fn from(entry: &monofs_model::Repository) -> Self {
        let snapshot = entry.snapshot.as_ref();
        Self {
            path: entry.path.to_string(),
            path_encoded: percent_encoded(entry.path.as_str().as_bytes()),
            storage_id: entry.storage_id().to_string(),
            source: entry.source.to_string(),
            ref_name: said(entry.ref_name.as_str()),
            state: entry.state.into(),
            commit: snapshot.map(|snapshot| snapshot.commit.to_string()),
            commit_time: snapshot.map(|snapshot| snapshot.commit_time),
            directories: snapshot.map(|snapshot| snapshot.trees),
            files: snapshot.map(|snapshot| snapshot.blobs),
            bytes: snapshot.map(|snapshot| snapshot.bytes),
            generation: entry.generation,
            holders: entry.holders.iter().map(ToString::to_string).collect(),
            content: match entry.content {
                ContentMode::Eager => Content::Eager,
                ContentMode::Lazy => Content::Lazy,
            },
            consistency: match entry.consistency {
                Consistency::Eventual => Strictness::Eventual,
                Consistency::Strong => Strictness::Strong,
            },
            created_at: known(entry.created_at),
            refreshed_at: known(entry.refreshed_at),
            last_error: said(&entry.last_error),
        }
    }
}

/// By what a list of repositories is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sort {
    #[default]
    Path,
    State,
    Bytes,
    Files,
    /// Number of holders.
    Copies,
    Created,
    Refreshed,
    /// Time of the commit.
    Committed,
}

/// The direction of a sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    #[default]
    Asc,
    Desc,
}

/// Which repositories are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Words that all are part of the path or the source, without regard to case.
    #[param(max_length = 200)]
    pub q: String,
    #[param(inline)]
    pub state: Option<State>,
    /// Only those with fewer copies than are wanted, or whose last refresh failed.
    pub troubled: bool,
    #[param(inline)]
    pub sort: Sort,
    #[param(inline)]
    pub order: Order,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of the list of repositories.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Repositories {
    pub repositories: Vec<Repository>,
    #[serde(flatten)]
    pub page: Page,
}

/// A submodule of a repository.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Submodule {
    /// Percent-encoded, below the root of the repository.
    pub path_encoded: String,
    pub url: String,
}

/// One repository in full.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RepositoryInFull {
    pub repository: Repository,
    pub replicas: Vec<Replica>,
    /// Nodes that placement wants copies on now.
    pub wanted: Vec<String>,
    /// The router that ingests or refreshes it right now.
    pub worked_on_by: Option<String>,
    pub submodules: Vec<Submodule>,
}

/// What a node has of a repository.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replica {
    pub node: String,
    /// The catalogue counts on it.
    pub holder: bool,
    /// Placement wants a copy there.
    pub wanted: bool,
    /// Commits that it holds, the published one among them if it is a good copy.
    pub commits: Vec<String>,
    /// It holds the published commit.
    pub current: Option<bool>,
    pub directories: Option<u64>,
    /// Distinct contents of the commits held that are there, and in all.
    pub contents_held: Option<u64>,
    pub contents_total: Option<u64>,
    pub disk_bytes: Option<u64>,
    /// Of its hydration.
    pub last_error: Option<String>,
    /// Why the node could not be asked.
    pub error: Option<String>,
}

impl Replica {
    /// As the node said; `commit` is the one that is published.
    pub fn new(status: v1::ReplicaStatus, wanted: &[String], commit: Option<&str>) -> Self {
        let held = status.held.as_ref();
        let hex = |snapshot: &v1::Snapshot| {
            monofs_model::Oid::from_bytes(&snapshot.commit).map(|oid| oid.to_string())
        };
        let commits: Vec<String> = held
            .iter()
            .flat_map(|held| &held.snapshots)
            .filter_map(|snapshot| hex(snapshot).ok())
            .collect();
        Self {
            holder: status.holder,
            wanted: wanted.contains(&status.node_id),
            current: held.map(|_| commits.iter().any(|held| Some(held.as_str()) == commit)),
            commits,
            directories: held.map(|held| held.trees),
            contents_held: held.map(|held| held.hydrated_blobs),
            contents_total: held.map(|held| held.total_blobs),
            disk_bytes: held.map(|held| held.disk_bytes),
            last_error: held.and_then(|held| said(&held.last_error)),
            error: said(&status.error),
            node: status.node_id,
        }
    }
}

/// What is to be ingested.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ingest {
    /// URL of the repository.
    #[schema(
        example = "https://github.com/org/repo",
        min_length = 1,
        max_length = 2048
    )]
    pub source: String,
    /// A branch, a tag or a commit; without one, the remote's HEAD.
    #[serde(rename = "ref", default)]
    pub ref_name: Option<String>,
    /// Where it appears in the tree; without one, as the source says.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub consistency: Option<Strictness>,
    #[serde(default)]
    pub content: Option<Content>,
}

impl From<Ingest> for v1::IngestRequest {
    fn from(asked: Ingest) -> Self {
        let consistency = match asked.consistency {
            None => v1::Consistency::Unspecified,
            Some(Strictness::Eventual) => v1::Consistency::Eventual,
            Some(Strictness::Strong) => v1::Consistency::Strong,
        };
        let content = match asked.content {
            None => v1::ContentMode::Unspecified,
            Some(Content::Eager) => v1::ContentMode::Eager,
            Some(Content::Lazy) => v1::ContentMode::Lazy,
        };
        Self {
            source: asked.source,
            ref_name: asked.ref_name.unwrap_or_default(),
            path: asked.path.unwrap_or_default(),
            consistency: consistency.into(),
            content: content.into(),
            wait_hydrated: false,
        }
    }
}

/// An ingest or a refresh that was begun, or joined.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Started {
    pub path: String,
    /// Where the repository is.
    pub repository: String,
    /// Where its progress is, as server-sent events.
    pub events: String,
}

impl Started {
    /// Of the repository at this path.
    pub fn at(path: &monofs_model::DisplayPath) -> Self {
        let repository = format!(
            "/api/v1/repos/{}",
            percent_encoded(path.as_str().as_bytes())
        );
        Self {
            path: path.to_string(),
            events: format!("{repository}/events"),
            repository,
        }
    }
}

/// What an ingest is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IngestPhase {
    Waiting,
    Resolving,
    Fetching,
    Adopting,
    Published,
    Hydrating,
    Done,
}

/// How far an ingest is: the data of the events `progress` and `done`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IngestProgress {
    pub phase: IngestPhase,
    /// What the fetcher has got of the source.
    pub fetch: Option<Fetch>,
    pub replicas: Vec<ReplicaProgress>,
    /// From `published` on.
    pub repository: Option<Repository>,
    /// The ref had not moved: nothing was published.
    pub unchanged: bool,
}

/// What a fetcher has got.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fetch {
    pub phase: String,
    pub objects_done: u64,
    /// `null` = not known yet.
    pub objects_total: Option<u64>,
    pub bytes_done: u64,
}

/// How far one replica is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReplicaProgress {
    pub node: String,
    pub directories_done: u64,
    pub directories_total: u64,
    pub contents_done: u64,
    pub contents_total: u64,
    /// It holds the commit.
    pub durable: bool,
    pub error: Option<String>,
}

impl From<v1::IngestProgress> for IngestProgress {
    fn from(progress: v1::IngestProgress) -> Self {
        let phase = match progress.phase() {
            Phase::Unspecified => IngestPhase::Waiting,
            Phase::Resolving => IngestPhase::Resolving,
            Phase::Fetching => IngestPhase::Fetching,
            Phase::Adopting => IngestPhase::Adopting,
            Phase::Published => IngestPhase::Published,
            Phase::Hydrating => IngestPhase::Hydrating,
            Phase::Done => IngestPhase::Done,
        };
        let repository = progress
            .repository
            .and_then(|wire| monofs_model::Repository::try_from(wire).ok());
        Self {
            phase,
            fetch: progress.fetch.map(Into::into),
            replicas: progress.replicas.into_iter().map(Into::into).collect(),
            repository: repository.as_ref().map(Into::into),
            unchanged: progress.unchanged,
        }
    }
}

impl From<v1::FetchProgress> for Fetch {
    fn from(fetch: v1::FetchProgress) -> Self {
        let phase = fetch
            .phase()
            .as_str_name()
            .trim_start_matches("PHASE_")
            .to_ascii_lowercase();
        let total = fetch.objects_total;
        let objects_total = (total != 0).then_some(total);
        Self {
            phase,
            objects_done: fetch.objects_done,
            objects_total,
            bytes_done: fetch.bytes_done,
        }
    }
}

impl From<v1::ReplicaProgress> for ReplicaProgress {
    fn from(replica: v1::ReplicaProgress) -> Self {
        Self {
            error: said(&replica.error),
            node: replica.node_id,
            directories_done: replica.trees_done,
            directories_total: replica.trees_total,
            contents_done: replica.blobs_done,
            contents_total: replica.blobs_total,
            durable: replica.durable,
        }
    }
}

/// The commits that a repository showed, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Publications {
    pub path: String,
    pub publications: Vec<Publication>,
}

/// A commit that was published.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Publication {
    pub generation: u64,
    pub commit: String,
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    pub commit_time: i64,
    pub published_at: i64,
    /// The router that published it.
    pub router: String,
    pub files: u64,
    pub bytes: u64,
}
