//! Contents that readers still hold open of a commit that was replaced: they are brought here while
//! they can be had, since they may be asked for when upstream has them no more.
//!
//! Invariants: only contents of a commit that this node holds are pulled; one pull of a repository
//! runs at a time, and it goes on after the request that began it.
//!
//! Callers: `service::node`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{Error, Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::context;
use monofs_store::repo::{BlobWalk, RepoStore};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;
use crate::chunk_span::{ChunkSpan, split_batch};
use crate::cover::HeldCommit;
use crate::rate_limit::request_bytes;
use crate::stores::NodeStores;
use crate::upstream::pull::{PullTarget, Puller};

/// Repositories that are pulled for at the same time.
const PULLS_MAX: usize = 2;
/// Missing contents that one look at the store finds at most.
const LOOK_MAX: usize = 8192;

/// What is known of the pulls of one repository.
#[derive(Default)]
struct PullState {
    is_running: bool,
    /// Why the last one failed.
    last_error: String,
}

/// Brings contents that are to be kept.
pub(crate) struct ContentKeeper {
    stores: Arc<NodeStores>,
    puller: Arc<Puller>,
    /// Repositories that are pulled for, and those whose last pull failed.
    pulls: Mutex<HashMap<StorageId, PullState>>,
    turns: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ContentKeeper {
    /// Pulls into `stores`, in tasks of `tasks` that end after `stop`.
    pub fn new(
        stores: Arc<NodeStores>,
        puller: Arc<Puller>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            stores,
            puller,
            pulls: Mutex::default(),
            turns: Semaphore::new(PULLS_MAX),
            tasks,
            stop,
        }
    }

    /// Tells how many of the contents are missing, and begins to pull them. Errors: `NotHeld` (the
    /// commit), `Invalid`.
    pub async fn keep(self: &Arc<Self>, request: v1::KeepRequest) -> Result<v1::KeepResponse> {
        let id = StorageId::new(&request.storage_id)?;
        let commit = Oid::from_bytes(&request.commit)?;
        if request.oids.len() > CONTENT_REQUEST_ITEMS_MAX {
            return Err(Error::invalid(format!(
                "more than {CONTENT_REQUEST_ITEMS_MAX} contents in one request; ask for fewer at a \
                 time"
            )));
        }
        let wanted = convert::oids(&request.oids)?;
        let store = self.stores.get(&id).await?;
        let held = HeldCommit::find(&store, &id, &commit).await?;
        let looked = store.clone();
        let missing = blocking(move || missing_of(&looked, held.root, wanted)).await?;

        // What came before says why these are not here.
        let count = missing.len() as u64;
        let last_error = self.error_of(&id);
        if missing.is_empty() {
            self.forget(&id);
        } else if self.begin(&id) {
            let keeper = self.clone();
            self.tasks.spawn(context::carry(async move {
                let pull = keeper.pull(&id, &commit, &store, &missing);
                let outcome = keeper.stop.run_until_cancelled(pull).await;
                keeper.ended(&id, outcome.unwrap_or(Ok(())));
            }));
        }
        Ok(v1::KeepResponse {
            missing: count,
            last_error,
        })
    }

    async fn pull(
        &self,
        id: &StorageId,
        commit: &Oid,
        store: &Arc<RepoStore>,
        missing: &[ChunkSpan],
    ) -> Result<()> {
        // The turns bound how many pulls run beside each other.
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| Error::internal("the turns of pulls are closed"))?;
        let held = HeldCommit::find(store, id, commit).await?;
        let target = PullTarget {
            store,
            meta: &held.meta,
            commit: Some(*commit),
            limit: None,
        };

        // Contents that readers hold open wait for no limit of a hydration. They come batch by
        // batch, and each batch is kept even when a later one fails.
        let servers = self.puller.upstreams.servers(id);
        let mut rest = missing;
        while !rest.is_empty() {
            let (batch, after) = split_batch(rest, request_bytes(None));
            let batch = batch.to_vec();
            self.puller.fill(target, &servers, batch, |_| {}).await?;
            rest = after;
        }
        tracing::info!(path = %held.meta.path, %commit, contents = missing.len(), "contents that \
         readers hold open are kept");
        Ok(())
    }

    /// True: the caller is to pull; a pull that runs is enough otherwise.
    fn begin(&self, id: &StorageId) -> bool {
        let mut pulls = self.pulls.lock();
        let pull = pulls.entry(id.clone()).or_default();
        !std::mem::replace(&mut pull.is_running, true)
    }

    fn ended(&self, id: &StorageId, outcome: Result<()>) {
        let Err(error) = outcome else {
            self.pulls.lock().remove(id);
            return;
        };
        tracing::warn!(repository = %id, %error, "contents that readers hold open cannot be pulled");
        let failed = PullState {
            is_running: false,
            last_error: error.to_string(),
        };
        self.pulls.lock().insert(id.clone(), failed);
    }

    fn error_of(&self, id: &StorageId) -> String {
        let pulls = self.pulls.lock();
        pulls
            .get(id)
            .map_or_else(String::new, |pull| pull.last_error.clone())
    }

    /// Nothing is missing, so an error of before says nothing.
    fn forget(&self, id: &StorageId) {
        let mut pulls = self.pulls.lock();
        if pulls.get(id).is_some_and(|pull| !pull.is_running) {
            pulls.remove(id);
        }
    }
}

/// Those of `wanted` that the store lacks and that are below `root`, with their sizes. Blocking.
fn missing_of(store: &RepoStore, root: Oid, wanted: Vec<Oid>) -> Result<Vec<ChunkSpan>> {
    let mut absent: HashSet<Oid> = {
        let reader = store.read()?;
        wanted
            .into_iter()
            .filter(|oid| !reader.has_blob(oid))
            .collect()
    };
    // Only directory records tell how large they are.
    let mut found = Vec::new();
    let mut walk = BlobWalk::new(root);
    while !absent.is_empty() {
        let missing = walk.next_missing(&store.read()?, LOOK_MAX)?;
        if missing.is_empty() {
            break;
        }
        let named = missing.into_iter().filter(|(oid, _)| absent.remove(oid));
        found.extend(named.map(|(oid, size)| ChunkSpan::whole(oid, size)));
    }
    Ok(found)
}
