//! Requests for content: how many a second, and how long they took.

use monofs_proto::durations::{counted, merged, quantile};
use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

/// Requests for content in a span of time. `null` = not known, or nothing was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct ReadRates {
    pub requests_per_second: Option<f64>,
    pub failed_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    /// Upper bounds of what half, and 99 of 100, of the requests took.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
}

/// Requests for content that a node answered since it started, and how long they took.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ReadCounts {
    pub answered: u64,
    pub failed: u64,
    /// Upper bounds of what half, and 99 of 100, of the requests took; `null` = there were none.
    pub p50_seconds: Option<f64>,
    pub p99_seconds: Option<f64>,
    /// Chunks that were there, and that had to be asked for elsewhere.
    pub chunks_held: u64,
    pub chunks_missed: u64,
}

impl ReadCounts {
    /// Of one node; `None` = it is of a version that does not tell.
    pub fn of(stat: &v1::StatResponse) -> Option<Self> {
        Self::of_all(&[stat])
    }

    /// Of the nodes that tell; `None` = none does.
    pub fn of_all(stats: &[&v1::StatResponse]) -> Option<Self> {
        let telling = || stats.iter().filter(|stat| tells(stat));
        telling().next()?;
        let counts = merged(telling().map(|stat| stat.request_durations.as_slice()));
        let mut sums = Self {
            answered: counted(&counts),
            failed: 0,
            p50_seconds: quantile(&counts, 0.5),
            p99_seconds: quantile(&counts, 0.99),
            chunks_held: 0,
            chunks_missed: 0,
        };
        for stat in telling() {
            sums.failed = sums.failed.saturating_add(stat.requests_failed);
            sums.chunks_held = sums.chunks_held.saturating_add(stat.chunks_held);
            sums.chunks_missed = sums.chunks_missed.saturating_add(stat.chunks_missed);
        }
        Some(sums)
    }
}

/// Whether a node tells about its requests.
pub fn tells(stat: &v1::StatResponse) -> bool {
    !stat.request_durations.is_empty()
}

/// Hits of all that was asked for; `None` = nothing was.
pub fn hit_ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits as f64 + misses as f64;
    (all > 0.0).then(|| hits as f64 / all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_does_not_tell_is_no_zero() {
        let old = v1::StatResponse {
            bytes_served: 5,
            ..Default::default()
        };
        assert_eq!(ReadCounts::of(&old), None);
        let new = v1::StatResponse {
            request_durations: vec![0, 3, 1],
            requests_failed: 1,
            chunks_held: 2,
            ..Default::default()
        };
        let all = ReadCounts::of_all(&[&old, &new, &new]).expect("two of them tell");
        assert_eq!((all.answered, all.failed, all.chunks_held), (8, 2, 4));
        assert_eq!(all.p50_seconds, Some(3e-5));
    }

    #[test]
    fn a_ratio_of_nothing_is_not_known() {
        assert_eq!(hit_ratio(0, 0), None);
        assert_eq!(hit_ratio(3, 1), Some(0.75));
        assert_eq!(hit_ratio(u64::MAX, u64::MAX), Some(0.5));
    }
}
