//! The tasks of one mount: bound to its runtime, counted, and ended with it.

use std::future::Future;
use std::time::Duration;

use monofs_model::{Error, Result};
use monofs_rpc::context;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::switch_lock::assert_not_held;

/// Starts tasks from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Spawner {
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Spawner {
    /// On the current runtime, until `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    /// Runs `work` until it is done or the mount ends, as part of the request of the task that
    /// calls this. Not to be called under a lock: a runtime that has ended drops `work` at once.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        assert_not_held("start a task");
        let stop = self.stop.clone();
        let work = context::carry(work);
        let task = async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        };
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Runs `work`, which watches for the end of the mount itself.
    pub fn spawn_watchful(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(work, &self.runtime);
    }

    /// Waits, for at most `limit`, until all tasks have ended.
    pub async fn ended(&self, limit: Duration) {
        self.tasks.close();
        let _ = tokio::time::timeout(limit, self.tasks.wait()).await;
    }
}

/// Runs `work` where it may block.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a blocking task failed: {e}")))
}
