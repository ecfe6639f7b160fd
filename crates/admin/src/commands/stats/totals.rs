//! Sums over the catalogue, over the members that could be asked, and over the mounts that report.
//!
//! A figure that no member tells is null, or `-`: never a zero that nobody measured.

use monofs_proto::v1;
use monofs_rpc::metrics::{DURATION_BOUNDS, quantile};
use serde::Serialize;

use crate::output::fields;
use crate::shapes::total;
use crate::text::{latency, percent, size};

/// The sums.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
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
    pub trees_served: u64,
    pub chunks_served: u64,
    pub bytes_served: u64,
    /// Null = no node tells.
    pub requests: Option<Requests>,
    pub fetchers: usize,
    pub fetchers_active: usize,
    /// Null = no fetcher could be asked.
    pub fetching: Option<Fetching>,
    pub clients: usize,
    /// Null = no mount has reported.
    pub reading: Option<Reading>,
}

/// Requests for content, over the nodes that tell.
#[derive(Debug, Serialize)]
pub struct Requests {
    pub nodes: usize,
    pub answered: u64,
    pub failed: u64,
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
    pub chunks_held: u64,
    pub chunks_missed: u64,
}

/// The fetchers' work.
#[derive(Debug, Default, Serialize)]
pub struct Fetching {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub fetches_running: u64,
    pub fetches_waiting: u64,
    pub fetches_done: u64,
    pub fetches_failed: u64,
    pub bytes_fetched: u64,
}

/// What mounts report.
#[derive(Debug, Default, Serialize)]
pub struct Reading {
    pub clients: usize,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub bytes_fetched: u64,
    pub upcalls: u64,
    pub failed: u64,
    pub lagging_repositories: u64,
}

/// Sums everything up.
pub fn totals(status: &v1::StatusResponse, repositories: &[v1::Repository]) -> Totals {
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
    Totals {
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

fn requests(stats: &[&v1::StatResponse]) -> Option<Requests> {
    let telling: Vec<&v1::StatResponse> = stats
        .iter()
        .copied()
        .filter(|stat| !stat.request_durations.is_empty())
        .collect();
    if telling.is_empty() {
        return None;
    }
    let counts = durations(telling.iter().map(|stat| stat.request_durations.as_slice()));
    Some(Requests {
        nodes: telling.len(),
        answered: total(&counts),
        failed: sum(&telling, |stat| stat.requests_failed),
        p50_seconds: quantile(&counts, 0.5),
        p99_seconds: quantile(&counts, 0.99),
        chunks_held: sum(&telling, |stat| stat.chunks_held),
        chunks_missed: sum(&telling, |stat| stat.chunks_missed),
    })
}

/// Several histograms as one. Counts beyond the last bucket, which nobody should send, are not
/// looked at.
pub fn durations<'a>(of: impl Iterator<Item = &'a [u64]>) -> Vec<u64> {
    let mut sums = vec![0u64; DURATION_BOUNDS.len() + 1];
    for counts in of {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }
    sums
}

fn fetching(fetchers: &[v1::FetcherStatus]) -> Option<Fetching> {
    let stats: Vec<&v1::FetcherStatResponse> = fetchers
        .iter()
        .filter_map(|fetcher| fetcher.stat.as_ref())
        .collect();
    (!stats.is_empty()).then(|| Fetching {
        cache_bytes: sum(&stats, |stat| stat.cache_bytes),
        cache_bytes_max: sum(&stats, |stat| stat.cache_bytes_max),
        cache_hits: sum(&stats, |stat| stat.cache_hits),
        cache_misses: sum(&stats, |stat| stat.cache_misses),
        fetches_running: sum(&stats, |stat| stat.fetches_running),
        fetches_waiting: sum(&stats, |stat| stat.fetches_waiting),
        fetches_done: sum(&stats, |stat| stat.fetches_done),
        fetches_failed: sum(&stats, |stat| stat.fetches_failed),
        bytes_fetched: sum(&stats, |stat| stat.bytes_fetched),
    })
}

fn reading(clients: &[v1::ClientStatus]) -> Option<Reading> {
    let reports: Vec<&v1::ClientReport> = clients
        .iter()
        .filter_map(|client| client.report.as_ref())
        .collect();
    (!reports.is_empty()).then(|| Reading {
        clients: reports.len(),
        cache_hits: sum(&reports, |report| report.cache_hits),
        cache_misses: sum(&reports, |report| report.cache_misses),
        bytes_fetched: sum(&reports, |report| report.bytes_fetched),
        upcalls: sum(&reports, |report| report.upcalls),
        failed: sum(&reports, |report| report.failed),
        lagging_repositories: sum(&reports, |report| report.lagging),
    })
}

/// The sums as lines for people.
pub fn lines(totals: &Totals) -> String {
    let Totals {
        repositories_ready: ready,
        repositories_ingesting: ingesting,
        repositories_failed: failed,
        ..
    } = totals;
    let dash = || "-".to_owned();
    fields(&[
        (
            "repositories",
            format!("{ready} ready, {ingesting} being ingested, {failed} failed"),
        ),
        ("directories", totals.directories.to_string()),
        ("files", format!("{}, {}", totals.files, size(totals.bytes))),
        (
            "nodes",
            format!(
                "{} active of {}; {} answer",
                totals.nodes_active, totals.nodes, totals.nodes_asked
            ),
        ),
        (
            "disk",
            format!(
                "{} used, {} free",
                size(totals.disk_used_bytes),
                size(totals.disk_free_bytes)
            ),
        ),
        (
            "hydrations",
            format!(
                "{} running, {} queued",
                totals.hydrations_running, totals.hydrations_queued
            ),
        ),
        (
            "served",
            format!(
                "{} trees, {} chunks, {}",
                totals.trees_served,
                totals.chunks_served,
                size(totals.bytes_served)
            ),
        ),
        (
            "requests",
            totals.requests.as_ref().map_or_else(dash, requests_line),
        ),
        (
            "fetchers",
            format!("{} active of {}", totals.fetchers_active, totals.fetchers),
        ),
        (
            "fetches",
            totals.fetching.as_ref().map_or_else(dash, fetching_line),
        ),
        ("mounts", totals.clients.to_string()),
        (
            "reads",
            totals.reading.as_ref().map_or_else(dash, reading_line),
        ),
    ])
}

fn requests_line(requests: &Requests) -> String {
    let Requests {
        answered,
        failed,
        chunks_held: held,
        chunks_missed: missed,
        ..
    } = requests;
    let (p50, p99) = (latency(requests.p50_seconds), latency(requests.p99_seconds));
    let here = percent(*held, held.saturating_add(*missed));
    format!(
        "{answered} answered, {failed} failed; half in {p50}, 99 % in {p99}; {here} of chunks were \
         on the node"
    )
}

fn fetching_line(fetching: &Fetching) -> String {
    let Fetching {
        fetches_running: running,
        fetches_waiting: waiting,
        fetches_failed: failed,
        ..
    } = fetching;
    let hits = percent(
        fetching.cache_hits,
        fetching.cache_hits.saturating_add(fetching.cache_misses),
    );
    format!(
        "{running} running ({waiting} of them wait), {} done, {failed} failed; {} from remotes; \
         cache {} of {}, {hits} hits",
        fetching.fetches_done,
        size(fetching.bytes_fetched),
        size(fetching.cache_bytes),
        size(fetching.cache_bytes_max)
    )
}

fn reading_line(reading: &Reading) -> String {
    let hits = percent(
        reading.cache_hits,
        reading.cache_hits.saturating_add(reading.cache_misses),
    );
    format!(
        "{} upcalls of {} mounts, {} failed; {hits} from their caches, {} fetched; {} repositories \
         lag",
        reading.upcalls,
        reading.clients,
        reading.failed,
        size(reading.bytes_fetched),
        reading.lagging_repositories
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_tells_is_no_zero() {
        let old = v1::StatResponse {
            bytes_served: 5,
            ..Default::default()
        };
        assert!(requests(&[&old]).is_none());
        let new = v1::StatResponse {
            request_durations: vec![0, 3, 1],
            requests_failed: 1,
            ..Default::default()
        };
        let told = requests(&[&old, &new, &new]);
        let told = told.map(|told| (told.nodes, told.answered, told.failed, told.p50_seconds));
        assert_eq!(told, Some((2, 8, 2, Some(3e-5))));
        let totals = totals(&v1::StatusResponse::default(), &[]);
        assert!(
            lines(&totals).contains("requests:     -\n"),
            "{}",
            lines(&totals)
        );
    }
}
