//! The endpoints, each one a view of [`crate::status`].

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use futures::future::join_all;
use monofs_model::MemberState;
use monofs_proto::v1;
use monofs_rpc::operations::exposition;
use serde_json::{Value, json};

use crate::{RouterState, status};

/// 200 when the router can do its work, else 503; the reasons in both cases. Without its state store it answers reads, so it
/// is degraded.
pub(super) async fn health(State(state): State<Arc<RouterState>>) -> impl IntoResponse {
    let problems = status::problems(&state);
    let healthy = !problems.iter().any(|problem| problem.critical);
    let word = match (healthy, problems.is_empty()) {
        (true, true) => "healthy",
        (true, false) => "degraded",
        (false, _) => "unhealthy",
    };
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let reasons: Vec<String> = problems.into_iter().map(|problem| problem.line).collect();
    (code, Json(json!({ "status": word, "reasons": reasons })))
}

/// 200 as soon as requests are answered: the catalogue is loaded before the listener is served.
pub(super) async fn ready(State(state): State<Arc<RouterState>>) -> impl IntoResponse {
    Json(json!({ "status": "ready", "repositories": state.catalog.len() }))
}

/// Counters and gauges for Prometheus.
pub(super) async fn metrics(State(state): State<Arc<RouterState>>) -> impl IntoResponse {
    exposition("router", move |out| status::metrics(&state, out)).await
}

/// The whole status.
pub(super) async fn status(State(state): State<Arc<RouterState>>) -> Json<Value> {
    let status = status::status(&state).await;
    let position = status.position.unwrap_or_default();
    Json(json!({
        "version": status.version,
        "started_at": status.started_at,
        "router": status.router_id,
        "routers": status.routers.iter().map(router).collect::<Vec<_>>(),
        "view": status.view_number,
        "epoch": position.epoch,
        "revision": position.revision,
        "replication_factor": status.replication_factor,
        "repositories": {
            "ready": status.repositories_ready,
            "ingesting": status.repositories_ingesting,
            "failed": status.repositories_failed,
        },
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "fetchers": status.fetchers.iter().map(fetcher).collect::<Vec<_>>(),
        "clients": status.clients.iter().map(client).collect::<Vec<_>>(),
        "problems": status.problems,
    }))
}

/// The fetchers alone.
pub(super) async fn fetchers(State(state): State<Arc<RouterState>>) -> Json<Value> {
    let view = state.members.view();
    let asked = join_all(view.fetchers().map(|member| status::fetcher_status(&state, member))).await;
    Json(json!({ "fetchers": asked.iter().map(fetcher).collect::<Vec<_>>() }))
}

/// Any other path.
pub(super) async fn not_found(uri: Uri) -> impl IntoResponse {
    let error = json!({
        "kind": "not_found",
        "message": format!("nothing at {}", uri.path()),
        "hint": "try /health, /ready, /api/status or /api/fetchers",
    });
    (StatusCode::NOT_FOUND, Json(json!({ "error": error })))
}

fn node(status: &v1::NodeStatus) -> Value {
    let mut value = member(status.member.as_ref(), &status.error);
    if let Some(stat) = &status.stat {
        value["repositories"] = json!(stat.repositories);
        value["disk_used_bytes"] = json!(stat.disk_used_bytes);
        value["disk_free_bytes"] = json!(stat.disk_free_bytes);
        value["open_stores"] = json!(stat.open_stores);
        value["hydrations_running"] = json!(stat.hydrations_running);
        value["hydrations_queued"] = json!(stat.hydrations_queued);
        value["trees_served"] = json!(stat.trees_served);
        value["chunks_served"] = json!(stat.chunks_served);
        value["bytes_served"] = json!(stat.bytes_served);
    }
    value
}

fn fetcher(status: &v1::FetcherStatus) -> Value {
    let mut value = member(status.member.as_ref(), &status.error);
    if let Some(stat) = &status.stat {
        value["cache_bytes"] = json!(stat.cache_bytes);
        value["cache_bytes_max"] = json!(stat.cache_bytes_max);
        value["cached_repositories"] = json!(stat.cached_repositories);
        value["cache_hits"] = json!(stat.cache_hits);
        value["cache_misses"] = json!(stat.cache_misses);
        value["fetches_running"] = json!(stat.fetches_running);
        value["fetches_done"] = json!(stat.fetches_done);
        value["fetches_failed"] = json!(stat.fetches_failed);
        value["bytes_fetched"] = json!(stat.bytes_fetched);
    }
    value
}

fn router(status: &v1::RouterStatus) -> Value {
    json!({
        "id": status.router_id,
        "address": status.address,
        "http_address": status.http_address,
        "version": status.version,
        "started_at": status.started_at,
        "leader": status.leader,
    })
}

fn client(status: &v1::ClientStatus) -> Value {
    json!({
        "id": status.client_id,
        "version": status.version,
        "mount": status.mount,
        "acked_revision": status.acked_revision,
        "connected_at": status.connected_at,
    })
}

fn member(member: Option<&v1::Member>, error: &str) -> Value {
    let Some(member) = member else { return json!({ "error": error }) };
    let state = MemberState::try_from(member.state()).map_or("unknown", MemberState::as_str);
    let error = if error.is_empty() { Value::Null } else { json!(error) };
    json!({
        "id": member.id,
        "address": member.address,
        "external_address": member.external_address,
        "state": state,
        "zone": member.zone,
        "weight": member.weight,
        "version": member.version,
        "capacity_bytes": member.capacity_bytes,
        "error": error,
    })
}
