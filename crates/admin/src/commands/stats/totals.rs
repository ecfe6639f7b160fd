//! The sums over the cluster as lines for people. A figure that no member tells is `-`: never a
//! zero that was not measured.

use monofs_api::stats::{ClientTotals, ClusterTotals, CountedReads, FetcherTotals};

use crate::output::fields;
use crate::text::{latency, percent, size};

/// The sums as lines for people.
pub fn lines(totals: &ClusterTotals) -> String {
    // The state of repositories in one line, then sum by sum.
    let ClusterTotals {
        repositories_ready: ready,
        repositories_ingesting: ingesting,
        repositories_failed: failed,
        ..
    } = totals;
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
                totals.directories_served,
                totals.chunks_served,
                size(totals.bytes_served)
            ),
        ),
        ("requests", told(totals.requests.as_ref(), requests_line)),
        (
            "fetchers",
            format!("{} active of {}", totals.fetchers_active, totals.fetchers),
        ),
        ("fetches", told(totals.fetching.as_ref(), fetching_line)),
        ("mounts", totals.clients.to_string()),
        ("reads", told(totals.reading.as_ref(), reading_line)),
    ])
}

/// What a member told, as `line` puts it; `-` when none did.
fn told<T>(what: Option<&T>, line: impl Fn(&T) -> String) -> String {
    what.map_or("-".to_owned(), line)
}

fn requests_line(requests: &CountedReads) -> String {
    let counts = &requests.counts;
    let here = percent(
        counts.chunks_held,
        counts.chunks_held.saturating_add(counts.chunks_missed),
    );
    format!(
        "{} answered, {} failed; half in {}, 99 % in {}; {here} of chunks were on the node",
        counts.answered,
        counts.failed,
        latency(counts.p50_seconds),
        latency(counts.p99_seconds),
    )
}

fn fetching_line(fetching: &FetcherTotals) -> String {
    let FetcherTotals {
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

fn reading_line(reading: &ClientTotals) -> String {
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
    use monofs_api::stats::totals;
    use monofs_proto::v1;

    use super::*;

    #[test]
    fn what_no_member_tells_is_a_dash() {
        let totals = totals(&v1::StatusResponse::default(), &[]);
        let text = lines(&totals);
        assert!(text.contains("requests:     -\n"), "{text}");
        assert!(text.contains("fetches:      -\n"), "{text}");
    }
}
