//! Counters of what was served since the start: the same for `Stat` and for Prometheus.

use monofs_rpc::metrics::Counter;

/// See the module.
#[derive(Default)]
pub(crate) struct ServedCounters {
    /// Directory records sent.
    pub trees: Counter,
    /// Chunks of contents sent.
    pub chunks: Counter,
    /// Bytes of both.
    pub bytes: Counter,
    /// Requested chunks that were in the store.
    pub chunks_held: Counter,
    /// Requested chunks that had to be pulled from another server.
    pub chunks_missed: Counter,
    /// Answers of other servers, and stores, that did not match their ids.
    pub corrupt: Counter,
}

impl ServedCounters {
    /// Counts directory records and their bytes.
    pub fn add_trees(&self, count: usize, bytes: usize) {
        self.trees.add(count as u64);
        self.bytes.add(bytes as u64);
    }

    /// Counts chunks and their bytes.
    pub fn add_chunks(&self, count: usize, bytes: usize) {
        self.chunks.add(count as u64);
        self.bytes.add(bytes as u64);
    }
}
