//! How a node that came back takes part again: the leader asks what it holds and corrects the
//! catalogue by that. What it lacks then, the reconciler copies to it, and says when nothing is
//! missing any more.
//!
//! Invariant: a holder is removed only because the node itself, asked after the catalogue was
//! looked at, does not have the commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use monofs_model::{Member, MemberState, NodeId, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::parts::Parts;
use crate::reconcile::leftovers;
use monofs_control::Control;
use monofs_control::clock;

/// Nodes that are asked at the same time.
const AUDITS_MAX: usize = 16;
/// Shortest time between two rounds.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Works until `stop`; to be run by the leader.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    let work = async {
        let mut view = state.fleet.members.subscribe();
        let mut audits = Audits::default();
        loop {
            tokio::select! {
                _ = view.changed() => tokio::time::sleep(PAUSE_MIN).await,
                () = audits.ended() => {}
                () = tokio::time::sleep(state.config.worker_interval) => audits.failed.clear(),
            }
            view.mark_unchanged();
            audits.start(&state);
        }
    };
    stop.run_until_cancelled(work).await;
}

/// The questions under way.
#[derive(Default)]
struct Audits {
    running: JoinSet<(NodeId, Result<()>)>,
    busy: HashSet<NodeId>,
    /// Not asked again before the next round by time.
    failed: HashSet<NodeId>,
}

impl Audits {
    /// Asks the nodes that answer and were not asked since they started, or were away.
    fn start(&mut self, state: &Arc<Parts>) {
        for node in state
            .fleet
            .members
            .view()
            .nodes()
            .filter(|node| answers(node))
        {
            let row = state.control.tables.audits.get(node.id.as_str());
            let is_known = row
                .as_ref()
                .is_some_and(|row| row.at != 0 && row.incarnation == node.incarnation);
            if is_known || self.failed.contains(&node.id) || self.busy.len() >= AUDITS_MAX {
                continue;
            }
            if self.busy.insert(node.id.clone()) {
                let state = state.clone();
                let node = node.clone();
                self.running.spawn(async move {
                    let outcome = audit(&state, &node, row).await;
                    (node.id, outcome)
                });
            }
        }
    }

    /// Waits for the next one that ends; for ever when none is under way.
    async fn ended(&mut self) {
        match self.running.join_next().await {
            Some(Ok((id, outcome))) => {
                self.busy.remove(&id);
                if let Err(error) = outcome {
                    tracing::warn!(node = %id, %error, "cannot ask a node what it holds; trying \
                     again");
                    self.failed.insert(id);
                }
            }
            Some(Err(error)) => {
                tracing::error!(%error, "an audit ended without an answer");
                self.busy.clear();
            }
            None => std::future::pending().await,
        }
    }
}

fn answers(node: &Member) -> bool {
    !matches!(
        node.state,
        MemberState::Joining | MemberState::Suspect | MemberState::Down
    )
}

/// Corrects `holders` by what a node says it holds, and records that for this start of it.
async fn audit(state: &Arc<Parts>, node: &Member, before: Option<v1::NodeAudit>) -> Result<()> {
    // Looked at first: what is added while the node is asked need not be in its answer.
    let recorded = state.control.catalog.held_by(&node.id);
    let answer = state.fleet.held_commits(node).await?;
    let commits = |held: &v1::HeldRepository| {
        let id = held.storage_id.clone();
        held.snapshots
            .iter()
            .map(|snapshot| (id.clone(), snapshot.commit.clone()))
            .collect::<Vec<_>>()
    };
    let held: HashSet<(String, Bytes)> = answer.iter().flat_map(commits).collect();
    for entry in recorded {
        let Some(snapshot) = &entry.snapshot else {
            continue;
        };
        if !held.contains(&(entry.storage_id().to_string(), oid_bytes(&snapshot.commit))) {
            tracing::warn!(path = %entry.path, node = %node.id, "the node lost its copy");
            state
                .control
                .entries
                .remove_holder(&entry.path, entry.generation, &node.id)
                .await?;
        }
    }
    leftovers::settle(state, node, &answer).await?;
    let found = v1::NodeAudit {
        node_id: node.id.to_string(),
        incarnation: node.incarnation,
        at: clock::now(),
        behind: before
            .as_ref()
            .is_some_and(|row| row.behind || row.incarnation != node.incarnation),
    };
    // It may have been away once more while it was asked: then it is asked again.
    let settle = |row: Option<&v1::NodeAudit>| match row == before.as_ref() {
        true => Ok(Some(found.clone())),
        false => Ok(row.cloned()),
    };
    state
        .control
        .tables
        .audits
        .update(node.id.as_str(), settle)
        .await
        .map(drop)
}

/// The nodes that were asked what they hold, take part and may lack something: the reconciler knows
/// when they do not.
pub(crate) fn behind(control: &Control, fleet: &Fleet) -> Vec<NodeId> {
    let view = fleet.members.view();
    let nodes: HashMap<&str, &Member> = view.nodes().map(|node| (node.id.as_str(), node)).collect();
    let behind = |row: &v1::NodeAudit| {
        let node = nodes.get(row.node_id.as_str())?;
        let waits = node.state == MemberState::Recovering && !node.failed_over;
        (row.behind && row.at != 0 && row.incarnation == node.incarnation && waits)
            .then(|| node.id.clone())
    };
    control
        .tables
        .audits
        .list()
        .iter()
        .filter_map(behind)
        .collect()
}
