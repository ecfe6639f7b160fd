//! How a node that came back takes part again: the leader asks what it holds and corrects the
//! catalogue by that. What it lacks then, the reconciler copies to it, and says when nothing is
//! missing any more. A router that begins to lead asks all nodes, because the state that it reads
//! may be an older one than the nodes know, and from then on now and then, because copies may have
//! been left on them since.
//!
//! Invariants: a holder is removed only because the node itself, asked for that commit after the
//! catalogue was looked at, does not have it; what a node holds and nothing names is counted in its
//! row, and counted again when the catalogue changes; one start of a node is asked at most once in
//! [`crate::Config::worker_interval`], whatever it answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use monofs_model::{Actor, ErrorKind, Member, MemberState, NodeId, Repository, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::context;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;
use crate::reconcile::leftovers::{self, Orphan};
use monofs_control::Control;
use monofs_control::clock;
use monofs_members::fleet::Fleet;

/// Nodes that are asked at the same time.
const AUDITS_MAX: usize = 16;
/// Shortest time between two rounds.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// After so long a node is asked for all that it holds once more.
const AUDIT_EVERY: Duration = Duration::from_secs(3600);
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
        let mut rounds = tokio::time::interval(state.config.worker_interval.max(PAUSE_MIN));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = view.changed() => tokio::time::sleep(PAUSE_MIN).await,
                () = audits.ended() => {}
                _ = rounds.tick() => audits.asked.clear(),
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
    /// The start of each node that is being asked.
    busy: HashMap<NodeId, u64>,
    /// The start of each node that was asked in this round, with success or without: it is asked
    /// again in the next one.
    asked: HashMap<NodeId, u64>,
    found: HashMap<NodeId, NodeFindings>,
}

/// What a node held that nothing named when it was asked. Kept while this router leads, so that
/// only what changed is asked again.
struct NodeFindings {
    /// Of the start of the node that was asked.
    incarnation: u64,
    /// When it was asked for all that it holds.
    listed_at: Instant,
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
            if self.asked.get(&node.id) == Some(&node.incarnation)
                || self.busy.contains_key(&node.id)
                || self.busy.len() >= AUDITS_MAX
            {
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
            // When this fails it is gone, and all is asked again.
            let found = self.found.remove(&node.id).filter(|_| is_asked);
            self.busy.insert(node.id.clone(), node.incarnation);
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

    /// Waits for the next one that ends; for ever when none is under way.
    async fn ended(&mut self) {
        match self.running.join_next().await {
            Some(Ok((id, outcome))) => {
                if let Some(incarnation) = self.busy.remove(&id) {
                    self.asked.insert(id.clone(), incarnation);
                }
                match outcome {
                    Ok(found) => drop(self.found.insert(id, found)),
                    Err(error) => {
                        tracing::warn!(node = %id, %error, "cannot ask a node what it holds; \
                         trying again");
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
            listed_at: Instant::now(),
            epoch: control.catalog.position().epoch,
            revision: *control.catalog.changed().borrow(),
            orphans: Vec::new(),
        }
    }

    fn are_of(&self, control: &Control, node: &Member) -> bool {
        self.incarnation == node.incarnation
            && self.listed_at.elapsed() < AUDIT_EVERY
            && self.epoch == control.catalog.position().epoch
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
            settle_unlisted(actor, state, node, &entry).await?;
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

/// Takes the node off the holders of `entry`, which its list left out, if it does not hold it: a
/// store that cannot be opened at the moment is left out, too. Errors: the state store's; the node
/// answers no more.
async fn settle_unlisted(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    entry: &Repository,
) -> Result<()> {
    match state.fleet.confirm_held(node, entry).await {
        Ok(()) => Ok(()),
        Err(error) if error.kind == ErrorKind::NotHeld => {
            tracing::warn!(path = %entry.path, node = %node.id, "the node lost its copy");
            let entries = &state.control.entries;
            entries
                .remove_holder(actor, &entry.path, entry.generation, &node.id)
                .await
        }
        Err(error) => {
            let view = state.fleet.members.view();
            let mut nodes = view.nodes();
            if !nodes.any(|other| other.id == node.id && answers(other)) {
                return Err(error);
            }
            tracing::warn!(path = %entry.path, node = %node.id, %error, "the node does not say \
             whether it still has its copy; it stays recorded until it is asked again");
            Ok(())
        }
    }
}

/// Asks a node again about what nothing named and the catalogue has changed since, and records how
/// much is left.
async fn look_again(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    before: NodeFindings,
) -> Result<NodeFindings> {
    let mut found = NodeFindings {
        listed_at: before.listed_at,
        ..NodeFindings::new(&state.control, node)
    };
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

#[cfg(test)]
mod tests;
