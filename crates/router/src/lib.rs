//! The router role: the catalogue, placement, membership, ingest and refresh, and the watch that
//! tells clients.
//!
//! Owns the one mutable thing of the system, *path -> commit*, and who is in the cluster.
//! Invariants:
//! - the state store's copy of an entry is the only authority; memory is a copy of it, changed
//!   after the store was;
//! - of what must be done once in a cluster, the router that leads does it ([`monofs_control::lead`]);
//! - a flip (a new commit, or its removal) is one compare-and-set, after verified acknowledgements
//!   by its holders;
//! - readers never see an entry without a snapshot.
//!
//! An ingest goes `admin` -> `ingest` -> (fetcher, nodes) -> `catalog` (the flip) -> `watch` ->
//! clients.

mod admin;
pub mod browse;
mod cluster;
mod collect;
mod config;
#[cfg(test)]
mod fixture;
pub mod history;
mod in_use;
pub mod ingest;
pub mod kept;
mod nesting;
pub mod parts;
mod proxy;
pub mod readers;
pub mod reconcile;
mod recovery;
mod refresh;
pub mod replication;
pub mod status;
pub mod verbs;
pub mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use monofs_control::lead::while_leading;
use monofs_control::state::{self, StateStore};
use monofs_control::{Control, StateLocation, clock};
use monofs_members::fleet::{Fleet, OwnCatalog};
use monofs_members::membership::members::Members;
use monofs_members::membership::{self, ProbePace};
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_rpc::server::announced;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;
use parts::{Parts, Work};

/// A router whose loops run, and whose gRPC services wait to be served.
pub struct RouterHandle {
    pub parts: Arc<Parts>,
    /// The gRPC services, without probes.
    pub routes: Routes,
    /// Cancelled when the router stops.
    pub stop: CancellationToken,
    /// Tasks that release this router's leases in the state store when it stops.
    releases: Vec<JoinHandle<()>>,
}

impl RouterHandle {
    /// Stops the loops and releases this router's leases; returns when that is done, or its deadline
    /// is over. The listeners are to be closed before.
    pub async fn stopped(self) {
        self.stop.cancel();
        futures::future::join_all(self.releases).await;
    }
}

/// Starts a router with the state that `config.state` names; `grpc` and `http`: where its services
/// will be reached.
/// Errors: the state cannot be opened, or is locked by another router; several routers without a
/// state that they share.
pub async fn start(config: Config, grpc: SocketAddr, http: SocketAddr) -> Result<RouterHandle> {
    if !config.peer_routers.is_empty() && matches!(config.state, StateLocation::Embedded(_)) {
        return Err(Error::invalid(
            "--peer-routers: several routers need a state that they share; start all of them with \
             --state etcd://HOST:PORT,...",
        ));
    }
    let store = state::open(&config.state).await?;
    start_with(config, store, grpc, http).await
}

/// [`start`] with a state store made by the caller.
pub async fn start_with(
    config: Config,
    store: Arc<dyn StateStore>,
    grpc: SocketAddr,
    http: SocketAddr,
) -> Result<RouterHandle> {
    // The control state is followed first: everything else starts from what it says.
    for notice in &config.notices {
        tracing::warn!("{notice}");
    }
    let stop = CancellationToken::new();
    let own = own_status(&config, grpc, http);
    let control = Control::start(store, own, config.lease, &stop).await?;

    // The members come from the tables of the control state, and are probed from here on.
    let (members, membership) = Members::new(&config.member_settings(), &control.tables)?;
    let catalog = OwnCatalog {
        shared: control.shared.clone(),
        router: control.own.address.clone(),
    };
    let fleet = Arc::new(Fleet::new(
        members,
        catalog,
        config.call_timeout,
        config.progress_timeout,
    ));
    let pace = ProbePace {
        interval: config.health_interval,
        threshold: config.unhealthy_threshold,
    };
    tokio::spawn(membership::run(
        membership,
        fleet.clone(),
        pace,
        stop.clone(),
    ));

    // The tasks of this router begin when all parts are in place, since they share them.
    let work = Work::new(&config, stop.clone());
    let parts = Arc::new(Parts {
        config,
        control,
        fleet,
        work,
    });
    let releases = parts.control.take_part(&stop);
    start_leaders_work(&parts);
    tokio::spawn(watch::prepare(parts.clone()));
    tokio::spawn(history::run(parts.clone(), stop.clone()));
    tokio::spawn(replication::run(parts.clone(), stop.clone()));
    tokio::spawn(in_use::run(parts.clone(), stop.clone()));
    let routes = routes(&parts);
    Ok(RouterHandle {
        parts,
        routes,
        stop,
        releases,
    })
}

/// Spawns the loops of which there must be one in a cluster: each runs while this router leads.
fn start_leaders_work(parts: &Arc<Parts>) {
    spawn_leading(parts, recovery::run);
    spawn_leading(parts, refresh::run);
    spawn_leading(parts, reconcile::run);
    spawn_leading(parts, collect::run);
    spawn_leading(parts, ingest::resume);
    spawn_leading(parts, nesting::run);
}

/// Spawns `work`, which runs while this router leads.
fn spawn_leading<W: Future<Output = ()> + Send + 'static>(
    parts: &Arc<Parts>,
    work: impl Fn(Arc<Parts>, CancellationToken) -> W + Send + Sync + 'static,
) {
    let leading = parts.control.leading.clone();
    let stop = parts.work.stop.clone();
    let parts = parts.clone();
    tokio::spawn(async move {
        while_leading(leading, stop, |term| work(parts.clone(), term)).await;
    });
}

/// How the other routers and operators see this one.
fn own_status(config: &Config, grpc: SocketAddr, http: SocketAddr) -> v1::RouterStatus {
    let address = if config.advertise.is_empty() {
        announced(grpc)
    } else {
        config.advertise.clone()
    };
    let router_id = if config.router_id.is_empty() {
        address.clone()
    } else {
        config.router_id.clone()
    };
    v1::RouterStatus {
        router_id,
        address,
        http_address: announced(http),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: clock::now(),
        leader: false,
        compares_directories: true,
        nests_repositories: true,
    }
}

fn routes(parts: &Arc<Parts>) -> Routes {
    let content = v1::content_server::ContentServer::new(proxy::ContentProxy::new(parts.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = v1::admin_server::AdminServer::new(admin::AdminService::new(parts.clone()))
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let stop = parts.work.stop.clone();
    Routes::new(content)
        .add_service(v1::catalog_server::CatalogServer::new(
            watch::CatalogService::new(parts.clone(), stop),
        ))
        .add_service(v1::cluster_server::ClusterServer::new(
            cluster::ClusterService::new(parts.clone()),
        ))
        .add_service(admin)
}
