//! Collects what nobody reads any more: snapshots that were replaced, and repositories that were
//! deleted.
//!
//! A replaced snapshot goes when the grace is over *and* every client that is connected to any
//! router has acknowledged the revision that replaced it: the other routers are asked, and while
//! one of them does not answer nothing is collected. A repository that is being ingested is left
//! alone: the new commit is on the nodes before it is in the catalogue.
//!
//! Invariant: a node is told which commits may go, never which to keep, so one that this state does
//! not know of stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use monofs_model::{DisplayPath, NodeId, Oid, Result};
use monofs_proto::v1;
use monofs_proto::v1::cluster_client::ClusterClient;
use monofs_rpc::{Context, context, from_status, within};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::parts::Parts;
use crate::reconcile::leftovers;
use monofs_control::Control;
use monofs_control::catalog::RetainedSnapshot;
use monofs_control::clock;

/// Collects again and again until `stop`.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.worker_interval) => {}
        }
        if let Err(error) = round(&state).await {
            tracing::warn!(%error, "cannot collect replaced snapshots; trying again");
        }
    }
}

pub(crate) async fn round(state: &Arc<Parts>) -> Result<()> {
    let mut by_path: BTreeMap<DisplayPath, Vec<(RetainedSnapshot, u64)>> = BTreeMap::new();
    let expired_before = clock::now() - state.config.snapshot_grace.as_secs() as i64;
    for (retained, revision) in state.control.retained.expired(expired_before).await? {
        by_path
            .entry(retained.path.clone())
            .or_default()
            .push((retained, revision));
    }
    if by_path.is_empty() {
        return Ok(());
    }
    let acknowledged = acknowledged(state).await?;
    for (path, all) in by_path {
        let Some(away) = state.work.ingests.keep_away(&state.control, &path).await? else {
            continue;
        };
        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|(retained, revision)| {
            retained.replaced_at <= expired_before
                && acknowledged.is_none_or(|acked| acked >= *revision)
        });
        if !gone.is_empty() {
            tokio::select! {
                collected = collect(&state.control, &state.fleet, &path, &gone, &kept) => {
                    if let Err(error) = collected {
                        tracing::warn!(%path, %error, "cannot collect; trying again");
                    }
                }
                // Another router may ingest there now.
                () = away.lost() => {}
            }
        }
        away.release().await;
    }
    Ok(())
}

/// What every connected client of every router has applied; `None` without clients. Errors: a
/// router does not say.
async fn acknowledged(state: &Parts) -> Result<Option<u64>> {
    let others = state.control.tables.routers.list();
    let others = others
        .iter()
        .filter(|router| router.router_id != state.control.own.router_id);
    let asked = try_join_all(others.map(|router| acknowledged_at(&state.fleet, router))).await?;
    Ok(asked
        .into_iter()
        .chain([state.work.watchers.acknowledged_by_all()])
        .flatten()
        .min())
}

async fn acknowledged_at(fleet: &Fleet, router: &v1::RouterStatus) -> Result<Option<u64>> {
    let limit = fleet.call_timeout;
    let mut client = ClusterClient::new(fleet.channels.get(&router.address)?);
    let request = Context::new(limit).request(v1::AcknowledgedRequest {});
    let answer = within(limit, "acknowledged", async {
        client.acknowledged(request).await.map_err(from_status)
    });
    let answer = answer
        .await
        .map_err(|error| error.context(format!("router {}", router.router_id)))?;
    Ok(answer.into_inner().revision)
}

/// Lets the nodes drop `gone` of one repository, commit by commit, and forgets those that every
/// holder dropped. Errors: the state store's.
async fn collect(
    control: &Control,
    fleet: &Fleet,
    path: &DisplayPath,
    gone: &[(RetainedSnapshot, u64)],
    kept: &[(RetainedSnapshot, u64)],
) -> Result<()> {
    let entry = control.catalog.get(path);
    // What another router published there, before this one had the claim, may be on its way.
    if !control.catalog.is_current(path, entry.as_deref()).await? {
        return Ok(());
    }
    // The state may be an older one than the nodes know: a replaced commit stays while no node
    // holds the one that took its place.
    if let Some(entry) = entry.as_deref().filter(|entry| entry.snapshot.is_some())
        && leftovers::confirmed_copies(fleet, entry, 1).await == 0
    {
        tracing::info!(%path, "replaced commits stay: no holder confirms the one that readers see");
        return Ok(());
    }
    let current = entry
        .as_ref()
        .and_then(|entry| entry.snapshot.as_ref())
        .map(|snapshot| snapshot.commit);
    let is_kept = |commit: &Oid| {
        let retained = kept.iter().map(|(retained, _)| retained.snapshot.commit);
        current
            .into_iter()
            .chain(retained)
            .any(|kept| kept == *commit)
    };
    // Each node is asked once, for those of the commits of which it is named.
    let view = fleet.members.view();
    let mut holders: BTreeMap<&NodeId, bool> = BTreeMap::new();
    for id in gone.iter().flat_map(|(retained, _)| &retained.holders) {
        // A member that is gone for good has nothing to drop.
        let Some(node) = view.nodes().find(|member| member.id == *id) else {
            continue;
        };
        if holders.contains_key(id) {
            continue;
        }
        let named = gone.iter().map(|(retained, _)| retained);
        let named = named.filter(|retained| retained.holders.contains(id));
        let (kept, commits): (Vec<Oid>, Vec<Oid>) = named
            .map(|retained| retained.snapshot.commit)
            .partition(is_kept);
        let mut dropped = fleet.drop_commits(node, &path.storage_id(), &commits).await;
        // One that was published again is in use: the node becomes a holder, if it has it.
        if let Some(entry) = entry.as_deref()
            && kept.iter().any(|commit| current == Some(*commit))
            && !entry.holders.contains(id)
            && dropped.is_ok()
        {
            dropped = leftovers::record_holder(&context::actor(), control, fleet, node, entry)
                .await
                .map(drop);
        }
        if let Err(error) = &dropped {
            tracing::warn!(%path, node = %node.id, %error, "cannot collect; trying again");
        }
        holders.insert(id, dropped.is_ok());
    }
    for (retained, revision) in gone {
        let has_dropped = |id: &NodeId| holders.get(id).copied().unwrap_or(true);
        if retained.holders.iter().all(has_dropped)
            && let Err(error) = control.retained.forget(retained, *revision).await
        {
            tracing::warn!(%path, %error, "cannot forget a collected snapshot; trying again");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
