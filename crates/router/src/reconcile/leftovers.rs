//! What a node holds and the catalogue does not know of: left by a router or a node that was killed
//! between two steps, or kept by a node that was given up.
//!
//! Invariants: a commit that readers see and that the node holds makes it a holder, so it is not
//! copied again (and deleted like any other, after verification, if it is one copy too many); data
//! is dropped only if neither the entry nor a retained snapshot counts on it, and only if it is
//! still what was looked at.

use std::sync::Arc;

use bytes::Bytes;
use monofs_model::{Error, Member, RepositoryState, Result, StorageId};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;

use crate::parts::Parts;

/// Settles what `node` said it holds.
pub(crate) async fn settle(
    state: &Arc<Parts>,
    node: &Member,
    held: &[v1::HeldRepository],
) -> Result<()> {
    for held in held {
        let id = StorageId::new(&held.storage_id)?;
        let commits: Vec<Bytes> = held
            .snapshots
            .iter()
            .map(|snapshot| snapshot.commit.clone())
            .collect();
        let entry = state.control.catalog.by_storage_id(&id);
        if let Some(entry) = &entry {
            let Some(snapshot) = &entry.snapshot else {
                continue;
            };
            if entry.state != RepositoryState::Ready || entry.holders.contains(&node.id) {
                continue;
            }
            let commit = oid_bytes(&snapshot.commit);
            if commits.contains(&commit) {
                // Held, so that nobody deletes it meanwhile; and asked again, because somebody may
                // have done so before.
                let Some(away) = state
                    .work
                    .ingests
                    .keep_away(&state.control, &entry.path)
                    .await?
                else {
                    return Err(Error::refused(format!("{} is being changed", entry.path)));
                };
                if state
                    .fleet
                    .held(node, &id)
                    .await?
                    .snapshots
                    .iter()
                    .any(|snapshot| snapshot.commit == commit)
                {
                    tracing::info!(path = %entry.path, node = %node.id, "the node has a copy that \
                     was not recorded");
                    state
                        .control
                        .entries
                        .add_holder(&entry.path, entry.generation, &node.id)
                        .await?;
                }
                away.release().await;
                continue;
            }
            // The records that it has make the next copy cheaper.
            if state
                .fleet
                .members
                .placement_nodes()
                .iter()
                .any(|candidate| candidate.id == node.id)
            {
                continue;
            }
        }
        if commits.is_empty() || state.control.retained.is_on(&id, &node.id).await? {
            continue;
        }
        tracing::info!(storage_id = %id, path = held.path, node = %node.id, "nobody counts on this \
         copy; dropping it");
        state.fleet.drop_copy(node, &id, commits).await?;
    }
    Ok(())
}
