//! What fetching from each remote host came to: outcomes, durations and bytes, for `Stat` and for
//! Prometheus.
//!
//! Invariant: the first [`HOSTS_MAX`] hosts are told apart, the rest are one, so that no
//! user who may ingest can make the metrics grow.

use std::sync::Arc;
use std::time::Duration;

use monofs_model::{ErrorKind, Result, SourceUrl};
use monofs_rpc::metrics::{Counter, Durations, Samples};
use parking_lot::Mutex;

/// Hosts that are told apart.
pub const HOSTS_MAX: usize = 50;
const OTHER: &str = "other";
/// The host of sources on the disk of the fetcher.
const FILE: &str = "file";

#[derive(Debug, Default)]
struct HostTally {
    name: String,
    ok: Counter,
    failed: [Counter; ErrorKind::ALL.len()],
    bytes: Counter,
    took: Durations,
}

/// All hosts that were fetched from, in the order of their first fetch.
#[derive(Debug, Default)]
pub struct HostTallies(Mutex<Vec<Arc<HostTally>>>);

/// The sums over all hosts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FetchTotals {
    pub done: u64,
    pub failed: u64,
    pub bytes: u64,
}

impl HostTallies {
    /// A fetch from `source` ended.
    pub fn fetched(
        &self,
        source: &SourceUrl,
        outcome: Result<(), ErrorKind>,
        bytes: u64,
        took: Duration,
    ) {
        // A label without a value is none to Prometheus.
        let host = self.of(if source.host().is_empty() {
            FILE
        } else {
            source.host()
        });
        match outcome {
            Ok(()) => host.ok.one(),
            Err(kind) => host.failed[kind as usize].one(),
        }
        host.bytes.add(bytes);
        host.took.observe(took);
    }

    fn of(&self, name: &str) -> Arc<HostTally> {
        let mut hosts = self.0.lock();
        if let Some(host) = hosts.iter().find(|host| host.name == name) {
            return host.clone();
        }
        // The last place is that of all others.
        let name = if hosts.len() < HOSTS_MAX { name } else { OTHER };
        if let Some(host) = hosts.iter().find(|host| host.name == name) {
            return host.clone();
        }
        let host = Arc::new(HostTally {
            name: name.to_owned(),
            ..HostTally::default()
        });
        hosts.push(host.clone());
        host
    }

    fn list(&self) -> Vec<Arc<HostTally>> {
        self.0.lock().clone()
    }

    /// The sums over all hosts.
    pub fn totals(&self) -> FetchTotals {
        self.list()
            .iter()
            .fold(FetchTotals::default(), |sum, host| FetchTotals {
                done: sum.done + host.ok.get(),
                failed: sum.failed + host.failed.iter().map(Counter::get).sum::<u64>(),
                bytes: sum.bytes + host.bytes.get(),
            })
    }

    /// Adds their samples.
    pub fn samples(&self, out: &mut Samples) {
        let hosts = self.list();
        for host in &hosts {
            let name = || host.name.clone();

            // A host always has a row for `ok`; kinds of failure that never came have none, to keep
            // the number of series low.
            let failed = ErrorKind::ALL
                .into_iter()
                .zip(&host.failed)
                .map(|(kind, count)| (kind.as_str(), count.get()));
            let outcomes = std::iter::once(("ok", host.ok.get()))
                .chain(failed.filter(|(_, count)| *count > 0));
            out.counters_by(
                "monofs_fetcher_fetches_total",
                "Fetches that ended, by remote host and outcome.",
                ["host", "outcome"],
                outcomes.map(|(outcome, count)| ([name(), outcome.to_owned()], count)),
            );
            out.counters_by(
                "monofs_fetcher_fetched_bytes_total",
                "Bytes received from remotes.",
                ["host"],
                [([name()], host.bytes.get())],
            );
            out.histograms_by(
                "monofs_fetcher_fetch_duration_seconds",
                "Time of a fetch, its walk included.",
                ["host"],
                [([name()], &host.took)],
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hosts_beyond_the_bound_are_one() {
        let hosts = HostTallies::default();
        for n in 0..HOSTS_MAX + 5 {
            let source = SourceUrl::new(&format!("https://host{n}.example/a/b.git")).unwrap();
            let outcome = if n % 2 == 0 {
                Ok(())
            } else {
                Err(ErrorKind::Unavailable)
            };
            hosts.fetched(&source, outcome, 10, Duration::from_millis(1));
        }
        let known = hosts.list();
        assert_eq!(
            (known.len(), known[HOSTS_MAX].name.as_str()),
            (HOSTS_MAX + 1, OTHER)
        );
        assert_eq!(known[HOSTS_MAX].took.counts().iter().sum::<u64>(), 5);
        assert_eq!(
            hosts.totals(),
            FetchTotals {
                done: 28,
                failed: 27,
                bytes: 550
            }
        );
    }
}
