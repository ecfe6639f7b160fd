//! Servers that failed lately: they are asked last for a while, so that one that is gone costs one
//! wait and not one for each request. Time is passed in by the caller.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A server that failed is asked last for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(5);
/// Most servers whose failures are remembered.
const SERVERS_MAX: usize = 4096;

/// Until when each server is suspected, by address.
#[derive(Default)]
pub(crate) struct SuspectServers(Mutex<HashMap<String, Instant>>);

impl SuspectServers {
    /// This server did not answer.
    pub fn failed(&self, address: &str, now: Instant) {
        let mut until = self.0.lock();
        if until.len() >= SERVERS_MAX {
            until.clear();
        }
        until.insert(address.to_owned(), now + SUSPECT_FOR);
    }

    /// This server answered.
    pub fn answered(&self, address: &str) {
        self.0.lock().remove(address);
    }

    /// Whether to ask others first.
    pub fn contains(&self, address: &str, now: Instant) -> bool {
        self.0.lock().get(address).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_failed_is_suspected_until_it_answers_or_for_a_while() {
        let suspects = SuspectServers::default();
        let now = Instant::now();
        assert!(!suspects.contains("a:1", now));
        suspects.failed("a:1", now);
        assert!(suspects.contains("a:1", now + SUSPECT_FOR / 2));
        assert!(!suspects.contains("b:1", now));
        assert!(
            !suspects.contains("a:1", now + SUSPECT_FOR),
            "it is tried again"
        );
        suspects.failed("a:1", now);
        suspects.answered("a:1");
        assert!(!suspects.contains("a:1", now));
    }

    #[test]
    fn remembered_failures_are_bounded() {
        let suspects = SuspectServers::default();
        let now = Instant::now();
        for n in 0..=SERVERS_MAX {
            suspects.failed(&format!("a:{n}"), now);
        }
        assert_eq!(suspects.0.lock().len(), 1, "the table starts afresh");
        assert!(suspects.contains(&format!("a:{SERVERS_MAX}"), now));
    }
}
