//! When a second replica is asked: after the observed p95 of the time to the first message, within
//! a budget.
//!
//! Each class of request has a sketch of its own, so that batches of megabytes do not delay the
//! hedges of small reads. The budget is a token bucket, as in Finagle's and tower's retry budgets:
//! hedging repairs the tail of one slow replica, and must not double the load of replicas that are
//! all slow. Time is passed in by the caller.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::want::Demand;

/// With nothing arriving for this long, the next replica is asked too, whatever was observed; the
/// delay while too little was.
pub const HEDGE_AFTER_MAX: Duration = Duration::from_millis(300);
/// No hedge earlier than this: timers have a resolution of 1 ms, and a node answers 99 % of small
/// requests within that.
pub const HEDGE_AFTER_MIN: Duration = Duration::from_millis(2);
/// A request of which nothing at all has arrived for this long asks the next replica without a
/// token: its peer hangs.
pub const HANGS_AFTER: Duration = Duration::from_secs(1);
/// The part of requests that is answered before a hedge.
const QUANTILE: f64 = 0.95;
/// Below this many observations the delay is [`HEDGE_AFTER_MAX`].
const OBSERVATIONS_MIN: u32 = 20;
/// At this many observations all counts are halved: about this many of the newest count.
const OBSERVATIONS_MAX: u32 = 512;
/// Tokens that one request brings; a hedge takes one. So at most a tenth of all requests is hedged
/// in the long run.
const TOKENS_PER_REQUEST: f64 = 0.1;
/// Most tokens, and how many there are at first.
pub const TOKENS_MAX: f64 = 10.0;

/// Requests whose time to the first message is comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestClass {
    /// Directory records that a reader waits for.
    Trees,
    /// A small content that a reader waits for.
    Blobs,
    /// A whole closure, much content at once, or what is fetched ahead.
    Bulk,
}

/// Number of classes of requests.
pub const REQUEST_CLASSES: usize = 3;

/// Width of the narrowest buckets, in microseconds; the first one begins at zero and has more.
const BUCKET_US: u64 = 16;
/// Four buckets for each doubling, up to more than [`HEDGE_AFTER_MAX`]: an estimate is at most a
/// quarter too high.
const BUCKETS: usize = 52;

/// Durations in logarithmic buckets, the newest ones counting most.
#[derive(Debug)]
struct DelaySketch {
    counts: [u32; BUCKETS],
}

impl DelaySketch {
    fn record(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        if self.total() >= OBSERVATIONS_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }

    fn total(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// An upper bound of the quantile; `None` while too little was observed.
    fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total = self.total();
        if total < OBSERVATIONS_MIN {
            return None;
        }
        let rank = (f64::from(total) * quantile).ceil() as u32;
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        at.map(upper_bound)
    }
}

fn bucket(took: Duration) -> usize {
    let quarters = (u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / BUCKET_US).max(4);
    let doublings = quarters.ilog2() as usize - 2;
    // The two bits below the highest: which quarter of the doubling.
    (doublings * 4 + (quarters >> doublings) as usize - 4).min(BUCKETS - 1)
}

fn upper_bound(bucket: usize) -> Duration {
    Duration::from_micros(((bucket as u64 % 4 + 5) << (bucket / 4)) * BUCKET_US)
}

/// What is known about delays, and how many hedges may be made. Shared by all requests of a mount.
pub struct Hedging(Mutex<HedgeState>);

struct HedgeState {
    sketches: [DelaySketch; REQUEST_CLASSES],
    tokens: f64,
}

impl Default for Hedging {
    fn default() -> Self {
        let sketches = std::array::from_fn(|_| DelaySketch {
            counts: [0; BUCKETS],
        });
        Self(Mutex::new(HedgeState {
            sketches,
            tokens: TOKENS_MAX,
        }))
    }
}

impl Hedging {
    fn state(&self) -> MutexGuard<'_, HedgeState> {
        self.0.lock()
    }

    /// How long a request waits before the next replica is asked too; what is fetched ahead waits
    /// longest.
    pub fn delay(&self, class: RequestClass, demand: Demand) -> Duration {
        if demand == Demand::Ahead {
            return HEDGE_AFTER_MAX;
        }
        let observed = self.state().sketches[class as usize].quantile(QUANTILE);
        observed.map_or(HEDGE_AFTER_MAX, |p95| {
            p95.clamp(HEDGE_AFTER_MIN, HEDGE_AFTER_MAX)
        })
    }

    /// A request begins: it earns a part of a hedge.
    pub fn request(&self) {
        let mut state = self.state();
        state.tokens = (state.tokens + TOKENS_PER_REQUEST).min(TOKENS_MAX);
    }

    /// Takes a token. False: none is left, and no hedge may be made.
    pub fn take(&self) -> bool {
        let mut state = self.state();
        let enough = state.tokens >= 1.0;
        state.tokens -= if enough { 1.0 } else { 0.0 };
        enough
    }

    /// The first message came after this long.
    pub fn observe(&self, class: RequestClass, took: Duration) {
        self.state().sketches[class as usize].record(took);
    }

    /// A request was given up after this long without any message. Counts only where it is known to
    /// belong to the slowest.
    pub fn observe_at_least(&self, class: RequestClass, took: Duration) {
        let sketch = &mut self.state().sketches[class as usize];
        if sketch.quantile(QUANTILE).is_some_and(|p95| took >= p95) {
            sketch.record(took);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_holds_what_is_below_its_bound() {
        for us in (0..400_000).step_by(7) {
            let took = Duration::from_micros(us);
            let at = bucket(took);
            assert!(
                took < upper_bound(at) || at == BUCKETS - 1,
                "{took:?} in bucket {at}"
            );
            assert!(
                at == 0 || took >= upper_bound(at - 1),
                "{took:?} in bucket {at}"
            );
        }
        assert!(upper_bound(BUCKETS - 1) > HEDGE_AFTER_MAX);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_delay_is_the_p95_within_its_bounds() {
        let hedging = Hedging::default();
        assert_eq!(
            hedging.delay(RequestClass::Blobs, Demand::Awaited),
            HEDGE_AFTER_MAX,
            "nothing was observed"
        );
        for n in 0..100 {
            hedging.observe(
                RequestClass::Blobs,
                if n % 20 == 0 { 80 * MS } else { 10 * MS },
            );
        }
        let delay = hedging.delay(RequestClass::Blobs, Demand::Awaited);
        assert!(delay > 10 * MS && delay <= 10 * MS * 5 / 4, "{delay:?}");
        hedging.observe(RequestClass::Blobs, 80 * MS);
        assert!(hedging.delay(RequestClass::Blobs, Demand::Awaited) > 80 * MS);
        (0..1500).for_each(|_| hedging.observe(RequestClass::Blobs, MS / 2));
        assert_eq!(
            hedging.delay(RequestClass::Blobs, Demand::Awaited),
            HEDGE_AFTER_MIN,
            "what is old decays"
        );
        (0..600).for_each(|_| hedging.observe(RequestClass::Blobs, 1000 * MS));
        assert_eq!(
            hedging.delay(RequestClass::Blobs, Demand::Awaited),
            HEDGE_AFTER_MAX
        );
    }

    #[test]
    fn classes_are_apart_and_what_is_fetched_ahead_is_hedged_last() {
        let hedging = Hedging::default();
        (0..100).for_each(|_| hedging.observe(RequestClass::Blobs, MS));
        (0..100).for_each(|_| hedging.observe(RequestClass::Bulk, 40 * MS));
        assert_eq!(
            hedging.delay(RequestClass::Blobs, Demand::Awaited),
            HEDGE_AFTER_MIN
        );
        assert!(hedging.delay(RequestClass::Bulk, Demand::Awaited) > 40 * MS);
        assert_eq!(
            hedging.delay(RequestClass::Bulk, Demand::Ahead),
            HEDGE_AFTER_MAX
        );
        assert_eq!(
            hedging.delay(RequestClass::Trees, Demand::Awaited),
            HEDGE_AFTER_MAX
        );
    }

    #[test]
    fn requests_given_up_count_as_slow_ones_only() {
        let hedging = Hedging::default();
        (0..100).for_each(|_| hedging.observe(RequestClass::Blobs, 10 * MS));
        let before = hedging.delay(RequestClass::Blobs, Demand::Awaited);
        (0..300).for_each(|_| hedging.observe_at_least(RequestClass::Blobs, MS));
        assert_eq!(hedging.delay(RequestClass::Blobs, Demand::Awaited), before);
        (0..100).for_each(|_| hedging.observe_at_least(RequestClass::Blobs, 50 * MS));
        assert!(hedging.delay(RequestClass::Blobs, Demand::Awaited) > before);
    }

    #[test]
    fn hedges_are_a_tenth_of_the_requests() {
        let hedging = Hedging::default();
        let hedges = (0..1000).filter(|_| {
            hedging.request();
            hedging.take()
        });
        let hedges = hedges.count();
        assert!(
            (100..=100 + TOKENS_MAX as usize).contains(&hedges),
            "{hedges}"
        );
    }
}
