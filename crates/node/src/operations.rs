//! What a node says about itself to probes and Prometheus.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use monofs_rpc::ChannelPool;
use monofs_rpc::metrics::{Calls, Samples};
use monofs_rpc::operations::Operations;

use crate::hydrate::Hydrator;
use crate::served::ServedCounters;
use crate::stores::NodeStores;

/// Free space below which a node cannot take what it is asked to.
const DISK_FREE_MIN: u64 = 64 << 20;

/// What the node's figures are read from.
pub(crate) struct NodeOperations {
    pub db_path: PathBuf,
    pub stores: Arc<NodeStores>,
    pub served: Arc<ServedCounters>,
    pub hydrator: Arc<Hydrator>,
    /// Requests that the server got.
    pub requests: Arc<Calls>,
    /// Connections that this node makes.
    pub channels: ChannelPool,
}

impl Operations for NodeOperations {
    fn role(&self) -> &'static str {
        "node"
    }

    fn problems(&self) -> Vec<String> {
        match disk_free(&self.db_path) {
            free if free < DISK_FREE_MIN => {
                vec![format!(
                    "{} has {free} bytes left: make room",
                    self.db_path.display()
                )]
            }
            _ => Vec::new(),
        }
    }

    fn samples(&self, out: &mut Samples) {
        self.requests.served(out);
        self.channels.calls().made(out);
        self.stored(out);
        self.worked(out);
    }
}

impl NodeOperations {
    /// What is on the disk.
    fn stored(&self, out: &mut Samples) {
        // What cannot be read is left out.
        if let Ok(ids) = self.stores.pool().list() {
            out.gauge(
                "monofs_node_repositories",
                "Repositories that are on this node.",
                ids.len(),
            );
        }
        out.gauge(
            "monofs_node_disk_used_bytes",
            "Bytes of disk that the stores use.",
            self.stores.disk_used(),
        );
        if let Ok(disk) = rustix::fs::statvfs(&self.db_path) {
            // As df computes what is in use: what only root may take counts as neither.
            let free = disk.f_bavail * disk.f_frsize;
            let size = disk.f_blocks.saturating_sub(disk.f_bfree) * disk.f_frsize + free;
            out.gauge(
                "monofs_node_disk_free_bytes",
                "Bytes left on the disk that holds the stores.",
                free,
            );
            out.gauge(
                "monofs_node_disk_size_bytes",
                "Bytes of that disk, those that only root may take left out.",
                size,
            );
        }
        let usage = self.stores.pool().usage();
        out.gauge(
            "monofs_node_open_stores",
            "LMDB environments that are open.",
            self.stores.pool().open_count(),
        );
        out.gauge(
            "monofs_node_lmdb_map_bytes",
            "Address space that the open environments map.",
            usage.map_bytes,
        );
        let used = "Bytes of pages in use in the open environments.";
        out.gauge("monofs_node_lmdb_used_bytes", used, usage.used_bytes);
        let readers = "Most read transactions at the same time, summed over the open environments.";
        out.gauge("monofs_node_lmdb_readers", readers, usage.readers);
    }

    /// What was done for others, and what is being done.
    fn worked(&self, out: &mut Samples) {
        // Contents that are copied here.
        let served = &self.served;
        let running = self.hydrator.running();
        let waiting = self.hydrator.queued().saturating_sub(running);
        out.gauges_by(
            "monofs_node_hydrations",
            "Repositories whose contents are being copied here, and those that wait for their turn \
             or a next try.",
            ["state"],
            [(["running"], running), (["queued"], waiting)],
        );
        let errors = self.hydrator.errors.get();
        out.counter(
            "monofs_node_hydration_errors_total",
            "Tries to copy contents here that failed.",
            errors,
        );
        // Answers to others.
        out.counter(
            "monofs_node_trees_served_total",
            "Directory records sent.",
            served.trees.get(),
        );
        out.counter(
            "monofs_node_chunks_served_total",
            "Chunks of contents sent.",
            served.chunks.get(),
        );
        out.counter(
            "monofs_node_served_bytes_total",
            "Bytes of records and chunks sent.",
            served.bytes.get(),
        );
        out.counter(
            "monofs_node_corrupt_total",
            "Answers and stores that did not match their ids.",
            served.corrupt.get(),
        );
        let hits = "Chunks asked for that were here.";
        out.counters_by(
            "monofs_cache_hits_total",
            hits,
            ["tier"],
            [(["contents"], served.chunks_held.get())],
        );
        let misses = "Chunks asked for that had to be asked for elsewhere.";
        out.counters_by(
            "monofs_cache_misses_total",
            misses,
            ["tier"],
            [(["contents"], served.chunks_missed.get())],
        );
    }
}

/// Free bytes of the disk that holds `path`; 0 when the system does not say.
pub(crate) fn disk_free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}
