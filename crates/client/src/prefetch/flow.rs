//! How many requests a walk has under way: as many as fit between here and the nodes, so that a
//! long round trip costs no speed, and no more, since what a reader waits for would wait
//! behind them.
//!
//! Twice the product of the rate at which requests are answered and the shortest time in which one
//! was, as BBR has it (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): it
//! doubles with each round trip until the link, the nodes or the readers are what limits the rate.
//! It falls by one request at a time, since readers pause. Time is passed in.

use std::time::{Duration, Instant};

/// How often what fits is under way.
const GAIN: f64 = 2.0;
/// The rate is measured over at least this long, and over a round trip.
const MEASURE_FOR: Duration = Duration::from_millis(100);

/// Bounds of the number of requests under way.
#[derive(Debug, Clone, Copy)]
pub struct RequestBounds {
    /// Over a short way.
    pub least: usize,
    pub most: usize,
}

/// How many requests one walk may have under way.
#[derive(Debug)]
pub struct RequestFlow {
    bounds: RequestBounds,
    requests_max: usize,
    /// The shortest time in which a request was answered.
    shortest: Duration,
    /// Requests answered since `since`.
    answered: u32,
    since: Instant,
}

impl RequestFlow {
    /// Nothing is known yet.
    pub fn new(bounds: RequestBounds, now: Instant) -> Self {
        Self {
            bounds,
            requests_max: bounds.least,
            shortest: Duration::MAX,
            answered: 0,
            since: now,
        }
    }

    /// Requests that may be under way.
    pub fn requests_max(&self) -> usize {
        self.requests_max
    }

    /// How many more that is than the least.
    pub fn widened(&self) -> usize {
        self.requests_max - self.bounds.least
    }

    /// A request that began at `begun` was answered.
    pub fn answered(&mut self, begun: Instant, now: Instant) {
        self.answered += 1;
        self.shortest = self.shortest.min(now - begun);
        let elapsed = now - self.since;
        // One sample of the rate: what fits twice, falling by one at a time.
        if elapsed >= MEASURE_FOR.max(self.shortest) {
            let rate = f64::from(self.answered) / elapsed.as_secs_f64();
            let fit = (GAIN * rate * self.shortest.as_secs_f64()) as usize;
            self.requests_max = fit
                .max(self.requests_max - 1)
                .clamp(self.bounds.least, self.bounds.most);
            self.answered = 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Requests under way after ten seconds over a link of this round trip that takes so long for
    /// one answer.
    fn over_link(round_trip: Duration, answer: Duration) -> usize {
        let start = Instant::now();
        let bounds = RequestBounds { least: 3, most: 32 };
        let mut flow = RequestFlow::new(bounds, start);
        let mut now = start;
        let mut free = start;
        let mut running = VecDeque::new();
        while now < start + 10_000 * MS {
            while running.len() < flow.requests_max() {
                free = free.max(now) + answer;
                running.push_back((now, free + round_trip));
            }
            let Some((begun, answered)) = running.pop_front() else {
                break;
            };
            now = answered;
            flow.answered(begun, now);
        }
        flow.requests_max()
    }

    #[test]
    fn a_short_way_has_no_more_than_the_least() {
        assert_eq!(over_link(MS / 2, 5 * MS), 3);
        assert_eq!(over_link(MS, 30 * MS), 3);
    }

    #[test]
    fn a_long_way_is_filled_twice() {
        let filled = over_link(250 * MS, 30 * MS);
        assert!((16..=20).contains(&filled), "{filled}");
        let filled = over_link(50 * MS, 5 * MS);
        assert!((20..=24).contains(&filled), "{filled}");
        assert_eq!(over_link(300 * MS, 2 * MS), 32, "bounded");
    }
}
