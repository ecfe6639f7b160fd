//! What a node says about itself to probes and Prometheus.

use std::path::Path;
use std::sync::atomic::Ordering;

use monofs_rpc::operations::{Metric, Operations};

use crate::state::NodeState;

/// Free space below which a node cannot take what it is asked to.
const DISK_FREE_MIN: u64 = 64 << 20;

impl Operations for NodeState {
    fn problems(&self) -> Vec<String> {
        match disk_free(&self.config.db_path) {
            free if free < DISK_FREE_MIN => {
                vec![format!("{} has {free} bytes left: make room", self.config.db_path.display())]
            }
            _ => Vec::new(),
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let served = &self.served;
        vec![
            Metric::new("monofs_node_disk_used_bytes", "Bytes of disk that the stores use.", self.disk_used()),
            Metric::new("monofs_node_disk_free_bytes", "Bytes left on the disk.", disk_free(&self.config.db_path)),
            Metric::new("monofs_node_open_stores", "LMDB environments that are open.", self.stores.open_count() as u64),
            Metric::new(
                "monofs_node_hydrations",
                "Repositories being hydrated or waiting.",
                self.hydrator.queued() as u64,
            ),
            Metric::new(
                "monofs_node_trees_served_total",
                "Directory records sent.",
                served.trees.load(Ordering::Relaxed),
            ),
            Metric::new(
                "monofs_node_chunks_served_total",
                "Chunks of contents sent.",
                served.chunks.load(Ordering::Relaxed),
            ),
            Metric::new(
                "monofs_node_served_bytes_total",
                "Bytes of records and chunks sent.",
                served.bytes.load(Ordering::Relaxed),
            ),
        ]
    }
}

/// Free bytes of the disk that holds `path`; 0 when the system does not say.
pub(crate) fn disk_free(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail * stat.f_frsize)
}
