//! How fast contents of a repository are taken when the router limits that: copies that are moved
//! must not get in the way of readers.
//!
//! Invariants: over any time at most the limit and one message are taken; contents that a reader
//! waits for are never held up.
//!
//! Callers: `service::node` sets limits, `upstream` keeps them, `hydrate` and `cover` lift them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use monofs_model::StorageId;
use tokio::time::Instant;

/// The limit of one repository.
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When what was taken so far is paid for.
    paid_at: Mutex<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            paid_at: Mutex::new(Instant::now()),
        }
    }

    /// Counts `bytes` that were taken, and waits until they are paid for.
    pub async fn took(&self, bytes: u64) {
        tokio::time::sleep_until(self.charge(bytes, Instant::now())).await;
    }

    /// When `bytes` that were taken at `now` are paid for.
    fn charge(&self, bytes: u64, now: Instant) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_at = self.paid_at.lock().expect("no holder of this lock panics");
        *paid_at = (*paid_at).max(now) + cost;
        *paid_at
    }

    /// What is worth asking for at a time: others wait for all of a request.
    pub fn bytes_at_a_time(&self) -> u64 {
        self.bytes_per_second
    }
}

/// The limits that are in force.
#[derive(Default)]
pub(crate) struct Paces(Mutex<HashMap<StorageId, Arc<Pace>>>);

impl Paces {
    /// Limits a repository from now on; 0 = no limit.
    pub fn set(&self, id: &StorageId, bytes_per_second: u64) {
        let mut paces = self.0.lock().expect("no holder of this lock panics");
        match paces.get(id) {
            _ if bytes_per_second == 0 => drop(paces.remove(id)),
            // What was taken already stays counted.
            Some(pace) if pace.bytes_per_second == bytes_per_second => {}
            _ => drop(paces.insert(id.clone(), Arc::new(Pace::new(bytes_per_second)))),
        }
    }

    /// The limit of a repository, if it has one.
    pub fn of(&self, id: &StorageId) -> Option<Arc<Pace>> {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .get(id)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_share_a_limit_stay_below_it_together() {
        const RATE: u64 = 1 << 20;
        let pace = Pace::new(RATE);
        let from = Instant::now();
        let pieces = [7, 64 << 10];
        let mut ready = pieces.map(|_| from);
        let mut taken = 0;
        while taken < 5 * RATE {
            // Whose last piece is paid for first takes the next one.
            let next = if ready[0] <= ready[1] { 0 } else { 1 };
            ready[next] = pace.charge(pieces[next], ready[next]);
            taken += pieces[next];
        }
        let rate = taken as f64 / (*ready.iter().max().expect("two") - from).as_secs_f64();
        assert!(
            (0.99..=1.001).contains(&(rate / RATE as f64)),
            "{rate} bytes a second with a limit of {RATE}"
        );
    }

    #[test]
    fn what_was_not_taken_in_time_is_not_saved_up() {
        let pace = Pace::new(1000);
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(pace.charge(500, later), later + Duration::from_millis(500));
    }
}
