//! The paths that the deployment guide gives: `/health`, `/ready`, `/metrics`, `/api/status`,
//! `/api/fetchers`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use monofs_api::Health;
use monofs_api::guide::{FetchersDocument, HealthDocument, ReadyDocument, StatusDocument};
use monofs_rpc::operations::exposition;

use super::extract::Document;
use super::overview as one_screen;
use super::routes::Routes;
use crate::site::Site;
use monofs_router::parts::Parts;
use monofs_router::status;

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/health", health)
        .get("/ready", ready)
        .get("/metrics", metrics)
        .get("/api/status", status)
        .get("/api/fetchers", fetchers)
}

/// The same below `/api/v1/`, where tools look for it; the OpenAPI document has the first names.
pub(super) fn aliases() -> Router<Site> {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/metrics", get(metrics))
}

/// Whether the router can do its work
///
/// Without its state store it answers reads, so it is degraded.
#[utoipa::path(get, path = "/health", tag = "overview", responses(
    (status = 200, description = "It can", body = HealthDocument),
    (status = 503, description = "It cannot", body = HealthDocument)))]
pub(super) async fn health(State(state): State<Arc<Parts>>) -> impl IntoResponse {
    let (health, findings) = one_screen::health(&state);
    let code = if health == Health::Unhealthy {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (code, Json(HealthDocument::new(health, findings)))
}

/// Whether requests are answered
///
/// The catalogue is loaded before the listener is served.
#[utoipa::path(get, path = "/ready", tag = "overview", responses((status = 200, body = ReadyDocument)))]
pub(super) async fn ready(State(state): State<Arc<Parts>>) -> impl IntoResponse {
    Json(ReadyDocument {
        status: "ready".into(),
        repositories: state.control.catalog.len(),
    })
}

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "overview",
    responses((status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(site): State<Site>) -> impl IntoResponse {
    exposition("router", move |out| {
        status::metrics(&site.router, out);
        site.requests.samples(out);
    })
    .await
}

/// Everything about the cluster, with every member asked
#[utoipa::path(get, path = "/api/status", tag = "overview", responses((status = 200, body = StatusDocument)))]
pub(super) async fn status(State(state): State<Arc<Parts>>) -> Document<StatusDocument> {
    Document((&status::status(&state).await).into())
}

/// The fetchers alone
#[utoipa::path(get, path = "/api/fetchers", tag = "overview", responses((status = 200, body = FetchersDocument)))]
pub(super) async fn fetchers(State(state): State<Arc<Parts>>) -> Document<FetchersDocument> {
    let view = state.fleet.members.view();
    let asked = join_all(
        view.fetchers()
            .map(|member| status::fetcher_status(&state.fleet, member)),
    )
    .await;
    Document(FetchersDocument {
        fetchers: asked.iter().map(Into::into).collect(),
    })
}
