//! How a node that came back takes part again: the leader asks what it holds and corrects the
//! catalogue by that. What it lacks then, the reconciler copies to it, and says when nothing is
//! missing any more. A router that begins to lead asks all nodes once, because the state that it
//! reads may be an older one than the nodes know.
//!
//! Invariants: a holder is removed only because the node itself, asked after the catalogue was
//! looked at, does not have the commit; what a node holds and nothing names is counted in its row,
//! and counted again when the catalogue changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use monofs_model::{Actor, ErrorKind, Member, MemberState, NodeId, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::parts::Parts;
use crate::reconcile::leftovers::{self, Orphan};
use monofs_control::Control;
use monofs_control::clock;

/// Nodes that are asked at the same time.
const AUDITS_MAX: usize = 16;
/// Shortest time between two rounds.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Copies that nothing named and that are looked at again at a time; the others wait for the next
/// round.
const LOOKS_MAX: usize = 1000;
/// Paths of copies that nothing names, kept with the row of their node; the others are counted.
const PATHS_MAX: usize = 5;
/// Most characters of such a path.
const PATH_CHARS_MAX: usize = 200;

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

/// The questions under way, and what was found in this term.
#[derive(Default)]
struct Audits {
    running: JoinSet<(NodeId, Result<NodeFindings>)>,
    busy: HashSet<NodeId>,
    /// Not asked again before the next round by time.
    failed: HashSet<NodeId>,
    found: HashMap<NodeId, NodeFindings>,
}

/// What a node held that nothing named when it was asked. Kept while this router leads, so that
/// only what changed is asked again.
struct NodeFindings {
    /// Of the start of the node that was asked.
    incarnation: u64,
    /// Of the state that its answer was compared with: another one knows other repositories.
    epoch: String,
    /// The last change of the catalogue that readers could see then.
    revision: u64,
    orphans: Vec<Orphan>,
}

impl Audits {
    /// Asks the nodes that answer and were not asked in this term since they started, or were away,
    /// and looks again at what nothing named.
    fn start(&mut self, state: &Arc<Parts>) {
        let view = state.fleet.members.view();
        self.found
            .retain(|id, _| view.nodes().any(|node| node.id == *id));
        for node in view.nodes().filter(|node| answers(node)) {
            if self.failed.contains(&node.id) || self.busy.len() >= AUDITS_MAX {
                continue;
            }
            let row = state.control.tables.audits.get(node.id.as_str());
            let is_known = row
                .as_ref()
                .is_some_and(|row| row.at != 0 && row.incarnation == node.incarnation);
            let found = self.found.get(&node.id);
            let is_asked =
                is_known && found.is_some_and(|found| found.are_of(&state.control, node));
            if is_asked && !found.is_some_and(|found| found.are_outdated(&state.control)) {
                continue;
            }
            if self.busy.insert(node.id.clone()) {
                // When this fails it is gone, and all is asked again.
                let found = self.found.remove(&node.id).filter(|_| is_asked);
                let (state, node) = (state.clone(), node.clone());
                self.running.spawn(context::begin("audit", async move {
                    let actor = context::actor();
                    let outcome = match found {
                        Some(found) => look_again(&actor, &state, &node, found).await,
                        None => audit(&actor, &state, &node, row).await,
                    };
                    (node.id, outcome)
                }));
            }
        }
    }

    /// Waits for the next one that ends; for ever when none is under way.
    async fn ended(&mut self) {
        match self.running.join_next().await {
            Some(Ok((id, outcome))) => {
                self.busy.remove(&id);
                match outcome {
                    Ok(found) => drop(self.found.insert(id, found)),
                    Err(error) => {
                        tracing::warn!(node = %id, %error, "cannot ask a node what it holds; \
                         trying again");
                        self.failed.insert(id);
                    }
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

impl NodeFindings {
    fn new(control: &Control, node: &Member) -> Self {
        Self {
            incarnation: node.incarnation,
            epoch: control.catalog.position().epoch,
            revision: *control.catalog.changed().borrow(),
            orphans: Vec::new(),
        }
    }

    fn are_of(&self, control: &Control, node: &Member) -> bool {
        self.incarnation == node.incarnation && self.epoch == control.catalog.position().epoch
    }

    /// Whether something that nothing named may be named now.
    fn are_outdated(&self, control: &Control) -> bool {
        let has_changed = self.revision != *control.catalog.changed().borrow();
        !self.orphans.is_empty()
            && (has_changed || self.orphans.iter().any(|orphan| orphan.is_unsettled))
    }

    /// What was found as the state store keeps it in the row of the node.
    fn noted_in(&self, row: &v1::NodeAudit) -> v1::NodeAudit {
        let told: Vec<&Orphan> = self.orphans.iter().filter(|o| !o.is_unsettled).collect();
        let mut paths: Vec<&str> = told.iter().map(|orphan| orphan.path.as_str()).collect();
        paths.sort_unstable();
        paths.truncate(PATHS_MAX);
        v1::NodeAudit {
            orphans: told.len() as u64,
            orphan_bytes: told.iter().map(|orphan| orphan.bytes).sum(),
            orphan_paths: paths.into_iter().map(shortened).collect(),
            ..row.clone()
        }
    }
}

/// The beginning of a path, which a node may have from anywhere.
fn shortened(path: &str) -> String {
    path.chars().take(PATH_CHARS_MAX).collect()
}

fn answers(node: &Member) -> bool {
    !matches!(
        node.state,
        MemberState::Joining | MemberState::Suspect | MemberState::Down
    )
}

/// Corrects `holders` by what a node says it holds, and records that for this start of it.
async fn audit(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    before: Option<v1::NodeAudit>,
) -> Result<NodeFindings> {
    let mut found = NodeFindings::new(&state.control, node);
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
                .remove_holder(actor, &entry.path, entry.generation, &node.id)
                .await?;
        }
    }
    found.orphans = leftovers::settle(actor, state, node, &answer).await?;
    let was_orphans = before.as_ref().map_or(0, |row| row.orphans);
    let row = found.noted_in(&v1::NodeAudit {
        node_id: node.id.to_string(),
        incarnation: node.incarnation,
        at: clock::now(),
        behind: before
            .as_ref()
            .is_some_and(|row| row.behind || row.incarnation != node.incarnation),
        ..Default::default()
    });
    if row.orphans > was_orphans {
        tracing::warn!(node = %node.id, copies = row.orphans, first = ?row.orphan_paths, "the node \
         holds copies that the catalogue does not name; they stay where they are");
    }
    // It may have been away once more while it was asked: then it is asked again.
    let settle = |stored: Option<&v1::NodeAudit>| match stored == before.as_ref() {
        true => Ok(Some(row.clone())),
        false => Ok(stored.cloned()),
    };
    let audits = &state.control.tables.audits;
    audits.update(actor, node.id.as_str(), settle).await?;
    Ok(found)
}

/// Asks a node again about what nothing named and the catalogue has changed since, and records how
/// much is left.
async fn look_again(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    before: NodeFindings,
) -> Result<NodeFindings> {
    let mut found = NodeFindings::new(&state.control, node);
    let mut answer = Vec::new();
    for orphan in before.orphans {
        if !orphan.is_outdated(&state.control.catalog) {
            found.orphans.push(orphan);
            continue;
        }
        if answer.len() == LOOKS_MAX {
            // So that it is outdated in the next round, too.
            found.revision = before.revision;
            found.orphans.push(orphan);
            continue;
        }
        match state.fleet.held(node, &orphan.id).await {
            Ok(held) => answer.push(held),
            Err(error) if error.kind == ErrorKind::NotHeld => {}
            // It is busy, or away: then all is asked when it is back.
            Err(error) => {
                tracing::debug!(node = %node.id, %error, "cannot look again at a copy");
                found.orphans.push(orphan.unsettled());
            }
        }
    }
    let settled = leftovers::settle(actor, state, node, &answer).await?;
    found.orphans.extend(settled);
    let note = |row: Option<&v1::NodeAudit>| Ok(row.map(|row| found.noted_in(row)));
    let audits = &state.control.tables.audits;
    audits.update(actor, node.id.as_str(), note).await?;
    Ok(found)
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
