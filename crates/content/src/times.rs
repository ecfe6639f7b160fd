//! When names last changed, as this mount shows it: the times of the generations of a repository, as
//! far as they are known here.
//!
//! Most come from the routers and are the same on every mount. A mount that comes to show a
//! generation late shows its names with the time at which it did: what was built meanwhile was built
//! from the old text, and must not look newer than the new one.
//!
//! Invariant: the time of a generation does not change while it is shown.

use std::collections::BTreeMap;

use bytes::Bytes;
use monofs_model::{Repository, Snapshot};
use monofs_proto::v1;
use prost::Message;

use crate::shown::{ShownTree, UNTOLD};

/// Generations of one row, as routers give them.
pub const ROW: u64 = 1024;
/// Late runs that are remembered of one repository; the oldest go.
const LATE_MAX: usize = 64;

/// The times that an entry of the catalogue tells, in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownTimes {
    generation: u64,
    time: i64,
    root_generation: u64,
    root_time: i64,
    commit_time: i64,
    is_told: bool,
}

impl ShownTimes {
    /// What an entry that shows `snapshot` tells.
    pub fn of(entry: &Repository, snapshot: &Snapshot) -> Self {
        let commit_time = snapshot.commit_time;
        Self {
            generation: entry.generation,
            time: entry.generation_time.unwrap_or(commit_time),
            root_generation: ShownTree::root_of(snapshot).generations.own(),
            root_time: entry.root_time.unwrap_or(commit_time),
            commit_time,
            is_told: entry.generation_time.is_some(),
        }
    }

    /// Whether the last generation has a time of its own, not the commit's.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The time of a generation, if the entry tells it.
    pub fn get(&self, generation: u64) -> Option<i64> {
        match generation {
            UNTOLD => Some(self.commit_time),
            _ if generation == self.generation => Some(self.time),
            _ if generation == self.root_generation => Some(self.root_time),
            _ => None,
        }
    }

    /// The last generation, and its time.
    pub fn last(&self) -> (u64, i64) {
        (self.generation, self.time)
    }

    /// The same, if that time is the generation's for all: an entry of a router that keeps no times
    /// tells its commit's.
    pub fn last_told(&self) -> Option<(u64, i64)> {
        (self.root_generation != UNTOLD).then_some(self.last())
    }
}

/// Consecutive generations that a mount came to show late, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateRun {
    pub first: u64,
    pub last: u64,
    /// When it did, seconds since the epoch.
    pub shown_at: i64,
}

/// What is known of the times of a repository's generations besides what its entry tells.
#[derive(Debug, Clone, Default)]
pub struct KnownTimes {
    times: BTreeMap<u64, i64>,
    late: Vec<LateRun>,
}

impl KnownTimes {
    /// The time of a generation that was shown late.
    pub fn late(&self, generation: u64) -> Option<i64> {
        let mut newest_first = self.late.iter().rev();
        let run = newest_first.find(|run| (run.first..=run.last).contains(&generation))?;
        Some(run.shown_at)
    }

    /// The time of a generation that was learned.
    pub fn get(&self, generation: u64) -> Option<i64> {
        self.times.get(&generation).copied()
    }

    /// Learns the time of a generation.
    pub fn learn(&mut self, generation: u64, time: i64) {
        self.times.insert(generation, time);
    }

    /// Forgets all about generations after `last`: a catalogue that was put back to an earlier state
    /// counts them anew.
    pub fn forget_after(&mut self, last: u64) {
        self.times.retain(|generation, _| *generation <= last);
        self.late.retain(|run| run.last <= last);
    }

    /// Learns what a router says of a row.
    pub fn learn_row(&mut self, row: &v1::GenerationTimes) {
        let mut time = 0i64;
        for (step, delta) in row.deltas.iter().enumerate().take(ROW as usize) {
            time = time.saturating_add(*delta);
            self.learn(row.first.saturating_add(step as u64), time);
        }
        // Those before the first one that has a time show the same.
        if let Some(first) = row.deltas.first() {
            let start = row.row.saturating_mul(ROW);
            (start..row.first.min(start.saturating_add(ROW)))
                .for_each(|early| self.learn(early, *first));
        }
    }

    /// Remembers a run that was shown late.
    pub fn add_late(&mut self, run: LateRun) {
        self.late.push(run);
        if self.late.len() > LATE_MAX {
            self.late.remove(0);
        }
    }

    /// The runs that were shown late.
    pub fn late_runs(&self) -> &[LateRun] {
        &self.late
    }

    /// What is known of a row, to be kept.
    pub fn encode_row(&self, row: u64) -> Bytes {
        let start = row.saturating_mul(ROW);
        let known = self.times.range(start..start.saturating_add(ROW));
        let kept = KeptTimes {
            times: known
                .map(|(generation, time)| KeptTime {
                    generation: *generation,
                    time: *time,
                })
                .collect(),
        };
        kept.encode_to_vec().into()
    }

    /// Learns what was kept of a row of a repository that shows the generation `last`. What is not
    /// understood is as good as not there, and so are later generations: they may be of another
    /// history.
    pub fn decode_row(&mut self, kept: Bytes, last: u64) {
        let kept = KeptTimes::decode(kept).unwrap_or_default();
        let kept = kept.times.into_iter();
        for KeptTime { generation, time } in kept.filter(|kept| kept.generation <= last) {
            self.times.entry(generation).or_insert(time);
        }
    }
}

/// Times of generations in the cache on disk.
#[derive(Clone, PartialEq, prost::Message)]
struct KeptTimes {
    #[prost(message, repeated, tag = "1")]
    times: Vec<KeptTime>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct KeptTime {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(sint64, tag = "2")]
    time: i64,
}

/// The runs that this mount showed late, of all repositories, in the cache on disk.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeptLateRuns {
    #[prost(message, repeated, tag = "1")]
    pub runs: Vec<KeptLateRun>,
}

/// See [`KeptLateRuns`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeptLateRun {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(uint64, tag = "2")]
    pub first: u64,
    #[prost(uint64, tag = "3")]
    pub last: u64,
    #[prost(sint64, tag = "4")]
    pub shown_at: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_says_of_a_row_is_learned_and_kept() {
        let mut known = KnownTimes::default();
        known.learn_row(&v1::GenerationTimes {
            row: 1,
            first: 1026,
            deltas: vec![100, 5, 1],
        });
        let times = [1023, 1024, 1025, 1026, 1027, 1028, 1029].map(|at| known.get(at));
        let told = [100, 100, 100, 105, 106].map(Some);
        assert_eq!(times[1..6], told);
        assert_eq!((times[0], times[6]), (None, None));
        let mut again = KnownTimes::default();
        again.decode_row(known.encode_row(1), 1028);
        assert_eq!(again.times, known.times);
        let mut other = KnownTimes::default();
        other.decode_row(known.encode_row(1), 1027);
        let later = [1027, 1028].map(|at| other.get(at));
        assert_eq!(later, [Some(105), None]);
    }

    #[test]
    fn a_run_that_was_shown_late_has_the_time_of_showing_it() {
        let mut known = KnownTimes::default();
        let run = |first, last, shown_at| LateRun {
            first,
            last,
            shown_at,
        };
        known.add_late(run(2, 4, 50));
        known.add_late(run(7, 7, 90));
        let shown = [1, 2, 4, 5, 7].map(|generation| known.late(generation));
        assert_eq!(shown, [None, Some(50), Some(50), None, Some(90)]);
        (0..100).for_each(|n| known.add_late(run(n, n, 1)));
        assert_eq!(known.late_runs().len(), LATE_MAX);
    }
}
