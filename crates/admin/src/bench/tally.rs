//! What happened: latencies in HDR histograms, errors by kind, bytes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use monofs_model::ErrorKind;

use super::operation::LoadOperation;

/// Longest latency told apart, in microseconds (one hour); longer ones count as this.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Digits of a latency that are kept: three are 0.1 %.
const DIGITS: u8 = 3;

/// Latencies in microseconds.
#[derive(Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)
                .expect("the bounds are constants"),
        )
    }
}

impl Latencies {
    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(
            u64::try_from(latency.as_micros())
                .unwrap_or(u64::MAX)
                .max(1),
        );
    }

    /// Counts those of another.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The mean, in microseconds.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// What this share of them does not exceed, in microseconds; 0 when there is none.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share).min(self.0.max())
    }

    /// How many lie between each power of two and the next: `(upper end in microseconds, exclusive;
    /// count)`, from the first that is not empty to the last.
    pub fn octaves(&self) -> Vec<(u64, u64)> {
        if self.count() == 0 {
            return Vec::new();
        }
        let octaves = self.0.min().max(1).ilog2()..=self.max().max(1).ilog2();
        octaves
            .map(|power| {
                (
                    2 << power,
                    self.0.count_between(1 << power, (2 << power) - 1),
                )
            })
            .collect()
    }
}

/// One operation's figures.
#[derive(Clone, Default)]
pub struct OperationFigures {
    /// Of what succeeded.
    pub latencies: Latencies,
    /// Records and frames as they were sent.
    pub bytes: u64,
    /// By the word of the error's kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// What the first of them said.
    pub first_error: Option<String>,
}

impl OperationFigures {
    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.bytes += other.bytes;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }
}

/// All figures of a thread, or of all of them.
#[derive(Clone, Default)]
pub struct LoadTally {
    pub operations: BTreeMap<LoadOperation, OperationFigures>,
    /// From when a request was due until it was sent. Part of its latency.
    pub lag: Latencies,
    /// Requests that had to wait because too many were under way.
    pub delayed: u64,
    /// Requests that were never sent because the schedule could not be caught up with.
    pub unsent: u64,
    /// Servers that failed or did not hold what was asked for, so that the next one was asked.
    pub failovers: u64,
    /// When the last request was answered.
    pub last: Option<Instant>,
}

impl LoadTally {
    /// Counts a success.
    pub fn succeeded(&mut self, operation: LoadOperation, latency: Duration, bytes: u64) {
        let figures = self.operations.entry(operation).or_default();
        figures.latencies.record(latency);
        figures.bytes += bytes;
    }

    /// Counts a failure.
    pub fn failed(&mut self, operation: LoadOperation, kind: ErrorKind, message: &str) {
        let figures = self.operations.entry(operation).or_default();
        *figures.errors.entry(kind.as_str()).or_default() += 1;
        figures
            .first_error
            .get_or_insert_with(|| message.to_owned());
    }

    /// Counts what another thread saw.
    pub fn add(&mut self, other: &Self) {
        for (operation, figures) in &other.operations {
            self.operations.entry(*operation).or_default().add(figures);
        }
        self.lag.add(&other.lag);
        self.delayed += other.delayed;
        self.unsent += other.unsent;
        self.failovers += other.failovers;
        self.last = self.last.max(other.last);
    }

    /// All operations as one.
    pub fn total(&self) -> OperationFigures {
        let mut total = OperationFigures::default();
        self.operations
            .values()
            .for_each(|figures| total.add(figures));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_octaves_come_from_every_thread() {
        let mut one = LoadTally::default();
        let mut two = LoadTally::default();
        (1..=90u64)
            .for_each(|_| one.succeeded(LoadOperation::List, Duration::from_micros(100), 10));
        (1..=10u64)
            .for_each(|_| two.succeeded(LoadOperation::Lookup, Duration::from_millis(600), 5));
        two.failed(LoadOperation::List, ErrorKind::Unavailable, "gone");
        one.add(&two);
        let total = one.total();
        assert_eq!(
            (
                total.latencies.count(),
                total.bytes,
                total.errors["unavailable"]
            ),
            (100, 950, 1)
        );
        assert_eq!(
            (total.latencies.quantile(0.5), total.latencies.quantile(0.9)),
            (100, 100)
        );
        assert!(
            (599_000..=601_000).contains(&total.latencies.quantile(0.99)),
            "{}",
            total.latencies.quantile(0.99)
        );
        let octaves = total.latencies.octaves();
        assert_eq!(
            (octaves.first(), octaves.last()),
            (Some(&(128, 90)), Some(&(1 << 20, 10)))
        );
        assert_eq!(octaves.iter().map(|(_, count)| count).sum::<u64>(), 100);
        assert!(Latencies::default().octaves().is_empty());
    }
}
