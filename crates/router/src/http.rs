//! The router's HTTP side: the deployment guide's paths, the API below `/api/v1/`, and the page.
//! One error shape.
//!
//! ```text
//! request -> slashes in paths of repositories -> guard -> routes: guide, api, page -> the functions behind the Admin service
//! ```
//!
//! Invariants: no endpoint reads the router host's own files; whatever changes something goes
//! through the guard, and does what the gRPC `Admin` service does; every answer has the security
//! headers.

mod api;
pub(crate) mod error;
mod extract;
mod guard;
mod guide;
mod measure;
pub(crate) mod overview;
mod page;
mod routes;
pub(crate) mod shapes;
pub(crate) mod sse;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use monofs_model::{DisplayPath, Error, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service;

use crate::RouterState;
use error::HttpError;
pub(crate) use measure::HttpRequests;
use routes::Routes;

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

/// `/health` and `/ready` on the gRPC port too: a load balancer that balances a port usually asks
/// that port how it is.
pub(crate) fn with_probes(mut grpc: service::Routes, state: &Arc<RouterState>) -> service::Routes {
    let probes = Router::new()
        .route("/health", get(guide::health))
        .route("/ready", get(guide::ready))
        .with_state(state.clone());
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
    let address = listener
        .local_addr()
        .map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
    tokio::spawn(overview::announce(state.clone()));
    let app = app(state);
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

/// What is described by the OpenAPI document.
fn routes() -> Routes {
    guide::routes().merge(api::routes())
}

/// Everything that is served.
fn app(state: Arc<RouterState>) -> Router {
    let routed = routes()
        .into_router()
        .merge(page::routes(&state))
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(guard::secure))
        .layer(middleware::from_fn_with_state(
            state.clone(),
            measure::measure,
        ))
        .with_state(state.clone());
    // Around the router, because it changes what is routed.
    Router::new()
        .fallback_service(routed)
        .layer(middleware::map_request_with_state(state, encode_slashes))
}

/// Makes one component of the path of a repository whose slashes are not encoded.
async fn encode_slashes(State(state): State<Arc<RouterState>>, mut request: Request) -> Request {
    const REPOS: &str = "/api/v1/repos/";
    let is_repository =
        |path: &str| DisplayPath::new(path).is_ok_and(|path| state.catalog.get(&path).is_some());
    let tail = request
        .uri()
        .path()
        .strip_prefix(REPOS)
        .and_then(|tail| api::split_tail(tail, is_repository));
    let Some(api::Tail { path, action }) = tail else {
        return request;
    };
    let action = action.map_or(String::new(), |action| format!("/{action}"));
    let query = request
        .uri()
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let mut parts = request.uri().clone().into_parts();
    if let Ok(encoded) = uri::PathAndQuery::try_from(format!("{REPOS}{path}{action}{query}")) {
        parts.path_and_query = Some(encoded);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Any other path, answered to whoever asks: a person or a program.
async fn nothing_there(
    State(state): State<Arc<RouterState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if page::is_for_people(&uri, &headers) {
        return page::not_found(&state, &uri);
    }
    let message = format!("nothing at {}", uri.path().escape_debug());
    HttpError::of_http(
        StatusCode::NOT_FOUND,
        message,
        "/api/v1/openapi.json lists what there is",
    )
    .into_response()
}

/// A path that is there, asked otherwise than it can be.
async fn wrong_method(request: Request) -> Response {
    let message = format!(
        "{} cannot be asked of {}",
        request.method(),
        request.uri().path().escape_debug()
    );
    let hint = "the header Allow says what can; /api/v1/openapi.json describes it";
    HttpError::of_http(StatusCode::METHOD_NOT_ALLOWED, message, hint).into_response()
}
