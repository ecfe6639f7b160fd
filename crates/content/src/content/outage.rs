//! Since when no peer has answered: then trying until the deadline is pointless.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Since when no peer has answered.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Mutex<Option<Instant>>,
}

impl Outage {
    /// A peer answered.
    pub fn answered(&self) {
        *self.since.lock() = None;
    }

    /// A request ended without any answer.
    pub fn unanswered(&self, now: Instant) {
        self.since.lock().get_or_insert(now);
    }

    /// Whether no peer has answered for longer than `limit`.
    pub fn lasts(&self, limit: Duration, now: Instant) -> bool {
        let since = *self.since.lock();
        since.is_some_and(|since| now.saturating_duration_since(since) > limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn an_outage_lasts_from_its_first_failure_until_a_peer_answers() {
        let outage = Outage::default();
        let start = Instant::now();
        assert!(!outage.lasts(LIMIT, start + 2 * LIMIT), "nothing was asked");
        outage.unanswered(start);
        outage.unanswered(start + LIMIT);
        assert!(!outage.lasts(LIMIT, start + LIMIT));
        assert!(outage.lasts(LIMIT, start + LIMIT + Duration::from_millis(1)));
        outage.answered();
        assert!(!outage.lasts(LIMIT, start + 3 * LIMIT));
    }
}
