//! What is the case, and what is wrong: one answer for the CLI, the HTTP API and `/health`.
//!
//! Invariant: true state only. What could not be asked is an error beside the member, never a zero.

mod metrics;
mod problems;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::view::Role;
use monofs_model::{ErrorKind, Member, Result};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::fetcher_client::FetcherClient;
use monofs_rpc::{Context, from_status, within};

use crate::kept::KeptList;
use crate::parts::Parts;
use crate::parts::Work;
use crate::reconcile::jobs::has_ended;
pub use metrics::metrics;
use monofs_control::Control;
use monofs_members::fleet::Fleet;
use monofs_members::hosts;
use problems::is_about_host;
pub use problems::{ago, paused_host, problems};

/// Free space of a node below which operators are told.
const DISK_FREE_MIN: u64 = 64 << 20;

/// Everything about the cluster, with every member and every other router asked in parallel.
pub async fn status(state: &Arc<Parts>) -> v1::StatusResponse {
    let view = state.fleet.members.view();
    let members = |role| {
        view.members
            .iter()
            .filter(move |member| member.role == role)
    };
    let (nodes, fetchers, clients) = futures::join!(
        join_all(members(Role::Node).map(|member| node_status(&state.fleet, member))),
        join_all(members(Role::Fetcher).map(|member| fetcher_status(&state.fleet, member))),
        clients(state),
    );
    let full_disks: Vec<String> = nodes
        .iter()
        .filter_map(|node| node.stat.as_ref())
        .filter_map(full_disk)
        .collect();
    let silent = clients
        .missing
        .iter()
        .map(|(router, error)| format!("router {router} does not answer: {error}"));
    let mut status = own(state);
    // What fetchers of before this version do not say is empty.
    let told = fetchers.iter().filter_map(|fetcher| fetcher.stat.as_ref());
    let paused = hosts::merged(
        status.hosts_paused,
        told.flat_map(|stat| &stat.hosts_paused),
    );
    // One line for each host: what fetchers say may be a later time than this router knows.
    status
        .problems
        .retain(|line| !paused.iter().any(|row| is_about_host(line, row)));
    status.problems.extend(paused.iter().map(paused_host));
    status.problems.extend(silent.chain(full_disks));
    v1::StatusResponse {
        nodes,
        fetchers,
        hosts_paused: paused,
        clients: clients.clients,
        kept_snapshots: clients.kept.oldest,
        kept_snapshots_total: clients.kept.total as u64,
        ..status
    }
}

/// What this router knows by itself: members without what they say of themselves, and its own
/// clients.
pub fn own(state: &Parts) -> v1::StatusResponse {
    let view = state.fleet.members.view();
    let repositories = state.control.catalog.summary(0);
    let position = state.control.catalog.position();
    let kept = state.work.kept.list();
    let of = |role| {
        view.members
            .iter()
            .filter(move |member| member.role == role)
            .map(v1::Member::from)
    };
    v1::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        view_number: view.number,
        position: Some(v1::Position {
            epoch: position.epoch,
            revision: position.revision,
        }),
        nodes: of(Role::Node)
            .map(|member| v1::NodeStatus {
                member: Some(member),
                ..Default::default()
            })
            .collect(),
        fetchers: of(Role::Fetcher)
            .map(|member| v1::FetcherStatus {
                member: Some(member),
                ..Default::default()
            })
            .collect(),
        clients: own_clients(&state.control, &state.work),
        repositories_ingesting: repositories.ingesting as u64,
        repositories_ready: repositories.ready as u64,
        repositories_failed: repositories.failed.count as u64,
        replication_factor: view.replication_factor,
        problems: problems(state)
            .into_iter()
            .map(|problem| problem.line)
            .collect(),
        started_at: state.work.started_at,
        maintenance: state.control.tables.maintenance.get(""),
        audits: state.control.tables.audits.list(),
        intents: state.control.tables.intents.list(),
        jobs: state
            .control
            .tables
            .jobs
            .list()
            .into_iter()
            .filter(|job| !has_ended(job))
            .collect(),
        router_id: state.control.own.router_id.clone(),
        routers: state.control.routers(),
        hosts_paused: state.fleet.hosts.list(),
        kept_snapshots: kept.oldest,
        kept_snapshots_total: kept.total as u64,
    }
}

/// The clients of all routers.
pub struct Clients {
    pub clients: Vec<v1::ClientStatus>,
    /// Replaced snapshots that the leader keeps for them.
    pub kept: KeptList,
    /// Routers that could not be asked, with why.
    pub missing: Vec<(String, monofs_model::Error)>,
}

/// The clients of all routers, which are asked in parallel.
pub async fn clients(state: &Parts) -> Clients {
    let others = state
        .control
        .routers()
        .into_iter()
        .filter(|router| router.router_id != state.control.own.router_id);
    let asked = others.map(|router| async move {
        let limit = state.fleet.call_timeout;
        let ask = async {
            // An answer is as large as its router has clients.
            let mut admin = AdminClient::new(state.fleet.channels.get(&router.address)?)
                .max_decoding_message_size(MESSAGE_BYTES_MAX);
            let request = Context::new(limit).request(v1::StatusRequest { own: true });
            admin.status(request).await.map_err(from_status)
        };
        within(limit, "the clients of another router", ask)
            .await
            .map_err(|error| (router.router_id, error))
    });
    let mut all = Clients {
        clients: own_clients(&state.control, &state.work),
        kept: state.work.kept.list(),
        missing: Vec::new(),
    };
    for answer in join_all(asked).await {
        match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                all.clients.extend(answer.clients);
                // Only the leader has some.
                all.kept.oldest.extend(answer.kept_snapshots);
                all.kept.total += answer.kept_snapshots_total as usize;
            }
            Err(missing) => all.missing.push(missing),
        }
    }
    all
}

fn own_clients(control: &Control, work: &Work) -> Vec<v1::ClientStatus> {
    let mut clients = work.watchers.list();
    for client in &mut clients {
        client.router_id.clone_from(&control.own.router_id);
    }
    clients
}

/// The line about a node that has (nearly) no disk left.
pub fn full_disk(stat: &v1::StatResponse) -> Option<String> {
    let full = stat.disk_free_bytes < DISK_FREE_MIN;
    full.then(|| {
        let id = &stat.node_id;
        let left = stat.disk_free_bytes;
        format!(
            "{id} has {left} bytes of disk left: make room or add nodes, see `monofs-admin nodes`"
        )
    })
}

/// What a node says of itself, within `limit`.
pub async fn node_stat(
    fleet: &Fleet,
    member: &Member,
    limit: Duration,
) -> Result<v1::StatResponse> {
    let ask = async {
        let mut client = fleet.node_client(member)?;
        let asker = Some(fleet.own.asker());
        client
            .stat(Context::new(limit).request(v1::StatRequest { asker }))
            .await
            .map_err(from_status)
    };
    let asked = fleet.while_there(member, within(limit, "stat", ask)).await;
    let stat = asked?.into_inner();
    fleet.members.asked_by(&member.id, &stat.other_askers);
    Ok(stat)
}

/// What a fetcher says of itself, within `limit`.
pub async fn fetcher_stat(
    fleet: &Fleet,
    member: &Member,
    limit: Duration,
) -> Result<v1::FetcherStatResponse> {
    let ask = async {
        let mut client = FetcherClient::new(fleet.channels.get(&member.address)?);
        let asker = Some(fleet.own.asker());
        client
            .stat(Context::new(limit).request(v1::FetcherStatRequest { asker }))
            .await
            .map_err(from_status)
    };
    let asked = fleet.while_there(member, within(limit, "stat", ask)).await;
    let stat = asked?.into_inner();
    fleet.members.asked_by(&member.id, &stat.other_askers);
    Ok(stat)
}

/// A node and what it says of itself.
pub async fn node_status(fleet: &Fleet, member: &Member) -> v1::NodeStatus {
    let (stat, error) = split(node_stat(fleet, member, fleet.call_timeout).await);
    v1::NodeStatus {
        member: Some(v1::Member::from(member)),
        stat,
        error,
    }
}

/// A fetcher and what it says of itself.
pub async fn fetcher_status(fleet: &Fleet, member: &Member) -> v1::FetcherStatus {
    let (stat, error) = split(fetcher_stat(fleet, member, fleet.call_timeout).await);
    v1::FetcherStatus {
        member: Some(v1::Member::from(member)),
        stat,
        error,
    }
}

fn split<T>(answer: Result<T>) -> (Option<T>, String) {
    match answer {
        Ok(stat) => (Some(stat), String::new()),
        Err(error) => (None, error.to_string()),
    }
}

/// One repository and what each node that holds, or should hold, has of it.
pub async fn replicas(fleet: &Fleet, entry: &monofs_model::Repository) -> Vec<v1::ReplicaStatus> {
    let view = fleet.members.view();
    let id = entry.storage_id();
    let asked = view.nodes().map(|node| async {
        let holder = entry.holders.contains(&node.id);
        match fleet.held(node, &id).await {
            Ok(held) => Some(v1::ReplicaStatus {
                node_id: node.id.to_string(),
                holder,
                held: Some(held),
                error: String::new(),
            }),
            Err(error) if error.kind == ErrorKind::NotHeld && !holder => None,
            Err(error) if !holder && error.kind == ErrorKind::Unavailable => None,
            Err(error) => Some(v1::ReplicaStatus {
                node_id: node.id.to_string(),
                holder,
                held: None,
                error: error.to_string(),
            }),
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
