//! When requests are due, and waiting for that to a few microseconds.
//!
//! Arrivals are a Poisson process: independent users ask at random, and its bursts show the queues
//! that evenly spaced requests hide. Poisson processes add up, so each thread draws its own part of
//! the rate.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use super::rng::SeededRng;

/// Times after the start at which requests are due, for ever. Depends on nothing but rate and rng.
pub struct Arrivals {
    rng: SeededRng,
    per_second: f64,
    seconds: f64,
}

impl Arrivals {
    /// `per_second` on average.
    pub fn new(per_second: f64, rng: SeededRng) -> Self {
        Self {
            rng,
            per_second,
            seconds: 0.0,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // Exponential gaps: the inverse of their distribution function at a uniform number.
        self.seconds -= (1.0 - self.rng.unit()).ln() / self.per_second;
        Duration::try_from_secs_f64(self.seconds).ok()
    }
}

/// A timer of the kernel: the runtime's own one has a resolution of a millisecond, more than a
/// whole request takes.
pub struct PreciseTimer(AsyncFd<OwnedFd>);

impl PreciseTimer {
    /// Belongs to the runtime it is made in. Errors: the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // SAFETY: an `OwnedFd` owns its valid descriptor, and nothing replaces or closes it while
        // it is registered.
        Ok(Self(unsafe { AsyncFd::register(timer) }?))
    }

    /// Waits until `at`. When that has passed, others still get their turn first.
    pub async fn until(&self, at: Instant) -> io::Result<()> {
        // A time that has passed needs no timer.
        let mut left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            tokio::task::yield_now().await;
            return Ok(());
        }
        // The timer may fire early; it is set until the time has come.
        while !left.is_zero() {
            let value = Timespec::try_from(left).map_err(io::Error::other)?;
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: value,
            };
            rustix::time::timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
            let mut ready = self.0.readable().await?;
            let mut count = [0; 8];
            match rustix::io::read(&self.0, &mut count) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
            left = at.saturating_duration_since(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_their_rate_and_its_spread() {
        let times: Vec<f64> = Arrivals::new(1000.0, SeededRng::new(9, 0))
            .take(100_000)
            .map(|time| time.as_secs_f64())
            .collect();
        assert!((98.0..102.0).contains(&times[99_999]), "{}", times[99_999]);
        // Gaps of a Poisson process deviate by as much as they are long.
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation =
            (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!(
            (0.97..1.03).contains(&(deviation / mean)),
            "{deviation} {mean}"
        );
    }

    #[tokio::test]
    async fn the_timer_never_wakes_early() -> io::Result<()> {
        let timer = PreciseTimer::new()?;
        for micros in [0, 50, 300, 2_000] {
            let at = Instant::now() + Duration::from_micros(micros);
            timer.until(at).await?;
            assert!(Instant::now() >= at);
        }
        Ok(())
    }
}
