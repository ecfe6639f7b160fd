//! Sums over the catalogue, over the members that could be asked, and over the mounts that report.
//!
//! A figure that no member tells is `null`: never a zero that was not measured.

use monofs_proto::v1;
use serde::Serialize;

use crate::clients::ClientDocument;
use crate::members::{FetcherDocument, NodeDocument};
use crate::reads::{ReadCounts, hit_ratio, tells};

/// Figures of the cluster, of its members and of the mounts, as far as they are wanted.
#[derive(Debug, Serialize)]
pub struct ClusterFigures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterTotals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeDocument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetchers: Option<Vec<FetcherDocument>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<ClientDocument>>,
}

/// The sums.
#[derive(Debug, Default, Serialize)]
pub struct ClusterTotals {
    pub repositories_ready: u64,
    pub repositories_ingesting: u64,
    pub repositories_failed: u64,
    pub directories: u64,
    pub files: u64,
    pub bytes: u64,
    pub nodes: usize,
    pub nodes_active: usize,
    /// Nodes that could be asked: the sums below are over them.
    pub nodes_asked: usize,
    pub disk_used_bytes: u64,
    pub disk_free_bytes: u64,
    pub hydrations_running: u64,
    pub hydrations_queued: u64,
    pub directories_served: u64,
    /// Replaced by `directories_served`.
    pub trees_served: u64,
    pub chunks_served: u64,
    pub bytes_served: u64,
    /// `null` = no node tells.
    pub requests: Option<CountedReads>,
    pub fetchers: usize,
    pub fetchers_active: usize,
    /// `null` = no fetcher could be asked.
    pub fetching: Option<FetcherTotals>,
    pub clients: usize,
    /// `null` = no mount has reported.
    pub reading: Option<ClientTotals>,
}

/// Requests for content, over the nodes that tell.
#[derive(Debug, Serialize)]
pub struct CountedReads {
    /// How many nodes tell.
    pub nodes: usize,
    #[serde(flatten)]
    pub counts: ReadCounts,
}

/// The fetchers' work.
#[derive(Debug, Default, Serialize)]
pub struct FetcherTotals {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// `null` = nothing was asked for.
    pub cache_hit_ratio: Option<f64>,
    pub fetches_running: u64,
    pub fetches_waiting: u64,
    pub fetches_done: u64,
    pub fetches_failed: u64,
    pub bytes_fetched: u64,
}

/// What mounts report.
#[derive(Debug, Default, Serialize)]
pub struct ClientTotals {
    pub clients: usize,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// `null` = nothing was asked for.
    pub cache_hit_ratio: Option<f64>,
    pub bytes_fetched: u64,
    pub upcalls: u64,
    pub failed: u64,
    pub lagging_repositories: u64,
}

/// Sums everything up.
pub fn totals(status: &v1::StatusResponse, repositories: &[v1::Repository]) -> ClusterTotals {
    // Only what members told is summed up.
    let active = |member: &Option<v1::Member>| {
        member
            .as_ref()
            .is_some_and(|member| member.state() == v1::MemberState::Active)
    };
    let snapshots: Vec<&v1::Snapshot> = repositories
        .iter()
        .filter_map(|repository| repository.snapshot.as_ref())
        .collect();
    let stats: Vec<&v1::StatResponse> = status
        .nodes
        .iter()
        .filter_map(|node| node.stat.as_ref())
        .collect();
    ClusterTotals {
        repositories_ready: status.repositories_ready,
        repositories_ingesting: status.repositories_ingesting,
        repositories_failed: status.repositories_failed,
        directories: sum(&snapshots, |snapshot| snapshot.trees),
        files: sum(&snapshots, |snapshot| snapshot.blobs),
        bytes: sum(&snapshots, |snapshot| snapshot.bytes),
        nodes: status.nodes.len(),
        nodes_active: status
            .nodes
            .iter()
            .filter(|node| active(&node.member))
            .count(),
        nodes_asked: stats.len(),
        disk_used_bytes: sum(&stats, |stat| stat.disk_used_bytes),
        disk_free_bytes: sum(&stats, |stat| stat.disk_free_bytes),
        hydrations_running: sum(&stats, |stat| stat.hydrations_running),
        hydrations_queued: sum(&stats, |stat| stat.hydrations_queued),
        directories_served: sum(&stats, |stat| stat.trees_served),
        trees_served: sum(&stats, |stat| stat.trees_served),
        chunks_served: sum(&stats, |stat| stat.chunks_served),
        bytes_served: sum(&stats, |stat| stat.bytes_served),
        requests: requests(&stats),
        fetchers: status.fetchers.len(),
        fetchers_active: status
            .fetchers
            .iter()
            .filter(|fetcher| active(&fetcher.member))
            .count(),
        fetching: fetching(&status.fetchers),
        clients: status.clients.len(),
        reading: reading(&status.clients),
    }
}

fn sum<T>(of: &[&T], figure: fn(&T) -> u64) -> u64 {
    of.iter()
        .fold(0, |sum, one| sum.saturating_add(figure(one)))
}

fn requests(stats: &[&v1::StatResponse]) -> Option<CountedReads> {
    Some(CountedReads {
        nodes: stats.iter().filter(|stat| tells(stat)).count(),
        counts: ReadCounts::of_all(stats)?,
    })
}

fn fetching(fetchers: &[v1::FetcherStatus]) -> Option<FetcherTotals> {
    let stats: Vec<&v1::FetcherStatResponse> = fetchers
        .iter()
        .filter_map(|fetcher| fetcher.stat.as_ref())
        .collect();
    (!stats.is_empty()).then(|| FetcherTotals {
        cache_bytes: sum(&stats, |stat| stat.cache_bytes),
        cache_bytes_max: sum(&stats, |stat| stat.cache_bytes_max),
        cache_hits: sum(&stats, |stat| stat.cache_hits),
        cache_misses: sum(&stats, |stat| stat.cache_misses),
        cache_hit_ratio: hit_ratio(
            sum(&stats, |stat| stat.cache_hits),
            sum(&stats, |stat| stat.cache_misses),
        ),
        fetches_running: sum(&stats, |stat| stat.fetches_running),
        fetches_waiting: sum(&stats, |stat| stat.fetches_waiting),
        fetches_done: sum(&stats, |stat| stat.fetches_done),
        fetches_failed: sum(&stats, |stat| stat.fetches_failed),
        bytes_fetched: sum(&stats, |stat| stat.bytes_fetched),
    })
}

fn reading(clients: &[v1::ClientStatus]) -> Option<ClientTotals> {
    let reports: Vec<&v1::ClientReport> = clients
        .iter()
        .filter_map(|client| client.report.as_ref())
        .collect();
    (!reports.is_empty()).then(|| ClientTotals {
        clients: reports.len(),
        cache_hits: sum(&reports, |report| report.cache_hits),
        cache_misses: sum(&reports, |report| report.cache_misses),
        cache_hit_ratio: hit_ratio(
            sum(&reports, |report| report.cache_hits),
            sum(&reports, |report| report.cache_misses),
        ),
        bytes_fetched: sum(&reports, |report| report.bytes_fetched),
        upcalls: sum(&reports, |report| report.upcalls),
        failed: sum(&reports, |report| report.failed),
        lagging_repositories: sum(&reports, |report| report.lagging),
    })
}
