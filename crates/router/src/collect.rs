//! Collects what nobody reads any more: snapshots that were replaced, and repositories that were
//! deleted.
//!
//! A replaced snapshot goes when nothing keeps it ([`crate::readers`]): the grace is over, and no
//! client of any router may read it. The other routers are asked, and while one of them does not
//! answer, or its clients may still be on their way back, nothing is collected. A repository that
//! is being ingested is left alone: the new commit is on the nodes before it is in the catalogue.
//!
//! Invariant: a node is told which commits may go, never which to keep, so one that this state does
//! not know of stays.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{DisplayPath, Member, NodeId, Oid, Repository, Result};
use monofs_proto::v1;
use monofs_proto::v1::cluster_client::ClusterClient;
use monofs_rpc::{Context, context, from_status, within};
use tokio_util::sync::CancellationToken;

use crate::kept;
use crate::parts::Parts;
use crate::readers::{Readers, SnapshotKeeper, keeps, linger};
use crate::reconcile::leftovers;
use monofs_control::Control;
use monofs_control::catalog::RetainedSnapshot;
use monofs_control::clock;
use monofs_members::fleet::Fleet;

/// Collects again and again until `stop`.
pub(crate) async fn run(state: Arc<Parts>, stop: CancellationToken) {
    let mut routers = RouterPresence::new(linger(&state.config));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(state.config.worker_interval) => {}
        }
        let present = state.control.tables.routers.list();
        let present = present.iter().map(|router| router.router_id.as_str());
        if !routers.are_settled(present, Instant::now()) {
            continue;
        }
        if let Err(error) = round(&state).await {
            tracing::warn!(%error, "cannot collect replaced snapshots; trying again");
        }
    }
    // The next leader says what is kept.
    state.work.kept.set(Vec::new());
}

/// Which routers were there of late. One that ended took with it what it knew of its clients, which
/// are on their way to the others.
struct RouterPresence {
    linger: Duration,
    /// This router has not led for long: what left before is not known.
    began: Instant,
    seen: HashMap<String, Instant>,
}

impl RouterPresence {
    fn new(linger: Duration) -> Self {
        Self {
            linger,
            began: Instant::now(),
            seen: HashMap::new(),
        }
    }

    /// Whether no router left lately.
    fn are_settled<'a>(&mut self, present: impl Iterator<Item = &'a str>, now: Instant) -> bool {
        let mut all_present = true;
        let linger = self.linger;
        let mut missing = std::mem::take(&mut self.seen);
        for id in present {
            missing.remove(id);
            self.seen.insert(id.to_owned(), now);
        }
        for (id, last) in missing {
            if now.duration_since(last) < linger {
                all_present = false;
                self.seen.insert(id, last);
            }
        }
        all_present && now.duration_since(self.began) >= linger
    }
}

/// Replaced snapshots of one path, each with the revision that replaced it.
type ReplacedAt = Vec<(RetainedSnapshot, u64)>;

pub(crate) async fn round(state: &Arc<Parts>) -> Result<()> {
    // What there is, and who may read it.
    let now = clock::now();
    let grace = state.config.snapshot_grace;
    let expired_before = now - grace.as_secs() as i64;
    let retained = state.control.retained.expired(expired_before).await?;
    if retained.is_empty() {
        state.work.kept.set(Vec::new());
        return Ok(());
    }
    let Some(readers) = readers(state).await? else {
        return Ok(());
    };

    // What goes, and what stays.
    let mut by_path: BTreeMap<DisplayPath, (ReplacedAt, ReplacedAt)> = BTreeMap::new();
    let mut for_readers = Vec::new();
    for (retained, revision) in retained {
        let keeper = keeps(&retained, revision, &readers, grace, now);
        let (gone, kept) = by_path.entry(retained.path.clone()).or_default();
        if let Some(keeper) = keeper.filter(|keeper| *keeper != SnapshotKeeper::Grace) {
            for_readers.push(kept::described(&retained, keeper));
        }
        match keeper {
            None => gone.push((retained, revision)),
            Some(_) => kept.push((retained, revision)),
        }
    }
    state.work.kept.set(for_readers);
    for (path, (gone, kept)) in by_path {
        if !gone.is_empty() {
            collect_at(state, &path, &gone, &kept).await?;
        }
    }
    Ok(())
}

/// Collects `gone` of one repository, unless another router or an ingest works on it. Errors: the
/// state store's.
async fn collect_at(
    state: &Arc<Parts>,
    path: &DisplayPath,
    gone: &ReplacedAt,
    kept: &ReplacedAt,
) -> Result<()> {
    let Some(away) = state.work.ingests.keep_away(&state.control, path).await? else {
        return Ok(());
    };
    tokio::select! {
        collected = collect(&state.control, &state.fleet, path, gone, kept) => {
            if let Err(error) = collected {
                tracing::warn!(%path, %error, "cannot collect; trying again");
            }
        }
        // Another router may ingest there now.
        () = away.lost() => {}
    }
    away.release().await;
    Ok(())
}

/// What the clients of all routers may read. `None`: a router has just started. Errors: a router
/// does not say.
async fn readers(state: &Parts) -> Result<Option<Readers>> {
    let epoch = state.control.catalog.position().epoch;
    let Some(mut readers) = state.work.watchers.readers(&epoch, Instant::now()) else {
        return Ok(None);
    };
    let others = state.control.tables.routers.list();
    let others = others
        .iter()
        .filter(|router| router.router_id != state.control.own.router_id);
    let asked = try_join_all(others.map(|router| acknowledged_at(&state.fleet, router))).await?;
    for answer in asked {
        if answer.settling {
            return Ok(None);
        }
        readers.merge(Readers::from_wire(&answer)?);
    }
    Ok(Some(readers))
}

async fn acknowledged_at(
    fleet: &Fleet,
    router: &v1::RouterStatus,
) -> Result<v1::AcknowledgedResponse> {
    let limit = fleet.call_timeout;
    // An answer is as large as its router's clients read replaced snapshots.
    let mut client = ClusterClient::new(fleet.channels.get(&router.address)?)
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let request = Context::new(limit).request(v1::AcknowledgedRequest {});
    let answer = within(limit, "acknowledged", async {
        client.acknowledged(request).await.map_err(from_status)
    });
    let answer = answer
        .await
        .map_err(|error| error.context(format!("router {}", router.router_id)))?;
    Ok(answer.into_inner())
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
    // Each node is asked once, for those of the commits of which it is named. A member that is gone
    // for good has nothing to drop.
    let round = CollectedPath {
        control,
        fleet,
        path,
        entry: entry.as_deref(),
        gone,
        kept,
    };
    let view = fleet.members.view();
    let mut holders: BTreeMap<&NodeId, bool> = BTreeMap::new();
    for id in gone.iter().flat_map(|(retained, _)| &retained.holders) {
        if let Some(node) = view.nodes().find(|member| member.id == *id)
            && !holders.contains_key(id)
        {
            holders.insert(id, round.drop_from(node).await);
        }
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

/// A repository of which replaced snapshots are collected.
struct CollectedPath<'a> {
    control: &'a Control,
    fleet: &'a Fleet,
    path: &'a DisplayPath,
    entry: Option<&'a Repository>,
    gone: &'a [(RetainedSnapshot, u64)],
    kept: &'a [(RetainedSnapshot, u64)],
}

impl CollectedPath<'_> {
    /// The commit that readers see.
    fn current(&self) -> Option<Oid> {
        let snapshot = self.entry?.snapshot.as_ref()?;
        Some(snapshot.commit)
    }

    fn is_kept(&self, commit: &Oid) -> bool {
        let mut retained = self.kept.iter();
        self.current() == Some(*commit)
            || retained.any(|(retained, _)| retained.snapshot.commit == *commit)
    }

    /// Lets a node drop those of the commits that name it. False: it is to be asked again.
    async fn drop_from(&self, node: &Member) -> bool {
        let named = self.gone.iter().map(|(retained, _)| retained);
        let named = named.filter(|retained| retained.holders.contains(&node.id));
        let (kept, commits): (Vec<Oid>, Vec<Oid>) = named
            .map(|retained| retained.snapshot.commit)
            .partition(|commit| self.is_kept(commit));
        let id = self.path.storage_id();
        let mut dropped = self.fleet.drop_commits(node, &id, &commits).await;
        // One that was published again is in use: the node becomes a holder, if it has it.
        if let Some(entry) = self.entry
            && kept.iter().any(|commit| self.current() == Some(*commit))
            && !entry.holders.contains(&node.id)
            && dropped.is_ok()
        {
            let actor = context::actor();
            let recorded =
                leftovers::record_holder(&actor, self.control, self.fleet, node, entry).await;
            dropped = recorded.map(drop);
        }
        if let Err(error) = &dropped {
            tracing::warn!(path = %self.path, node = %node.id, %error, "cannot collect; trying again");
        }
        dropped.is_ok()
    }
}

#[cfg(test)]
mod tests;
