//! Copies the contents of adopted snapshots to this node in the background.
//!
//! One task per repository, a bounded number at work at a time, walks each snapshot once and pulls
//! on the way; what fails is tried again with growing pauses, which a new start ends, and the last
//! error is shown by `ListHeld`. Lazy repositories are never queued: their contents come on first
//! read.
//!
//! Callers: `spawn` resumes what a stop left unfinished, `service::node` starts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{ContentMode, Error, ErrorKind, Result, Snapshot, StorageId};
use monofs_rpc::{Backoff, context, metrics};
use monofs_store::repo::{BlobWalk, RepoMeta, RepoStore};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;
use crate::chunk_span::{ChunkSpan, split_batch};
use crate::hydrated::HydratedCount;
use crate::rate_limit::{RateLimits, request_bytes};
use crate::stores::NodeStores;
use crate::upstream::pull::{PullTarget, Puller};

/// Missing contents looked up at a time.
const LOOKUP_MAX: usize = 65_536;
/// Pauses between tries: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// Which repositories are being hydrated.
pub(crate) struct Hydrator {
    stores: Arc<NodeStores>,
    puller: Arc<Puller>,
    limits: Arc<RateLimits>,
    at_a_time: usize,
    slots: Arc<Semaphore>,
    queue: Mutex<HashMap<StorageId, HydrationTask>>,
    /// Tries that failed, since the start.
    pub errors: metrics::Counter,
    /// Tasks that a shutdown waits for; they end soon after `stop`.
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct HydrationTask {
    /// Asked for again while running: look once more before ending.
    again: bool,
    last_error: String,
    /// Ends a pause.
    wake: Arc<Notify>,
}

impl Hydrator {
    /// Hydrates `at_a_time` repositories at a time, in tasks of `tasks` that end after `stop`.
    pub fn new(
        stores: Arc<NodeStores>,
        puller: Arc<Puller>,
        limits: Arc<RateLimits>,
        at_a_time: usize,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let at_a_time = at_a_time.max(1);
        Self {
            stores,
            puller,
            limits,
            at_a_time,
            slots: Arc::new(Semaphore::new(at_a_time)),
            queue: Mutex::default(),
            errors: metrics::Counter::default(),
            tasks,
            stop,
        }
    }

    /// Repositories being hydrated now.
    pub fn running(&self) -> usize {
        self.at_a_time - self.slots.available_permits().min(self.at_a_time)
    }

    /// Repositories being hydrated or waiting for a slot.
    pub fn queued(&self) -> usize {
        self.queue.lock().len()
    }

    /// What went wrong last for a repository that is not done; empty = nothing.
    pub fn last_error(&self, id: &StorageId) -> String {
        self.queue
            .lock()
            .get(id)
            .map(|task| task.last_error.clone())
            .unwrap_or_default()
    }

    /// Queues what was left unfinished when the node stopped.
    pub async fn resume(self: &Arc<Self>) -> Result<()> {
        for id in self.stores.list().await? {
            let store = match self.stores.get(&id).await {
                Ok(store) => store,
                Err(error) => {
                    tracing::warn!(storage_id = %id, %error, "a store cannot be opened");
                    continue;
                }
            };
            if blocking(move || Ok(store.meta()?.content)).await? == ContentMode::Eager {
                self.start(id);
            }
        }
        Ok(())
    }

    /// Starts hydrating a repository, or makes the running task look once more, at once if it
    /// pauses.
    pub fn start(self: &Arc<Self>, id: StorageId) {
        let Some(wake) = self.begin(&id) else {
            return;
        };
        // The task holds the hydrator weakly, so that a node that was dropped is not kept alive by
        // its background work.
        let weak = Arc::downgrade(self);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(async {
                let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_LAST);
                while let Some(hydrator) = weak.upgrade() {
                    match hydrator.run_once(&id).await {
                        TryOutcome::Ended => return,
                        TryOutcome::AskedAgain => backoff.reset(),
                        TryOutcome::Failed(error) => {
                            let pause = backoff.next_pause();
                            tracing::warn!(storage_id = %id, %error, ?pause, "hydration failed; \
                             trying again");
                            drop(hydrator);
                            let _ = tokio::time::timeout(pause, wake.notified()).await;
                        }
                    }
                }
            })
            .await
        });
    }

    /// What wakes this repository's task, if the caller became the one to run it.
    fn begin(&self, id: &StorageId) -> Option<Arc<Notify>> {
        let mut queue = self.queue.lock();
        match queue.get_mut(id) {
            Some(task) => {
                task.again = true;
                task.wake.notify_one();
                None
            }
            None => {
                let task = queue.entry(id.clone()).or_default();
                Some(task.wake.clone())
            }
        }
    }

    /// Whether the task may end: it was not asked for again meanwhile.
    fn end(&self, id: &StorageId) -> bool {
        let mut queue = self.queue.lock();
        match queue.get_mut(id) {
            Some(task) if task.again => {
                task.again = false;
                false
            }
            _ => {
                queue.remove(id);
                true
            }
        }
    }

    fn note_failure(&self, id: &StorageId, error: &Error) {
        self.errors.one();
        if let Some(task) = self.queue.lock().get_mut(id) {
            task.last_error = error.to_string();
        }
    }

    /// Tries once, when a slot is free.
    async fn run_once(&self, id: &StorageId) -> TryOutcome {
        let slot = self.slots.clone().acquire_owned().await;
        let outcome = context::begin("hydrate", self.hydrate(id)).await;
        drop(slot);
        match outcome {
            Ok(()) if self.end(id) => TryOutcome::Ended,
            Ok(()) => TryOutcome::AskedAgain,
            // The repository was dropped meanwhile.
            Err(error) if error.kind == ErrorKind::NotHeld && self.end(id) => TryOutcome::Ended,
            Err(error) => {
                self.note_failure(id, &error);
                TryOutcome::Failed(error)
            }
        }
    }

    /// Pulls until nothing is missing from any snapshot held, the newest first.
    async fn hydrate(&self, id: &StorageId) -> Result<()> {
        let store = self.stores.get(id).await?;
        let looked = store.clone();
        let (meta, mut snapshots) =
            blocking(move || Ok((looked.meta()?, looked.snapshots()?))).await?;
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.commit_time));
        for snapshot in snapshots {
            let count = self.stores.hydrated.of(id, &snapshot.commit);
            if count.is_complete() {
                continue;
            }
            let pulled = SnapshotHydration {
                stores: &self.stores,
                puller: &self.puller,
                limits: &self.limits,
                store: &store,
                meta: &meta,
                snapshot: &snapshot,
                count: &count,
            }
            .run()
            .await;
            let Err(error) = pulled else {
                continue;
            };
            // Part of a batch may have been stored.
            self.stores.hydrated.forget(id, &snapshot.commit);
            let looked = store.clone();
            let is_held = blocking(move || looked.has_snapshot(&snapshot.commit)).await?;
            if is_held || !self.stores.is_current(id, &store) {
                return Err(error);
            }
            // It was collected meanwhile; the other snapshots still want their contents.
        }
        self.limits.set(id, 0);
        Ok(())
    }
}

/// How one try ended.
enum TryOutcome {
    /// Nothing is left to do.
    Ended,
    /// Done, but started again meanwhile.
    AskedAgain,
    Failed(Error),
}

/// The hydration of one snapshot.
struct SnapshotHydration<'a> {
    stores: &'a NodeStores,
    puller: &'a Puller,
    limits: &'a RateLimits,
    store: &'a Arc<RepoStore>,
    meta: &'a RepoMeta,
    snapshot: &'a Snapshot,
    count: &'a HydratedCount,
}

impl SnapshotHydration<'_> {
    /// Pulls what is missing while it walks the snapshot once.
    async fn run(&self) -> Result<()> {
        let held = self.count.held(self.store, self.snapshot).await?;
        tracing::info!(
            repository = %self.meta.path,
            commit = %self.snapshot.commit,
            held,
            blobs = self.snapshot.blobs,
            "hydrating"
        );
        let mut walk = BlobWalk::new(self.snapshot.root);
        loop {
            let looked = self.store.clone();
            let (paused, missing) = blocking(move || {
                let missing = walk.next_missing(&looked.read()?, LOOKUP_MAX)?;
                Ok((walk, missing))
            })
            .await?;
            walk = paused;
            if missing.is_empty() {
                break;
            }
            let spans: Vec<ChunkSpan> = missing
                .into_iter()
                .map(|(oid, size)| ChunkSpan::whole(oid, size))
                .collect();
            self.pull(&spans).await?;
        }

        // Of a snapshot that was removed meanwhile the contents may be, too.
        self.check_wanted().await?;
        self.count.complete();
        Ok(())
    }

    /// Errors: `NotHeld` when the repository was dropped or the commit collected meanwhile.
    async fn check_wanted(&self) -> Result<()> {
        let store = self.store.clone();
        let commit = self.snapshot.commit;
        let is_held = blocking(move || store.has_snapshot(&commit)).await?;
        let id = &self.meta.storage_id;
        if is_held && self.stores.is_current(id, self.store) {
            return Ok(());
        }
        Err(Error::not_held(format!(
            "commit {commit} of repository {id} was removed while its contents came"
        )))
    }

    /// Pulls in requests that the limit allows, which may change between two of them.
    async fn pull(&self, spans: &[ChunkSpan]) -> Result<()> {
        let id = &self.meta.storage_id;
        let mut rest = spans;
        while !rest.is_empty() {
            self.check_wanted().await?;
            // The limit and the servers are those of this moment.
            let limit = self.limits.of(id);
            let target = PullTarget {
                store: self.store,
                meta: self.meta,
                commit: Some(self.snapshot.commit),
                limit: limit.as_deref(),
            };
            let (batch, after) = split_batch(rest, request_bytes(target.limit));
            let servers = self.puller.upstreams.servers(id);
            self.puller
                .fill(target, &servers, batch.to_vec(), |blobs| {
                    self.count.add(blobs)
                })
                .await?;
            rest = after;
        }
        Ok(())
    }
}
