//! What a node holds beside what the catalogue counts on it for: left by a router or a node that
//! was killed between two steps, kept by a node that was given up, or of a state that is not this
//! one (a lost or older state, another cluster's).
//!
//! Invariants:
//! - absence from the catalogue authorises no deletion. Dropped is only what the history of an
//!   entry names as replaced, commit by commit, while enough holders confirm that they hold what
//!   the entry shows now;
//! - a commit that nothing names is an [`Orphan`]: counted and told, until it is ingested again or
//!   its node no longer has it;
//! - a commit that readers see and that the node holds makes it a holder, so it is not copied again
//!   (and deleted like any other, after verification, if it is one copy too many).
//!
//! Called by `recovery` with what a node said, and by `admin` to tell what a node has.

use std::sync::Arc;

use monofs_model::{
    Actor, DisplayPath, ErrorKind, Member, Oid, Repository, RepositoryState, Result, StorageId,
};
use monofs_proto::v1;

use monofs_control::Control;
use monofs_control::catalog::{Catalog, RetainedById, RetainedSnapshot};

use crate::ingest;
use crate::parts::Parts;
use monofs_members::fleet::Fleet;

/// A repository of which a node holds commits that neither the entry nor its history names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub id: StorageId,
    /// As the node knows it.
    pub path: String,
    /// On the node's disk; 0 = not known, because other commits of the repository are named.
    pub bytes: u64,
    /// A router works on the path: what is not named may be named in a moment, so it is not told.
    pub is_unsettled: bool,
    shown: Option<ShownCommit>,
}

/// What an entry showed: its generation and commit.
type ShownCommit = (u64, Oid);

impl Orphan {
    /// Whether the entry shows something else than when this was found, so that the node has to be
    /// asked again.
    pub fn is_outdated(&self, catalog: &Catalog) -> bool {
        let entry = catalog.by_storage_id(&self.id);
        self.is_unsettled || self.shown != shown_by(entry.as_deref())
    }

    /// The same, to be looked at again in a moment.
    pub fn unsettled(mut self) -> Self {
        self.is_unsettled = true;
        self
    }
}

fn shown_by(entry: Option<&Repository>) -> Option<ShownCommit> {
    let entry = entry?;
    let snapshot = entry.snapshot.as_ref()?;
    Some((entry.generation, snapshot.commit))
}

/// Settles what `node` said it holds; returns what nothing names. Errors: the state store's.
pub(crate) async fn settle(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    held: &[v1::HeldRepository],
) -> Result<Vec<Orphan>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let retained = state.control.retained.of(None).await?;
    let mut orphans = Vec::new();
    for held in held {
        let id = StorageId::new(&held.storage_id)?;
        let entry = state.control.catalog.by_storage_id(&id);
        let is_settled = match &entry {
            Some(entry) => {
                let retained = retained.get(&id).map_or(&[][..], Vec::as_slice);
                settle_known(actor, state, node, entry, &commits_of(held)?, retained).await?
            }
            None => true,
        };
        let orphaned = orphaned_commits(&state.control, &retained, held).await?;
        if orphaned.is_empty() && is_settled {
            continue;
        }
        let is_whole = orphaned.len() == held.snapshots.len();
        orphans.push(Orphan {
            shown: shown_by(entry.as_deref()),
            id,
            path: held.path.clone(),
            bytes: if is_whole { held.disk_bytes } else { 0 },
            is_unsettled: !is_settled,
        });
    }
    Ok(orphans)
}

/// The commits that are held and that neither the catalogue nor its history names. Errors: the
/// state store's.
pub(crate) async fn orphaned_commits(
    control: &Control,
    retained: &RetainedById,
    held: &v1::HeldRepository,
) -> Result<Vec<Oid>> {
    let id = StorageId::new(&held.storage_id)?;
    let entry = control.catalog.by_storage_id(&id);
    let current = shown_by(entry.as_deref()).map(|(_, commit)| commit);
    let mut commits = commits_of(held)?;
    commits.retain(|commit| {
        let is_retained = |row: &RetainedSnapshot| row.snapshot.commit == *commit;
        current != Some(*commit) && !retained.get(&id).is_some_and(|r| r.iter().any(is_retained))
    });
    if let Some(entry) = entry.filter(|_| !commits.is_empty()) {
        let shown = control.published.replaced_in(&entry).await?;
        commits.retain(|commit| !shown.contains(commit));
    }
    Ok(commits)
}

fn commits_of(held: &v1::HeldRepository) -> Result<Vec<Oid>> {
    let commits = held.snapshots.iter();
    commits
        .map(|snapshot| Oid::from_bytes(&snapshot.commit))
        .collect()
}

/// Settles what a node holds of a repository that the catalogue has. False: a router works on it,
/// so it has to be looked at again.
async fn settle_known(
    actor: &Actor,
    state: &Arc<Parts>,
    node: &Member,
    entry: &Arc<Repository>,
    commits: &[Oid],
    retained: &[RetainedSnapshot],
) -> Result<bool> {
    let current = shown_by(Some(entry)).map(|(_, commit)| commit);
    let is_holder = entry.holders.contains(&node.id);
    let mut others = commits.to_vec();
    others.retain(|commit| {
        let is_retained = retained.iter().any(|row| row.snapshot.commit == *commit);
        !is_retained && current != Some(*commit)
    });
    if is_holder && others.is_empty() {
        return Ok(true);
    }
    if ingest::worked_on_by(&state.control, &state.work, &entry.path).is_some() {
        return Ok(false);
    }
    // An entry of another life, or without a commit yet, says nothing about what is held.
    let Some(current) = current.filter(|_| entry.state == RepositoryState::Ready) else {
        return Ok(true);
    };
    let (path, entry) = (&entry.path, &**entry);
    if commits.contains(&current) && !is_holder {
        return undisturbed(
            state,
            path,
            Some(entry),
            record_holder(actor, &state.control, &state.fleet, node, entry),
        )
        .await;
    }
    // The records that it has make the next copy cheaper.
    let candidates = state.fleet.members.placement_nodes();
    if !is_holder && candidates.iter().any(|other| other.id == node.id) {
        return Ok(true);
    }
    let shown = state.control.published.replaced_in(entry).await?;
    others.retain(|commit| shown.contains(commit));
    if others.is_empty() {
        return Ok(true);
    }
    // Looked at before ingests are kept away, too: this may be so for long.
    if !is_confirmed(&state.fleet, entry).await {
        tracing::debug!(%path, node = %node.id, "replaced commits stay on the node: too few \
         holders confirm the commit that readers see");
        return Ok(false);
    }
    undisturbed(
        state,
        path,
        Some(entry),
        drop_replaced(state, node, entry, &others),
    )
    .await
}

/// Does `work` on copies of `path` while no router ingests or cleans up there and the catalogue
/// shows `entry`, or that there is none. False: that is not so, or `work` says that it has to be
/// done again. Errors: those of `work`; the state store's.
pub(super) async fn undisturbed(
    state: &Parts,
    path: &DisplayPath,
    entry: Option<&Repository>,
    work: impl Future<Output = Result<bool>>,
) -> Result<bool> {
    let Some(away) = state.work.ingests.keep_away(&state.control, path).await? else {
        return Ok(false);
    };
    // What another router published there, before this one had the lease, may be on its way.
    let done = match state.control.catalog.is_current(path, entry).await {
        Ok(true) => work.await,
        other => other,
    };
    away.release().await;
    done
}

/// Makes the node a holder of what the entry shows, if it still has it. The caller keeps others away
/// from the path, so that nothing deletes the copy meanwhile; the node is asked because something
/// may have done so before.
pub(crate) async fn record_holder(
    actor: &Actor,
    control: &Control,
    fleet: &Fleet,
    node: &Member,
    entry: &Repository,
) -> Result<bool> {
    match fleet.confirm_held(node, entry).await {
        Ok(()) => {
            tracing::info!(path = %entry.path, node = %node.id, "the node has a copy that was not \
             recorded");
            let (path, generation) = (&entry.path, entry.generation);
            let entries = &control.entries;
            entries
                .add_holder(actor, path, generation, &node.id)
                .await?;
        }
        Err(error) if error.kind == ErrorKind::NotHeld => {}
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Drops commits that the entry showed before and that no reader uses any more. False: too few
/// holders confirm the commit that readers see.
async fn drop_replaced(
    state: &Parts,
    node: &Member,
    entry: &Repository,
    replaced: &[Oid],
) -> Result<bool> {
    if !is_confirmed(&state.fleet, entry).await {
        return Ok(false);
    }
    tracing::info!(path = %entry.path, node = %node.id, "dropping commits that were replaced");
    let id = entry.storage_id();
    state.fleet.drop_commits(node, &id, replaced).await?;
    Ok(true)
}

/// Whether as many holders as are wanted confirm that they hold what `entry` shows.
async fn is_confirmed(fleet: &Fleet, entry: &Repository) -> bool {
    let wanted = fleet.members.view().copies_wanted();
    entry.holders.len() >= wanted && confirmed_copies(fleet, entry, wanted).await >= wanted
}

/// How many holders that serve confirm that they hold what `entry` shows; no more than `enough` are
/// needed.
pub(crate) async fn confirmed_copies(fleet: &Fleet, entry: &Repository, enough: usize) -> usize {
    let view = fleet.members.view();
    let mut confirmed = 0;
    let holders = view
        .nodes()
        .filter(|node| node.state.serves() && entry.holders.contains(&node.id));
    for holder in holders {
        if confirmed >= enough {
            break;
        }
        match fleet.confirm_held(holder, entry).await {
            Ok(()) => confirmed += 1,
            Err(error) => {
                tracing::debug!(path = %entry.path, node = %holder.id, %error, "not confirmed");
            }
        }
    }
    confirmed
}
