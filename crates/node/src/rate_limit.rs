//! How fast contents of a repository are pulled when the router limits that: copies that are moved
//! must not get in the way of readers.
//!
//! Invariants: over any time at most the limit and one message are pulled; contents that a reader
//! waits for are never held up.
//!
//! Callers: `service::node` sets limits, `upstream` keeps them, `hydrate` and `cover` lift them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::StorageId;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Raw bytes requested at a time without a limit.
const REQUEST_BYTES_MAX: u64 = 64 << 20;

/// The limit of one repository.
pub(crate) struct RateLimit {
    bytes_per_second: u64,
    /// When what was pulled so far is within the limit.
    due: Mutex<Instant>,
    /// Another limit, or none, is in force.
    lifted: CancellationToken,
}

impl RateLimit {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            due: Mutex::new(Instant::now()),
            lifted: CancellationToken::new(),
        }
    }

    /// Counts `bytes` that were pulled.
    pub fn note_pulled(&self, bytes: u64) {
        self.charge(bytes, Instant::now());
    }

    /// Waits until what was pulled is within the limit, or the limit is lifted.
    pub async fn ready(&self) {
        let due = *self.due.lock();
        if due <= Instant::now() {
            return;
        }
        let lifted = self.lifted.cancelled();
        let _ = tokio::time::timeout_at(due, lifted).await;
    }

    /// When `bytes` that were pulled at `now` are within the limit.
    fn charge(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut due = self.due.lock();
        *due = (*due).max(now) + cost;
        *due
    }
}

/// Raw bytes to request at a time under a limit; a larger blob goes alone. Readers of any of them
/// wait for the whole request, so under a limit it is what one second takes.
pub(crate) fn request_bytes(limit: Option<&RateLimit>) -> u64 {
    limit.map_or(REQUEST_BYTES_MAX, |limit| {
        limit.bytes_per_second.min(REQUEST_BYTES_MAX)
    })
}

/// The limits that are in force.
#[derive(Default)]
pub(crate) struct RateLimits(Mutex<HashMap<StorageId, Arc<RateLimit>>>);

impl RateLimits {
    /// Limits a repository from now on; 0 = no limit. What waits for the limit before goes on.
    pub fn set(&self, id: &StorageId, bytes_per_second: u64) {
        let mut limits = self.0.lock();
        let replaced = match limits.get(id) {
            // What was pulled already stays counted.
            Some(limit) if limit.bytes_per_second == bytes_per_second => return,
            _ if bytes_per_second == 0 => limits.remove(id),
            _ => limits.insert(id.clone(), Arc::new(RateLimit::new(bytes_per_second))),
        };
        if let Some(limit) = replaced {
            limit.lifted.cancel();
        }
    }

    /// The limit of a repository, if it has one.
    pub fn of(&self, id: &StorageId) -> Option<Arc<RateLimit>> {
        self.0.lock().get(id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn two_that_share_a_limit_stay_below_it_together() {
        const RATE: u64 = 1 << 20;
        let limit = RateLimit::new(RATE);
        let from = Instant::now();
        let pieces = [7, 64 << 10];
        let mut ready = pieces.map(|_| from);
        let mut taken = 0;
        while taken < 5 * RATE {
            // The one whose last piece is due first pulls the next one.
            let next = usize::from(ready[0] > ready[1]);
            ready[next] = limit.charge(pieces[next], ready[next]);
            taken += pieces[next];
        }
        let rate = taken as f64 / (*ready.iter().max().expect("two") - from).as_secs_f64();
        assert!(
            (0.99..=1.001).contains(&(rate / RATE as f64)),
            "{rate} bytes a second with a limit of {RATE}"
        );
    }

    #[test]
    fn what_was_not_pulled_in_time_is_not_saved_up() {
        let limit = RateLimit::new(1000);
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(limit.charge(500, later), later + Duration::from_millis(500));
    }

    fn repository() -> StorageId {
        monofs_model::DisplayPath::new("h/r")
            .expect("a path")
            .storage_id()
    }

    #[tokio::test]
    async fn what_is_over_the_limit_is_waited_for() {
        let limit = RateLimit::new(10_000);
        limit
            .ready()
            .now_or_never()
            .expect("nothing was pulled yet");
        let from = Instant::now();
        limit.note_pulled(2500);
        limit.ready().await;
        assert!(from.elapsed() >= Duration::from_millis(250));
    }

    #[tokio::test]
    async fn another_limit_frees_those_that_wait_for_the_one_before() {
        for next in [0, 1 << 30] {
            let limits = RateLimits::default();
            limits.set(&repository(), 1);
            let limit = limits.of(&repository()).expect("it is set");
            limit.note_pulled(1 << 20);
            assert!(limit.ready().now_or_never().is_none());
            limits.set(&repository(), next);
            limit.ready().now_or_never().expect("it is lifted");
            assert_eq!(limits.of(&repository()).is_some(), next > 0);
        }
    }

    #[tokio::test]
    async fn the_same_limit_again_forgives_nothing() {
        let limits = RateLimits::default();
        limits.set(&repository(), 1);
        limits
            .of(&repository())
            .expect("it is set")
            .note_pulled(1000);
        limits.set(&repository(), 1);
        let limit = limits.of(&repository()).expect("it is set");
        assert!(limit.ready().now_or_never().is_none());
    }

    #[test]
    fn requests_are_what_a_second_takes_and_bounded() {
        assert_eq!(request_bytes(None), REQUEST_BYTES_MAX);
        assert_eq!(request_bytes(Some(&RateLimit::new(1000))), 1000);
        assert_eq!(
            request_bytes(Some(&RateLimit::new(u64::MAX))),
            REQUEST_BYTES_MAX
        );
    }
}
