//! What is measured and how Prometheus is told: durations, requests served and made, the process,
//! and the samples of a scrape.
//!
//! Roles keep plain counters where the work is done; at a scrape they read them into [`Samples`].
//! So nothing is counted twice, and there is no registry for the whole process: tests and `monofs
//! up` run many roles in one. Only this crate names `prometheus-client`. Invariant: every label has
//! a bounded set of values, which the code that emits it enforces.

mod calls;
mod durations;
mod process;
mod samples;

pub(crate) use calls::is_known;
pub use calls::{Call, CallTotals, Calls};
pub use durations::{DURATION_BOUNDS, Durations, quantile};
pub use process::{resident_bytes, set_commit};
pub use samples::{CONTENT_TYPE, Number, Samples, exposition};

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that any thread may add to without waiting.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
