//! From two samples of the status to figures: counters become rates, histograms the latencies of
//! the time between.
//!
//! A rate is `None` when it cannot be told: in the first sample, of a member that was started again
//! or does not tell, and when a counter went back.

use std::collections::HashMap;
use std::time::Duration;

use monofs_proto::v1;
use monofs_rpc::metrics::quantile;
use serde::Serialize;

use crate::commands::stats::durations;
use crate::findings::{Finding, Health, findings, health};
use crate::shapes::{self, member_state, some};

/// What a router said, and when.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Since the start of the command.
    pub at: Duration,
    /// The address that answered.
    pub router: String,
    pub status: v1::StatusResponse,
}

/// What is shown.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub health: Health,
    pub findings: Vec<Finding>,
    /// The router that answered.
    pub router: String,
    pub leader: Option<String>,
    /// Seconds between the two samples; null = there is only one.
    pub interval_seconds: Option<f64>,
    pub repositories_ready: u64,
    pub repositories_ingesting: u64,
    pub repositories_failed: u64,
    pub view_number: u64,
    pub reads: Reads,
    pub nodes: Vec<Node>,
    pub fetchers: Vec<Fetcher>,
    pub jobs: Vec<shapes::Job>,
    pub clients: Vec<Client>,
}

/// Requests for content between two samples.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reads {
    pub requests_per_second: Option<f64>,
    pub failed_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    /// Upper bounds; null = there were no requests, or they are not told.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Node {
    pub id: String,
    pub state: &'static str,
    #[serde(skip)]
    pub member: v1::Member,
    #[serde(flatten)]
    pub reads: Reads,
    /// Of the chunks asked for, those that were here, in per cent.
    pub chunks_here_percent: Option<f64>,
    pub repositories: Option<u64>,
    pub disk_used_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub hydrations_running: Option<u64>,
    pub hydrations_queued: Option<u64>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Fetcher {
    pub id: String,
    pub state: &'static str,
    #[serde(skip)]
    pub member: v1::Member,
    pub bytes_per_second: Option<f64>,
    pub fetches_per_second: Option<f64>,
    pub fetches_running: Option<u64>,
    pub fetches_waiting: Option<u64>,
    pub fetches_failed: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub cache_bytes_max: Option<u64>,
    /// Since it started.
    pub cache_hits_percent: Option<f64>,
    pub error: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Client {
    pub id: String,
    pub mount: String,
    pub router_id: Option<String>,
    /// Between its last two reports.
    pub upcalls_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    /// Since it was mounted.
    pub cache_hits_percent: Option<f64>,
    pub cache_bytes: Option<u64>,
    pub cache_bytes_max: Option<u64>,
    pub failed: Option<u64>,
    pub lagging_repositories: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub version: String,
}

/// A report of a mount, with its time in seconds since the epoch.
type Report = (i64, v1::ClientReport);

/// What rates are computed from. Bounded by what one status names.
#[derive(Debug, Default)]
pub struct History {
    last: Option<Sample>,
    /// The last report of each mount, and the one before it.
    reports: HashMap<String, (Report, Option<Report>)>,
}

impl History {
    /// The figures of a new sample.
    pub fn take(&mut self, sample: Sample) -> Figures {
        self.remember_reports(&sample.status.clients);
        let status = &sample.status;
        let before = self.last.as_ref();
        let elapsed = before
            .map(|before| sample.at.saturating_sub(before.at))
            .filter(|time| !time.is_zero());
        let between = Between {
            before: before.map(|before| &before.status),
            seconds: elapsed.map(|t| t.as_secs_f64()),
        };
        let nodes: Vec<Node> = status.nodes.iter().map(|node| between.node(node)).collect();
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
        let found = findings(status);
        let figures = Figures {
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
            let fresh: Report = (client.reported_at, report);
            match self.reports.get_mut(&client.client_id) {
                Some((last, _)) if last.0 == fresh.0 => last.1 = fresh.1,
                Some((last, before)) => *before = Some(std::mem::replace(last, fresh)),
                None => drop(self.reports.insert(client.client_id.clone(), (fresh, None))),
            }
        }
    }

    fn client(&self, wire: &v1::ClientStatus) -> Client {
        let report = wire.report.as_ref();
        let of = |figure: fn(&v1::ClientReport) -> u64| report.map(figure);
        let rate = |figure: fn(&v1::ClientReport) -> u64| {
            let (now, before) = self.reports.get(&wire.client_id)?;
            let before = before.as_ref()?;
            let seconds = (now.0 > before.0).then(|| (now.0 - before.0) as f64)?;
            Some(figure(&now.1).checked_sub(figure(&before.1))? as f64 / seconds)
        };
        Client {
            id: wire.client_id.clone(),
            mount: wire.mount.clone(),
            router_id: some(&wire.router_id),
            upcalls_per_second: rate(|report| report.upcalls),
            bytes_per_second: rate(|report| report.bytes_fetched),
            cache_hits_percent: report
                .and_then(|report| share(report.cache_hits, report.cache_misses)),
            cache_bytes: of(|report| report.cache_bytes),
            cache_bytes_max: of(|report| report.cache_bytes_max),
            failed: of(|report| report.failed),
            lagging_repositories: of(|report| report.lagging),
            resident_bytes: of(|report| report.resident_bytes),
            version: wire.version.clone(),
        }
    }
}

/// `part` of `part + rest`, in per cent.
fn share(part: u64, rest: u64) -> Option<f64> {
    let whole = part as f64 + rest as f64;
    (whole > 0.0).then(|| part as f64 / whole * 100.0)
}

/// The time between two samples.
struct Between<'a> {
    before: Option<&'a v1::StatusResponse>,
    /// `None` = there is no sample before.
    seconds: Option<f64>,
}

impl Between<'_> {
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

    fn node(&self, wire: &v1::NodeStatus) -> Node {
        let member = wire.member.clone().unwrap_or_default();
        let stat = wire.stat.as_ref();
        let before = stat.and_then(|stat| self.stat_before(stat));
        let here = stat.zip(before).and_then(|(now, before)| {
            share(
                now.chunks_held.checked_sub(before.chunks_held)?,
                now.chunks_missed.checked_sub(before.chunks_missed)?,
            )
        });
        Node {
            id: member.id.clone(),
            state: member_state(member.state()),
            reads: stat
                .zip(before)
                .map_or_else(Reads::default, |(now, before)| self.reads_of(now, before)),
            chunks_here_percent: here,
            repositories: stat.map(|stat| stat.repositories),
            disk_used_bytes: stat.map(|stat| stat.disk_used_bytes),
            disk_free_bytes: stat.map(|stat| stat.disk_free_bytes),
            hydrations_running: stat.map(|stat| stat.hydrations_running),
            hydrations_queued: stat.map(|stat| stat.hydrations_queued),
            error: some(&wire.error),
            member,
        }
    }

    fn reads_of(&self, now: &v1::StatResponse, before: &v1::StatResponse) -> Reads {
        let counts = more(&before.request_durations, &now.request_durations);
        let counted = counts.as_ref().map(|counts| shapes::total(counts));
        Reads {
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
    fn reads(&self, now: &v1::StatusResponse, nodes: &[Node]) -> Reads {
        let stats = now.nodes.iter().filter_map(|node| node.stat.as_ref());
        let counted = |stat: &v1::StatResponse| {
            more(
                &self.stat_before(stat)?.request_durations,
                &stat.request_durations,
            )
        };
        let each: Vec<Vec<u64>> = stats.filter_map(counted).collect();
        let counts = durations(each.iter().map(Vec::as_slice));
        let sum = |of: fn(&Reads) -> Option<f64>| {
            nodes
                .iter()
                .filter_map(|node| of(&node.reads))
                .reduce(|a, b| a + b)
        };
        Reads {
            requests_per_second: sum(|reads| reads.requests_per_second),
            failed_per_second: sum(|reads| reads.failed_per_second),
            bytes_per_second: sum(|reads| reads.bytes_per_second),
            p50_seconds: quantile(&counts, 0.5),
            p99_seconds: quantile(&counts, 0.99),
        }
    }

    fn fetcher(&self, wire: &v1::FetcherStatus) -> Fetcher {
        let member = wire.member.clone().unwrap_or_default();
        let stat = wire.stat.as_ref();
        let of = |figure: fn(&v1::FetcherStatResponse) -> u64| stat.map(figure);
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
        Fetcher {
            id: member.id.clone(),
            state: member_state(member.state()),
            bytes_per_second: rate(|stat| stat.bytes_fetched),
            fetches_per_second: rate(|stat| stat.fetches_done),
            fetches_running: of(|stat| stat.fetches_running),
            fetches_waiting: of(|stat| stat.fetches_waiting),
            fetches_failed: of(|stat| stat.fetches_failed),
            cache_bytes: of(|stat| stat.cache_bytes),
            cache_bytes_max: of(|stat| stat.cache_bytes_max),
            cache_hits_percent: stat.and_then(|stat| share(stat.cache_hits, stat.cache_misses)),
            error: some(&wire.error),
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
