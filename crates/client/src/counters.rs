//! Counters of one mount: written with relaxed atomics on hot paths, read by the status document.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
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

/// Kinds of requests of the kernel, in the order of [`OPERATION_NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Lookup,
    Getattr,
    Readlink,
    Open,
    Opendir,
    Read,
    Readdir,
    Readdirplus,
    Getxattr,
    Listxattr,
    Statfs,
    Forget,
    Other,
}

/// Names of the operations, as in the status document.
pub const OPERATION_NAMES: [&str; 13] = [
    "lookup",
    "getattr",
    "readlink",
    "open",
    "opendir",
    "read",
    "readdir",
    "readdirplus",
    "getxattr",
    "listxattr",
    "statfs",
    "forget",
    "other",
];

/// All counters of a mount.
#[derive(Debug, Default)]
pub struct Counters {
    operations: [Counter; OPERATION_NAMES.len()],
    /// Answers that had to wait for the network.
    pub waited: Counter,
    /// Answers that were errors because content could not be had.
    pub failed: Counter,
    pub records_in_memory: Counter,
    pub records_on_disk: Counter,
    pub records_missed: Counter,
    /// Contents that were waiting decoded.
    pub contents_ready: Counter,
    pub frames_in_memory: Counter,
    pub frames_on_disk: Counter,
    pub frames_missed: Counter,
    pub trees_fetched: Counter,
    pub chunks_fetched: Counter,
    pub bytes_fetched: Counter,
    /// Requests sent to nodes and routers.
    pub calls: Counter,
    /// Second requests sent because the first was slow.
    pub hedges: Counter,
    /// Hedges whose answer came first.
    pub hedges_won: Counter,
    pub calls_failed: Counter,
    /// Content that did not match its oid or could not be decoded.
    pub corrupt: Counter,
    pub prefetched: Counter,
    pub prefetched_bytes: Counter,
    pub prefetch_used: Counter,
    pub prefetch_wasted: Counter,
    /// Files put into the kernel's page cache before they were read, and their bytes.
    pub stored: Counter,
    pub stored_bytes: Counter,
    pub cache_written: Counter,
    pub cache_write_errors: Counter,
    /// Not written because the writer was too far behind.
    pub cache_write_skipped: Counter,
    pub flips: Counter,
    pub names_invalidated: Counter,
    pub directories_invalidated: Counter,
}

impl Counters {
    /// Counts a request of the kernel.
    pub fn operation(&self, operation: Operation) {
        self.operations[operation as usize].one();
    }

    /// Requests of the kernel by kind.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OPERATION_NAMES.into_iter().zip(self.operations.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_names_agree() {
        let counters = Counters::default();
        counters.operation(Operation::Other);
        counters.operation(Operation::Lookup);
        let seen: Vec<_> = counters.operations().filter(|(_, n)| *n == 1).map(|(name, _)| name).collect();
        assert_eq!(seen, ["lookup", "other"]);
    }
}
