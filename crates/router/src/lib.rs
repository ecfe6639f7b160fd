//! The router role: the catalogue, placement, membership, ingest and refresh, and the watch that
//! tells clients.
//!
//! Owns the one mutable thing of the system, *path -> commit*, and who is in the cluster.
//! Invariants:
//! - the state store's copy of an entry is the only authority; memory is a copy of it, changed
//!   after the store was;
//! - of what must be done once in a cluster, the router that leads does it ([`leader`]);
//! - a flip (a new commit, or its removal) is one compare-and-set, after verified acknowledgements
//!   by its holders;
//! - readers never see an entry without a snapshot.
//!
//! An ingest goes `admin` -> `ingest` -> (fetcher, nodes) -> `catalog` (the flip) -> `watch` ->
//! clients.

mod admin;
mod browse;
mod catalog;
mod clock;
mod cluster;
mod collect;
mod config;
mod history;
mod holdings;
mod http;
mod ingest;
mod leader;
mod membership;
mod nodes;
mod proxy;
mod reconcile;
mod refresh;
mod replication;
pub mod state;
mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_rpc::metrics::Calls;
use monofs_rpc::{ChannelPool, Running};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use catalog::Catalog;
pub use catalog::seed_catalogue;
pub use config::{Config, StateLocation, StaticMember};
use ingest::Ingests;
use membership::Members;
use state::{MeasuredState, Shared, StateDurations, StateStore, Tables};
use watch::Watchers;

/// What the router's services and workers share.
pub(crate) struct RouterState {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub tables: Tables,
    pub catalog: Arc<Catalog>,
    /// Whether this router is the one that runs the workers of which there must be one.
    pub leading: tokio::sync::watch::Receiver<bool>,
    pub members: Members,
    pub channels: ChannelPool,
    /// Over which members are asked whether they are there, while they are silent.
    pub probes: ChannelPool,
    pub ingests: Ingests,
    pub watchers: Watchers,
    /// Directory records that were looked at.
    pub records: browse::Records,
    pub history: history::History,
    /// The overview as it was made last for those who listen.
    pub announced: http::overview::Announced,
    pub listeners: http::sse::Listeners,
    pub surveys: holdings::Surveys,
    pub replication: replication::Replication,
    /// What this router was asked, and how long its state store took.
    pub requests: Arc<Calls>,
    pub http_requests: http::HttpRequests,
    pub state_durations: Arc<StateDurations>,
    /// This router, as the others see it.
    pub own: v1::RouterStatus,
    pub started_at: i64,
    /// Cancelled when the router stops.
    pub stop: CancellationToken,
}

/// A router that runs.
pub struct RunningRouter {
    grpc: Running,
    http: http::RunningHttp,
    stop: CancellationToken,
    /// They let go of what this router holds in the state store.
    holders: Vec<JoinHandle<()>>,
}

impl RunningRouter {
    /// Where it serves gRPC.
    pub fn address(&self) -> std::net::SocketAddr {
        self.grpc.address()
    }

    /// Where it serves HTTP.
    pub fn http_address(&self) -> std::net::SocketAddr {
        self.http.address()
    }

    /// Ends workers and streams, for `limit` at most.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.cancel();
        self.grpc.shutdown(limit).await;
        self.http.shutdown(limit).await;
        // Bounded by the deadline of letting go.
        futures::future::join_all(self.holders).await;
    }
}

/// Starts a router on these listeners with the state that `config.state` names.
/// Errors: the state cannot be opened, or is locked by another router; several routers without a
/// state that they share.
pub async fn spawn(config: Config, grpc: TcpListener, http: TcpListener) -> Result<RunningRouter> {
    if !config.peer_routers.is_empty() && matches!(config.state, StateLocation::Embedded(_)) {
        return Err(Error::invalid(
            "--peer-routers: several routers need a state that they share; start all of them with \
             --state etcd://HOST:PORT,...",
        ));
    }
    let store = state::open(&config.state).await?;
    spawn_with(config, store, grpc, http).await
}

/// [`spawn`] with a state store made by the caller.
pub async fn spawn_with(
    config: Config,
    store: Arc<dyn StateStore>,
    grpc: TcpListener,
    http: TcpListener,
) -> Result<RunningRouter> {
    let stop = CancellationToken::new();
    let state_durations = Arc::<StateDurations>::default();
    let shared = Shared::new(MeasuredState::new(store, state_durations.clone()));
    let tables = Tables::new(&shared);
    let own = own_status(&config, &grpc, &http)?;
    let catalog = Arc::new(Catalog::new(&shared, &own.router_id));
    let mut followers = tables.followers();
    followers.push(catalog.clone());
    shared.start(followers, stop.clone()).await?;
    let (leads, leading) = tokio::sync::watch::channel(false);
    let (members, membership) = Members::new(&config, &tables)?;
    let channels = ChannelPool::default();
    let state = Arc::new(RouterState {
        shared,
        tables,
        catalog,
        leading,
        members,
        probes: channels.apart(),
        channels,
        ingests: Ingests::default(),
        watchers: Watchers::default(),
        records: browse::Records::default(),
        history: history::History::default(),
        announced: http::overview::Announced::default(),
        listeners: http::sse::Listeners::default(),
        surveys: holdings::Surveys::default(),
        replication: Default::default(),
        requests: Arc::default(),
        http_requests: Default::default(),
        state_durations,
        own,
        started_at: clock::now(),
        stop: stop.clone(),
        config,
    });
    let holders = vec![
        tokio::spawn(leader::lead(state.clone(), leads, stop.clone())),
        tokio::spawn(leader::present(state.clone(), stop.clone())),
    ];
    tokio::spawn(membership::run(membership, state.clone(), stop.clone()));
    tokio::spawn(leader::while_leading(
        state.clone(),
        stop.clone(),
        membership::recover,
    ));
    tokio::spawn(leader::while_leading(
        state.clone(),
        stop.clone(),
        refresh::run,
    ));
    tokio::spawn(leader::while_leading(
        state.clone(),
        stop.clone(),
        reconcile::run,
    ));
    tokio::spawn(leader::while_leading(
        state.clone(),
        stop.clone(),
        collect::run,
    ));
    tokio::spawn(leader::while_leading(
        state.clone(),
        stop.clone(),
        ingest::resume,
    ));
    tokio::spawn(watch::prepare(state.clone()));
    tokio::spawn(history::run(state.clone(), stop.clone()));
    tokio::spawn(replication::run(state.clone(), stop.clone()));
    let http = http::serve(state.clone(), http, stop.child_token()).await?;
    let services = http::with_probes(routes(&state, &stop), &state);
    let grpc = monofs_rpc::server::serve_counted(
        grpc,
        services,
        state.requests.clone(),
        stop.child_token(),
    )?;
    grpc.set_serving(true).await;
    let (repositories, router) = (state.catalog.len(), &state.own.router_id);
    tracing::info!(router, grpc = %grpc.address(), http = %http.address(), repositories, "router serves");
    Ok(RunningRouter {
        grpc,
        http,
        stop,
        holders,
    })
}

/// How the other routers and operators see this one.
fn own_status(config: &Config, grpc: &TcpListener, http: &TcpListener) -> Result<v1::RouterStatus> {
    let listening = |listener: &TcpListener| {
        let address = listener.local_addr();
        address
            .map(monofs_rpc::server::announced)
            .map_err(|e| Error::internal(format!("address of a listener: {e}")))
    };
    let address = if config.advertise.is_empty() {
        listening(grpc)?
    } else {
        config.advertise.clone()
    };
    Ok(v1::RouterStatus {
        router_id: if config.router_id.is_empty() {
            address.clone()
        } else {
            config.router_id.clone()
        },
        address,
        http_address: listening(http)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: clock::now(),
        leader: false,
    })
}

fn routes(state: &Arc<RouterState>, stop: &CancellationToken) -> Routes {
    let content = v1::content_server::ContentServer::new(proxy::ContentProxy::new(state.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(content)
        .add_service(v1::catalog_server::CatalogServer::new(
            watch::CatalogService::new(state.clone(), stop.clone()),
        ))
        .add_service(v1::cluster_server::ClusterServer::new(
            cluster::ClusterService::new(state.clone()),
        ))
        .add_service(
            v1::admin_server::AdminServer::new(admin::AdminService::new(state.clone()))
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
}

/// The error for a request that names a path where no repository is.
pub(crate) fn no_repository(path: &str) -> Error {
    Error::not_found(format!(
        "no repository at '{}'; `monofs-admin repos` lists them",
        path.escape_debug()
    ))
}
