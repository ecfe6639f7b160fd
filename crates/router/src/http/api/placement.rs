//! Which node holds how much, and what the loss of one would do.

use std::sync::Arc;

use axum::extract::State;

use crate::http::error::Answer;
use crate::http::extract::{Document, Query};
use crate::http::routes::Routes;
use crate::http::shapes::placement::{Placement, WantedPlacement};
use crate::{RouterState, holdings, membership};

pub(super) fn routes() -> Routes {
    Routes::default().get("/api/v1/placement", placement)
}

/// Which node holds how much
///
/// With `without`, also what the loss of that node would do.
#[utoipa::path(get, path = "/api/v1/placement", tag = "operations", params(WantedPlacement),
    responses((status = 200, body = Placement)))]
pub(super) async fn placement(
    State(state): State<Arc<RouterState>>,
    Query(wanted): Query<WantedPlacement>,
) -> Answer<Document<Placement>> {
    let without = match &wanted.without {
        Some(id) => Some(membership::node(&state.members.view(), id)?.id.clone()),
        None => None,
    };
    Ok(Document(holdings::survey(&state, without).await?))
}
