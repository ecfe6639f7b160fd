//! The router role: the catalogue, placement, membership, ingest and refresh, and the watch that tells clients.
//!
//! Owns the one mutable thing of the system, *path -> commit*, and who is in the cluster. Invariants:
//! - the state store's copy of an entry is the only authority; memory is a copy of it, changed after the store was;
//! - a flip (a new commit, or its removal) is one compare-and-set, after verified acknowledgements by its holders;
//! - readers never see an entry without a snapshot.
//!
//! An ingest goes `admin` -> `ingest` -> (fetcher, nodes) -> `catalog` (the flip) -> `watch` -> clients.

mod admin;
mod catalog;
mod clock;
mod cluster;
mod collect;
mod config;
mod http;
mod ingest;
mod membership;
mod nodes;
mod proxy;
mod reconcile;
mod refresh;
pub mod state;
mod status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_rpc::{ChannelPool, Running};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use catalog::Catalog;
pub use catalog::seed_catalogue;
pub use config::{Config, StateLocation, StaticMember};
use ingest::Ingests;
use membership::Members;
use state::{Shared, StateStore, Tables};
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
    pub ingests: Ingests,
    pub watchers: Watchers,
    pub started_at: i64,
}

/// A router that runs.
pub struct RunningRouter {
    grpc: Running,
    http: http::RunningHttp,
    stop: CancellationToken,
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
    }
}

/// Starts a router on these listeners with the state that `config.state` names.
/// Errors: the state cannot be opened, or is locked by another router.
pub async fn spawn(config: Config, grpc: TcpListener, http: TcpListener) -> Result<RunningRouter> {
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
    let shared = Shared::new(store);
    let tables = Tables::new(&shared);
    let catalog = Arc::new(Catalog::new(&shared));
    let mut followers = tables.followers();
    followers.push(catalog.clone());
    shared.start(followers, stop.clone()).await?;
    let (members, membership) = Members::new(&config, &tables)?;
    let state = Arc::new(RouterState {
        shared,
        tables,
        catalog,
        leading: tokio::sync::watch::channel(true).1,
        members,
        channels: ChannelPool::default(),
        ingests: Ingests::default(),
        watchers: Watchers::default(),
        started_at: clock::now(),
        config,
    });
    tokio::spawn(membership::run(membership, state.clone(), stop.clone()));
    tokio::spawn(membership::recover(state.clone(), stop.clone()));
    tokio::spawn(refresh::run(state.clone(), stop.clone()));
    tokio::spawn(reconcile::run(state.clone(), stop.clone()));
    tokio::spawn(collect::run(state.clone(), stop.clone()));
    ingest::resume(&state);
    tokio::spawn(watch::prepare(state.clone()));
    let http = http::serve(state.clone(), http, stop.child_token()).await?;
    let grpc = monofs_rpc::serve(grpc, http::with_probes(routes(&state, &stop), &state), stop.child_token())?;
    grpc.set_serving(true).await;
    tracing::info!(grpc = %grpc.address(), http = %http.address(), repositories = state.catalog.len(), "router serves");
    Ok(RunningRouter { grpc, http, stop })
}

fn routes(state: &Arc<RouterState>, stop: &CancellationToken) -> Routes {
    let content = v1::content_server::ContentServer::new(proxy::ContentProxy::new(state.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Routes::new(content)
        .add_service(v1::catalog_server::CatalogServer::new(watch::CatalogService::new(state.clone(), stop.clone())))
        .add_service(v1::cluster_server::ClusterServer::new(cluster::ClusterService::new(state.clone())))
        .add_service(v1::admin_server::AdminServer::new(admin::AdminService::new(state.clone())))
}

/// The error for a request that names a path where no repository is.
pub(crate) fn no_repository(path: &str) -> Error {
    Error::not_found(format!("no repository at '{}'; `monofs-admin repos` lists them", path.escape_debug()))
}
