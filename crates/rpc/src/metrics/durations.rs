//! Durations counted without a lock, and the bounds that every histogram of this system has.
//!
//! Invariant: counting one is two relaxed additions, so it may stand on any path.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds: from an answer out of memory to a call that ran into
/// its deadline.
pub const DURATION_BOUNDS: [f64; 16] = [
    1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

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

/// The duration that a `share` (0 to 1) of what `counts` counts did not exceed, in seconds: the
/// upper bound of its bucket, the last bound for what is over it. `None` when nothing was counted.
pub fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(DURATION_BOUNDS[bucket.min(DURATION_BOUNDS.len() - 1)])
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
        assert_eq!(quantile(&counts, 0.5), Some(1e-5));
        assert_eq!(quantile(&counts, 0.75), Some(0.1));
        assert_eq!(quantile(&counts, 0.99), Some(10.0));
        assert_eq!(quantile(&[0; 17], 0.5), None);
    }
}
