//! The loop that asks every member, and what this router knows by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use monofs_model::view::Role;
use monofs_model::{Member, MemberState, NodeId};
use tokio_util::sync::CancellationToken;

use super::meter::ClusterSample;
use super::rings::STEP_SECONDS;
use crate::parts::Parts;
use crate::reconcile::jobs::has_ended;
use crate::status;
use monofs_control::clock;

/// How long a member may take to answer: less than a step.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Members asked at the same time.
const ASKED_MAX: usize = 64;

/// Samples every step until `stop`.
pub async fn run(state: Arc<Parts>, stop: CancellationToken) {
    let work = async {
        let mut ticker = tokio::time::interval(Duration::from_secs(STEP_SECONDS as u64));
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticker.tick().await;
            let sample = take(&state).await;
            state.work.history.add(clock::now(), sample);
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Asks every member, a bounded number of them at a time.
pub(super) async fn take(state: &Arc<Parts>) -> ClusterSample {
    let view = state.fleet.members.view();
    let limit = ASK_TIMEOUT.min(state.fleet.call_timeout);
    // One that is down is not asked: that it is silent is known.
    let asks = |member: &Member| member.state != MemberState::Down;
    let ask_node = |member: Member| {
        let state = state.clone();
        async move {
            let stat = if asks(&member) {
                status::node_stat(&state.fleet, &member, limit).await.ok()
            } else {
                None
            };
            (member.id, stat)
        }
    };
    let ask_fetcher = |member: Member| {
        let state = state.clone();
        async move {
            let stat = if asks(&member) {
                status::fetcher_stat(&state.fleet, &member, limit)
                    .await
                    .ok()
            } else {
                None
            };
            (member.id, stat)
        }
    };
    let members = |role| {
        let of_role = view.members.iter().filter(|member| member.role == role);
        futures::stream::iter(of_role.cloned().collect::<Vec<Member>>())
    };
    let nodes = members(Role::Node)
        .map(ask_node)
        .buffer_unordered(ASKED_MAX)
        .collect::<BTreeMap<NodeId, _>>();
    let fetchers = members(Role::Fetcher)
        .map(ask_fetcher)
        .buffer_unordered(ASKED_MAX)
        .collect::<BTreeMap<NodeId, _>>();
    let (nodes, fetchers) = futures::join!(nodes, fetchers);
    let reports = state.work.watchers.list().into_iter().filter_map(|client| {
        let report = client.report?;
        Some((
            (client.connected_at, client.client_id),
            (report.cache_hits, report.cache_misses),
        ))
    });
    ClusterSample {
        nodes,
        fetchers,
        clients: reports.collect(),
        repositories: state.control.catalog.len() as u64,
        nodes_serving: view.nodes().filter(|node| node.state.serves()).count() as u64,
        jobs_running: state
            .control
            .tables
            .jobs
            .list()
            .iter()
            .filter(|job| !has_ended(job))
            .count() as u64,
    }
}
