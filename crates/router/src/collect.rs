//! Collects what nobody reads any more: snapshots that were replaced, and repositories that were
//! deleted.
//!
//! A replaced snapshot goes when the grace is over *and* every client that is connected to any
//! router has acknowledged the revision that replaced it: the other routers are asked, and while
//! one of them does not answer nothing is collected. A repository that is being ingested is left
//! alone: the new commit is on the nodes before it is in the catalogue.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use monofs_model::{DisplayPath, ErrorKind, Member, Result};
use monofs_proto::v1::cluster_client::ClusterClient;
use monofs_proto::{convert, v1};
use monofs_rpc::{Context, from_status, within};
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::parts::Parts;
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

async fn round(state: &Arc<Parts>) -> Result<()> {
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
                () = collect(&state.control, &state.fleet, &path, &gone, &kept) => {}
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

/// Lets the nodes drop `gone` of one repository, and forgets those that every holder dropped.
async fn collect(
    control: &Control,
    fleet: &Fleet,
    path: &DisplayPath,
    gone: &[(RetainedSnapshot, u64)],
    kept: &[(RetainedSnapshot, u64)],
) {
    let entry = control.catalog.get(path);
    let current = entry
        .as_ref()
        .and_then(|entry| entry.snapshot.as_ref())
        .map(|snapshot| snapshot.commit);
    let keep: Vec<_> = kept
        .iter()
        .map(|(retained, _)| retained.snapshot.commit)
        .chain(current)
        .collect();
    let gone_commits: Vec<_> = gone
        .iter()
        .map(|(retained, _)| convert::oid_bytes(&retained.snapshot.commit))
        .collect();
    let view = fleet.members.view();
    for (retained, revision) in gone {
        let mut all = true;
        for id in &retained.holders {
            // A member that is gone for good has nothing to drop.
            let Some(node) = view.nodes().find(|member| member.id == *id) else {
                continue;
            };
            let counts = entry
                .as_ref()
                .is_some_and(|entry| entry.holders.contains(id))
                || kept
                    .iter()
                    .any(|(retained, _)| retained.holders.contains(id));
            let dropped = match counts {
                true => drop_on(fleet, node, path, &keep).await,
                // The repository moved off this node: with the last snapshot that readers might use
                // goes all of it, unless it is being copied there again.
                false => match fleet
                    .drop_copy(node, &path.storage_id(), gone_commits.clone())
                    .await
                {
                    Err(error) if error.kind == ErrorKind::Refused => {
                        drop_on(fleet, node, path, &keep).await
                    }
                    other => other,
                },
            };
            if let Err(error) = dropped {
                tracing::warn!(%path, node = %node.id, %error, "cannot collect; trying again");
                all = false;
            }
        }
        // Published again after it was replaced: the entry is in use, only the note of its
        // replacement goes.
        if all && let Err(error) = control.retained.forget(retained, *revision).await {
            tracing::warn!(%path, %error, "cannot forget a collected snapshot; trying again");
        }
    }
}

async fn drop_on(
    fleet: &Fleet,
    node: &Member,
    path: &DisplayPath,
    keep: &[monofs_model::Oid],
) -> Result<()> {
    let storage_id = path.storage_id().to_string();
    let mut client = fleet.node_client(node)?;
    let context = Context::new(fleet.progress_timeout);
    let outcome = within(context.deadline, "collect", async {
        if keep.is_empty() {
            let request = context.request(v1::DropRequest {
                storage_id,
                only_commits: Vec::new(),
            });
            return client.drop(request).await.map(drop).map_err(from_status);
        }
        let commits = keep.iter().map(convert::oid_bytes).collect();
        let request = context.request(v1::RetainRequest {
            storage_id,
            commits,
        });
        client.retain(request).await.map(drop).map_err(from_status)
    });
    match outcome.await {
        Err(error) if error.kind == ErrorKind::NotHeld => Ok(()),
        other => other,
    }
}
