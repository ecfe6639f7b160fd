//! The parts of a router. Each service and each loop is given those that it needs.
//!
//! Invariant: nothing here knows the services and loops that use it.

use std::sync::Arc;

use monofs_control::Control;
use monofs_control::clock;
use monofs_rpc::metrics::Calls;
use tokio_util::sync::CancellationToken;

use crate::browse::cache::RecordCache;
use crate::config::Config;
use crate::history::rings::History;
use crate::ingest::table::Ingests;
use crate::kept::KeptSnapshots;
use crate::readers;
use crate::replication::figures::Replication;
use crate::watch::watchers::Watchers;
use monofs_members::fleet::Fleet;

/// All parts.
pub struct Parts {
    pub config: Config,
    /// What all routers share.
    pub control: Arc<Control>,
    /// The members, and the ways to call them.
    pub fleet: Arc<Fleet>,
    /// What this router does and has seen.
    pub work: Work,
}

/// What one router does and has seen, in memory only.
pub struct Work {
    pub ingests: Ingests,
    pub watchers: Watchers,
    /// Replaced snapshots that are kept beyond the grace; of the leader.
    pub kept: KeptSnapshots,
    /// Directory records that were looked at.
    pub records: RecordCache,
    pub history: History,
    pub replication: Replication,
    /// What this router was asked over gRPC.
    pub requests: Arc<Calls>,
    /// Seconds since the epoch.
    pub started_at: i64,
    /// Cancelled when the router stops.
    pub stop: CancellationToken,
}

impl Work {
    /// Nothing done yet. `stop`: cancelled when the router stops.
    pub(crate) fn new(config: &Config, stop: CancellationToken) -> Self {
        Self {
            ingests: Ingests::default(),
            watchers: Watchers::new(readers::linger(config)),
            kept: KeptSnapshots::default(),
            records: RecordCache::default(),
            history: History::default(),
            replication: Replication::default(),
            requests: Arc::default(),
            started_at: clock::now(),
            stop,
        }
    }
}
