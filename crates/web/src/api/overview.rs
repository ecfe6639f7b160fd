//! The state of the cluster on one screen, live, and what it did in the last day.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use monofs_api::Time;
use monofs_api::overview::{HistoryDocument, Overview};
use monofs_api::requests::{WantedHistory, WantedRange};
use monofs_model::{Error, NodeId};

use crate::error::Answer;
use crate::extract::{Document, Query};
use crate::overview as one_screen;
use crate::routes::Routes;
use crate::site::Site;
use crate::sse;
use monofs_router::history::{self, HistoryTable};
use monofs_router::parts::Parts;

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/overview", overview)
        .get("/api/v1/events", events)
        .get("/api/v1/history", history)
}

/// The state of the cluster on one screen
#[utoipa::path(get, path = "/api/v1/overview", tag = "overview", responses((status = 200, body = Overview)))]
pub(super) async fn overview(State(state): State<Arc<Parts>>) -> Document<Overview> {
    Document(one_screen::overview(&state))
}

/// The same, live
///
/// Events `overview` with an Overview: now, every two seconds while something changes, and at least
/// every ten.
#[utoipa::path(get, path = "/api/v1/events", tag = "overview",
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(State(site): State<Site>) -> Answer<Response> {
    sse::answer(&site, one_screen::events(&site))
}

/// What the cluster did
#[utoipa::path(get, path = "/api/v1/history", tag = "overview", params(WantedHistory),
    responses((status = 200, body = HistoryDocument)))]
pub(super) async fn history(
    State(state): State<Arc<Parts>>,
    Query(wanted): Query<WantedHistory>,
) -> Answer<Document<HistoryDocument>> {
    let range = match wanted.range {
        WantedRange::Hour => history::HistoryRange::Hour,
        WantedRange::Day => history::HistoryRange::Day,
    };
    let Some(node) = wanted.node else {
        return Ok(Document(series(state.work.history.cluster(range))));
    };
    let table = state.work.history.node(&NodeId::new(&node)?, range);
    let none = || {
        Error::not_found(format!(
            "there is no history of a node '{node}'; /api/v1/nodes lists the nodes"
        ))
    };
    Ok(Document(series(table.ok_or_else(none)?)))
}

/// A history as its document.
fn series(table: HistoryTable) -> HistoryDocument {
    let series = table.series.into_iter();
    HistoryDocument {
        step_seconds: table.step_seconds,
        at: table.at.into_iter().map(Time::new).collect(),
        series: series
            .map(|(name, values)| (name.to_owned(), values))
            .collect(),
    }
}
