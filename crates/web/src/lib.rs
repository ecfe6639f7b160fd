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
mod holdings;
mod measure;
pub(crate) mod overview;
mod page;
mod requests;
mod routes;
mod server;
mod site;
pub(crate) mod sse;
mod tree;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, uri};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use monofs_model::DisplayPath;

use error::HttpError;
use monofs_router::parts::Parts;
use routes::Routes;
pub use server::{RunningRouter, serve, spawn, spawn_with};
use site::Site;

/// What is described by the OpenAPI document.
fn routes() -> Routes {
    guide::routes().merge(api::routes())
}

/// Everything that is served.
fn app(site: Site) -> Router {
    let routed = routes()
        .into_router()
        .merge(guide::aliases())
        .merge(page::routes(&site))
        .fallback(nothing_there)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(guard::secure))
        .layer(middleware::from_fn_with_state(
            site.clone(),
            measure::measure,
        ))
        .with_state(site.clone());
    // Around the router, because it changes what is routed.
    Router::new()
        .fallback_service(routed)
        .layer(middleware::map_request_with_state(
            site.router.clone(),
            encode_slashes,
        ))
}

/// Makes one component of the path of a repository whose slashes are not encoded.
async fn encode_slashes(State(state): State<Arc<Parts>>, mut request: Request) -> Request {
    const REPOS: &str = "/api/v1/repos/";
    let is_repository = |path: &str| {
        DisplayPath::new(path).is_ok_and(|path| state.control.catalog.get(&path).is_some())
    };
    let tail = request
        .uri()
        .path()
        .strip_prefix(REPOS)
        .and_then(|tail| api::split_tail(tail, is_repository));
    let Some(api::RepositoryTail { path, action }) = tail else {
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
async fn nothing_there(State(state): State<Arc<Parts>>, uri: Uri, headers: HeaderMap) -> Response {
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
