//! Which node holds how much, and what the loss of one would do.

use axum::extract::State;
use monofs_api::placement::PlacementDocument;
use monofs_api::requests::WantedPlacement;

use crate::error::Answer;
use crate::extract::{Document, Query};
use crate::holdings;
use crate::routes::Routes;
use crate::site::Site;
use monofs_members::membership;

pub(super) fn routes() -> Routes {
    Routes::default().get("/api/v1/placement", placement)
}

/// Which node holds how much
///
/// With `without`, also what the loss of that node would do.
#[utoipa::path(get, path = "/api/v1/placement", tag = "operations", params(WantedPlacement),
    responses((status = 200, body = PlacementDocument)))]
pub(super) async fn placement(
    State(site): State<Site>,
    Query(wanted): Query<WantedPlacement>,
) -> Answer<Document<PlacementDocument>> {
    let without = match &wanted.without {
        Some(id) => Some(
            membership::node(&site.router.fleet.members.view(), id)?
                .id
                .clone(),
        ),
        None => None,
    };
    Ok(Document(holdings::survey(&site, without).await?))
}
