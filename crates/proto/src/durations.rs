//! Histograms of durations as messages carry them: counts of buckets that every member has alike,
//! not cumulative, and a last count of what took longer than all of them.

/// Upper bounds of the buckets, in seconds: from an answer out of memory to a call that ran into
/// its deadline.
pub const DURATION_BOUNDS: [f64; 16] = [
    1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// How many durations a histogram has counted.
pub fn counted(counts: &[u64]) -> u64 {
    counts
        .iter()
        .fold(0, |sum, count| sum.saturating_add(*count))
}

/// The duration that a `share` (0 to 1) of what `counts` counts did not exceed, in seconds: the
/// upper bound of its bucket, the last bound for what is over it. `None` when nothing was counted.
pub fn quantile(counts: &[u64], share: f64) -> Option<f64> {
    let total = counted(counts);
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut seen = 0u64;
    let bucket = counts.iter().position(|count| {
        seen = seen.saturating_add(*count);
        seen >= rank
    })?;
    Some(DURATION_BOUNDS[bucket.min(DURATION_BOUNDS.len() - 1)])
}

/// Several histograms as one. Counts beyond the last bucket, which no member sends, are left out.
pub fn merged<'a>(histograms: impl IntoIterator<Item = &'a [u64]>) -> Vec<u64> {
    let mut sums = vec![0u64; DURATION_BOUNDS.len() + 1];
    for counts in histograms {
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum = sum.saturating_add(*count);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_upper_bound_of_its_bucket() {
        let counts = [90, 0, 0, 10];
        assert_eq!(quantile(&counts, 0.5), Some(1e-5));
        assert_eq!(quantile(&counts, 0.99), Some(3e-4));
        let mut slow = [0; 17];
        slow[16] = 1;
        assert_eq!(quantile(&slow, 0.5), Some(10.0));
        assert_eq!(quantile(&[0; 17], 0.5), None);
        assert_eq!(quantile(&[u64::MAX, u64::MAX], 0.5), Some(1e-5));
    }

    #[test]
    fn histograms_are_added_bucket_by_bucket() {
        let long = [1; 40];
        let sums = merged([&[1, 2][..], &[u64::MAX][..], &long[..]]);
        assert_eq!(sums[..3], [u64::MAX, 3, 1]);
        assert_eq!(sums.len(), DURATION_BOUNDS.len() + 1);
        assert_eq!(counted(&[1, 2, 3]), 6);
    }
}
