//! Arithmetic of the history: counters of members, which only grow until a member starts again,
//! become what happened in a step.

use std::collections::BTreeMap;

use monofs_model::NodeId;
use monofs_proto::v1;
use monofs_rpc::metrics::quantile;

use super::ring::Accumulate;

/// What all members said at one time; `None` = it could not be asked.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    pub nodes: BTreeMap<NodeId, Option<v1::StatResponse>>,
    pub fetchers: BTreeMap<NodeId, Option<v1::FetcherStatResponse>>,
    /// Of the clients of this router, by when they connected and their name: hits and misses of
    /// their caches.
    pub clients: BTreeMap<(i64, String), (u64, u64)>,
    pub repositories: u64,
    pub nodes_serving: u64,
    pub jobs_running: u64,
}

/// What there is a history of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
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
pub const SERIES: [Series; 13] = [
    Series::Reads,
    Series::Bytes,
    Series::Errors,
    Series::LatencyP50,
    Series::LatencyP99,
    Series::NodeHitRatio,
    Series::FetcherHitRatio,
    Series::ClientHitRatio,
    Series::Repositories,
    Series::NodesServing,
    Series::MembersSilent,
    Series::JobsRunning,
    Series::DiskUsed,
];

impl Series {
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
struct Mean {
    sum: f64,
    count: u32,
}

impl Mean {
    fn of(value: Option<f64>) -> Self {
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
struct Hits {
    hits: u64,
    misses: u64,
}

impl Hits {
    fn merge(&mut self, later: Self) {
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
pub struct Step {
    reads: Mean,
    bytes: Mean,
    errors: Mean,
    /// Requests by how long they took; see `StatResponse.request_durations`.
    durations: Vec<u64>,
    nodes: Hits,
    fetchers: Hits,
    clients: Hits,
    /// As they were at the end.
    repositories: u64,
    nodes_serving: u64,
    members_silent: u64,
    jobs_running: u64,
    disk_used: Option<u64>,
}

impl Step {
    /// `None` = not known.
    pub fn value(&self, series: Series) -> Option<f64> {
        match series {
            Series::Reads => self.reads.value(),
            Series::Bytes => self.bytes.value(),
            Series::Errors => self.errors.value(),
            Series::LatencyP50 => quantile(&self.durations, 0.5),
            Series::LatencyP99 => quantile(&self.durations, 0.99),
            Series::NodeHitRatio => self.nodes.ratio(),
            Series::FetcherHitRatio => self.fetchers.ratio(),
            Series::ClientHitRatio => self.clients.ratio(),
            Series::Repositories => Some(self.repositories as f64),
            Series::NodesServing => Some(self.nodes_serving as f64),
            Series::MembersSilent => Some(self.members_silent as f64),
            Series::JobsRunning => Some(self.jobs_running as f64),
            Series::DiskUsed => self.disk_used.map(|bytes| bytes as f64),
        }
    }
}

impl Accumulate for Step {
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
    reads: Mean,
    disk_used: Option<u64>,
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

/// The last counters of every member, and when they were told.
#[derive(Debug, Default)]
pub(super) struct Meter {
    at: Option<i64>,
    nodes: BTreeMap<NodeId, (i64, v1::StatResponse)>,
    fetchers: BTreeMap<NodeId, v1::FetcherStatResponse>,
    clients: BTreeMap<(i64, String), (u64, u64)>,
}

impl Meter {
    /// What happened since the sample before; `None` when `at` is not after that one.
    pub fn step(&mut self, at: i64, sample: &Sample) -> Option<(Step, Vec<(NodeId, NodeStep)>)> {
        if self.at.is_some_and(|before| before >= at) {
            return None;
        }
        self.at = Some(at);
        let silent = |missing: usize| missing as u64;
        let mut step = Step {
            repositories: sample.repositories,
            nodes_serving: sample.nodes_serving,
            members_silent: silent(sample.nodes.values().filter(|stat| stat.is_none()).count())
                + silent(
                    sample
                        .fetchers
                        .values()
                        .filter(|stat| stat.is_none())
                        .count(),
                ),
            jobs_running: sample.jobs_running,
            ..Step::default()
        };
        let of_nodes = self.nodes(at, sample, &mut step);
        self.fetchers(sample, &mut step);
        self.clients(sample, &mut step);
        Some((step, of_nodes))
    }

    fn nodes(&mut self, at: i64, sample: &Sample, step: &mut Step) -> Vec<(NodeId, NodeStep)> {
        self.nodes.retain(|id, _| sample.nodes.contains_key(id));
        let mut reads = None;
        let mut bytes = None;
        let mut errors = None;
        let mut of_nodes = Vec::new();
        for (id, stat) in &sample.nodes {
            let Some(stat) = stat else {
                of_nodes.push((id.clone(), NodeStep::default()));
                continue;
            };
            let mut of_node = NodeStep {
                disk_used: Some(stat.disk_used_bytes),
                ..NodeStep::default()
            };
            if let Some((then, before)) = self.nodes.get(id)
                && let Some(done) = Done::between(before, stat)
            {
                let rate = |count: u64| count as f64 / (at - then).max(1) as f64;
                let add = |sum: &mut Option<f64>, count: Option<u64>| {
                    if let Some(count) = count {
                        *sum = Some(sum.unwrap_or(0.0) + rate(count));
                    }
                };
                let requests = done.durations.as_ref().map(|counts| counts.iter().sum());
                add(&mut reads, requests);
                add(&mut errors, requests.map(|_| done.failed));
                add(&mut bytes, Some(done.bytes));
                of_node.reads = Mean::of(requests.map(rate));
                add_counts(
                    &mut step.durations,
                    done.durations.as_deref().unwrap_or_default(),
                );
                step.nodes.merge(done.chunks);
            }
            of_nodes.push((id.clone(), of_node));
            self.nodes.insert(id.clone(), (at, stat.clone()));
        }
        (step.reads, step.bytes, step.errors) =
            (Mean::of(reads), Mean::of(bytes), Mean::of(errors));
        // What a node that is silent now said last still lies on its disk.
        let used = || {
            self.nodes
                .values()
                .map(|(_, stat)| stat.disk_used_bytes)
                .sum()
        };
        step.disk_used = (!self.nodes.is_empty()).then(used);
        of_nodes
    }

    fn fetchers(&mut self, sample: &Sample, step: &mut Step) {
        self.fetchers
            .retain(|id, _| sample.fetchers.contains_key(id));
        for (id, stat) in &sample.fetchers {
            let Some(stat) = stat else { continue };
            if let Some(before) = self.fetchers.insert(id.clone(), stat.clone()) {
                step.fetchers.merge(grown(
                    (before.cache_hits, before.cache_misses),
                    (stat.cache_hits, stat.cache_misses),
                ));
            }
        }
    }

    fn clients(&mut self, sample: &Sample, step: &mut Step) {
        for (client, now) in &sample.clients {
            if let Some(before) = self.clients.get(client) {
                step.clients.merge(grown(*before, *now));
            }
        }
        self.clients.clone_from(&sample.clients);
    }
}

/// Hits and misses since `before`; nothing when they were counted anew.
fn grown(before: (u64, u64), now: (u64, u64)) -> Hits {
    match (now.0.checked_sub(before.0), now.1.checked_sub(before.1)) {
        (Some(hits), Some(misses)) => Hits { hits, misses },
        _ => Hits::default(),
    }
}

/// What a node did between two looks.
struct Done {
    /// `None`: its version does not tell.
    durations: Option<Vec<u64>>,
    failed: u64,
    bytes: u64,
    chunks: Hits,
}

impl Done {
    /// `None`: it was started again in between, so its counters began anew.
    fn between(before: &v1::StatResponse, now: &v1::StatResponse) -> Option<Self> {
        if before.incarnation != now.incarnation {
            return None;
        }
        let told = !now.request_durations.is_empty()
            && before.request_durations.len() == now.request_durations.len();
        let pairs = now.request_durations.iter().zip(&before.request_durations);
        let durations = pairs
            .map(|(now, before)| now.checked_sub(*before))
            .collect::<Option<Vec<u64>>>()?;
        Some(Self {
            durations: told.then_some(durations),
            failed: now.requests_failed.checked_sub(before.requests_failed)?,
            bytes: now.bytes_served.checked_sub(before.bytes_served)?,
            chunks: Hits {
                hits: now.chunks_held.checked_sub(before.chunks_held)?,
                misses: now.chunks_missed.checked_sub(before.chunks_missed)?,
            },
        })
    }
}

fn add_counts(counts: &mut Vec<u64>, more: &[u64]) {
    counts.resize(counts.len().max(more.len()), 0);
    counts
        .iter_mut()
        .zip(more)
        .for_each(|(count, more)| *count += more);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node of this incarnation that answered `requests`, all of them in 10 ms, with 100 bytes
    /// and one held chunk each.
    pub fn node(incarnation: u64, requests: u64) -> v1::StatResponse {
        let mut request_durations = vec![0; 17];
        request_durations[7] = requests;
        v1::StatResponse {
            incarnation,
            request_durations,
            bytes_served: requests * 100,
            chunks_held: requests,
            chunks_missed: 0,
            disk_used_bytes: 1000,
            ..Default::default()
        }
    }

    pub fn sample(nodes: &[(&str, Option<v1::StatResponse>)]) -> Sample {
        let nodes = nodes
            .iter()
            .map(|(id, stat)| (NodeId::new(id).expect("an id"), stat.clone()));
        Sample {
            nodes: nodes.collect(),
            ..Default::default()
        }
    }

    fn steps(samples: &[(i64, Sample)]) -> Vec<Step> {
        let mut meter = Meter::default();
        samples
            .iter()
            .filter_map(|(at, sample)| meter.step(*at, sample))
            .map(|(step, _)| step)
            .collect()
    }

    #[test]
    fn counters_become_rates_and_quantiles() {
        let steps = steps(&[
            (
                10,
                sample(&[("a", Some(node(1, 1000))), ("b", Some(node(1, 7)))]),
            ),
            (
                20,
                sample(&[("a", Some(node(1, 1100))), ("b", Some(node(1, 57)))]),
            ),
        ]);
        assert_eq!(
            steps[0].value(Series::Reads),
            None,
            "nothing to compare with"
        );
        assert_eq!(steps[1].value(Series::Reads), Some(15.0));
        assert_eq!(steps[1].value(Series::Bytes), Some(1500.0));
        assert_eq!(steps[1].value(Series::Errors), Some(0.0));
        assert_eq!(steps[1].value(Series::LatencyP99), Some(0.01));
        assert_eq!(steps[1].value(Series::NodeHitRatio), Some(1.0));
        assert_eq!(steps[1].value(Series::DiskUsed), Some(2000.0));
    }

    #[test]
    fn a_member_that_cannot_be_asked_is_a_gap_and_catches_up_without_a_spike() {
        let steps = steps(&[
            (10, sample(&[("a", Some(node(1, 0)))])),
            (20, sample(&[("a", None)])),
            (30, sample(&[("a", None)])),
            (40, sample(&[("a", Some(node(1, 300)))])),
        ]);
        assert_eq!(steps[1].value(Series::Reads), None);
        assert_eq!(
            (
                steps[1].value(Series::MembersSilent),
                steps[1].value(Series::DiskUsed)
            ),
            (Some(1.0), Some(1000.0))
        );
        assert_eq!(
            steps[3].value(Series::Reads),
            Some(10.0),
            "over the 30 seconds since it was asked last"
        );
    }

    #[test]
    fn a_restarted_node_gives_no_spike_and_no_negative_rate() {
        let mut reset = node(1, 3);
        reset.bytes_served = 0;
        let steps = steps(&[
            (10, sample(&[("a", Some(node(1, 9000)))])),
            // Another incarnation, with more than before; then counters that began anew without
            // saying so.
            (20, sample(&[("a", Some(node(2, 9500)))])),
            (30, sample(&[("a", Some(node(2, 9600)))])),
            (
                40,
                sample(&[(
                    "a",
                    Some(v1::StatResponse {
                        incarnation: 2,
                        ..reset
                    }),
                )]),
            ),
        ]);
        let reads: Vec<_> = steps.iter().map(|step| step.value(Series::Reads)).collect();
        assert_eq!(reads, [None, None, Some(10.0), None]);
    }

    #[test]
    fn an_idle_cache_has_no_ratio_and_merged_steps_weigh_by_use() {
        let with_clients = |hits, misses| {
            let clients = [((1, "c".to_owned()), (hits, misses))].into();
            Sample {
                clients,
                ..sample(&[("a", Some(node(1, 0)))])
            }
        };
        let mut steps = steps(&[
            (10, with_clients(0, 0)),
            (20, with_clients(90, 10)),
            (30, with_clients(90, 310)),
        ]);
        assert_eq!(steps[0].value(Series::ClientHitRatio), None);
        assert_eq!(steps[1].value(Series::ClientHitRatio), Some(0.9));
        let last = steps[2].clone();
        steps[1].merge(&last);
        assert_eq!(steps[1].value(Series::ClientHitRatio), Some(90.0 / 400.0));
        assert_eq!(
            steps[1].value(Series::NodeHitRatio),
            None,
            "nothing was asked for"
        );
        assert_eq!(steps[1].value(Series::LatencyP50), None);
    }

    #[test]
    fn a_node_that_does_not_tell_durations_has_no_rate_of_reads() {
        let old = |bytes| v1::StatResponse {
            bytes_served: bytes,
            ..Default::default()
        };
        let steps = steps(&[
            (10, sample(&[("a", Some(old(0)))])),
            (20, sample(&[("a", Some(old(500)))])),
        ]);
        assert_eq!(
            (steps[1].value(Series::Reads), steps[1].value(Series::Bytes)),
            (None, Some(50.0))
        );
    }
}
