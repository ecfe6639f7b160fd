//! Both listeners of a router: gRPC with the probes of a load balancer beside it, and HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use monofs_control::state::StateStore;
use monofs_model::{Error, Result};
use monofs_router::{Config, RouterHandle};
use monofs_rpc::RunningServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::site::Site;
use crate::{app, guide, overview};

/// A router that serves.
pub struct RunningRouter {
    router: RouterHandle,
    grpc: RunningServer,
    http: RunningHttp,
}

impl RunningRouter {
    /// Where it serves gRPC.
    pub fn address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Where it serves HTTP.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address
    }

    /// Ends loops and streams, closes both listeners, each for `limit` at most, and releases this
    /// router's leases.
    pub async fn shutdown(self, limit: Duration) {
        self.router.stop.cancel();
        self.grpc.shutdown(limit).await;
        self.http.shutdown(limit).await;
        self.router.stopped().await;
    }
}

/// Starts a router on these listeners with the state that `config.state` names. Errors: those of
/// [`monofs_router::start`]; a listener cannot be served.
pub async fn spawn(config: Config, grpc: TcpListener, http: TcpListener) -> Result<RunningRouter> {
    let router = monofs_router::start(config, address(&grpc)?, address(&http)?).await?;
    serve(router, grpc, http).await
}

/// [`spawn`] with a state store made by the caller.
pub async fn spawn_with(
    config: Config,
    store: Arc<dyn StateStore>,
    grpc: TcpListener,
    http: TcpListener,
) -> Result<RunningRouter> {
    let grpc_address = address(&grpc)?;
    let http_address = address(&http)?;
    let router = monofs_router::start_with(config, store, grpc_address, http_address).await?;
    serve(router, grpc, http).await
}

/// Serves `router` on both listeners. Errors: a listener cannot be served.
pub async fn serve(
    router: RouterHandle,
    grpc: TcpListener,
    http: TcpListener,
) -> Result<RunningRouter> {
    let site = Site::new(router.parts.clone());
    let stop = &router.stop;
    let http = serve_http(site.clone(), http, stop.child_token())?;
    let services = with_probes(router.routes.clone(), &site);
    let requests = router.parts.work.requests.clone();
    let grpc = monofs_rpc::server::serve_counted(grpc, services, requests, stop.child_token())?;
    grpc.announce_ready().await;
    let control = &router.parts.control;
    tracing::info!(
        router = control.own.router_id,
        grpc = %grpc.address(),
        http = %http.address,
        repositories = control.catalog.len(),
        "router serves"
    );
    Ok(RunningRouter { router, grpc, http })
}

/// An HTTP server that runs.
struct RunningHttp {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningHttp {
    /// Stops accepting, lets running requests end for `limit`, then cuts what is left.
    async fn shutdown(mut self, limit: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Serves HTTP on `listener` until `stop`.
fn serve_http(site: Site, listener: TcpListener, stop: CancellationToken) -> Result<RunningHttp> {
    let address = address(&listener)?;
    tokio::spawn(overview::announce(site.clone()));
    let app = app(site);
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, app)
            .with_graceful_shutdown(async move { stopped.cancelled().await });
        if let Err(error) = server.await {
            tracing::error!(%address, %error, "the HTTP server ended");
        }
    });
    Ok(RunningHttp {
        address,
        stop,
        task,
    })
}

/// `/health` and `/ready` on the gRPC port too: a load balancer that balances a port usually asks
/// that port how it is.
fn with_probes(mut grpc: Routes, site: &Site) -> Routes {
    let probes = Router::new()
        .route("/health", get(guide::health))
        .route("/ready", get(guide::ready))
        .with_state(site.clone());
    let router = grpc.axum_router_mut();
    *router = std::mem::take(router).merge(probes);
    grpc
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener
        .local_addr()
        .map_err(|e| Error::internal(format!("address of a listener: {e}")))
}
