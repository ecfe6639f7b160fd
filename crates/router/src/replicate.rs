//! Brings missing copies back: nodes that should hold a repository's commit and do not yet adopt it.
//!
//! A node that was away at a flip, or joined later, catches up here; it becomes a holder only after it acknowledged.
//! A node that came back is asked what it holds: one that lost its disk is no holder any more, and gets its copies again.
//! No copy is ever removed here.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::{Member, Repository, RepositoryState, Result, placement};
use monofs_proto::convert::oid_bytes;
use tokio_util::sync::CancellationToken;

use crate::{RouterState, membership};

/// Copies made in one round.
const COPIES_PER_ROUND: usize = 16;

/// Copies what is missing, again and again, until `stop`.
pub(crate) async fn run(state: Arc<RouterState>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.worker_interval) => {}
        }
        for node in state.members.take_audits() {
            if let Err(error) = audit(&state, &node).await {
                tracing::warn!(node = %node.id, %error, "cannot ask a node what it holds; trying again");
                state.members.audit_again(&node.id);
            }
        }
        for (entry, node) in missing(&state).into_iter().take(COPIES_PER_ROUND) {
            if stop.is_cancelled() {
                return;
            }
            copy(&state, &entry, &node).await;
        }
    }
}

/// Corrects `holders` by what a node says it holds.
async fn audit(state: &Arc<RouterState>, node: &Member) -> Result<()> {
    let held: HashSet<(String, Bytes)> = state
        .held_commits(node)
        .await?
        .into_iter()
        .flat_map(|held| held.snapshots.into_iter().map(move |snapshot| (held.storage_id.clone(), snapshot.commit)))
        .collect();
    for entry in state.catalog.page("", "", usize::MAX) {
        let Some(snapshot) = entry.snapshot.as_ref().filter(|_| entry.holders.contains(&node.id)) else { continue };
        if !held.contains(&(entry.storage_id().to_string(), oid_bytes(&snapshot.commit))) {
            tracing::warn!(path = %entry.path, node = %node.id, "the node lost its copy");
            state.catalog.remove_holder(&entry.path, entry.generation, &node.id).await?;
        }
    }
    Ok(())
}

/// Repositories and the active nodes that should hold them and do not.
fn missing(state: &RouterState) -> Vec<(Arc<Repository>, Member)> {
    let view = state.members.view();
    let candidates = membership::placeable(&view);
    let copies = view.replication_factor.max(1) as usize;
    let mut missing = Vec::new();
    for entry in state.catalog.page("", "", usize::MAX) {
        if entry.state != RepositoryState::Ready || state.ingests.running(&entry.path).is_some() {
            continue;
        }
        for id in placement::replicas(&entry.storage_id(), &candidates, copies) {
            if !entry.holders.contains(&id)
                && let Some(node) = view.nodes().find(|member| member.id == id)
            {
                missing.push((entry.clone(), node.clone()));
            }
        }
        if missing.len() >= COPIES_PER_ROUND {
            break;
        }
    }
    missing
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
