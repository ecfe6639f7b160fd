//! Brings missing copies back: nodes that should hold a repository's commit and do not yet adopt it.
//!
//! A node that was away at a flip, or joined later, catches up here; it becomes a holder only after it acknowledged.
//! A node that lost its disk is no holder any more (see [`crate::membership`]), and gets its copies again.
//! No copy is ever removed here.
//!
//! An entry is looked at when it changed, and all of them, some in each round, when the nodes changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use monofs_model::placement::Candidate;
use monofs_model::{ClusterView, DisplayPath, Member, Repository, RepositoryState, placement};
use tokio_util::sync::CancellationToken;

use crate::RouterState;
use crate::catalog::{Catalog, Position};

/// Copies made in one round.
const COPIES_PER_ROUND: usize = 16;
/// Entries looked at in one round.
const LOOKS_PER_ROUND: usize = 10_000;

/// Copies what is missing, again and again, until `stop`.
pub(crate) async fn run(state: Arc<RouterState>, stop: CancellationToken) {
    let mut todo = Todo::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.worker_interval) => {}
        }
        for (entry, node) in todo.missing(&state) {
            if stop.is_cancelled() {
                return;
            }
            copy(&state, &entry, &node).await;
        }
    }
}

/// What is left to look at.
#[derive(Default)]
struct Todo {
    /// Changes of the catalogue up to here are noted.
    position: Option<Position>,
    /// Entries that changed.
    changed: BTreeSet<DisplayPath>,
    /// Entries that lacked a copy, or were being ingested, when they were looked at: theirs is the turn after all others.
    again: BTreeSet<DisplayPath>,
    /// What copies are placed by, as of the last sweep.
    placed_by: (Vec<Candidate>, usize),
    /// A sweep over all entries goes on after this path.
    sweep: Option<String>,
}

impl Todo {
    /// Repositories and the active nodes that should hold them and do not, some of them.
    fn missing(&mut self, state: &RouterState) -> Vec<(Arc<Repository>, Member)> {
        let view = state.members.view();
        let placed_by = (state.members.placement_nodes(), view.replication_factor.max(1) as usize);
        if self.placed_by != placed_by {
            (self.placed_by, self.sweep) = (placed_by, Some(String::new()));
        }
        self.note_changes(&state.catalog);
        let mut missing = Vec::new();
        for path in std::mem::take(&mut self.changed) {
            if missing.len() >= COPIES_PER_ROUND {
                self.changed.insert(path);
            } else if let Some(entry) = state.catalog.get(&path) {
                self.look_at(state, &view, &entry, &mut missing);
            }
        }
        if let Some(after) = &self.sweep {
            let page = state.catalog.page("", after, LOOKS_PER_ROUND);
            if page.is_empty() {
                self.sweep = None;
            }
            for entry in page {
                if missing.len() >= COPIES_PER_ROUND {
                    break;
                }
                self.look_at(state, &view, &entry, &mut missing);
                self.sweep = Some(entry.path.to_string());
            }
        }
        missing
    }

    fn note_changes(&mut self, catalog: &Catalog) {
        let changes = self.position.as_ref().and_then(|position| catalog.changes_since(position));
        match changes {
            Some(changes) => {
                self.changed.extend(changes.upserts.iter().map(|entry| entry.path.clone()));
                self.position = Some(changes.position);
            }
            None => (self.position, self.sweep) = (Some(catalog.position()), Some(String::new())),
        }
        if self.changed.is_empty() && self.sweep.is_none() {
            self.changed = std::mem::take(&mut self.again);
        }
    }

    fn look_at(
        &mut self,
        state: &RouterState,
        view: &ClusterView,
        entry: &Arc<Repository>,
        missing: &mut Vec<(Arc<Repository>, Member)>,
    ) {
        if entry.state != RepositoryState::Ready {
            return;
        }
        if state.ingests.running(&entry.path).is_some() {
            self.again.insert(entry.path.clone());
            return;
        }
        let (candidates, copies) = &self.placed_by;
        for id in placement::replicas(&entry.storage_id(), candidates, *copies) {
            if !entry.holders.contains(&id)
                && let Some(node) = view.nodes().find(|node| node.id == id && node.state.accepts())
            {
                missing.push((entry.clone(), node.clone()));
                self.again.insert(entry.path.clone());
            }
        }
    }
}

async fn copy(state: &Arc<RouterState>, entry: &Repository, node: &Member) {
    let Some(snapshot) = &entry.snapshot else { return };
    let adopted = state.adopt_and_wait(node, entry, snapshot, |_| {}).await;
    let recorded = match adopted {
        Ok(()) => state.catalog.add_holder(&entry.path, entry.generation, &node.id).await,
        Err(error) => Err(error),
    };
    match recorded {
        Ok(()) => tracing::info!(path = %entry.path, node = %node.id, "copy restored"),
        Err(error) => {
            tracing::warn!(path = %entry.path, node = %node.id, %error, "cannot restore a copy; trying again")
        }
    }
}
