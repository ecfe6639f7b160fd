//! What a fetcher says about itself to probes and to Prometheus.

use std::sync::Arc;

use monofs_rpc::metrics::{Calls, Samples};
use monofs_rpc::operations::Operations;

use crate::flights::FetchFlights;

/// A fetcher, with what it was asked and what it asked of routers.
pub(crate) struct FetcherOperations {
    pub flights: Arc<FetchFlights>,
    pub requests: Arc<Calls>,
    pub calls: Arc<Calls>,
}

impl Operations for FetcherOperations {
    fn role(&self) -> &'static str {
        "fetcher"
    }

    fn problems(&self) -> Vec<String> {
        let bytes = self.flights.cache.disk_bytes();
        let limit = self.flights.cache.bytes_max();
        if bytes <= limit {
            return Vec::new();
        }
        vec![format!(
            "the cache takes {bytes} bytes, over its limit of {limit}: all of it is in use; raise \
             --max-cache-gb"
        )]
    }

    fn samples(&self, out: &mut Samples) {
        // Requests served, calls made and fetches by host are counted elsewhere.
        self.requests.served(out);
        self.calls.made(out);
        self.flights.hosts.samples(out);

        // A fetch that waits is in flight, too: the running ones are the difference.
        let all = self.flights.running();
        let waiting = self.flights.waiting();
        out.gauges_by(
            "monofs_fetcher_fetches",
            "Fetches that run, and those that wait for a worker or for another fetch of the same \
             repository.",
            ["state"],
            [
                (["running"], all.saturating_sub(waiting)),
                (["waiting"], waiting),
            ],
        );
        let cached = self.flights.cache.len();
        out.gauge(
            "monofs_fetcher_cached_repositories",
            "Repositories in the cache.",
            cached,
        );
        self.caches(out);
    }
}

impl FetcherOperations {
    fn caches(&self, out: &mut Samples) {
        let (cache, records, counters) = (
            &self.flights.cache,
            &self.flights.records,
            &self.flights.counters,
        );

        // Both caches share the names of their metrics and differ in the label `tier`.
        let each = |repositories: u64, records: u64| {
            [(["repositories"], repositories), (["records"], records)]
        };
        out.counters_by(
            "monofs_cache_hits_total",
            "Repositories: fetches answered from the cache. Records: directory records that were \
             in memory.",
            ["tier"],
            each(counters.hits.get(), records.hits.get()),
        );
        out.counters_by(
            "monofs_cache_misses_total",
            "Repositories: fetches that had to ask the remote. Records: directory records that had \
             to be computed.",
            ["tier"],
            each(counters.misses.get(), records.misses.get()),
        );
        out.gauges_by(
            "monofs_cache_bytes",
            "Bytes of disk (repositories) and of memory (records) that are used.",
            ["tier"],
            each(cache.disk_bytes(), records.bytes()),
        );
        out.gauges_by(
            "monofs_cache_limit_bytes",
            "Bytes that may be used.",
            ["tier"],
            each(cache.bytes_max(), records.bytes_max()),
        );

        // Evictions are counted for repositories alone.
        let evicted = [(["repositories"], cache.evicted.get())];
        out.counters_by(
            "monofs_cache_evictions_total",
            "Repositories that left the cache.",
            ["tier"],
            evicted,
        );
        let evicted = [(["repositories"], cache.evicted_bytes.get())];
        out.counters_by(
            "monofs_cache_evicted_bytes_total",
            "Bytes of what left the cache.",
            ["tier"],
            evicted,
        );
    }
}
