//! A router's clock, as it is heard on the watch.
//!
//! A message may be long on its way, for instance while this process is stopped, and then tells a
//! time that is over. So of the last few messages the one that was on its way for the shortest time
//! counts, measured by a clock that goes on while the machine sleeps and that nobody sets.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Messages that count.
const HEARD_MAX: usize = 8;

/// A router's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterClock {
    /// What it shows, less the time since this machine started, in milliseconds.
    ahead_ms: i64,
}

impl RouterClock {
    /// What it shows now, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.ahead_ms.saturating_add(since_boot_ms())
    }

    /// How far this machine's clock is ahead of it, in milliseconds.
    pub fn skew_ms(&self) -> i64 {
        wall_ms().saturating_sub(self.now_ms())
    }
}

/// What one router said of its clock.
#[derive(Debug, Default)]
pub struct HeardClock {
    heard: VecDeque<RouterClock>,
}

impl HeardClock {
    /// A message arrived that was sent at `shown_ms` by the router's clock, in milliseconds since
    /// the epoch; 0: the router does not tell.
    pub fn hear(&mut self, shown_ms: i64) -> Option<RouterClock> {
        self.hear_at(shown_ms, since_boot_ms())
    }

    fn hear_at(&mut self, shown_ms: i64, boot_ms: i64) -> Option<RouterClock> {
        if shown_ms > 0 {
            self.heard.truncate(HEARD_MAX - 1);
            self.heard.push_front(RouterClock {
                ahead_ms: shown_ms.saturating_sub(boot_ms),
            });
        }
        self.heard
            .iter()
            .copied()
            .max_by_key(|clock| clock.ahead_ms)
    }
}

/// The time of this machine's own clock, in milliseconds since the epoch.
pub fn wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn since_boot_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec
        .saturating_mul(1000)
        .saturating_add(now.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_was_long_on_its_way_does_not_set_the_clock_back() {
        let mut heard = HeardClock::default();
        assert_eq!(heard.hear_at(0, 10), None, "an older router tells nothing");
        let clock = heard.hear_at(100_010, 10);
        assert_eq!(clock.map(|clock| clock.ahead_ms), Some(100_000));
        // Sent at 120 s, and read a minute later.
        assert_eq!(heard.hear_at(120_000, 80_000), clock);
        // A clock that is set back is believed after a while.
        let later = (0..HEARD_MAX as i64).map(|n| heard.hear_at(50_000 + n, 90_000 + n));
        let last = later.last().flatten();
        assert_eq!(last.map(|clock| clock.ahead_ms), Some(-40_000));
    }
}
