//! The router's HTTP side: `/health`, `/ready`, `/metrics`, `/api/status`, `/api/fetchers`. JSON, one error shape.
//!
//! Invariant: no endpoint reads the router host's own files.

mod api;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use monofs_model::{Error, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::RouterState;

/// An HTTP server that runs.
pub(crate) struct RunningHttp {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl RunningHttp {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets running requests end for `limit`, then cuts what is left.
    pub async fn shutdown(mut self, limit: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// `/health` and `/ready` on the gRPC port too: a load balancer that balances a port usually asks that port how it is.
pub(crate) fn with_probes(mut grpc: Routes, state: &Arc<RouterState>) -> Routes {
    let probes =
        Router::new().route("/health", get(api::health)).route("/ready", get(api::ready)).with_state(state.clone());
    let router = grpc.axum_router_mut();
    *router = std::mem::take(router).merge(probes);
    grpc
}

/// Serves HTTP on `listener` until `stop`.
pub(crate) async fn serve(
    state: Arc<RouterState>,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<RunningHttp> {
    let address = listener.local_addr().map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
    let app = Router::new()
        .route("/health", get(api::health))
        .route("/ready", get(api::ready))
        .route("/metrics", get(api::metrics))
        .route("/api/status", get(api::status))
        .route("/api/fetchers", get(api::fetchers))
        .fallback(not_found)
        .with_state(state.clone())
        .merge(page::routes(&state));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let server = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await });
        if let Err(error) = server.await {
            tracing::error!(%address, %error, "the HTTP server ended");
        }
    });
    Ok(RunningHttp { address, stop, task })
}

/// Any other address, answered to whoever asks: a person or a program.
async fn not_found(State(state): State<Arc<RouterState>>, uri: Uri, headers: HeaderMap) -> Response {
    if page::is_for_people(&uri, &headers) { page::not_found(&state, &uri) } else { api::not_found(uri).await.into_response() }
}
