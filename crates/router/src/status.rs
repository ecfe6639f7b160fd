//! What is the case, and what is wrong: one answer for the CLI, the HTTP API and `/health`.
//!
//! Invariant: true state only. What could not be asked is an error beside the member, never a zero.

mod problems;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use monofs_model::view::Role;
use monofs_model::{ErrorKind, Member, MemberState, Result};
use monofs_proto::v1;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_rpc::operations::Metric;
use monofs_rpc::{Context, from_status, within};

use crate::reconcile::jobs::has_ended;
use crate::{RouterState, leader};
pub(crate) use problems::{ago, problems};

/// Free space of a node below which operators are told.
const DISK_FREE_MIN: u64 = 64 << 20;

/// What the router counts.
pub(crate) fn metrics(state: &RouterState) -> Vec<Metric> {
    let view = state.members.view();
    let active = |role| view.members.iter().filter(|m| m.role == role && m.state == MemberState::Active).count() as u64;
    vec![
        Metric::new("monofs_router_repositories", "Entries of the catalogue.", state.catalog.len() as u64),
        Metric::new("monofs_router_catalog_revision", "Revision of the catalogue.", state.catalog.position().revision),
        Metric::new("monofs_router_view_number", "Number of the cluster view.", view.number),
        Metric::new("monofs_router_nodes_active", "Nodes that are active.", active(Role::Node)),
        Metric::new("monofs_router_fetchers_active", "Fetchers that are active.", active(Role::Fetcher)),
        Metric::new("monofs_router_ingests_running", "Ingests and refreshes that run.", state.ingests.len() as u64),
        Metric::new("monofs_router_leading", "1: this router leads.", u64::from(*state.leading.borrow())),
        Metric::new(
            "monofs_router_state_reachable",
            "1: the state store can be reached, so changes can be made.",
            u64::from(*state.shared.reachable().borrow()),
        ),
        Metric::new("monofs_router_clients", "Connected clients.", state.watchers.len() as u64),
    ]
}

/// Everything about the cluster, with every member asked in parallel.
pub(crate) async fn status(state: &Arc<RouterState>) -> v1::StatusResponse {
    let view = state.members.view();
    let members = |role| view.members.iter().filter(move |member| member.role == role);
    let (nodes, fetchers) = futures::join!(
        join_all(members(Role::Node).map(|member| node_status(state, member))),
        join_all(members(Role::Fetcher).map(|member| fetcher_status(state, member))),
    );
    let repositories = state.catalog.summary(0);
    let position = state.catalog.position();
    let full_disks: Vec<String> = nodes.iter().filter_map(full_disk).collect();
    v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        view_number: view.number,
        position: Some(v1::Position { epoch: position.epoch, revision: position.revision }),
        nodes,
        fetchers,
        clients: state.watchers.list(),
        repositories_ingesting: repositories.ingesting as u64,
        repositories_ready: repositories.ready as u64,
        repositories_failed: repositories.failed.count as u64,
        replication_factor: view.replication_factor,
        problems: problems(state).into_iter().map(|problem| problem.line).chain(full_disks).collect(),
        started_at: state.started_at,
        maintenance: state.tables.maintenance.get(""),
        intents: state.tables.intents.list(),
        jobs: state.tables.jobs.list().into_iter().filter(|job| !has_ended(job)).collect(),
        router_id: state.own.router_id.clone(),
        routers: leader::routers(state),
    }
}

/// The line about a node that has (nearly) no disk left.
fn full_disk(node: &v1::NodeStatus) -> Option<String> {
    let stat = node.stat.as_ref().filter(|stat| stat.disk_free_bytes < DISK_FREE_MIN)?;
    Some(format!("{} has {} bytes of disk left: make room or add nodes", stat.node_id, stat.disk_free_bytes))
}

/// What a node says of itself, within `limit`.
pub(crate) async fn node_stat(state: &RouterState, member: &Member, limit: Duration) -> Result<v1::StatResponse> {
    let ask = async {
        let mut client = state.node_client(member)?;
        client.stat(Context::new(limit).request(v1::StatRequest {})).await.map_err(from_status)
    };
    within(limit, "stat", ask).await.map(tonic::Response::into_inner)
}

/// What a fetcher says of itself, within `limit`.
pub(crate) async fn fetcher_stat(
    state: &RouterState,
    member: &Member,
    limit: Duration,
) -> Result<v1::FetcherStatResponse> {
    let ask = async {
        let mut client = FetcherClient::new(state.channels.get(&member.address)?);
        client.stat(Context::new(limit).request(v1::FetcherStatRequest {})).await.map_err(from_status)
    };
    within(limit, "stat", ask).await.map(tonic::Response::into_inner)
}

/// A node and what it says of itself.
pub(crate) async fn node_status(state: &RouterState, member: &Member) -> v1::NodeStatus {
    let (stat, error) = split(node_stat(state, member, state.config.call_timeout).await);
    v1::NodeStatus { member: Some(v1::Member::from(member)), stat, error }
}

/// A fetcher and what it says of itself.
pub(crate) async fn fetcher_status(state: &RouterState, member: &Member) -> v1::FetcherStatus {
    let (stat, error) = split(fetcher_stat(state, member, state.config.call_timeout).await);
    v1::FetcherStatus { member: Some(v1::Member::from(member)), stat, error }
}

fn split<T>(answer: Result<T>) -> (Option<T>, String) {
    match answer {
        Ok(stat) => (Some(stat), String::new()),
        Err(error) => (None, error.to_string()),
    }
}

/// One repository and what each node that holds, or should hold, has of it.
pub(crate) async fn replicas(state: &Arc<RouterState>, entry: &monofs_model::Repository) -> Vec<v1::ReplicaStatus> {
    let view = state.members.view();
    let id = entry.storage_id();
    let asked = view.nodes().map(|node| async {
        let holder = entry.holders.contains(&node.id);
        match state.held(node, &id).await {
            Ok(held) => {
                Some(v1::ReplicaStatus { node_id: node.id.to_string(), holder, held: Some(held), error: String::new() })
            }
            Err(error) if error.kind == ErrorKind::NotHeld && !holder => None,
            Err(error) if !holder && error.kind == ErrorKind::Unavailable => None,
            Err(error) => {
                Some(v1::ReplicaStatus { node_id: node.id.to_string(), holder, held: None, error: error.to_string() })
            }
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}
