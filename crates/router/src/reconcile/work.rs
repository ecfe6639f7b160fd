//! One command carried out: a copy, or the deletion of one that is too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::future::try_join_all;
use monofs_model::{
    Actor, Error, GenerationRef, Member, NodeId, Oid, Repository, Result, Snapshot, StorageId,
};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, context, from_status, within};

use super::leftovers;
use crate::ingest;
use crate::parts::Parts;
use monofs_fleet::copies::{PlanAction, PlanCommand};
use monofs_members::fleet::GenerationTree;
use monofs_members::membership;

/// How far a command is, and how fast it may be.
#[derive(Default)]
pub(super) struct CopyPace {
    /// Contents taken so far.
    pub bytes: AtomicU64,
    /// 0 = no limit.
    pub bytes_per_second_max: u64,
}

/// Carries it out. Errors: `Refused` when it cannot or need not be done now, others when it failed.
pub(super) async fn perform(
    actor: &Actor,
    state: &Arc<Parts>,
    command: &PlanCommand,
    pace: &CopyPace,
) -> Result<()> {
    let id = StorageId::of_number(command.key);
    let current = state
        .control
        .catalog
        .by_storage_id(&id)
        .filter(|entry| entry.generation == command.generation);
    let entry = current.ok_or_else(|| Error::refused("the entry moved on"))?;
    let snapshot = entry
        .snapshot
        .clone()
        .ok_or_else(|| Error::refused("the entry has no commit"))?;
    if let Some(router) = ingest::worked_on_by(&state.control, &state.work, &entry.path) {
        return Err(Error::refused(format!(
            "{} is being ingested or cleaned up by {router}",
            entry.path
        )));
    }
    let moved = CopyMove {
        actor,
        state,
        entry: &entry,
        snapshot: &snapshot,
        pace,
    };
    match &command.action {
        PlanAction::Copy { node, from, urgent } => moved.copy(node, from, *urgent).await,
        PlanAction::Delete {
            node,
            keep,
            forgotten,
        } => moved.delete(node, keep, *forgotten).await,
    }
}

/// Takes back what a copy that was broken off left on its node.
pub(super) async fn undo(state: &Arc<Parts>, command: &PlanCommand) -> Result<()> {
    let PlanAction::Copy { node, .. } = &command.action else {
        return Ok(());
    };
    let id = StorageId::of_number(command.key);
    let entry = state.control.catalog.by_storage_id(&id);
    if entry
        .as_ref()
        .is_some_and(|entry| entry.holders.contains(node))
    {
        return Ok(());
    }
    let retained = state.control.retained.of(Some(&id)).await?;
    let retained = retained.get(&id).map_or(&[][..], Vec::as_slice);
    if retained.iter().any(|row| row.holders.contains(node)) {
        return Ok(());
    }
    // What was being copied is shown now, or was replaced or deleted meanwhile.
    let shown = entry.as_ref().map(|entry| &entry.path);
    let Some(path) = shown.or(retained.first().map(|row| &row.path)) else {
        return Ok(());
    };
    let current = entry.as_ref().and_then(|entry| entry.snapshot.as_ref());
    let replaced = retained.iter().map(|row| &row.snapshot);
    let commits: Vec<Oid> = current
        .into_iter()
        .chain(replaced)
        .map(|snapshot| snapshot.commit)
        .collect();
    // Not while an ingest may be giving the same commits to the node.
    let drops = async {
        let view = state.fleet.members.view();
        let node = membership::node(&view, node.as_str())?;
        state.fleet.drop_commits(node, &id, &commits).await?;
        Ok(true)
    };
    leftovers::undisturbed(state, path, entry.as_deref(), drops)
        .await
        .map(drop)
}

struct CopyMove<'a> {
    actor: &'a Actor,
    state: &'a Arc<Parts>,
    entry: &'a Arc<Repository>,
    snapshot: &'a Snapshot,
    pace: &'a CopyPace,
}

impl CopyMove<'_> {
    async fn copy(&self, node: &NodeId, from: &[NodeId], urgent: bool) -> Result<()> {
        let Self {
            actor,
            state,
            entry,
            snapshot,
            pace,
        } = self;
        let view = state.fleet.members.view();
        let node = membership::node(&view, node.as_str())?;
        let limit = pace.bytes_per_second_max;
        let adopted = state
            .fleet
            .adopt_and_wait(node, entry, snapshot, limit, |_| {})
            .await?;
        if adopted == GenerationTree::Lost {
            return self.renew(node).await;
        }
        if urgent {
            state
                .control
                .entries
                .add_holder(actor, &entry.path, entry.generation, &node.id)
                .await?;
        }
        let peers = from
            .iter()
            .filter_map(|id| view.nodes().find(|peer| peer.id == *id));
        self.cover(node, peers.collect(), pace.bytes_per_second_max)
            .await?;
        state
            .control
            .entries
            .add_holder(actor, &entry.path, entry.generation, &node.id)
            .await?;
        tracing::info!(path = %entry.path, node = %node.id, "copied");
        Ok(())
    }

    /// Shows the same commit anew, on a node that holds it, in a generation in which all names
    /// change: no holder can tell when they did.
    async fn renew(&self, node: &Member) -> Result<()> {
        let Self { state, entry, .. } = self;
        let renewed = Snapshot {
            generations: Some(GenerationRef::Constant(entry.generation + 1)),
            ..self.snapshot.clone()
        };
        let entries = &state.control.entries;
        entries.flip(self.actor, entry, &renewed, &node.id).await?;
        state.fleet.generations_lost.note(&entry.path);
        tracing::warn!(path = %entry.path, node = %node.id, "no holder can tell when names last \
         changed: all of them get the time of now");
        Ok(())
    }

    async fn delete(&self, node: &NodeId, keep: &[NodeId], forgotten: bool) -> Result<()> {
        let Self { state, entry, .. } = *self;
        let id = entry.storage_id();
        if !forgotten && state.control.retained.is_on(&id, node).await? {
            let path = &entry.path;
            return Err(Error::refused(format!(
                "readers may still use a replaced commit of {path} on {node}"
            )));
        }
        let view = state.fleet.members.view();
        let leaving = view.nodes().find(|member| member.id == *node);
        let keepers: Vec<&Member> = keep
            .iter()
            .map(|id| membership::node(&view, id.as_str()))
            .collect::<Result<_>>()?;
        // Those who take something at the same time share what may be taken.
        let limit = match self.pace.bytes_per_second_max {
            0 => 0,
            limit => (limit / keepers.len().max(1) as u64).max(1),
        };
        // What may take long does not keep ingests away; then nothing is left to take.
        self.cover_all(&keepers, leaving, limit).await?;
        let Some(away) = state
            .work
            .ingests
            .keep_away(&state.control, &entry.path)
            .await?
        else {
            return Err(Error::refused(format!(
                "{} is being ingested or cleaned up",
                entry.path
            )));
        };
        self.cover_all(&keepers, leaving, limit).await?;
        // No router ingests there now and readers use no replaced commit of it, so what the entry
        // shows and showed is not wanted on this node. Commits that nothing names stay.
        let mut commits = state.control.published.replaced_in(entry).await?;
        commits.push(self.snapshot.commit);
        let released = self.release(node, keep, leaving.cloned(), commits).await;
        away.release().await;
        released
    }

    /// Takes `node` off the holders while all of `keep` are, and lets it drop `commits`, as
    /// `leaving` if it is still a member. In one piece, also when nothing waits for it any more: a
    /// holder that was taken off and has not dropped them would be found at its next start only.
    async fn release(
        &self,
        node: &NodeId,
        keep: &[NodeId],
        leaving: Option<Member>,
        commits: Vec<Oid>,
    ) -> Result<()> {
        let actor = self.actor.clone();
        let state = self.state.clone();
        let entry = self.entry.clone();
        let node = node.clone();
        let keep = keep.to_vec();
        let release = tokio::spawn(context::carry(async move {
            if !*state.control.leading.borrow() {
                return Err(Error::refused("another router leads now"));
            }
            state
                .control
                .entries
                .release_holder(&actor, &entry.path, entry.generation, &node, &keep)
                .await?;
            if let Some(leaving) = leaving {
                let id = entry.storage_id();
                state.fleet.drop_commits(&leaving, &id, &commits).await?;
            }
            tracing::info!(path = %entry.path, %node, "deleted a copy that was one too many");
            Ok(())
        }));
        release
            .await
            .map_err(|e| Error::internal(format!("a deletion ended early: {e}")))?
    }

    /// Returns when each of `keepers` holds all that `leaving` holds.
    async fn cover_all(
        &self,
        keepers: &[&Member],
        leaving: Option<&Member>,
        limit: u64,
    ) -> Result<()> {
        let keepers = keepers.iter();
        let covers = keepers.map(|keeper| self.cover(keeper, leaving.into_iter().collect(), limit));
        try_join_all(covers).await.map(drop)
    }

    /// Returns when `node` holds the commit and all contents that `peers` hold of it.
    async fn cover(
        &self,
        node: &Member,
        peers: Vec<&Member>,
        bytes_per_second_max: u64,
    ) -> Result<()> {
        let Self {
            state,
            entry,
            snapshot,
            pace,
            ..
        } = self;
        let request = v1::CoverRequest {
            storage_id: entry.storage_id().to_string(),
            commit: oid_bytes(&snapshot.commit),
            peers: peers
                .iter()
                .filter(|peer| peer.id != node.id)
                .map(|peer| peer.address.clone())
                .collect(),
            bytes_per_second_max,
        };
        let silence = state.fleet.progress_timeout;
        let mut client = state.fleet.node_client(node)?;
        let call = client.cover(Context::new(silence).stream(request));
        let answer = within(silence, "cover", async { call.await.map_err(from_status) }).await?;
        let mut messages = guarded(answer.into_inner(), silence, "cover");
        let mut counted = 0;
        while let Some(message) = messages.next().await {
            let message = message.map_err(|e| e.context(format!("node {}", node.id)))?;
            pace.bytes.fetch_add(
                message.bytes_done.saturating_sub(counted),
                Ordering::Relaxed,
            );
            counted = counted.max(message.bytes_done);
            if message.covered {
                return Ok(());
            }
        }
        Err(Error::unavailable(format!(
            "node {} ended without saying that it holds everything",
            node.id
        )))
    }
}
