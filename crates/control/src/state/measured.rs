//! A state store whose answers are timed: around whichever implementation is in use.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::stream::BoxStream;
use monofs_model::Result;
use monofs_rpc::metrics::{Durations, Samples};
use monofs_store::state::{CommitOutcome, Compare, Scan, Write};

use super::store::{CommitBatch, HeldKey, StateStore};

/// How long each operation took, also when it failed.
#[derive(Debug, Default)]
pub struct StateDurations {
    scan: Durations,
    commit: Durations,
    watch: Durations,
    hold: Durations,
    reach: Durations,
}

impl StateDurations {
    /// Adds their samples.
    pub fn samples(&self, out: &mut Samples) {
        out.histograms_by(
            "monofs_router_state_duration_seconds",
            "Time that the state store took, by operation; of a watch, until it was open.",
            ["op"],
            [
                (["scan"], &self.scan),
                (["commit"], &self.commit),
                (["watch"], &self.watch),
                (["hold"], &self.hold),
                (["reach"], &self.reach),
            ],
        );
    }
}

/// See the module.
pub struct MeasuredState {
    store: Arc<dyn StateStore>,
    took: Arc<StateDurations>,
}

impl MeasuredState {
    /// `store`, timed in `took`.
    pub fn new(store: Arc<dyn StateStore>, took: Arc<StateDurations>) -> Arc<Self> {
        Arc::new(Self { store, took })
    }
}

async fn timed<T>(took: &Durations, work: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let output = work.await;
    took.observe(begun.elapsed());
    output
}

#[async_trait]
impl StateStore for MeasuredState {
    async fn scan(&self, prefix: &str) -> Result<Scan> {
        timed(&self.took.scan, self.store.scan(prefix)).await
    }

    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome> {
        timed(&self.took.commit, self.store.commit(compares, writes)).await
    }

    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>> {
        timed(&self.took.watch, self.store.watch(revision)).await
    }

    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<HeldKey>> {
        timed(&self.took.hold, self.store.hold(key, value, ttl)).await
    }

    async fn reach(&self) -> Result<()> {
        timed(&self.took.reach, self.store.reach()).await
    }

    fn epoch(&self) -> String {
        self.store.epoch()
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }
}
