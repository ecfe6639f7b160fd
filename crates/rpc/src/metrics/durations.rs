//! Durations counted without a lock, and the bounds that every histogram of this system has.
//!
//! Invariant: counting one is two relaxed additions, so it may stand on any path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use monofs_proto::durations::{DURATION_BOUNDS, quantile};

/// A histogram of durations since the start.
#[derive(Debug, Default)]
pub struct Durations {
    /// One for each bound, and one for what took longer than all of them. Not cumulative.
    counts: [AtomicU64; DURATION_BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// How many there were in each bucket, not cumulative: one for each of [`DURATION_BOUNDS`], and
    /// those over the last.
    pub fn counts(&self) -> Vec<u64> {
        self.counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }

    /// The sum of all of them, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_at_their_bounds() {
        let durations = Durations::default();
        for took in [
            Duration::ZERO,
            Duration::from_micros(10),
            Duration::from_millis(100),
            Duration::from_secs(99),
        ] {
            durations.observe(took);
        }
        let counts = durations.counts();
        assert_eq!((counts[0], counts[10], counts[16]), (2, 1, 1));
        assert!((durations.sum_seconds() - 99.10001).abs() < 1e-6);
        assert_eq!(quantile(&counts, 0.75), Some(0.1));
    }
}
