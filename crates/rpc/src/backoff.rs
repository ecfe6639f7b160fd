//! Pauses between tries of something that keeps failing: doubled each time up to a longest one, and
//! partly random, so that processes that lost the same peer do not come back to it at one moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The pauses of one loop of tries. It never ends: giving up is the caller's decision.
#[derive(Debug)]
pub struct Backoff {
    settings: ExponentialBuilder,
    pauses: ExponentialBackoff,
    longest: Duration,
}

impl Backoff {
    /// Pauses that begin at no more than `first` and double up to no more than `longest`. Each is
    /// between a half and the whole of its bound, at random.
    pub fn new(first: Duration, longest: Duration) -> Self {
        // The library adds up to as much again to each of its delays.
        let settings = ExponentialBuilder::new()
            .with_min_delay(first.min(longest) / 2)
            .with_max_delay(longest / 2)
            .without_max_times()
            .with_jitter();
        Self {
            settings,
            pauses: settings.build(),
            longest,
        }
    }

    /// How long to wait before the next try.
    pub fn next_pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.longest)
    }

    /// A try succeeded: the next pause is a first one again.
    pub fn reset(&mut self) {
        self.pauses = self.settings.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        for _ in 0..2 {
            let mut bound = FIRST;
            for _ in 0..40 {
                let pause = backoff.next_pause();
                assert!(
                    (bound / 2..=bound).contains(&pause),
                    "{pause:?} of {bound:?}"
                );
                bound = (bound * 2).min(LONGEST);
            }
            backoff.reset();
        }
    }

    #[test]
    fn two_loops_that_fail_together_do_not_try_together() {
        let pauses =
            |mut backoff: Backoff| -> Vec<_> { (0..10).map(|_| backoff.next_pause()).collect() };
        let one = pauses(Backoff::new(FIRST, LONGEST));
        let other = pauses(Backoff::new(FIRST, LONGEST));
        assert_ne!(one, other);
    }

    #[test]
    fn a_first_pause_over_the_longest_is_cut_to_it() {
        let mut backoff = Backoff::new(LONGEST, FIRST);
        assert!(backoff.next_pause() <= FIRST);
        assert!(backoff.next_pause() <= FIRST);
    }
}
