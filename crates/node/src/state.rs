//! What a node's services share: the stores, the channels, the cluster as last seen, and counters.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use monofs_model::{ClusterView, Error, ErrorKind, Result, StorageId};
use monofs_rpc::metrics::{Calls, Counter};
use monofs_rpc::{ChannelPool, context};
use monofs_store::pool::RepoPool;
use monofs_store::repo::RepoStore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::flights::Flights;
use crate::hydrate::Hydrator;
use crate::pace::Paces;
use crate::progress::Progress;
use crate::suspects::Suspects;
use crate::turns::Turns;

/// Counters of what was served, since the start: the same for `Stat` and for Prometheus.
#[derive(Default)]
pub(crate) struct Served {
    pub trees: Counter,
    pub chunks: Counter,
    pub bytes: Counter,
    /// Chunks asked for that were here, and that had to be asked for elsewhere.
    pub chunks_held: Counter,
    pub chunks_missed: Counter,
    /// What did not match its id: from elsewhere, or in a store.
    pub corrupt: Counter,
}

impl Served {
    pub fn trees(&self, count: usize, bytes: usize) {
        self.trees.add(count as u64);
        self.bytes.add(bytes as u64);
    }

    pub fn chunks(&self, count: usize, bytes: usize) {
        self.chunks.add(count as u64);
        self.bytes.add(bytes as u64);
    }
}

pub(crate) struct NodeState {
    pub config: Config,
    pub stores: Arc<RepoPool>,
    pub channels: ChannelPool,
    /// Connections over which silent servers are asked whether they are there.
    pub probes: ChannelPool,
    pub suspects: Suspects,
    pub hydrator: Hydrator,
    pub flights: Arc<Flights>,
    pub progress: Arc<Progress>,
    pub paces: Paces,
    pub served: Arc<Served>,
    pub turns: Turns,
    /// What the server was asked.
    pub requests: Arc<Calls>,
    /// The time of this start, so that a router notices a restart that was too quick to be seen as
    /// an absence.
    pub incarnation: u64,
    /// Work that no connection waits for: a shutdown does. It ends soon after `stop`.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
    view: watch::Sender<ClusterView>,
    /// Fetchers that the router named last: known before the next heartbeat brings the view that
    /// has them.
    named_fetchers: RwLock<Vec<String>>,
    /// One writer of snapshots per repository: adopt, collect and drop never overlap.
    writers: Mutex<HashMap<StorageId, Arc<tokio::sync::Mutex<()>>>>,
}

impl NodeState {
    pub async fn open(config: Config, stop: CancellationToken) -> Result<Self> {
        let (root, max_open) = (config.db_path.clone(), config.open_stores_max);
        let channels = ChannelPool::default();
        let stores = blocking(move || RepoPool::open(&root, max_open, Default::default())).await?;
        Ok(Self {
            hydrator: Hydrator::new(config.hydrations_max),
            config,
            stores: Arc::new(stores),
            probes: channels.apart(),
            channels,
            suspects: Suspects::default(),
            flights: Arc::default(),
            progress: Arc::default(),
            paces: Paces::default(),
            served: Arc::default(),
            turns: Turns::new(),
            requests: Arc::default(),
            incarnation: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64),
            tasks: TaskTracker::new(),
            stop,
            view: watch::channel(ClusterView::default()).0,
            named_fetchers: RwLock::default(),
            writers: Mutex::default(),
        })
    }

    /// Keeps the view current until `stop`.
    pub fn follow(
        self: &Arc<Self>,
        mut from: watch::Receiver<ClusterView>,
        stop: CancellationToken,
    ) {
        let state = self.clone();
        tokio::spawn(async move {
            loop {
                state.view.send_replace(from.borrow_and_update().clone());
                tokio::select! {
                    () = stop.cancelled() => break,
                    changed = from.changed() => if changed.is_err() { break },
                }
            }
        });
    }

    /// The cluster as last seen.
    pub fn view(&self) -> ClusterView {
        self.view.borrow().clone()
    }

    /// The router named these fetchers.
    pub fn name_fetchers(&self, addresses: Vec<String>) {
        *self
            .named_fetchers
            .write()
            .expect("no holder of this lock panics") = addresses;
    }

    /// Fetchers to use besides those of the view.
    pub fn other_fetchers(&self) -> Vec<String> {
        let named = self
            .named_fetchers
            .read()
            .expect("no holder of this lock panics");
        named.iter().chain(&self.config.fetchers).cloned().collect()
    }

    /// The store of a repository. Errors: `NotHeld`.
    ///
    /// A store that turns out to be corrupt is set aside, so that the repository can be adopted
    /// again; the caller hears `NotHeld` from then on and asks another replica.
    pub async fn store(&self, id: &StorageId) -> Result<Arc<RepoStore>> {
        let (stores, progress, served) = (
            self.stores.clone(),
            self.progress.clone(),
            self.served.clone(),
        );
        let id = id.clone();
        blocking(move || find_store(&stores, &progress, &served, &id)).await
    }

    /// [`NodeState::store`] for a thread that may block.
    pub fn store_blocking(&self, id: &StorageId) -> Result<Arc<RepoStore>> {
        find_store(&self.stores, &self.progress, &self.served, id)
    }

    /// The lock that every change of a repository's set of snapshots holds.
    pub fn writer(&self, id: &StorageId) -> Arc<tokio::sync::Mutex<()>> {
        let mut writers = self.writers.lock().expect("no holder of this lock panics");
        writers.retain(|_, lock| Arc::strong_count(lock) > 1);
        writers.entry(id.clone()).or_default().clone()
    }

    /// Bytes of disk that the stores use.
    pub fn disk_used(&self) -> u64 {
        self.stores.disk_bytes()
    }
}

fn find_store(
    stores: &RepoPool,
    progress: &Progress,
    served: &Served,
    id: &StorageId,
) -> Result<Arc<RepoStore>> {
    match stores.get(id) {
        Ok(Some(store)) => Ok(store),
        Ok(None) => Err(Error::not_held(format!(
            "repository {id} is not on this node"
        ))),
        Err(error) if error.kind == ErrorKind::Corrupt => {
            tracing::error!(storage_id = %id, %error, "store is corrupt; set aside, will be \
             adopted again");
            served.corrupt.one();
            stores.quarantine(id)?;
            progress.retain(id, &[]);
            Err(Error::not_held(format!(
                "repository {id} was corrupt on this node and is set aside"
            )))
        }
        Err(error) => Err(error),
    }
}

/// Runs store work off the async threads. Errors: the work's own; a panic in it is `Internal`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(context::carried(work)).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("store work ended: {error}"))),
    }
}
