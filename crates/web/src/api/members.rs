//! Fetchers and clients, and forgetting a member that does not come back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt;
use monofs_api::ListPaging;
use monofs_api::clients::{ClientDocument, ClientList, MissingRouter};
use monofs_api::members::{FetcherDocument, FetcherList};
use monofs_api::requests::WantedClients;
use monofs_model::Member;
use monofs_proto::v1;

use super::nodes::since;
use crate::error::Answer;
use crate::extract::{Document, Name, Query, RequestActor};
use crate::routes::Routes;
use monofs_router::parts::Parts;
use monofs_router::status;
use monofs_router::verbs::removal;

/// Fetchers asked at the same time.
const ASKED_MAX: usize = 64;

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/fetchers", fetchers)
        .get("/api/v1/clients", clients)
        .delete("/api/v1/members/{id}", remove)
}

/// Fetchers
///
/// Each fetcher of the answer is asked how it is.
#[utoipa::path(get, path = "/api/v1/fetchers", tag = "members", params(ListPaging),
    responses((status = 200, body = FetcherList)))]
pub(super) async fn fetchers(
    State(state): State<Arc<Parts>>,
    Query(paging): Query<ListPaging>,
) -> Answer<Document<FetcherList>> {
    let view = state.fleet.members.view();
    let (members, page) = paging.cut(view.fetchers().cloned().collect())?;
    let ask = |member: Member| {
        let state = state.clone();
        async move {
            let told = status::fetcher_status(&state.fleet, &member).await;
            FetcherDocument::new(&told, since(&state, &member.id))
        }
    };
    let fetchers = futures::stream::iter(members)
        .map(ask)
        .buffered(ASKED_MAX)
        .collect()
        .await;
    Ok(Document(FetcherList { fetchers, page }))
}

/// Clients
///
/// The mounts that are connected, of all routers.
#[utoipa::path(get, path = "/api/v1/clients", tag = "members", params(WantedClients),
    responses((status = 200, body = ClientList)))]
pub(super) async fn clients(
    State(state): State<Arc<Parts>>,
    Query(wanted): Query<WantedClients>,
) -> Answer<Document<ClientList>> {
    let paging = ListPaging {
        offset: wanted.offset,
        limit: wanted.limit,
    };
    paging.checked()?;
    let status::Clients {
        mut clients,
        missing,
        ..
    } = status::clients(&state).await;
    let has = |client: &v1::ClientStatus| {
        [&client.client_id, &client.mount, &client.router_id]
            .iter()
            .any(|text| text.contains(&wanted.q))
    };
    clients.retain(has);
    clients.sort_by(|a, b| (&a.client_id, a.connected_at).cmp(&(&b.client_id, b.connected_at)));
    let (clients, page) = paging.cut(clients)?;
    let revision = state.control.catalog.position().revision;
    let missing = missing
        .into_iter()
        .map(|(router, error)| MissingRouter::new(router, error.to_string()));
    Ok(Document(ClientList {
        clients: clients
            .iter()
            .map(|client| ClientDocument::new(client, revision))
            .collect(),
        page,
        missing: missing.collect(),
    }))
}

/// Forget a member
///
/// A node or fetcher that is down and does not come back.
#[utoipa::path(delete, path = "/api/v1/members/{id}", tag = "members",
    params(("id" = String, Path, description = "The id of the node or fetcher")),
    responses((status = 204, description = "It is forgotten")))]
pub(super) async fn remove(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(id): Name,
) -> Answer<StatusCode> {
    let request = v1::RemoveMemberRequest { member_id: id };
    removal::remove_member(&actor, &state, request).await?;
    Ok(StatusCode::NO_CONTENT)
}
