//! The generations of a commit that is about to be shown: made by the first node that holds it,
//! copied by the others.
//!
//! Invariant: a node counts as a holder of a generation only when it has all nodes of its tree.

use monofs_model::generations::GenerationBase;
use monofs_model::{Error, GenerationRef, Member, Repository, Result, Snapshot};

use monofs_members::fleet::{Fleet, GenerationTree};

/// When the names of `snapshot` last changed, if the generation after that of `entry` shows it;
/// `node` holds it. Without the generations of what `entry` shows, all names change now: no build
/// takes an old name for a new one then, only new ones for old.
pub(super) async fn made_for(
    fleet: &Fleet,
    entry: &Repository,
    snapshot: &Snapshot,
    node: &Member,
) -> GenerationRef {
    let Some(shown) = &entry.snapshot else {
        return all_now(entry);
    };
    // What was published before there were generations counts as of one.
    let base = GenerationBase {
        root: shown.root,
        generations: shown
            .generations
            .unwrap_or(GenerationRef::Constant(entry.generation)),
    };
    if base.root == snapshot.root && base.generations.node().is_none() {
        return base.generations;
    }
    match fleet.make_generations(node, entry, base, snapshot).await {
        Ok(made) => made,
        Err(error) => {
            lost(fleet, entry, node, &error);
            all_now(entry)
        }
    }
}

/// Lets `others`, which hold the commit of `shown` as its only holder on record does, take its
/// generation tree from that. False: one of them cannot.
pub(super) async fn copied_to(fleet: &Fleet, others: &[&Member], shown: &Repository) -> bool {
    for node in others {
        if let Err(error) = copy_to(fleet, node, shown).await {
            lost(fleet, shown, node, &error);
            return false;
        }
    }
    true
}

/// All names change in the generation after that of `entry`.
pub(super) fn all_now(entry: &Repository) -> GenerationRef {
    GenerationRef::Constant(entry.generation + 1)
}

fn lost(fleet: &Fleet, entry: &Repository, node: &Member, error: &Error) {
    fleet.generations_lost.note(&entry.path);
    tracing::warn!(path = %entry.path, node = %node.id, %error, "the times of what did not change are \
     lost: all names get the time of this update");
}

/// Lets a node that holds the commit of `shown` take its generation tree from the other holders.
/// Errors: `NotHeld`, too, when none of them has it.
pub(super) async fn copy_to(fleet: &Fleet, node: &Member, shown: &Repository) -> Result<()> {
    let Some(snapshot) = &shown.snapshot else {
        return Ok(());
    };
    if snapshot.generations.is_none_or(|all| all.node().is_none()) {
        return Ok(());
    }
    match fleet
        .adopt_and_wait(node, shown, snapshot, 0, |_| {})
        .await?
    {
        GenerationTree::Held => Ok(()),
        GenerationTree::Lost => Err(Error::not_held("no holder has the generation tree")),
    }
}
