//! What a fetcher says about itself to probes and to Prometheus.

use std::sync::atomic::Ordering;

use monofs_rpc::operations::{Metric, Operations};

use crate::flights::Flights;

impl Operations for Flights {
    fn problems(&self) -> Vec<String> {
        let (bytes, limit) = (self.cache.disk_bytes(), self.cache.bytes_max());
        if bytes <= limit {
            return Vec::new();
        }
        vec![format!(
            "the cache takes {bytes} bytes, over its limit of {limit}: all of it is in use; raise --max-cache-gb"
        )]
    }

    fn metrics(&self) -> Vec<Metric> {
        let (cache, counters) = (&self.cache, &self.counters);
        let mut metrics = vec![
            Metric::new("monofs_fetcher_cache_bytes", "Bytes of disk that the cache takes.", cache.disk_bytes()),
            Metric::new("monofs_fetcher_cache_limit_bytes", "Bytes of disk that it may take.", cache.bytes_max()),
            Metric::new("monofs_fetcher_cached_repositories", "Repositories in the cache.", cache.len() as u64),
            Metric::new("monofs_fetcher_fetches_running", "Fetches under way or waiting.", self.running() as u64),
        ];
        for (name, help, counter) in [
            ("monofs_fetcher_cache_hits_total", "Fetches answered from the cache.", &counters.hits),
            ("monofs_fetcher_cache_misses_total", "Fetches that had to ask the remote.", &counters.misses),
            ("monofs_fetcher_fetches_total", "Fetches that succeeded.", &counters.done),
            ("monofs_fetcher_fetch_failures_total", "Fetches that failed.", &counters.failed),
            ("monofs_fetcher_fetched_bytes_total", "Bytes received from remotes.", &counters.bytes),
        ] {
            metrics.push(Metric::new(name, help, counter.load(Ordering::Relaxed)));
        }
        metrics
    }
}
