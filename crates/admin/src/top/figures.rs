//! From two samples of the status to figures: counters become rates, histograms the latencies of
//! the time between.
//!
//! A rate is `None` when it cannot be told: in the first sample, of a member that was started again
//! or does not tell, and when a counter went back.

use std::collections::HashMap;
use std::time::Duration;

use monofs_api::commands::{LiveClient, LiveFetcher, LiveFigures, LiveNode};
use monofs_api::reads::{ReadRates, hit_ratio};
use monofs_api::said;
use monofs_proto::durations::{counted, merged, quantile};
use monofs_proto::v1;

use crate::findings::{findings, health};

/// What a router said, and when.
#[derive(Debug, Clone, Default)]
pub struct StatusSample {
    /// Since the start of the command.
    pub at: Duration,
    /// The address that answered.
    pub router: String,
    pub status: v1::StatusResponse,
}

/// A report of a mount, with its time in seconds since the epoch.
type TimedReport = (i64, v1::ClientReport);

/// What rates are computed from. Bounded by what one status names.
#[derive(Debug, Default)]
pub struct SampleHistory {
    last: Option<StatusSample>,
    /// The last report of each mount, and the one before it.
    reports: HashMap<String, (TimedReport, Option<TimedReport>)>,
}

impl SampleHistory {
    /// The figures of a new sample.
    pub fn take(&mut self, sample: StatusSample) -> LiveFigures {
        self.remember_reports(&sample.status.clients);
        // What lies between this sample and the one before.
        let status = &sample.status;
        let before = self.last.as_ref();
        let elapsed = before
            .map(|before| sample.at.saturating_sub(before.at))
            .filter(|time| !time.is_zero());
        let between = SampleGap {
            before: before.map(|before| &before.status),
            seconds: elapsed.map(|t| t.as_secs_f64()),
        };
        let nodes: Vec<LiveNode> = status.nodes.iter().map(|node| between.node(node)).collect();
        let fetchers = status
            .fetchers
            .iter()
            .map(|fetcher| between.fetcher(fetcher))
            .collect();
        let clients = status
            .clients
            .iter()
            .map(|client| self.client(client))
            .collect();
        // The figures of it.
        let found = findings(status);
        let figures = LiveFigures {
            health: health(status, &found),
            findings: found,
            router: sample.router.clone(),
            leader: status
                .routers
                .iter()
                .find(|router| router.leader)
                .map(|router| router.router_id.clone()),
            interval_seconds: between.seconds,
            repositories_ready: status.repositories_ready,
            repositories_ingesting: status.repositories_ingesting,
            repositories_failed: status.repositories_failed,
            view_number: status.view_number,
            reads: between.reads(status, &nodes),
            nodes,
            fetchers,
            jobs: status.jobs.iter().map(Into::into).collect(),
            clients,
        };
        self.last = Some(sample);
        figures
    }

    fn remember_reports(&mut self, clients: &[v1::ClientStatus]) {
        self.reports
            .retain(|id, _| clients.iter().any(|client| client.client_id == *id));
        for client in clients {
            let Some(report) = client.report else {
                continue;
            };
            let fresh: TimedReport = (client.reported_at, report);
            match self.reports.get_mut(&client.client_id) {
                Some((last, _)) if last.0 == fresh.0 => last.1 = fresh.1,
                Some((last, before)) => *before = Some(std::mem::replace(last, fresh)),
                None => drop(self.reports.insert(client.client_id.clone(), (fresh, None))),
            }
        }
    }

    /// A counter's rate between the last two reports of a mount.
    fn report_rate(
        &self,
        wire: &v1::ClientStatus,
        counter: fn(&v1::ClientReport) -> u64,
    ) -> Option<f64> {
        let (now, before) = self.reports.get(&wire.client_id)?;
        let before = before.as_ref()?;
        let seconds = (now.0 > before.0).then(|| (now.0 - before.0) as f64)?;
        Some(counter(&now.1).checked_sub(counter(&before.1))? as f64 / seconds)
    }

    fn client(&self, wire: &v1::ClientStatus) -> LiveClient {
        // Counters of the last report, and their rate since the one before.
        let report = wire.report.as_ref();
        let hits = report.and_then(|report| hit_ratio(report.cache_hits, report.cache_misses));
        LiveClient {
            id: wire.client_id.clone(),
            mount: wire.mount.clone(),
            router_id: said(&wire.router_id),
            upcalls_per_second: self.report_rate(wire, |report| report.upcalls),
            bytes_per_second: self.report_rate(wire, |report| report.bytes_fetched),
            cache_hit_ratio: hits,
            cache_hits_percent: per_cent(hits),
            cache_bytes: report.map(|report| report.cache_bytes),
            cache_bytes_max: report.map(|report| report.cache_bytes_max),
            failed: report.map(|report| report.failed),
            lagging_repositories: report.map(|report| report.lagging),
            resident_bytes: report.map(|report| report.resident_bytes),
            version: wire.version.clone(),
        }
    }
}

/// A ratio in per cent.
fn per_cent(ratio: Option<f64>) -> Option<f64> {
    ratio.map(|ratio| ratio * 100.0)
}

/// The time between two samples.
struct SampleGap<'a> {
    before: Option<&'a v1::StatusResponse>,
    /// `None` = there is no sample before.
    seconds: Option<f64>,
}

impl SampleGap<'_> {
    fn rate(&self, before: u64, now: u64) -> Option<f64> {
        Some(now.checked_sub(before)? as f64 / self.seconds?)
    }

    /// What the same start of the same node said before.
    fn stat_before(&self, now: &v1::StatResponse) -> Option<&v1::StatResponse> {
        let same = |stat: &&v1::StatResponse| {
            stat.node_id == now.node_id && stat.incarnation == now.incarnation
        };
        self.before?
            .nodes
            .iter()
            .filter_map(|node| node.stat.as_ref())
            .find(same)
    }

    fn node(&self, wire: &v1::NodeStatus) -> LiveNode {
        // Rates need the same start of the node in both samples.
        let member = wire.member.clone().unwrap_or_default();
        let stat = wire.stat.as_ref();
        let before = stat.and_then(|stat| self.stat_before(stat));
        let here = stat.zip(before).and_then(|(now, before)| {
            hit_ratio(
                now.chunks_held.checked_sub(before.chunks_held)?,
                now.chunks_missed.checked_sub(before.chunks_missed)?,
            )
        });
        LiveNode {
            id: member.id.clone(),
            state: member.state().into(),
            reads: stat
                .zip(before)
                .map_or_else(ReadRates::default, |(now, before)| {
                    self.reads_of(now, before)
                }),
            node_hit_ratio: here,
            chunks_here_percent: per_cent(here),
            repositories: stat.map(|stat| stat.repositories),
            disk_used_bytes: stat.map(|stat| stat.disk_used_bytes),
            disk_free_bytes: stat.map(|stat| stat.disk_free_bytes),
            hydrations_running: stat.map(|stat| stat.hydrations_running),
            hydrations_queued: stat.map(|stat| stat.hydrations_queued),
            error: said(&wire.error),
            member,
        }
    }

    fn reads_of(&self, now: &v1::StatResponse, before: &v1::StatResponse) -> ReadRates {
        let counts = more(&before.request_durations, &now.request_durations);
        let counted = counts.as_ref().map(|counts| counted(counts));
        ReadRates {
            requests_per_second: counted.and_then(|counted| self.rate(0, counted)),
            failed_per_second: counted
                .and_then(|_| self.rate(before.requests_failed, now.requests_failed)),
            bytes_per_second: self.rate(before.bytes_served, now.bytes_served),
            p50_seconds: counts.as_ref().and_then(|counts| quantile(counts, 0.5)),
            p99_seconds: counts.as_ref().and_then(|counts| quantile(counts, 0.99)),
        }
    }

    /// What all nodes together did: rates are sums over those that tell, latencies are over all of
    /// their requests.
    fn reads(&self, now: &v1::StatusResponse, nodes: &[LiveNode]) -> ReadRates {
        // Latencies are over the requests of all nodes.
        let stats = now.nodes.iter().filter_map(|node| node.stat.as_ref());
        let counted = |stat: &v1::StatResponse| {
            more(
                &self.stat_before(stat)?.request_durations,
                &stat.request_durations,
            )
        };
        let each: Vec<Vec<u64>> = stats.filter_map(counted).collect();
        let counts = merged(each.iter().map(Vec::as_slice));
        let sum = |of: fn(&ReadRates) -> Option<f64>| {
            nodes
                .iter()
                .filter_map(|node| of(&node.reads))
                .reduce(|a, b| a + b)
        };
        ReadRates {
            requests_per_second: sum(|reads| reads.requests_per_second),
            failed_per_second: sum(|reads| reads.failed_per_second),
            bytes_per_second: sum(|reads| reads.bytes_per_second),
            p50_seconds: quantile(&counts, 0.5),
            p99_seconds: quantile(&counts, 0.99),
        }
    }

    fn fetcher(&self, wire: &v1::FetcherStatus) -> LiveFetcher {
        let member = wire.member.clone().unwrap_or_default();
        let stat = wire.stat.as_ref();
        // Rates need the same fetcher in both samples.
        let known = self
            .before
            .into_iter()
            .flat_map(|before| &before.fetchers)
            .filter_map(|other| other.stat.as_ref());
        let before = stat.and_then(|stat| {
            known
                .into_iter()
                .find(|other| other.fetcher_id == stat.fetcher_id)
        });
        let rate =
            |figure: fn(&v1::FetcherStatResponse) -> u64| self.rate(figure(before?), figure(stat?));
        let hits = stat.and_then(|stat| hit_ratio(stat.cache_hits, stat.cache_misses));
        LiveFetcher {
            id: member.id.clone(),
            state: member.state().into(),
            bytes_per_second: rate(|stat| stat.bytes_fetched),
            fetches_per_second: rate(|stat| stat.fetches_done),
            fetches_running: stat.map(|stat| stat.fetches_running),
            fetches_waiting: stat.map(|stat| stat.fetches_waiting),
            fetches_failed: stat.map(|stat| stat.fetches_failed),
            cache_bytes: stat.map(|stat| stat.cache_bytes),
            cache_bytes_max: stat.map(|stat| stat.cache_bytes_max),
            cache_hit_ratio: hits,
            cache_hits_percent: per_cent(hits),
            error: said(&wire.error),
            member,
        }
    }
}

/// What was counted in between, bucket by bucket; `None` when it is not told or a count went back.
fn more(before: &[u64], now: &[u64]) -> Option<Vec<u64>> {
    if now.is_empty() || before.len() != now.len() {
        return None;
    }
    now.iter()
        .zip(before)
        .map(|(now, before)| now.checked_sub(*before))
        .collect()
}
