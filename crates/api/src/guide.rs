//! The documents of `/health`, `/ready`, `/api/status` and `/api/fetchers`, whose shapes the
//! deployment guide gives. Beside the words that it gives stand those of the other documents.

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clients::ClientDocument;
use crate::findings::{Finding, Health};
use crate::members::{FetcherDocument, NodeDocument, RouterDocument};
use crate::tongue::{Time, not_http};

/// Whether the router can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthDocument {
    pub health: Health,
    pub findings: Vec<Finding>,
    /// The same as `health`, as the guide calls it.
    status: Health,
    /// The problems alone, as the guide calls them: one line each, what is wrong and what to do.
    reasons: Vec<String>,
}

impl HealthDocument {
    /// The word, and what is wrong.
    pub fn new(health: Health, findings: Vec<Finding>) -> Self {
        Self {
            health,
            status: health,
            reasons: problems(&findings),
            findings,
        }
    }
}

/// What is wrong, without the rest.
fn problems(findings: &[Finding]) -> Vec<String> {
    let problems = findings.iter().map(|finding| finding.problem.clone());
    problems.collect()
}

/// Requests are answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ready)]
pub struct ReadyDocument {
    /// `ready`.
    pub status: String,
    pub repositories: usize,
}

/// Number of repositories by state.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = RepositoryStatus)]
pub struct RepositoriesByState {
    pub ready: u64,
    pub ingesting: u64,
    pub failed: u64,
}

impl From<&v1::StatusResponse> for RepositoriesByState {
    fn from(status: &v1::StatusResponse) -> Self {
        Self {
            ready: status.repositories_ready,
            ingesting: status.repositories_ingesting,
            failed: status.repositories_failed,
        }
    }
}

/// Everything about the cluster, with every member asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatusDocument {
    pub version: String,
    pub started_at: Option<Time>,
    /// The router that answers.
    pub router_id: String,
    /// All that run; none = the state store cannot be asked.
    pub routers_known: Vec<RouterDocument>,
    pub view_number: u64,
    pub epoch: String,
    pub revision: u64,
    pub replication_factor: u32,
    pub repositories: RepositoriesByState,
    pub nodes: Vec<GuideNode>,
    pub fetchers: Vec<GuideFetcher>,
    pub clients: Vec<ClientDocument>,
    pub findings: Vec<Finding>,
    /// The findings' lines alone.
    pub problems: Vec<String>,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: String,
    /// Replaced by `routers_known`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    routers: Vec<RouterDocument>,
    /// Replaced by `view_number`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    view: u64,
}

impl From<&v1::StatusResponse> for StatusDocument {
    fn from(status: &v1::StatusResponse) -> Self {
        // The words of the other documents, then those of the guide.
        let position = status.position.clone().unwrap_or_default();
        let routers = status.routers.iter();
        let routers: Vec<RouterDocument> = routers
            .map(|router| RouterDocument::new(router, &status.router_id))
            .collect();
        let nodes = NodeDocument::of_status(status).into_iter();
        let fetchers = status.fetchers.iter();
        Self {
            version: status.version.clone(),
            started_at: Time::known(status.started_at),
            router_id: status.router_id.clone(),
            routers_known: routers.clone(),
            view_number: status.view_number,
            epoch: position.epoch,
            revision: position.revision,
            replication_factor: status.replication_factor,
            repositories: status.into(),
            nodes: nodes
                .zip(&status.nodes)
                .map(|(node, wire)| GuideNode {
                    node,
                    flat: FlatNodeStat::new(wire.stat.as_ref()),
                })
                .collect(),
            fetchers: fetchers.map(GuideFetcher::from).collect(),
            clients: ClientDocument::of_status(status),
            findings: status
                .problems
                .iter()
                .map(|line| Finding::said(line))
                .collect(),
            problems: status.problems.clone(),
            router: status.router_id.clone(),
            routers,
            view: status.view_number,
        }
    }
}

/// A node, with what it says of itself beside what is known of it, as the guide has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NodeStatus)]
pub struct GuideNode {
    #[serde(flatten)]
    node: NodeDocument,
    #[serde(flatten)]
    flat: FlatNodeStat,
}

/// What a node says of itself; missing when it could not be asked.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct FlatNodeStat {
    #[serde(skip_serializing_if = "Option::is_none")]
    repositories: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_used_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_stores: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hydrations_running: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hydrations_queued: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directories_served: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunks_served: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_served: Option<u64>,
    /// Replaced by `directories_served`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(deprecated)]
    trees_served: Option<u64>,
}

impl FlatNodeStat {
    fn new(stat: Option<&v1::StatResponse>) -> Self {
        Self {
            repositories: stat.map(|stat| stat.repositories),
            disk_used_bytes: stat.map(|stat| stat.disk_used_bytes),
            disk_free_bytes: stat.map(|stat| stat.disk_free_bytes),
            open_stores: stat.map(|stat| stat.open_stores),
            hydrations_running: stat.map(|stat| stat.hydrations_running),
            hydrations_queued: stat.map(|stat| stat.hydrations_queued),
            directories_served: stat.map(|stat| stat.trees_served),
            chunks_served: stat.map(|stat| stat.chunks_served),
            bytes_served: stat.map(|stat| stat.bytes_served),
            trees_served: stat.map(|stat| stat.trees_served),
        }
    }
}

/// A fetcher, with what it says of itself beside what is known of it, as the guide has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FetcherStatus)]
pub struct GuideFetcher {
    #[serde(flatten)]
    fetcher: FetcherDocument,
    #[serde(flatten)]
    flat: FlatFetcherStat,
}

impl From<&v1::FetcherStatus> for GuideFetcher {
    fn from(wire: &v1::FetcherStatus) -> Self {
        Self {
            fetcher: FetcherDocument::new(wire, None),
            flat: FlatFetcherStat::new(wire.stat.as_ref()),
        }
    }
}

/// What a fetcher says of itself; missing when it could not be asked.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct FlatFetcherStat {
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_bytes_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_repositories: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_hits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_misses: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetches_running: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetches_done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fetches_failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_fetched: Option<u64>,
}

impl FlatFetcherStat {
    fn new(stat: Option<&v1::FetcherStatResponse>) -> Self {
        Self {
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

/// The fetchers alone.
#[derive(Debug, Serialize, ToSchema)]
pub struct FetchersDocument {
    pub fetchers: Vec<GuideFetcher>,
}
