//! The rings of the last hour and the last day, of the cluster and of each node.
//!
//! Invariants: time does not go back; memory is bounded by [`NODES_MAX`] and the lengths of the
//! rings.

use std::collections::BTreeMap;

use monofs_model::NodeId;
use parking_lot::RwLock;

use super::meter::{ClusterSample, Meter};
use super::ring::{Accumulate, Ring};
use super::step::{ClusterStep, HistorySeries, NodeStep, SERIES};

/// Seconds between two samples, and how many are kept: one hour.
pub const STEP_SECONDS: i64 = 10;
const STEPS_KEPT: usize = 360;
/// Seconds that the steps of the long history stand for, and how many are kept: one day.
const LONG_STEP_SECONDS: i64 = 300;
const LONG_STEPS_KEPT: usize = 288;
/// Nodes that have series of their own; of more, the first by id have.
const NODES_MAX: usize = 1000;

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryRange {
    Hour,
    Day,
}

/// A history as it is shown: one row of values for each series, one value for each time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistoryTable {
    pub step_seconds: i64,
    /// When each step ended, seconds since the epoch, ascending; a step in which nothing was
    /// sampled is missing.
    pub at: Vec<i64>,
    /// Values in the order of `at`; `None` = not known.
    pub series: Vec<(&'static str, Vec<Option<f64>>)>,
}

/// The last step of the cluster.
pub struct LatestStep {
    /// When it ended, seconds since the epoch.
    pub at: i64,
    values: Vec<(HistorySeries, Option<f64>)>,
}

impl LatestStep {
    /// `None` = not known.
    pub fn value(&self, wanted: HistorySeries) -> Option<f64> {
        self.values
            .iter()
            .find(|(series, _)| *series == wanted)
            .and_then(|(_, value)| *value)
    }
}

/// The rings of the cluster and of each node.
#[derive(Default)]
pub struct History {
    inner: RwLock<SampledRings>,
}

#[derive(Default)]
struct SampledRings {
    meter: Meter,
    cluster: Rings<ClusterStep>,
    nodes: BTreeMap<NodeId, Rings<NodeStep>>,
    /// The last sample that was taken.
    sampled: Option<ClusterSample>,
}

struct Rings<T> {
    hour: Ring<T>,
    day: Ring<T>,
}

impl<T> Default for Rings<T> {
    fn default() -> Self {
        let hour = Ring::new(STEP_SECONDS, STEPS_KEPT);
        let day = Ring::new(LONG_STEP_SECONDS, LONG_STEPS_KEPT);
        Self { hour, day }
    }
}

impl<T: Accumulate> Rings<T> {
    fn add(&mut self, at: i64, step: &T) {
        self.hour.add(at, step);
        self.day.add(at, step);
    }

    fn of(&self, range: HistoryRange) -> &Ring<T> {
        match range {
            HistoryRange::Hour => &self.hour,
            HistoryRange::Day => &self.day,
        }
    }
}

impl History {
    /// Takes in what was sampled at `at`, seconds since the epoch. Time does not go back: an
    /// earlier sample is passed over.
    pub fn add(&self, at: i64, sample: ClusterSample) {
        let mut inner = self.inner.write();
        let SampledRings {
            meter,
            cluster,
            nodes,
            sampled,
        } = &mut *inner;
        let Some((step, of_nodes)) = meter.step(at, &sample) else {
            return;
        };
        cluster.add(at, &step);
        nodes.retain(|id, _| sample.nodes.contains_key(id));
        for (id, step) in of_nodes {
            if nodes.len() < NODES_MAX || nodes.contains_key(&id) {
                nodes.entry(id).or_default().add(at, &step);
            }
        }
        *sampled = Some(sample);
    }

    /// The cluster's series.
    pub fn cluster(&self, range: HistoryRange) -> HistoryTable {
        self.read(|inner| {
            let ring = inner.cluster.of(range);
            let mut table = table(ring);
            for series in SERIES {
                let values = ring.steps().map(|(_, step)| step.value(series)).collect();
                table.series.push((series.name(), values));
            }
            table
        })
    }

    /// The series of one node; `None` when there are none.
    pub fn node(&self, id: &NodeId, range: HistoryRange) -> Option<HistoryTable> {
        self.read(|inner| {
            let ring = inner.nodes.get(id)?.of(range);
            let mut table = table(ring);
            let row = |value: fn(&NodeStep) -> Option<f64>| {
                ring.steps().map(|(_, step)| value(step)).collect()
            };
            table
                .series
                .push(("reads_per_second", row(NodeStep::reads_per_second)));
            table
                .series
                .push(("disk_used_bytes", row(NodeStep::disk_used_bytes)));
            Some(table)
        })
    }

    /// The values of the last step, with when it ended.
    pub fn latest(&self) -> Option<LatestStep> {
        self.read(|inner| {
            let (at, step) = inner.cluster.hour.last()?;
            Some(LatestStep {
                at,
                values: SERIES.map(|series| (series, step.value(series))).into(),
            })
        })
    }

    /// Looks at the last sample, if one was taken.
    pub fn sampled<T>(&self, look: impl FnOnce(&ClusterSample) -> T) -> Option<T> {
        self.read(|inner| inner.sampled.as_ref().map(look))
    }

    fn read<T>(&self, look: impl FnOnce(&SampledRings) -> T) -> T {
        look(&self.inner.read())
    }
}

fn table<T: Accumulate>(ring: &Ring<T>) -> HistoryTable {
    let at = ring.steps().map(|(at, _)| at).collect();
    HistoryTable {
        step_seconds: ring.step_seconds(),
        at,
        series: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::meter::tests::{node, sample};
    use super::*;

    fn values(table: &HistoryTable, name: &str) -> Vec<Option<f64>> {
        table
            .series
            .iter()
            .find(|(found, _)| *found == name)
            .expect("the series is there")
            .1
            .clone()
    }

    #[test]
    fn rings_keep_an_hour_in_small_steps_and_a_day_in_large_ones() {
        let history = History::default();
        let steps = 25 * 360;
        for step in 0..=steps {
            history.add(
                step * STEP_SECONDS,
                sample(&[("n1", Some(node(1, step as u64 * 50)))]),
            );
        }
        let hour = history.cluster(HistoryRange::Hour);
        assert_eq!((hour.step_seconds, hour.at.len()), (10, 360));
        assert_eq!(hour.at.last(), Some(&(steps * STEP_SECONDS)));
        assert!(
            values(&hour, "reads_per_second")
                .iter()
                .all(|rate| *rate == Some(5.0))
        );
        let day = history.cluster(HistoryRange::Day);
        assert_eq!((day.step_seconds, day.at.len()), (300, 288));
        assert!(
            values(&day, "reads_per_second")
                .iter()
                .all(|rate| *rate == Some(5.0)),
            "{day:?}"
        );
        let of_node = history
            .node(&NodeId::new("n1").expect("an id"), HistoryRange::Hour)
            .expect("it is sampled");
        assert_eq!(
            values(&of_node, "reads_per_second").last(),
            Some(&Some(5.0))
        );
    }

    #[test]
    fn a_node_that_left_has_no_series_any_more() {
        let history = History::default();
        history.add(
            10,
            sample(&[("n1", Some(node(1, 0))), ("n2", Some(node(1, 0)))]),
        );
        history.add(20, sample(&[("n1", Some(node(1, 0)))]));
        assert!(
            history
                .node(&NodeId::new("n2").expect("an id"), HistoryRange::Hour)
                .is_none()
        );
        history.add(15, sample(&[]));
        assert_eq!(
            history.cluster(HistoryRange::Hour).at,
            [10, 20],
            "time does not go back"
        );
    }
}
