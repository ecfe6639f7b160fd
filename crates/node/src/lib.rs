//! The node role: keeps repositories in LMDB and serves their directory records and contents.
//!
//! Owns: which commits this node holds, and the proof that they are what their ids say. Invariants:
//! - nothing enters a store before it was verified against its oid (`adopt` for records, `upstream`
//!   for contents);
//! - a snapshot row is written last, so "held" always means the whole closure of directory records;
//! - a node never asks another server on behalf of a request that says `held_only`, so replicas
//!   cannot ask in circles.
//!
//! A read goes `service::content` -> store, and on a miss `service::pulled` -> `upstream` -> peer
//! or fetcher -> store. An ingest goes `service::node` -> `adopt` -> store, then `hydrate` in the
//! background. A copy that moves takes what the leaving one holds: `service::node` -> `cover` ->
//! peer.
//!
//! The parts are put together in [`spawn`]; each gets the parts that it needs and no more.

mod adopt;
mod answer;
mod blobs;
mod blocking;
mod chunk_span;
mod config;
mod cover;
mod flights;
mod generations;
mod hydrate;
mod hydrated;
mod keep;
mod operations;
mod rate_limit;
mod served;
mod service;
mod stores;
mod suspects;
mod trees;
mod turns;
mod upstream;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::view::Role;
use monofs_model::{ClusterView, Member, MemberState, Result};
use monofs_proto::v1::content_server::ContentServer;
use monofs_proto::v1::node_server::NodeServer;
use monofs_rpc::catalogs::CatalogAskers;
use monofs_rpc::metrics::Calls;
use monofs_rpc::{ChannelPool, RunningServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use adopt::Adopter;
use answer::AnswerTasks;
use blocking::blocking;
pub use config::Config;
use cover::Coverer;
use generations::Generations;
use hydrate::Hydrator;
use keep::ContentKeeper;
use operations::NodeOperations;
use rate_limit::RateLimits;
use served::ServedCounters;
use service::content::ContentService;
use service::node::{NodeCalls, NodeIdentity, NodeService};
use service::pulled::PulledAnswers;
use stores::NodeStores;
use upstream::pull::Puller;
use upstream::servers::Upstreams;

/// A node that runs.
pub struct RunningNode {
    server: RunningServer,
    operations: Arc<NodeOperations>,
    /// Work that no connection waits for: a shutdown does.
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends the answers that did not end by themselves.
    cut: CancellationToken,
}

impl RunningNode {
    /// Where it serves gRPC.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Serves `/health`, `/ready` and `/metrics` on `listener`; returns where.
    pub fn serve_http(&self, listener: TcpListener) -> Result<std::net::SocketAddr> {
        monofs_rpc::operations::serve(listener, self.operations.clone(), self.stop.child_token())
    }

    /// Finishes what runs, for `limit` at most, and closes the stores.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.cancel();
        self.server.shutdown(limit).await;
        // What still runs would keep the stores open and their directory locked.
        self.cut.cancel();
        self.tasks.close();
        if tokio::time::timeout(limit, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.tasks.len(),
                "work in the background did not end in time"
            );
        }
    }
}

/// Starts a node on `listener`. Errors: the database directory cannot be used.
pub async fn spawn(config: Config, listener: TcpListener) -> Result<RunningNode> {
    // The parts come first, then what a stop left unfinished, then requests.
    let stop = CancellationToken::new();
    let cut = CancellationToken::new();
    let address = config.advertised(&listener)?;
    let node = NodeParts::open(&config, address, &stop).await?;
    node.hydrator.resume().await?;
    let server = monofs_rpc::server::serve_counted(
        listener,
        node.routes(&config, &stop, &cut),
        node.requests.clone(),
        stop.child_token(),
    )?;
    server.announce_ready().await;
    tracing::info!(
        node = %config.node_id,
        address = %server.address(),
        db = %config.db_path.display(),
        "node serves"
    );
    Ok(RunningNode {
        server,
        operations: Arc::new(node.operations(&config)),
        tasks: node.tasks,
        stop,
        cut,
    })
}

/// The parts that more than one service shares, while they are put together.
struct NodeParts {
    stores: Arc<NodeStores>,
    served: Arc<ServedCounters>,
    channels: ChannelPool,
    upstreams: Arc<Upstreams>,
    puller: Arc<Puller>,
    limits: Arc<RateLimits>,
    hydrator: Arc<Hydrator>,
    requests: Arc<Calls>,
    tasks: TaskTracker,
    incarnation: u64,
}

impl NodeParts {
    async fn open(config: &Config, address: String, stop: &CancellationToken) -> Result<Self> {
        // What is held.
        let served = Arc::<ServedCounters>::default();
        let root = config.db_path.clone();
        let open_max = config.open_stores_max;
        let counters = served.clone();
        let stores = Arc::new(blocking(move || NodeStores::open(&root, open_max, counters)).await?);

        // Who else is there.
        let channels = ChannelPool::default();
        let incarnation = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        let announced = Announcement {
            config: config.clone(),
            address,
            incarnation,
            stores: Arc::downgrade(&stores),
        };
        let upstreams = Arc::new(Upstreams::new(
            config.node_id.clone(),
            config.fetchers.clone(),
            announced.join_cluster(&channels, stop),
            channels.clone(),
            config.upstream_timeout,
        ));

        // What brings contents here.
        let tasks = TaskTracker::new();
        let limits = Arc::<RateLimits>::default();
        let puller = Arc::new(Puller::new(
            upstreams.clone(),
            served.clone(),
            tasks.clone(),
        ));
        let hydrator = Arc::new(Hydrator::new(
            stores.clone(),
            puller.clone(),
            limits.clone(),
            config.hydrations_max,
            tasks.clone(),
            stop.clone(),
        ));
        Ok(Self {
            stores,
            served,
            channels,
            upstreams,
            puller,
            limits,
            hydrator,
            requests: Arc::default(),
            tasks,
            incarnation,
        })
    }

    fn routes(&self, config: &Config, stop: &CancellationToken, cut: &CancellationToken) -> Routes {
        let answers = AnswerTasks::new(self.tasks.clone(), cut.clone());
        let content = ContentService::new(
            self.stores.clone(),
            self.served.clone(),
            Arc::new(PulledAnswers::new(
                self.puller.clone(),
                self.served.clone(),
                self.tasks.clone(),
                stop.clone(),
            )),
            answers.clone(),
        );
        let generations = Arc::new(Generations::new(
            self.stores.clone(),
            self.upstreams.clone(),
        ));
        let node = NodeService {
            identity: NodeIdentity {
                node_id: config.node_id.clone(),
                db_path: config.db_path.clone(),
                incarnation: self.incarnation,
            },
            stores: self.stores.clone(),
            upstreams: self.upstreams.clone(),
            limits: self.limits.clone(),
            hydrator: self.hydrator.clone(),
            adopter: Adopter::new(
                self.stores.clone(),
                self.upstreams.clone(),
                self.served.clone(),
                generations.clone(),
            ),
            generations,
            coverer: Coverer::new(
                self.stores.clone(),
                self.puller.clone(),
                self.limits.clone(),
            ),
            keeper: Arc::new(ContentKeeper::new(
                self.stores.clone(),
                self.puller.clone(),
                self.tasks.clone(),
                stop.clone(),
            )),
            answers,
            served: self.served.clone(),
            requests: self.requests.clone(),
            askers: CatalogAskers::default(),
        };
        let content = ContentServer::new(content)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        // Snapshots name thousands of submodules.
        let node = NodeServer::new(NodeCalls::new(node))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Routes::new(content).add_service(node)
    }

    fn operations(&self, config: &Config) -> NodeOperations {
        NodeOperations {
            db_path: config.db_path.clone(),
            stores: self.stores.clone(),
            served: self.served.clone(),
            hydrator: self.hydrator.clone(),
            requests: self.requests.clone(),
            channels: self.channels.clone(),
        }
    }
}

/// What this node tells routers about itself.
struct Announcement {
    config: Config,
    /// Where it can be reached.
    address: String,
    incarnation: u64,
    /// Weak, so that the announcements do not keep the stores of a stopped node open.
    stores: Weak<NodeStores>,
}

impl Announcement {
    fn member(&self) -> Member {
        let config = &self.config;
        Member {
            id: config.node_id.clone(),
            role: Role::Node,
            address: self.address.clone(),
            external_address: config.external_address.clone(),
            weight: config.weight,
            zone: config.zone.clone(),
            state: MemberState::Active,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capacity_bytes: config.capacity_bytes,
            used_bytes: self.stores.upgrade().map_or(0, |stores| stores.disk_used()),
            incarnation: self.incarnation,
            share_percent: 100,
            failed_over: false,
        }
    }

    /// Announces this node until `stop`; the receiver always has the newest view.
    fn join_cluster(
        self,
        channels: &ChannelPool,
        stop: &CancellationToken,
    ) -> watch::Receiver<ClusterView> {
        if self.config.routers.is_empty() {
            return watch::channel(ClusterView::default()).1;
        }
        monofs_rpc::register::register(
            channels.clone(),
            self.config.routers.clone(),
            move || self.member(),
            stop.clone(),
        )
    }
}
