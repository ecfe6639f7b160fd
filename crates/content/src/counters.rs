//! Counters of one mount: written with relaxed atomics on hot paths, read by the status document,
//! by Prometheus and by the report to the router.

use std::time::Instant;

use monofs_rpc::metrics::{Counter, Durations};

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

/// A request of the kernel that is being answered.
#[derive(Debug, Clone, Copy)]
pub struct Upcall {
    operation: Operation,
    begun: Instant,
}

impl Upcall {
    /// What is asked, in one word.
    pub fn name(&self) -> &'static str {
        OPERATION_NAMES[self.operation as usize]
    }
}

/// All counters of a mount.
#[derive(Debug, Default)]
pub struct Counters {
    operations: [Counter; OPERATION_NAMES.len()],
    took: [Durations; OPERATION_NAMES.len()],
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
    /// Of those, the ones that were shown so late that their names have the time of showing them.
    pub late_flips: Counter,
    pub names_invalidated: Counter,
    pub directories_invalidated: Counter,
    /// How often the kernel was told to drop all names.
    pub all_names_dropped: Counter,
}

impl Counters {
    /// Counts a request of the kernel.
    pub fn begin(&self, operation: Operation) -> Upcall {
        self.operations[operation as usize].one();
        Upcall {
            operation,
            begun: Instant::now(),
        }
    }

    /// The kernel has its answer.
    pub fn answered(&self, upcall: Upcall) {
        self.took[upcall.operation as usize].observe(upcall.begun.elapsed());
    }

    /// Requests of the kernel by kind.
    pub fn operations(&self) -> impl Iterator<Item = (&'static str, u64)> {
        OPERATION_NAMES
            .into_iter()
            .zip(self.operations.iter().map(Counter::get))
    }

    /// How long the answers to requests of the kernel took, by kind.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, &Durations)> {
        OPERATION_NAMES.into_iter().zip(&self.took)
    }

    /// Records and contents that were looked for and at hand, and that were not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        let hits = [
            &self.records_in_memory,
            &self.records_on_disk,
            &self.contents_ready,
            &self.frames_in_memory,
            &self.frames_on_disk,
        ];
        let misses = [&self.records_missed, &self.frames_missed];
        (
            hits.iter().map(|count| count.get()).sum(),
            misses.iter().map(|count| count.get()).sum(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_names_agree() {
        let counters = Counters::default();
        counters.begin(Operation::Other);
        let lookup = counters.begin(Operation::Lookup);
        counters.answered(lookup);
        let seen: Vec<_> = counters
            .operations()
            .filter(|(_, n)| *n == 1)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seen, ["lookup", "other"]);
        let timed = counters
            .durations()
            .filter(|(_, took)| took.counts().iter().sum::<u64>() == 1);
        assert_eq!(timed.map(|(name, _)| name).collect::<Vec<_>>(), ["lookup"]);
    }
}
