//! Nodes, fetchers, routers and clients.

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::page::ListPage;
use crate::reads::{ReadCounts, hit_ratio};
use crate::repos::RepositoryDocument;
use crate::tongue::{Time, not_command_line, not_http};
use crate::wire::{said, told};

/// The state of a member, as its router judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = MemberState)]
pub enum MemberCondition {
    Joining,
    Active,
    Suspect,
    Down,
    Recovering,
    Draining,
    Drained,
    /// Of a newer version.
    Unknown,
}

impl MemberCondition {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Recovering => "recovering",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Unknown => "unknown",
        }
    }
}

impl From<v1::MemberState> for MemberCondition {
    fn from(state: v1::MemberState) -> Self {
        match state {
            v1::MemberState::Joining => Self::Joining,
            v1::MemberState::Active => Self::Active,
            v1::MemberState::Suspect => Self::Suspect,
            v1::MemberState::Down => Self::Down,
            v1::MemberState::Recovering => Self::Recovering,
            v1::MemberState::Draining => Self::Draining,
            v1::MemberState::Drained => Self::Drained,
            v1::MemberState::Unspecified => Self::Unknown,
        }
    }
}

impl From<monofs_model::MemberState> for MemberCondition {
    fn from(state: monofs_model::MemberState) -> Self {
        v1::MemberState::from(state).into()
    }
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    Drain,
    Failover,
    /// Of a newer version.
    Unknown,
}

impl From<v1::node_intent::Kind> for IntentKind {
    fn from(kind: v1::node_intent::Kind) -> Self {
        match kind {
            v1::node_intent::Kind::Drain => Self::Drain,
            v1::node_intent::Kind::Failover => Self::Failover,
            v1::node_intent::Kind::Unspecified => Self::Unknown,
        }
    }
}

/// What an operator wants of a node, and why.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Intent)]
pub struct IntentDocument {
    pub node_id: String,
    pub kind: IntentKind,
    pub reason: Option<String>,
    pub since: Option<Time>,
    pub force: bool,
}

impl From<&v1::NodeIntent> for IntentDocument {
    fn from(wire: &v1::NodeIntent) -> Self {
        Self {
            node_id: wire.node_id.clone(),
            kind: wire.kind().into(),
            reason: said(&wire.reason),
            since: Time::known(wire.since),
            force: wire.force,
        }
    }
}

/// What is known of every member.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberDocument {
    pub id: String,
    /// `host:port` inside the cluster.
    pub address: String,
    /// For clients outside of it.
    pub external_address: Option<String>,
    pub state: MemberCondition,
    /// Since when it is in that state, by the router that was asked over HTTP.
    pub since: Option<Time>,
    pub zone: Option<String>,
    pub weight: f64,
    pub version: Option<String>,
    /// What it announced; `null` = it did not.
    pub capacity_bytes: Option<u64>,
    pub used_bytes: u64,
    /// Percent of its repositories that readers ask it first about.
    pub share_percent: u32,
    /// An operator moved reads and copies off it.
    pub failed_over: bool,
    /// Why it could not be asked; then what it says of itself is missing.
    pub error: Option<String>,
}

impl MemberDocument {
    fn new(wire: Option<&v1::Member>, since: Option<Time>, error: &str) -> Self {
        let unknown = v1::Member::default();
        let wire = wire.unwrap_or(&unknown);
        Self {
            id: wire.id.clone(),
            address: wire.address.clone(),
            external_address: said(&wire.external_address),
            state: wire.state().into(),
            since,
            zone: said(&wire.zone),
            weight: wire.weight,
            version: said(&wire.version),
            capacity_bytes: told(wire.capacity_bytes),
            used_bytes: wire.used_bytes,
            // A version that does not tell has all of them.
            share_percent: if wire.share_percent == 0 {
                100
            } else {
                wire.share_percent
            },
            failed_over: wire.failed_over,
            error: said(error),
        }
    }
}

/// What the router that answers over HTTP knows of a member beside what that says itself.
#[derive(Debug, Clone, Default)]
pub struct RouterKnowledge {
    /// Since when it is in its state.
    pub since: Option<Time>,
    pub intent: Option<v1::NodeIntent>,
    /// Repositories that the catalogue counts on it for.
    pub repositories_recorded: Option<usize>,
    /// What the leader found when it last asked the node.
    pub audit: Option<v1::NodeAudit>,
}

/// Copies on a node that neither the catalogue nor its history names: nothing drops them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OrphanCopies {
    /// Repositories.
    pub copies: u64,
    /// On the node's disk, of those of which no commit is named.
    pub bytes: u64,
    /// The paths of the first ones, as the node knows them.
    pub first: Vec<String>,
}

impl From<&v1::NodeAudit> for OrphanCopies {
    fn from(row: &v1::NodeAudit) -> Self {
        Self {
            copies: row.orphans,
            bytes: row.orphan_bytes,
            first: row.orphan_paths.clone(),
        }
    }
}

/// A node.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeDocument {
    #[serde(flatten)]
    pub member: MemberDocument,
    pub intent: Option<IntentDocument>,
    /// Repositories that the catalogue counts on it for; `null` = the router was not asked.
    pub repositories_recorded: Option<usize>,
    /// What it holds and the catalogue does not name; `null` = that is not known.
    pub orphans: Option<OrphanCopies>,
    pub stat: Option<NodeStat>,
    /// Replaced by `stat`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    figures: Option<NodeStat>,
}

impl NodeDocument {
    /// What a node said, with what the router knows of it.
    pub fn new(wire: &v1::NodeStatus, known: &RouterKnowledge) -> Self {
        let stat = wire.stat.as_ref().map(NodeStat::from);
        Self {
            member: MemberDocument::new(wire.member.as_ref(), known.since, &wire.error),
            intent: known.intent.as_ref().map(Into::into),
            repositories_recorded: known.repositories_recorded,
            orphans: known.audit.as_ref().map(Into::into),
            figures: stat.clone(),
            stat,
        }
    }

    /// The nodes of a status.
    pub fn of_status(status: &v1::StatusResponse) -> Vec<Self> {
        let document = |wire: &v1::NodeStatus| {
            let id = wire.member.as_ref().map(|member| &member.id);
            let intent = status.intents.iter().find(|row| Some(&row.node_id) == id);
            let audit = status.audits.iter().find(|row| Some(&row.node_id) == id);
            let known = RouterKnowledge {
                intent: intent.cloned(),
                audit: audit.cloned(),
                ..RouterKnowledge::default()
            };
            Self::new(wire, &known)
        };
        status.nodes.iter().map(document).collect()
    }
}

/// What a node says of itself. Counters are since it started.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeStat {
    pub repositories: u64,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: u64,
    pub open_stores: u64,
    pub hydrations_running: u64,
    pub hydrations_queued: u64,
    pub directories_served: u64,
    pub chunks_served: u64,
    pub bytes_served: u64,
    /// `null` = it is of a version that does not tell.
    pub requests: Option<ReadCounts>,
    /// Replaced by `requests.failed`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    requests_failed: u64,
    /// Replaced by `requests.chunks_held`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    chunks_held: u64,
    /// Replaced by `requests.chunks_missed`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    chunks_missed: u64,
    /// Replaced by `directories_served`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    trees_served: u64,
}

impl From<&v1::StatResponse> for NodeStat {
    fn from(stat: &v1::StatResponse) -> Self {
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
            requests: ReadCounts::of(stat),
            requests_failed: stat.requests_failed,
            chunks_held: stat.chunks_held,
            chunks_missed: stat.chunks_missed,
            trees_served: stat.trees_served,
        }
    }
}

/// A part of the list of nodes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Nodes)]
pub struct NodeList {
    pub nodes: Vec<NodeDocument>,
    #[serde(flatten)]
    pub page: ListPage,
}

/// One node in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeInFull {
    pub node: NodeDocument,
    pub probe: Probe,
    /// The states that this router saw it in, the newest first.
    pub states: Vec<MemberStateChange>,
    /// Those that the catalogue counts on it for, by path.
    pub repositories: Vec<RepositoryDocument>,
    pub page: ListPage,
}

/// What this router heard of a member.
#[derive(Debug, Serialize, ToSchema)]
pub struct Probe {
    /// Seconds since it answered or announced itself; `null` = never.
    pub heard_seconds_ago: Option<f64>,
    /// The last probe that failed, since the last answer.
    pub last_error: Option<String>,
}

/// A state that a member came into.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StateChange)]
pub struct MemberStateChange {
    pub state: MemberCondition,
    pub since: Time,
    /// One line: what made it so.
    pub why: String,
}

/// A fetcher.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Fetcher)]
pub struct FetcherDocument {
    #[serde(flatten)]
    pub member: MemberDocument,
    pub stat: Option<FetcherStat>,
    /// Replaced by `stat`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    figures: Option<FetcherStat>,
}

impl FetcherDocument {
    /// What a fetcher said, and since when it is in its state.
    pub fn new(wire: &v1::FetcherStatus, since: Option<Time>) -> Self {
        let stat = wire.stat.as_ref().map(FetcherStat::from);
        Self {
            member: MemberDocument::new(wire.member.as_ref(), since, &wire.error),
            figures: stat.clone(),
            stat,
        }
    }

    /// The fetchers of a status.
    pub fn of_status(status: &v1::StatusResponse) -> Vec<Self> {
        let fetchers = status.fetchers.iter();
        fetchers.map(|wire| Self::new(wire, None)).collect()
    }
}

/// What a fetcher says of itself. Counters are since it started.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FetcherStat {
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
    pub bytes_fetched: u64,
    /// Replaced by `bytes_fetched`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    fetched_bytes: u64,
}

impl From<&v1::FetcherStatResponse> for FetcherStat {
    fn from(stat: &v1::FetcherStatResponse) -> Self {
        Self {
            cache_bytes: stat.cache_bytes,
            cache_bytes_max: stat.cache_bytes_max,
            cached_repositories: stat.cached_repositories,
            cache_hits: stat.cache_hits,
            cache_misses: stat.cache_misses,
            cache_hit_ratio: hit_ratio(stat.cache_hits, stat.cache_misses),
            fetches_running: stat.fetches_running,
            fetches_waiting: stat.fetches_waiting,
            fetches_done: stat.fetches_done,
            fetches_failed: stat.fetches_failed,
            bytes_fetched: stat.bytes_fetched,
            fetched_bytes: stat.bytes_fetched,
        }
    }
}

/// A part of the list of fetchers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fetchers)]
pub struct FetcherList {
    pub fetchers: Vec<FetcherDocument>,
    #[serde(flatten)]
    pub page: ListPage,
}

/// A router that runs, as the routers know each other.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Router)]
pub struct RouterDocument {
    pub id: String,
    pub address: String,
    pub http_address: Option<String>,
    pub version: String,
    pub started_at: Option<Time>,
    pub leader: bool,
    /// The one that answers.
    pub own: bool,
}

impl RouterDocument {
    /// `own`: the id of the router that answers.
    pub fn new(router: &v1::RouterStatus, own: &str) -> Self {
        Self {
            id: router.router_id.clone(),
            address: router.address.clone(),
            http_address: said(&router.http_address),
            version: router.version.clone(),
            started_at: Time::known(router.started_at),
            leader: router.leader,
            own: router.router_id == own,
        }
    }
}
