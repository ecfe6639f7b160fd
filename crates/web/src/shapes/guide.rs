//! The documents of `/health`, `/ready`, `/api/status` and `/api/fetchers`, whose shapes the
//! deployment guide gives.

use monofs_model::MemberState;
use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use super::members::{ClientReport, State};
use super::overview::Health;
use super::{known, said};

/// Whether the router can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthDocument {
    pub status: Health,
    /// One line each: what is wrong and what to do.
    pub reasons: Vec<String>,
}

/// Requests are answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ready`.
    pub status: String,
    pub repositories: usize,
}

/// Everything about the cluster, with every member asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusDocument {
    pub version: String,
    pub started_at: i64,
    pub router: String,
    pub routers: Vec<RouterStatus>,
    pub view: u64,
    pub epoch: String,
    pub revision: u64,
    pub replication_factor: u32,
    pub repositories: RepositoryStatus,
    pub nodes: Vec<NodeStatus>,
    pub fetchers: Vec<FetcherStatus>,
    pub clients: Vec<ClientStatus>,
    pub problems: Vec<String>,
}

/// Number of repositories by state.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RepositoryStatus {
    pub ready: u64,
    pub ingesting: u64,
    pub failed: u64,
}

/// A router.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RouterStatus {
    pub id: String,
    pub address: String,
    pub http_address: String,
    pub version: String,
    pub started_at: i64,
    pub leader: bool,
}

/// What is known of every member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MemberStatus {
    pub id: String,
    pub address: String,
    pub external_address: String,
    /// `null` = of a newer version.
    pub state: Option<State>,
    pub zone: String,
    pub weight: f64,
    pub version: String,
    pub capacity_bytes: u64,
    /// Why it could not be asked; then what it would have said is missing.
    pub error: Option<String>,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeStatus {
    #[serde(flatten)]
    pub member: MemberStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repositories: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_stores: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydrations_running: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydrations_queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trees_served: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chunks_served: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_served: Option<u64>,
}

/// A fetcher.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FetcherStatus {
    #[serde(flatten)]
    pub member: MemberStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_repositories: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_hits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_misses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetches_running: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetches_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetches_failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_fetched: Option<u64>,
}

/// The fetchers alone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FetchersDocument {
    pub fetchers: Vec<FetcherStatus>,
}

/// A mount.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientStatus {
    pub id: String,
    pub version: String,
    pub mount: String,
    pub acked_revision: u64,
    pub connected_at: i64,
    pub router: String,
    pub reported_at: Option<i64>,
    pub report: Option<ClientReport>,
}

impl From<v1::StatusResponse> for StatusDocument {
    fn from(status: v1::StatusResponse) -> Self {
        let position = status.position.unwrap_or_default();
        Self {
            version: status.version,
            started_at: status.started_at,
            router: status.router_id,
            routers: status.routers.into_iter().map(Into::into).collect(),
            view: status.view_number,
            epoch: position.epoch,
            revision: position.revision,
            replication_factor: status.replication_factor,
            repositories: RepositoryStatus {
                ready: status.repositories_ready,
                ingesting: status.repositories_ingesting,
                failed: status.repositories_failed,
            },
            nodes: status.nodes.into_iter().map(Into::into).collect(),
            fetchers: status.fetchers.into_iter().map(Into::into).collect(),
            clients: status.clients.into_iter().map(Into::into).collect(),
            problems: status.problems,
        }
    }
}

impl From<v1::RouterStatus> for RouterStatus {
    fn from(status: v1::RouterStatus) -> Self {
        Self {
            id: status.router_id,
            address: status.address,
            http_address: status.http_address,
            version: status.version,
            started_at: status.started_at,
            leader: status.leader,
        }
    }
}

impl MemberStatus {
    fn new(member: Option<v1::Member>, error: &str) -> Self {
        let member = member.unwrap_or_default();
        Self {
            state: MemberState::try_from(member.state()).ok().map(Into::into),
            id: member.id,
            address: member.address,
            external_address: member.external_address,
            zone: member.zone,
            weight: member.weight,
            version: member.version,
            capacity_bytes: member.capacity_bytes,
            error: said(error),
        }
    }
}

impl From<v1::NodeStatus> for NodeStatus {
    fn from(status: v1::NodeStatus) -> Self {
        let stat = status.stat.as_ref();
        Self {
            member: MemberStatus::new(status.member, &status.error),
            repositories: stat.map(|stat| stat.repositories),
            disk_used_bytes: stat.map(|stat| stat.disk_used_bytes),
            disk_free_bytes: stat.map(|stat| stat.disk_free_bytes),
            open_stores: stat.map(|stat| stat.open_stores),
            hydrations_running: stat.map(|stat| stat.hydrations_running),
            hydrations_queued: stat.map(|stat| stat.hydrations_queued),
            trees_served: stat.map(|stat| stat.trees_served),
            chunks_served: stat.map(|stat| stat.chunks_served),
            bytes_served: stat.map(|stat| stat.bytes_served),
        }
    }
}

impl From<v1::FetcherStatus> for FetcherStatus {
    fn from(status: v1::FetcherStatus) -> Self {
        let stat = status.stat.as_ref();
        Self {
            member: MemberStatus::new(status.member, &status.error),
            cache_bytes: stat.map(|stat| stat.cache_bytes),
            cache_bytes_max: stat.map(|stat| stat.cache_bytes_max),
            cached_repositories: stat.map(|stat| stat.cached_repositories),
            cache_hits: stat.map(|stat| stat.cache_hits),
            cache_misses: stat.map(|stat| stat.cache_misses),
            fetches_running: stat.map(|stat| stat.fetches_running),
            fetches_done: stat.map(|stat| stat.fetches_done),
            fetches_failed: stat.map(|stat| stat.fetches_failed),
            bytes_fetched: stat.map(|stat| stat.bytes_fetched),
        }
    }
}

impl From<v1::ClientStatus> for ClientStatus {
    fn from(status: v1::ClientStatus) -> Self {
        Self {
            id: status.client_id,
            version: status.version,
            mount: status.mount,
            acked_revision: status.acked_revision,
            connected_at: status.connected_at,
            router: status.router_id,
            reported_at: known(status.reported_at),
            report: status.report.map(Into::into),
        }
    }
}
