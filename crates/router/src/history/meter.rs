//! Arithmetic of the history: counters of members, which only grow until a member starts again,
//! become what happened in a step.

use std::collections::BTreeMap;

use monofs_model::NodeId;
use monofs_proto::v1;

use super::step::{ClusterStep, Hits, Mean, NodeStep, add_counts};

/// What all members said at one time; `None` = it could not be asked.
#[derive(Debug, Clone, Default)]
pub struct ClusterSample {
    pub nodes: BTreeMap<NodeId, Option<v1::StatResponse>>,
    pub fetchers: BTreeMap<NodeId, Option<v1::FetcherStatResponse>>,
    /// Of the clients of this router, by when they connected and their name: hits and misses of
    /// their caches.
    pub clients: BTreeMap<(i64, String), (u64, u64)>,
    pub repositories: u64,
    pub nodes_serving: u64,
    pub jobs_running: u64,
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
    pub fn step(
        &mut self,
        at: i64,
        sample: &ClusterSample,
    ) -> Option<(ClusterStep, Vec<(NodeId, NodeStep)>)> {
        if self.at.is_some_and(|before| before >= at) {
            return None;
        }
        self.at = Some(at);
        let silent_nodes = sample.nodes.values().filter(|stat| stat.is_none());
        let silent_fetchers = sample.fetchers.values().filter(|stat| stat.is_none());
        let mut step = ClusterStep {
            repositories: sample.repositories,
            nodes_serving: sample.nodes_serving,
            members_silent: (silent_nodes.count() + silent_fetchers.count()) as u64,
            jobs_running: sample.jobs_running,
            ..ClusterStep::default()
        };
        let of_nodes = self.nodes(at, sample, &mut step);
        self.fetchers(sample, &mut step);
        self.clients(sample, &mut step);
        Some((step, of_nodes))
    }

    fn nodes(
        &mut self,
        at: i64,
        sample: &ClusterSample,
        step: &mut ClusterStep,
    ) -> Vec<(NodeId, NodeStep)> {
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
                && let Some(done) = NodeWork::between(before, stat)
            {
                // One that does not tell durations tells neither reads nor failures.
                let seconds = (at - then).max(1) as f64;
                let requests = done.durations.as_ref();
                let requests = requests.map(|counts| counts.iter().sum::<u64>() as f64 / seconds);
                reads = sum(reads, requests);
                errors = sum(errors, requests.map(|_| done.failed as f64 / seconds));
                bytes = sum(bytes, Some(done.bytes as f64 / seconds));
                of_node.reads = Mean::of(requests);
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
        let used = self.nodes.values().map(|(_, stat)| stat.disk_used_bytes);
        step.disk_used = used.reduce(|sum, bytes| sum + bytes);
        of_nodes
    }

    fn fetchers(&mut self, sample: &ClusterSample, step: &mut ClusterStep) {
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

    fn clients(&mut self, sample: &ClusterSample, step: &mut ClusterStep) {
        for (client, now) in &sample.clients {
            if let Some(before) = self.clients.get(client) {
                step.clients.merge(grown(*before, *now));
            }
        }
        self.clients.clone_from(&sample.clients);
    }
}

/// The sum of what is known; `None` when nothing is.
fn sum(sum: Option<f64>, more: Option<f64>) -> Option<f64> {
    match (sum, more) {
        (Some(sum), Some(more)) => Some(sum + more),
        (known, None) | (None, known) => known,
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
struct NodeWork {
    /// `None`: its version does not tell.
    durations: Option<Vec<u64>>,
    failed: u64,
    bytes: u64,
    chunks: Hits,
}

impl NodeWork {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::history::ring::Accumulate as _;
    use crate::history::step::HistorySeries;

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

    pub fn sample(nodes: &[(&str, Option<v1::StatResponse>)]) -> ClusterSample {
        let nodes = nodes
            .iter()
            .map(|(id, stat)| (NodeId::new(id).expect("an id"), stat.clone()));
        ClusterSample {
            nodes: nodes.collect(),
            ..Default::default()
        }
    }

    fn steps(samples: &[(i64, ClusterSample)]) -> Vec<ClusterStep> {
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
            steps[0].value(HistorySeries::Reads),
            None,
            "nothing to compare with"
        );
        assert_eq!(steps[1].value(HistorySeries::Reads), Some(15.0));
        assert_eq!(steps[1].value(HistorySeries::Bytes), Some(1500.0));
        assert_eq!(steps[1].value(HistorySeries::Errors), Some(0.0));
        assert_eq!(steps[1].value(HistorySeries::LatencyP99), Some(0.01));
        assert_eq!(steps[1].value(HistorySeries::NodeHitRatio), Some(1.0));
        assert_eq!(steps[1].value(HistorySeries::DiskUsed), Some(2000.0));
    }

    #[test]
    fn a_member_that_cannot_be_asked_is_a_gap_and_catches_up_without_a_spike() {
        let steps = steps(&[
            (10, sample(&[("a", Some(node(1, 0)))])),
            (20, sample(&[("a", None)])),
            (30, sample(&[("a", None)])),
            (40, sample(&[("a", Some(node(1, 300)))])),
        ]);
        assert_eq!(steps[1].value(HistorySeries::Reads), None);
        assert_eq!(
            (
                steps[1].value(HistorySeries::MembersSilent),
                steps[1].value(HistorySeries::DiskUsed)
            ),
            (Some(1.0), Some(1000.0))
        );
        assert_eq!(
            steps[3].value(HistorySeries::Reads),
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
        let reads: Vec<_> = steps
            .iter()
            .map(|step| step.value(HistorySeries::Reads))
            .collect();
        assert_eq!(reads, [None, None, Some(10.0), None]);
    }

    #[test]
    fn an_idle_cache_has_no_ratio_and_merged_steps_weigh_by_use() {
        let with_clients = |hits, misses| {
            let clients = [((1, "c".to_owned()), (hits, misses))].into();
            ClusterSample {
                clients,
                ..sample(&[("a", Some(node(1, 0)))])
            }
        };
        let mut steps = steps(&[
            (10, with_clients(0, 0)),
            (20, with_clients(90, 10)),
            (30, with_clients(90, 310)),
        ]);
        assert_eq!(steps[0].value(HistorySeries::ClientHitRatio), None);
        assert_eq!(steps[1].value(HistorySeries::ClientHitRatio), Some(0.9));
        let last = steps[2].clone();
        steps[1].merge(&last);
        assert_eq!(
            steps[1].value(HistorySeries::ClientHitRatio),
            Some(90.0 / 400.0)
        );
        assert_eq!(
            steps[1].value(HistorySeries::NodeHitRatio),
            None,
            "nothing was asked for"
        );
        assert_eq!(steps[1].value(HistorySeries::LatencyP50), None);
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
            (
                steps[1].value(HistorySeries::Reads),
                steps[1].value(HistorySeries::Bytes)
            ),
            (None, Some(50.0))
        );
    }
}
