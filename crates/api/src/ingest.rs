//! Ingests and refreshes: what was begun, and how far it is.

use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use serde::Serialize;
use utoipa::ToSchema;

use crate::hosts::HostPauseDocument;
use crate::percent::percent_encoded;
use crate::repos::RepositoryDocument;
use crate::tongue::{not_command_line, not_http};
use crate::wire::{said, told};

/// An ingest or a refresh that was begun, or joined.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Started)]
pub struct IngestStarted {
    pub path: String,
    /// Where the repository is.
    pub repository: String,
    /// Where its progress is, as server-sent events.
    pub events: String,
}

impl IngestStarted {
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
#[schema(as = IngestPhase)]
pub enum IngestStage {
    Waiting,
    Resolving,
    Fetching,
    Adopting,
    Published,
    Hydrating,
    Done,
}

/// How far an ingest is: the data of the events `progress` and `done`, and how it ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = IngestProgress)]
pub struct IngestDocument {
    pub phase: IngestStage,
    /// What the fetcher has got of the source.
    pub fetch: Option<FetchDocument>,
    pub replicas: Vec<ReplicaProgress>,
    /// From `published` on.
    pub repository: Option<RepositoryDocument>,
    /// The ref had not moved: nothing was published.
    pub unchanged: bool,
    /// The remote host that said "not now", while the work waits for it.
    pub waiting_for: Option<HostPauseDocument>,
}

/// What a fetcher has got.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fetch)]
pub struct FetchDocument {
    pub phase: String,
    pub objects_done: u64,
    /// `null` = not known yet.
    pub objects_total: Option<u64>,
    pub bytes_done: u64,
}

/// How far one replica is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplicaProgress)]
pub struct ReplicaProgress {
    pub node_id: String,
    pub directories_done: u64,
    pub directories_total: u64,
    pub contents_done: u64,
    pub contents_total: u64,
    /// It holds the commit.
    pub durable: bool,
    pub error: Option<String>,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
    /// Replaced by `directories_done`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    directories: u64,
    /// Replaced by `contents_done`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    files: u64,
}

impl From<&v1::IngestProgress> for IngestDocument {
    fn from(wire: &v1::IngestProgress) -> Self {
        let phase = match wire.phase() {
            Phase::Unspecified => IngestStage::Waiting,
            Phase::Resolving => IngestStage::Resolving,
            Phase::Fetching => IngestStage::Fetching,
            Phase::Adopting => IngestStage::Adopting,
            Phase::Published => IngestStage::Published,
            Phase::Hydrating => IngestStage::Hydrating,
            Phase::Done => IngestStage::Done,
        };
        Self {
            phase,
            fetch: wire.fetch.as_ref().map(Into::into),
            replicas: wire.replicas.iter().map(Into::into).collect(),
            repository: wire.repository.as_ref().map(Into::into),
            unchanged: wire.unchanged,
            waiting_for: wire.waiting_for.as_ref().map(Into::into),
        }
    }
}

impl From<&v1::FetchProgress> for FetchDocument {
    fn from(wire: &v1::FetchProgress) -> Self {
        let name = wire.phase().as_str_name();
        Self {
            phase: name.trim_start_matches("PHASE_").to_ascii_lowercase(),
            objects_done: wire.objects_done,
            objects_total: told(wire.objects_total),
            bytes_done: wire.bytes_done,
        }
    }
}

impl From<&v1::ReplicaProgress> for ReplicaProgress {
    fn from(wire: &v1::ReplicaProgress) -> Self {
        Self {
            node_id: wire.node_id.clone(),
            directories_done: wire.trees_done,
            directories_total: wire.trees_total,
            contents_done: wire.blobs_done,
            contents_total: wire.blobs_total,
            durable: wire.durable,
            error: said(&wire.error),
            node: wire.node_id.clone(),
            directories: wire.trees_done,
            files: wire.blobs_done,
        }
    }
}
