//! Who is in the cluster: nodes and fetchers with their own figures, and who reads: the mounts.

use monofs_proto::v1;
use monofs_rpc::metrics::quantile;
use serde::Serialize;

use super::some;
use crate::text::time;

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
    /// Per cent of its repositories that readers ask it first about.
    pub share_percent: u32,
    /// An operator moved reads off it.
    pub failed_over: bool,
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
            share_percent: if wire.share_percent == 0 {
                100
            } else {
                wire.share_percent
            },
            failed_over: wire.failed_over,
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
    /// Since it started; null = a version that does not tell.
    pub requests: Option<Requests>,
}

/// Requests for content that a node answered since it started, and how long they took.
#[derive(Debug, Serialize)]
pub struct Requests {
    pub answered: u64,
    pub failed: u64,
    /// Upper bounds in seconds; null = there were none.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
    /// Chunks that were here, and that had to be asked for elsewhere.
    pub chunks_held: u64,
    pub chunks_missed: u64,
}

impl Requests {
    /// What the node tells, if it does.
    pub fn of(stat: &v1::StatResponse) -> Option<Self> {
        (!stat.request_durations.is_empty()).then(|| Self {
            answered: total(&stat.request_durations),
            failed: stat.requests_failed,
            p50_seconds: quantile(&stat.request_durations, 0.5),
            p99_seconds: quantile(&stat.request_durations, 0.99),
            chunks_held: stat.chunks_held,
            chunks_missed: stat.chunks_missed,
        })
    }
}

/// The sum of counts that came from elsewhere.
pub fn total(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
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
            requests: Requests::of(stat),
        });
        let member = Member::from(&wire.member.clone().unwrap_or_default());
        Self {
            member,
            figures,
            error: some(&wire.error),
        }
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
    pub fetches_waiting: u64,
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
            fetches_waiting: stat.fetches_waiting,
            fetches_done: stat.fetches_done,
            fetches_failed: stat.fetches_failed,
            bytes_fetched: stat.bytes_fetched,
        });
        let member = Member::from(&wire.member.clone().unwrap_or_default());
        Self {
            member,
            figures,
            error: some(&wire.error),
        }
    }
}

/// A mount that is connected to a router.
#[derive(Debug, Serialize)]
pub struct Client {
    pub id: String,
    pub version: String,
    pub mount: String,
    pub acknowledged_revision: u64,
    pub connected_at: Option<String>,
    /// The router that it is connected to.
    pub router_id: Option<String>,
    pub reported_at: Option<String>,
    /// Null = it has not reported yet, or its version does not.
    pub report: Option<ClientReport>,
}

/// How a mount is; counters are since it began.
#[derive(Debug, Serialize)]
pub struct ClientReport {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub bytes_fetched: u64,
    pub upcalls: u64,
    pub failed: u64,
    pub lagging_repositories: u64,
    pub resident_bytes: u64,
}

impl From<&v1::ClientStatus> for Client {
    fn from(wire: &v1::ClientStatus) -> Self {
        Self {
            id: wire.client_id.clone(),
            version: wire.version.clone(),
            mount: wire.mount.clone(),
            acknowledged_revision: wire.acked_revision,
            connected_at: time(wire.connected_at),
            router_id: some(&wire.router_id),
            reported_at: time(wire.reported_at),
            report: wire.report.as_ref().map(|report| ClientReport {
                cache_bytes: report.cache_bytes,
                cache_bytes_max: report.cache_bytes_max,
                cache_hits: report.cache_hits,
                cache_misses: report.cache_misses,
                bytes_fetched: report.bytes_fetched,
                upcalls: report.upcalls,
                failed: report.failed,
                lagging_repositories: report.lagging,
                resident_bytes: report.resident_bytes,
            }),
        }
    }
}
