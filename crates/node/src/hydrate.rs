//! Copies the contents of adopted snapshots to this node in the background.
//!
//! A named worker per repository, a bounded number at a time, walks each snapshot once and pulls on
//! the way; what fails is tried again with growing pauses, and the last error is shown by
//! `ListHeld`. Lazy repositories are never queued: their contents come on first read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use monofs_model::{ContentMode, Error, ErrorKind, Result, Snapshot, StorageId};
use monofs_rpc::{context, metrics};
use monofs_store::repo::{BlobWalk, RepoMeta, RepoStore};
use tokio::sync::Semaphore;

use crate::blobs::Span;
use crate::pace::Pace;
use crate::progress::Counter;
use crate::state::{NodeState, blocking};
use crate::upstream::{self, Target};

/// Contents asked for in one request.
const BATCH_SPANS: usize = 4096;
/// Raw bytes asked for in one request (a larger blob goes alone).
const BATCH_BYTES: u64 = 64 << 20;
/// Missing contents looked up at a time.
const LOOKUP_MAX: usize = 65_536;
/// Pauses between tries: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// Which repositories are being hydrated.
pub(crate) struct Hydrator {
    at_a_time: usize,
    slots: Arc<Semaphore>,
    tasks: Mutex<HashMap<StorageId, Task>>,
    /// Tries that failed, since the start.
    pub errors: metrics::Counter,
}

#[derive(Default)]
struct Task {
    /// Asked for again while running: look once more before ending.
    again: bool,
    last_error: String,
}

impl Hydrator {
    pub fn new(at_a_time: usize) -> Self {
        let at_a_time = at_a_time.max(1);
        Self {
            at_a_time,
            slots: Arc::new(Semaphore::new(at_a_time)),
            tasks: Mutex::default(),
            errors: metrics::Counter::default(),
        }
    }

    /// Repositories being hydrated now.
    pub fn running(&self) -> usize {
        self.at_a_time - self.slots.available_permits().min(self.at_a_time)
    }

    /// Repositories being hydrated or waiting for a slot.
    pub fn queued(&self) -> usize {
        self.tasks
            .lock()
            .expect("no holder of this lock panics")
            .len()
    }

    /// What went wrong last for a repository that is not done; empty = nothing.
    pub fn last_error(&self, id: &StorageId) -> String {
        self.tasks
            .lock()
            .expect("no holder of this lock panics")
            .get(id)
            .map(|task| task.last_error.clone())
            .unwrap_or_default()
    }

    /// Whether the caller became the one to run this repository's task.
    fn begin(&self, id: &StorageId) -> bool {
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        match tasks.get_mut(id) {
            Some(task) => {
                task.again = true;
                false
            }
            None => {
                tasks.insert(id.clone(), Task::default());
                true
            }
        }
    }

    /// Whether the task may end (nobody asked again meanwhile).
    fn end(&self, id: &StorageId) -> bool {
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        match tasks.get_mut(id) {
            Some(task) if task.again => {
                task.again = false;
                false
            }
            _ => {
                tasks.remove(id);
                true
            }
        }
    }

    fn failed(&self, id: &StorageId, error: &Error) {
        self.errors.one();
        if let Some(task) = self
            .tasks
            .lock()
            .expect("no holder of this lock panics")
            .get_mut(id)
        {
            task.last_error = error.to_string();
        }
    }
}

/// Queues what was left unfinished when the node stopped.
pub(crate) async fn resume(state: &Arc<NodeState>) -> Result<()> {
    let stores = state.stores.clone();
    for id in blocking(move || stores.list()).await? {
        let store = match state.store(&id).await {
            Ok(store) => store,
            Err(error) => {
                tracing::warn!(storage_id = %id, %error, "a store cannot be opened");
                continue;
            }
        };
        if blocking(move || Ok(store.meta()?.content)).await? == ContentMode::Eager {
            start(state, id);
        }
    }
    Ok(())
}

/// Starts hydrating a repository, or makes the running task look once more.
pub(crate) fn start(state: &Arc<NodeState>, id: StorageId) {
    if !state.hydrator.begin(&id) {
        return;
    }
    // The task holds the node weakly, so that a node that was dropped is not kept alive by its
    // background work.
    let (weak, stop) = (Arc::downgrade(state), state.stop.clone());
    let work = async move {
        let mut pause = PAUSE_FIRST;
        loop {
            let Some(state) = weak.upgrade() else { return };
            let slots = state.hydrator.slots.clone();
            let Ok(slot) = slots.acquire_owned().await else {
                return;
            };
            let outcome = context::begin("hydrate", hydrate(&state, &id)).await;
            drop(slot);
            match outcome {
                Ok(()) if state.hydrator.end(&id) => return,
                Ok(()) => pause = PAUSE_FIRST,
                // The repository was dropped meanwhile.
                Err(error) if error.kind == ErrorKind::NotHeld && state.hydrator.end(&id) => return,
                Err(error) => {
                    tracing::warn!(storage_id = %id, %error, ?pause, "hydration failed; trying \
                     again");
                    state.hydrator.failed(&id, &error);
                    drop(state);
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_LAST);
                }
            }
        }
    };
    state
        .tasks
        .spawn(async move { stop.run_until_cancelled(work).await });
}

/// Pulls until nothing is missing from any snapshot held, the newest first.
async fn hydrate(state: &Arc<NodeState>, id: &StorageId) -> Result<()> {
    let store = state.store(id).await?;
    let looked = store.clone();
    let (meta, mut snapshots) = blocking(move || Ok((looked.meta()?, looked.snapshots()?))).await?;
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.commit_time));
    for snapshot in snapshots {
        let counter = state.progress.of(id, &snapshot.commit);
        if counter.is_complete() {
            continue;
        }
        let pulled = Hydration {
            state,
            store: &store,
            meta: &meta,
            snapshot: &snapshot,
            counter: &counter,
        }
        .run()
        .await;
        if pulled.is_err() {
            // Part of a batch may have been stored.
            state.progress.forget(id, &snapshot.commit);
        }
        pulled?;
    }
    state.paces.set(id, 0);
    Ok(())
}

/// The hydration of one snapshot.
struct Hydration<'a> {
    state: &'a Arc<NodeState>,
    store: &'a Arc<RepoStore>,
    meta: &'a RepoMeta,
    snapshot: &'a Snapshot,
    counter: &'a Counter,
}

impl Hydration<'_> {
    /// Pulls what is missing while it walks the snapshot once.
    async fn run(&self) -> Result<()> {
        let held = self.counter.held(self.store, self.snapshot).await?;
        let (path, commit, blobs) = (&self.meta.path, &self.snapshot.commit, self.snapshot.blobs);
        tracing::info!(repository = %path, %commit, held, blobs, "hydrating");
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
            let spans: Vec<Span> = missing
                .into_iter()
                .map(|(oid, size)| Span::whole(oid, size))
                .collect();
            let pace = self.state.paces.of(&self.meta.storage_id);
            let target = Target {
                state: self.state,
                store: self.store,
                meta: self.meta,
                commit: Some(self.snapshot.commit),
                pace: pace.as_deref(),
            };
            for batch in batches(&spans, pace.as_deref()) {
                let servers = upstream::servers(self.state, &self.meta.storage_id);
                upstream::fill(target, &servers, batch.to_vec(), |blobs| {
                    self.counter.add(blobs)
                })
                .await?;
            }
        }
        let (store, commit) = (self.store.clone(), self.snapshot.commit);
        // Of a snapshot that was dropped meanwhile the contents may be, too.
        if blocking(move || store.has_snapshot(&commit)).await? {
            self.counter.complete();
        }
        Ok(())
    }
}

/// Cuts spans into requests bounded in number and bytes.
pub(crate) fn batches<'a>(
    spans: &'a [Span],
    pace: Option<&Pace>,
) -> impl Iterator<Item = &'a [Span]> + use<'a> {
    let bytes_max = pace.map_or(BATCH_BYTES, |pace| pace.bytes_at_a_time().min(BATCH_BYTES));
    let mut rest = spans;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH_SPANS).take_while(|span| {
            let first = bytes == 0;
            bytes += span.size.max(1);
            first || bytes <= bytes_max
        });
        let (batch, after) = rest.split_at(fits.count());
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}
