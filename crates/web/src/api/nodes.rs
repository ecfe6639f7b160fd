//! Nodes: the list, and one in full.

use std::sync::Arc;

use axum::extract::State;
use futures::StreamExt;
use monofs_api::members::{
    MemberStateChange, NodeDocument, NodeInFull, NodeList, Probe, RouterKnowledge,
};
use monofs_api::repos::RepositoryDocument;
use monofs_api::{ListPaging, Time};
use monofs_model::{Member, NodeId};

use crate::error::Answer;
use crate::extract::{Document, Name, Query};
use crate::routes::Routes;
use monofs_control::clock;
use monofs_members::membership;
use monofs_router::parts::Parts;
use monofs_router::status;

/// Nodes asked at the same time.
const ASKED_MAX: usize = 64;

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/nodes", list)
        .get("/api/v1/nodes/{id}", one)
}

/// Nodes
///
/// Each node of the answer is asked how it is.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "members", params(ListPaging), responses((status = 200, body = NodeList)))]
pub(super) async fn list(
    State(state): State<Arc<Parts>>,
    Query(paging): Query<ListPaging>,
) -> Answer<Document<NodeList>> {
    let view = state.fleet.members.view();
    let (members, page) = paging.cut(view.nodes().cloned().collect())?;
    let ask = |member: Member| {
        let state = state.clone();
        async move { node(&state, &member).await }
    };
    let nodes = futures::stream::iter(members)
        .map(ask)
        .buffered(ASKED_MAX)
        .collect()
        .await;
    Ok(Document(NodeList { nodes, page }))
}

/// One node in full
///
/// `offset` and `limit` are of its repositories.
#[utoipa::path(get, path = "/api/v1/nodes/{id}", tag = "members",
    params(("id" = String, Path, description = "The id of the node"), ListPaging),
    responses((status = 200, body = NodeInFull)))]
pub(super) async fn one(
    State(state): State<Arc<Parts>>,
    Name(id): Name,
    Query(paging): Query<ListPaging>,
) -> Answer<Document<NodeInFull>> {
    let view = state.fleet.members.view();
    let member = membership::node(&view, &id)?;
    let (held, page) = paging.cut(state.control.catalog.held_by(&member.id))?;
    let heard = state.fleet.members.heard(&member.id);
    let states = state.fleet.members.states(&member.id).into_iter().rev();
    Ok(Document(NodeInFull {
        node: node(&state, member).await,
        probe: Probe {
            heard_seconds_ago: heard.ago.map(|ago| ago.as_secs_f64()),
            last_error: heard.failure,
        },
        states: states
            .map(|change| MemberStateChange {
                state: change.state.into(),
                since: Time::new(change.since),
                why: change.why,
            })
            .collect(),
        repositories: held
            .iter()
            .map(|entry| RepositoryDocument::from(&**entry))
            .collect(),
        page,
    }))
}

/// A node, asked how it is.
pub(crate) async fn node(state: &Parts, member: &Member) -> NodeDocument {
    let known = RouterKnowledge {
        since: since(state, &member.id),
        intent: state.control.tables.intents.get(member.id.as_str()),
        repositories_recorded: Some(state.control.catalog.count_held_by(&member.id)),
        audit: state.control.tables.audits.get(member.id.as_str()),
    };
    NodeDocument::new(&status::node_status(&state.fleet, member).await, &known)
}

/// Since when a member is in its state.
pub(crate) fn since(state: &Parts, id: &NodeId) -> Option<Time> {
    let held_for = state.fleet.members.standing_for(id)?;
    let held_for = i64::try_from(held_for.as_secs()).unwrap_or(i64::MAX);
    Some(Time::new(clock::now() - held_for))
}
