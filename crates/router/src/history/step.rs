//! What happened in one step of the history, and how steps become a longer one.

use monofs_rpc::metrics::quantile;

use super::ring::Accumulate;

/// What there is a history of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistorySeries {
    /// Requests for content that nodes answered.
    Reads,
    Bytes,
    Errors,
    LatencyP50,
    LatencyP99,
    NodeHitRatio,
    FetcherHitRatio,
    ClientHitRatio,
    Repositories,
    NodesServing,
    MembersSilent,
    JobsRunning,
    DiskUsed,
}

/// All of them.
pub const SERIES: [HistorySeries; 13] = [
    HistorySeries::Reads,
    HistorySeries::Bytes,
    HistorySeries::Errors,
    HistorySeries::LatencyP50,
    HistorySeries::LatencyP99,
    HistorySeries::NodeHitRatio,
    HistorySeries::FetcherHitRatio,
    HistorySeries::ClientHitRatio,
    HistorySeries::Repositories,
    HistorySeries::NodesServing,
    HistorySeries::MembersSilent,
    HistorySeries::JobsRunning,
    HistorySeries::DiskUsed,
];

impl HistorySeries {
    /// The stable name, with the unit in it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads_per_second",
            Self::Bytes => "bytes_per_second",
            Self::Errors => "errors_per_second",
            Self::LatencyP50 => "latency_p50_seconds",
            Self::LatencyP99 => "latency_p99_seconds",
            Self::NodeHitRatio => "node_hit_ratio",
            Self::FetcherHitRatio => "fetcher_hit_ratio",
            Self::ClientHitRatio => "client_hit_ratio",
            Self::Repositories => "repositories",
            Self::NodesServing => "nodes_serving",
            Self::MembersSilent => "members_silent",
            Self::JobsRunning => "jobs_running",
            Self::DiskUsed => "disk_used_bytes",
        }
    }
}

/// A mean of what is added.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    pub fn of(value: Option<f64>) -> Self {
        value.map_or_else(Self::default, |sum| Self { sum, count: 1 })
    }

    fn merge(&mut self, later: Self) {
        self.sum += later.sum;
        self.count += later.count;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// Hits of all that was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hits {
    pub hits: u64,
    pub misses: u64,
}

impl Hits {
    pub fn merge(&mut self, later: Self) {
        self.hits += later.hits;
        self.misses += later.misses;
    }

    /// `None`: nothing was asked for.
    fn ratio(self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}

/// What the cluster did in one step.
#[derive(Debug, Clone, Default)]
pub struct ClusterStep {
    pub(super) reads: Mean,
    pub(super) bytes: Mean,
    pub(super) errors: Mean,
    /// Requests by how long they took; see `StatResponse.request_durations`.
    pub(super) durations: Vec<u64>,
    pub(super) nodes: Hits,
    pub(super) fetchers: Hits,
    pub(super) clients: Hits,
    /// As they were at the end.
    pub(super) repositories: u64,
    pub(super) nodes_serving: u64,
    pub(super) members_silent: u64,
    pub(super) jobs_running: u64,
    pub(super) disk_used: Option<u64>,
}

impl ClusterStep {
    /// `None` = not known.
    pub fn value(&self, series: HistorySeries) -> Option<f64> {
        match series {
            HistorySeries::Reads => self.reads.value(),
            HistorySeries::Bytes => self.bytes.value(),
            HistorySeries::Errors => self.errors.value(),
            HistorySeries::LatencyP50 => quantile(&self.durations, 0.5),
            HistorySeries::LatencyP99 => quantile(&self.durations, 0.99),
            HistorySeries::NodeHitRatio => self.nodes.ratio(),
            HistorySeries::FetcherHitRatio => self.fetchers.ratio(),
            HistorySeries::ClientHitRatio => self.clients.ratio(),
            HistorySeries::Repositories => Some(self.repositories as f64),
            HistorySeries::NodesServing => Some(self.nodes_serving as f64),
            HistorySeries::MembersSilent => Some(self.members_silent as f64),
            HistorySeries::JobsRunning => Some(self.jobs_running as f64),
            HistorySeries::DiskUsed => self.disk_used.map(|bytes| bytes as f64),
        }
    }
}

impl Accumulate for ClusterStep {
    fn merge(&mut self, later: &Self) {
        self.reads.merge(later.reads);
        self.bytes.merge(later.bytes);
        self.errors.merge(later.errors);
        add_counts(&mut self.durations, &later.durations);
        self.nodes.merge(later.nodes);
        self.fetchers.merge(later.fetchers);
        self.clients.merge(later.clients);
        self.repositories = later.repositories;
        self.nodes_serving = later.nodes_serving;
        self.members_silent = self.members_silent.max(later.members_silent);
        self.jobs_running = later.jobs_running;
        self.disk_used = later.disk_used.or(self.disk_used);
    }
}

/// What one node did in one step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeStep {
    pub(super) reads: Mean,
    pub(super) disk_used: Option<u64>,
}

impl NodeStep {
    pub fn reads_per_second(&self) -> Option<f64> {
        self.reads.value()
    }

    pub fn disk_used_bytes(&self) -> Option<f64> {
        self.disk_used.map(|bytes| bytes as f64)
    }
}

impl Accumulate for NodeStep {
    fn merge(&mut self, later: &Self) {
        self.reads.merge(later.reads);
        self.disk_used = later.disk_used.or(self.disk_used);
    }
}

/// Adds `more` to `counts`, bucket by bucket.
pub(super) fn add_counts(counts: &mut Vec<u64>, more: &[u64]) {
    counts.resize(counts.len().max(more.len()), 0);
    counts
        .iter_mut()
        .zip(more)
        .for_each(|(count, more)| *count += more);
}
