//! Nodes, fetchers, routers and clients.

use monofs_model::{Member, MemberState};
use monofs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::repos::Repository;
use super::{Page, known, said};

/// The state of a member, as its router judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MemberState)]
pub(crate) enum State {
    Joining,
    Active,
    Suspect,
    Down,
    Recovering,
    Draining,
    Drained,
}

impl From<MemberState> for State {
    fn from(state: MemberState) -> Self {
        match state {
            MemberState::Joining => Self::Joining,
            MemberState::Active => Self::Active,
            MemberState::Suspect => Self::Suspect,
            MemberState::Down => Self::Down,
            MemberState::Recovering => Self::Recovering,
            MemberState::Draining => Self::Draining,
            MemberState::Drained => Self::Drained,
        }
    }
}

/// What an operator wants of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Intent {
    /// `drain` or `failover`.
    pub kind: String,
    pub reason: Option<String>,
    pub since: i64,
    pub force: bool,
}

impl From<v1::NodeIntent> for Intent {
    fn from(row: v1::NodeIntent) -> Self {
        let kind = row
            .kind()
            .as_str_name()
            .trim_start_matches("KIND_")
            .to_ascii_lowercase();
        Self {
            kind,
            reason: said(&row.reason),
            since: row.since,
            force: row.force,
        }
    }
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Node {
    pub id: String,
    /// `host:port` inside the cluster.
    pub address: String,
    /// For clients outside of it.
    pub external_address: Option<String>,
    pub state: State,
    /// Since when it is in that state.
    pub since: Option<i64>,
    /// An operator moved reads and copies off it.
    pub failed_over: bool,
    /// Percent of its repositories that readers ask it first about.
    pub share_percent: u32,
    pub intent: Option<Intent>,
    pub zone: Option<String>,
    pub weight: f64,
    pub version: Option<String>,
    /// What it announced; `null` = it did not.
    pub capacity_bytes: Option<u64>,
    /// Repositories that the catalogue counts on it for.
    pub repositories_recorded: usize,
    pub stat: Option<NodeStat>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// What a node says of itself. Counters are since it started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeStat {
    pub repositories: u64,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: u64,
    pub open_stores: u64,
    pub hydrations_running: u64,
    pub hydrations_queued: u64,
    pub directories_served: u64,
    pub chunks_served: u64,
    pub bytes_served: u64,
    pub requests_failed: u64,
    /// Chunks asked for that were there, and that had to be asked for elsewhere.
    pub chunks_held: u64,
    pub chunks_missed: u64,
}

impl From<v1::StatResponse> for NodeStat {
    fn from(stat: v1::StatResponse) -> Self {
        Self {
            repositories: stat.repositories,
            disk_used_bytes: stat.disk_used_bytes,
            disk_free_bytes: stat.disk_free_bytes,
            open_stores: stat.open_stores,
            hydrations_running: stat.hydrations_running,
            hydrations_queued: stat.hydrations_queued,
            directories_served: stat.trees_served,
            chunks_served: stat.chunks_served,
            bytes_served: stat.bytes_served,
            requests_failed: stat.requests_failed,
            chunks_held: stat.chunks_held,
            chunks_missed: stat.chunks_missed,
        }
    }
}

/// What the router knows of a node beside what it says itself.
pub(crate) struct Known {
    pub since: Option<i64>,
    pub intent: Option<v1::NodeIntent>,
    pub repositories_recorded: usize,
}

impl Node {
    pub fn new(member: &Member, known: Known, asked: v1::NodeStatus) -> Self {
        Self {
            id: member.id.to_string(),
            address: member.address.clone(),
            external_address: said(&member.external_address),
            state: member.state.into(),
            since: known.since,
            failed_over: member.failed_over,
            share_percent: member.share_percent,
            intent: known.intent.map(Into::into),
            zone: said(&member.zone),
            weight: member.weight,
            version: said(&member.version),
            capacity_bytes: (member.capacity_bytes != 0).then_some(member.capacity_bytes),
            repositories_recorded: known.repositories_recorded,
            stat: asked.stat.map(Into::into),
            error: said(&asked.error),
        }
    }
}

/// A part of the list of nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nodes {
    pub nodes: Vec<Node>,
    #[serde(flatten)]
    pub page: Page,
}

/// One node in full.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeInFull {
    pub node: Node,
    pub probe: Probe,
    /// The states that this router saw it in, the newest first.
    pub states: Vec<StateChange>,
    /// Those that the catalogue counts on it for, by path.
    pub repositories: Vec<Repository>,
    pub page: Page,
}

/// What this router heard of a member.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Probe {
    /// Seconds since it answered or announced itself; `null` = never.
    pub heard_seconds_ago: Option<f64>,
    /// The last probe that failed, since the last answer.
    pub last_error: Option<String>,
}

/// A state that a member came into.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StateChange {
    pub state: State,
    pub since: i64,
    /// One line: what made it so.
    pub why: String,
}

/// A fetcher.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fetcher {
    pub id: String,
    pub address: String,
    pub state: State,
    pub since: Option<i64>,
    pub version: Option<String>,
    pub stat: Option<FetcherStat>,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// What a fetcher says of itself. Counters are since it started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FetcherStat {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cached_repositories: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// `null` = nothing was asked for.
    pub cache_hit_ratio: Option<f64>,
    pub fetches_running: u64,
    /// Of those that run, the ones that wait for a worker.
    pub fetches_waiting: u64,
    pub fetches_done: u64,
    pub fetches_failed: u64,
    pub fetched_bytes: u64,
}

impl From<v1::FetcherStatResponse> for FetcherStat {
    fn from(stat: v1::FetcherStatResponse) -> Self {
        Self {
            cache_bytes: stat.cache_bytes,
            cache_bytes_max: stat.cache_bytes_max,
            cached_repositories: stat.cached_repositories,
            cache_hits: stat.cache_hits,
            cache_misses: stat.cache_misses,
            cache_hit_ratio: ratio(stat.cache_hits, stat.cache_misses),
            fetches_running: stat.fetches_running,
            fetches_waiting: stat.fetches_waiting,
            fetches_done: stat.fetches_done,
            fetches_failed: stat.fetches_failed,
            fetched_bytes: stat.bytes_fetched,
        }
    }
}

/// Hits of all that was asked for; `None` = nothing was.
pub(crate) fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}

impl Fetcher {
    pub fn new(member: &Member, since: Option<i64>, asked: v1::FetcherStatus) -> Self {
        Self {
            id: member.id.to_string(),
            address: member.address.clone(),
            state: member.state.into(),
            since,
            version: said(&member.version),
            stat: asked.stat.map(Into::into),
            error: said(&asked.error),
        }
    }
}

/// A part of the list of fetchers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fetchers {
    pub fetchers: Vec<Fetcher>,
    #[serde(flatten)]
    pub page: Page,
}

/// A router.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Router {
    pub id: String,
    pub address: String,
    pub http_address: String,
    pub version: String,
    pub started_at: i64,
    pub leader: bool,
    /// The one that answers.
    pub own: bool,
}

impl Router {
    pub fn new(router: &v1::RouterStatus, own: &str) -> Self {
        Self {
            id: router.router_id.clone(),
            address: router.address.clone(),
            http_address: router.http_address.clone(),
            version: router.version.clone(),
            started_at: router.started_at,
            leader: router.leader,
            own: router.router_id == own,
        }
    }
}

/// Which clients are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WantedClients {
    /// A part of the id, the mount or the router.
    #[param(max_length = 200)]
    pub q: String,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of the list of clients of all routers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Clients {
    pub clients: Vec<Client>,
    #[serde(flatten)]
    pub page: Page,
    /// Routers that could not be asked: their clients are missing.
    pub missing: Vec<MissingRouter>,
}

/// A router that could not be asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MissingRouter {
    pub router: String,
    pub error: String,
}

/// A mount.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Client {
    pub id: String,
    pub version: String,
    pub mount: String,
    /// The router that it is connected to.
    pub router: String,
    pub connected_at: i64,
    /// The catalogue as far as it has applied it.
    pub acked_revision: u64,
    /// Revisions that it has not applied yet.
    pub lag_revisions: u64,
    /// When it last said how it is; `null` = not yet.
    pub reported_at: Option<i64>,
    pub report: Option<ClientReport>,
}

/// What a client says of itself. Counters are since the mount began.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientReport {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// `null` = nothing was asked for.
    pub cache_hit_ratio: Option<f64>,
    pub fetched_bytes: u64,
    /// Requests of the kernel, and those that failed because content could not be had.
    pub upcalls: u64,
    pub failed: u64,
    /// Repositories shown at an older commit than the catalogue says.
    pub lagging_repositories: u64,
    pub resident_bytes: u64,
}

impl From<v1::ClientReport> for ClientReport {
    fn from(report: v1::ClientReport) -> Self {
        Self {
            cache_bytes: report.cache_bytes,
            cache_bytes_max: report.cache_bytes_max,
            cache_hits: report.cache_hits,
            cache_misses: report.cache_misses,
            cache_hit_ratio: ratio(report.cache_hits, report.cache_misses),
            fetched_bytes: report.bytes_fetched,
            upcalls: report.upcalls,
            failed: report.failed,
            lagging_repositories: report.lagging,
            resident_bytes: report.resident_bytes,
        }
    }
}

impl Client {
    /// `revision`: where the catalogue is.
    pub fn new(status: v1::ClientStatus, revision: u64) -> Self {
        Self {
            id: status.client_id,
            version: status.version,
            mount: status.mount,
            router: status.router_id,
            connected_at: status.connected_at,
            acked_revision: status.acked_revision,
            lag_revisions: revision.saturating_sub(status.acked_revision),
            reported_at: known(status.reported_at),
            report: status.report.map(Into::into),
        }
    }
}
