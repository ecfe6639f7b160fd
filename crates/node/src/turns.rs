//! Where the work of a small request runs: on the thread that received it while what it needs is in
//! memory, else on a thread that may block. Handing over to such a thread and back costs half of a
//! small answer.
//!
//! Invariants: of the runtime's threads one is always left, whatever the disk does; once a turn had
//! to wait for the disk (a major page fault of its thread), the next ones are handed over for a
//! while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How much work the answer to a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestSize {
    /// So little that handing it over would cost as much.
    Small,
    Large,
}

/// How long turns are handed over after one that waited for the disk.
const COLD_FOR: Duration = Duration::from_millis(100);

/// Counts the requests that are worked on by the threads that received them.
pub(crate) struct InlineTurns {
    running: AtomicUsize,
    running_max: usize,
    start: Instant,
    /// Milliseconds after `start`.
    cold_until: AtomicU64,
}

impl InlineTurns {
    /// For the current runtime, at most one less than its threads at a time.
    pub fn new() -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        Self::with_max(threads - 1)
    }

    fn with_max(running_max: usize) -> Self {
        Self {
            running: AtomicUsize::new(0),
            running_max,
            start: Instant::now(),
            cold_until: AtomicU64::new(0),
        }
    }

    /// The permission to work on this thread until it is dropped.
    pub fn begin(&self) -> Option<InlineTurn<'_>> {
        if self.millis() < self.cold_until.load(Ordering::Relaxed) {
            return None;
        }
        self.running
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
                (running < self.running_max).then_some(running + 1)
            })
            .ok()?;
        Some(InlineTurn {
            turns: self,
            faults: major_faults(),
        })
    }

    fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn ended(&self, faults: i64) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        if faults > 0 {
            self.cold_until.store(
                self.millis() + COLD_FOR.as_millis() as u64,
                Ordering::Relaxed,
            );
        }
    }
}

/// See [`InlineTurns::begin`].
pub(crate) struct InlineTurn<'t> {
    turns: &'t InlineTurns,
    faults: i64,
}

impl Drop for InlineTurn<'_> {
    fn drop(&mut self) {
        self.turns.ended(major_faults() - self.faults);
    }
}

/// Page faults of this thread that needed the disk, so far.
fn major_faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel fills the whole of what it is given, if it answers 0; it cannot fail with
    // these arguments.
    let usage = unsafe {
        (libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) == 0).then(|| usage.assume_init())
    };
    usage.map_or(0, |usage| usage.ru_majflt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_is_left() {
        let turns = InlineTurns::with_max(2);
        let first = turns.begin();
        let second = turns.begin();
        assert!(first.is_some());
        assert!(second.is_some());
        assert!(turns.begin().is_none());
        drop(first);
        assert!(turns.begin().is_some());
        assert!(
            InlineTurns::with_max(0).begin().is_none(),
            "the only thread takes no turn"
        );
    }

    #[test]
    fn after_one_that_waited_for_the_disk_turns_are_handed_over_for_a_while() {
        let turns = InlineTurns::with_max(8);
        drop(turns.begin());
        assert!(turns.begin().is_some(), "it waited for nothing");
        turns.running.fetch_add(1, Ordering::Relaxed);
        turns.ended(1);
        assert!(turns.begin().is_none());
        while turns.begin().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(turns.millis() >= COLD_FOR.as_millis() as u64);
    }
}
