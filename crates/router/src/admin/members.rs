//! The operator's verbs about members: drain, failover, removal. What is wanted is written to the state store, where every
//! router follows it; who carries it out is [`crate::membership`] and the reconciler.
//!
//! Every verb is idempotent: what is so already is answered with `unchanged`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use monofs_model::{ClusterView, Error, Member, MemberState, NodeId, Repository, Result};
use monofs_proto::v1;
use monofs_proto::v1::node_intent::Kind;

use crate::status::ago;
use crate::{RouterState, clock, membership};

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;
/// Entries that are changed at the same time when a member is removed.
const CHANGES_MAX: usize = 16;

/// A node, or without one the whole cluster.
pub(super) async fn drain(state: &Arc<RouterState>, request: v1::DrainRequest) -> Result<v1::DrainResponse> {
    check_reason(&request.reason)?;
    if !request.node_id.is_empty() {
        let unchanged = want(state, &request.node_id, Kind::Drain, &request.reason, request.force).await?;
        return Ok(v1::DrainResponse { unchanged, job_id: String::new() });
    }
    let mut unchanged = false;
    let drained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_some();
        let new = || v1::Maintenance { reason: request.reason.clone(), since: clock::now() };
        Ok(Some(row.cloned().unwrap_or_else(new)))
    };
    state.tables.maintenance.update("", drained).await?;
    tracing::info!(reason = request.reason, unchanged, "the cluster is drained");
    Ok(v1::DrainResponse { unchanged, job_id: String::new() })
}

pub(super) async fn undrain(state: &Arc<RouterState>, request: v1::UndrainRequest) -> Result<v1::UndrainResponse> {
    if !request.node_id.is_empty() {
        let unchanged = let_back(state, &request.node_id, Kind::Drain).await?;
        return Ok(v1::UndrainResponse { unchanged });
    }
    let mut unchanged = false;
    let undrained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_none();
        Ok(None)
    };
    state.tables.maintenance.update("", undrained).await?;
    tracing::info!(unchanged, "the cluster is undrained");
    Ok(v1::UndrainResponse { unchanged })
}

pub(super) async fn trigger_failover(
    state: &Arc<RouterState>,
    request: v1::TriggerFailoverRequest,
) -> Result<v1::TriggerFailoverResponse> {
    check_reason(&request.reason)?;
    let unchanged = want(state, &request.node_id, Kind::Failover, &request.reason, request.force).await?;
    Ok(v1::TriggerFailoverResponse { unchanged, job_id: String::new() })
}

pub(super) async fn clear_failover(
    state: &Arc<RouterState>,
    request: v1::ClearFailoverRequest,
) -> Result<v1::ClearFailoverResponse> {
    let unchanged = let_back(state, &request.node_id, Kind::Failover).await?;
    Ok(v1::ClearFailoverResponse { unchanged })
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(Error::invalid(format!("a reason is one line of at most {REASON_BYTES_MAX} bytes")));
    }
    Ok(())
}

/// Records that copies shall leave a node; returns whether that was so already. Errors: `NotFound`; `Refused` when something
/// else is wanted of it, it cannot be known yet what it holds, or too few nodes would be left.
async fn want(state: &Arc<RouterState>, node_id: &str, kind: Kind, reason: &str, force: bool) -> Result<bool> {
    let view = state.members.view();
    let node = membership::node(&view, node_id)?;
    if node.state == MemberState::Joining {
        return Err(Error::refused(format!(
            "{node_id} is joining and holds nothing; when it shall not join, stop it instead"
        )));
    }
    let left = membership::placeable(&view).iter().filter(|other| other.id != node.id).count();
    let copies = view.replication_factor.max(1) as usize;
    let mut unchanged = false;
    let wanted = |row: Option<&v1::NodeIntent>| {
        unchanged = false;
        match row {
            Some(row) if row.kind() == kind => {
                unchanged = row.force || !force;
                Ok(Some(v1::NodeIntent { force: row.force || force, ..row.clone() }))
            }
            Some(row) => Err(Error::refused(other_intent(row))),
            None if left < copies && !force => Err(Error::refused(format!(
                "without {node_id} there are {left} active nodes for {copies} copies: add a node first, or go on with --force"
            ))),
            None => Ok(Some(v1::NodeIntent {
                node_id: node_id.to_owned(),
                kind: kind.into(),
                reason: reason.to_owned(),
                since: clock::now(),
                force,
                emptied: false,
            })),
        }
    };
    state.tables.intents.update(node_id, wanted).await?;
    tracing::info!(node = node_id, kind = kind.as_str_name(), reason, unchanged, "copies shall leave a node");
    Ok(unchanged)
}

/// Takes back what was wanted of a node; returns whether nothing was. Errors: `NotFound`; `Refused` when something else is.
async fn let_back(state: &Arc<RouterState>, node_id: &str, kind: Kind) -> Result<bool> {
    let Some(row) = state.tables.intents.get(node_id) else {
        membership::node(&state.members.view(), node_id)?;
        return Ok(true);
    };
    if row.kind() != kind {
        return Err(Error::refused(other_intent(&row)));
    }
    // First: nobody may take it for complete in between.
    state.members.fell_behind(&NodeId::new(node_id)?).await?;
    let back = |row: Option<&v1::NodeIntent>| match row {
        Some(row) if row.kind() != kind => Err(Error::refused(other_intent(row))),
        _ => Ok(None),
    };
    state.tables.intents.update(node_id, back).await?;
    tracing::info!(node = node_id, "a node is let back");
    Ok(false)
}

fn other_intent(row: &v1::NodeIntent) -> String {
    let (id, reason) = (&row.node_id, &row.reason);
    let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    match row.kind() {
        Kind::Failover => format!(
            "{id} is failed over{why}, which moves its copies off too; `monofs-admin clear-failover --node-id={id}` first"
        ),
        _ => format!("{id} is being drained{why}; `monofs-admin undrain --node={id}` first"),
    }
}

/// Whose reads go elsewhere, how many of what it holds, and where to.
pub(super) async fn list_failovers(state: &Arc<RouterState>) -> Result<v1::ListFailoversResponse> {
    let state = state.clone();
    let listed = tokio::task::spawn_blocking(move || {
        let view = state.members.view();
        let mut well = view.clone();
        for member in &mut well.members {
            (member.state, member.share_percent, member.failed_over) = (MemberState::Active, 100, false);
        }
        let cause = |node| Some((node, cause(&state, node)?));
        let failovers = view.nodes().filter_map(cause).map(|(node, (reason, since))| {
            let entries = state.catalog.held_by(&node.id);
            let targets = targets(&view, &well, node, &entries);
            v1::Failover {
                node_id: node.id.to_string(),
                state: v1::MemberState::from(node.state).into(),
                reason,
                since,
                repositories: targets.values().sum(),
                targets: targets
                    .into_iter()
                    .filter(|(id, _)| !id.is_empty())
                    .map(|(node_id, repositories)| v1::FailoverTarget { node_id, repositories })
                    .collect(),
            }
        });
        failovers.collect()
    });
    let failovers = listed.await.map_err(|e| Error::internal(format!("list failovers: {e}")))?;
    Ok(v1::ListFailoversResponse { failovers })
}

/// Why readers do not ask this node first about all that it is first for, and since when.
fn cause(state: &RouterState, node: &Member) -> Option<(String, i64)> {
    let held_for = state.members.standing_for(&node.id).unwrap_or_default();
    let since = clock::now() - held_for.as_secs() as i64;
    let judged = |reason: &str| Some((reason.to_owned(), since));
    match node.state {
        MemberState::Down => judged("it is down"),
        MemberState::Suspect => judged("nothing was heard of it for a while"),
        _ if node.failed_over => {
            let intent = state.tables.intents.get(node.id.as_str()).unwrap_or_default();
            let said = if intent.reason.is_empty() { String::new() } else { format!(": {}", intent.reason) };
            Some((format!("failed over by an operator{said}"), intent.since))
        }
        MemberState::Recovering => judged("it is recovering"),
        _ if node.share_percent < 100 => {
            judged(&format!("it has recovered; {} % of its reads have returned", node.share_percent))
        }
        _ => None,
    }
}

/// Who is asked first about the entries that `node` would be asked about if all were well, and about how many; "" = nobody
/// can be.
fn targets(
    view: &ClusterView,
    well: &ClusterView,
    node: &Member,
    entries: &[Arc<Repository>],
) -> BTreeMap<String, u64> {
    let mut targets = BTreeMap::new();
    for entry in entries {
        let id = entry.storage_id();
        let first = |view: &ClusterView| view.readers(&id, &entry.holders).first().map(|member| member.id.clone());
        if first(well).as_ref() != Some(&node.id) {
            continue;
        }
        let target = first(view);
        if target.as_ref() != Some(&node.id) {
            *targets.entry(target.map_or(String::new(), String::from)).or_insert(0) += 1;
        }
    }
    targets
}

/// Forgets a member that does not come back. Errors: `NotFound`; `Refused` while it may come back by itself, or is the only
/// holder of something. What was done before an error stays done: ask again.
pub(super) async fn remove_member(
    state: &Arc<RouterState>,
    request: v1::RemoveMemberRequest,
) -> Result<v1::RemoveMemberResponse> {
    let id = NodeId::new(&request.member_id)?;
    let view = state.members.view();
    let member = view.members.iter().find(|member| member.id == id).ok_or_else(|| {
        Error::not_found(format!("no member '{id}'; `monofs-admin nodes` and `monofs-admin fetchers` list them"))
    })?;
    if state.config.members.iter().any(|fixed| fixed.id == id || fixed.address == member.address) {
        return Err(Error::refused(format!(
            "{id} is named by --nodes or --fetcher-addrs of this router: take it out there and start the router again first"
        )));
    }
    removable(state, member)?;
    let held = state.catalog.held_by(&id);
    let only: HashMap<_, _> = held.iter().filter(|entry| entry.holders.len() == 1).map(|e| (&e.path, e)).collect();
    if let Some(first) = only.keys().min() {
        return Err(Error::refused(format!(
            "{id} is the only holder of {} repositories, first {first}: start it again, or delete them or ingest them anew first",
            only.len()
        )));
    }
    let without = |entry: Arc<Repository>| {
        let id = &id;
        async move { no_holder(state, &entry, id).await }
    };
    futures::stream::iter(held).map(without).buffer_unordered(CHANGES_MAX).try_collect::<()>().await?;
    state.tables.intents.update(id.as_str(), |_| Ok(None)).await?;
    state.tables.audits.update(id.as_str(), |_| Ok(None)).await?;
    // Last, so that what fails before can be asked for again.
    state.tables.members.update(id.as_str(), |_| Ok(None)).await?;
    tracing::info!(member = %id, "member removed");
    Ok(v1::RemoveMemberResponse {})
}

/// Errors: `Refused` while the member is there, or maintenance keeps it from being judged.
fn removable(state: &RouterState, member: &Member) -> Result<()> {
    let id = &member.id;
    let refused = |why: String| Err(Error::refused(why));
    match member.state {
        MemberState::Down => Ok(()),
        MemberState::Drained => refused(format!("{id} is drained but runs, so it would register again: stop it first")),
        _ if state.tables.maintenance.get("").is_some() => refused(format!(
            "{id} is {}, and while the cluster is drained nobody is declared down: `monofs-admin undrain` first",
            member.state.as_str()
        )),
        MemberState::Suspect | MemberState::Joining => refused(format!(
            "{id} is {}: when it is stopped it will be down in {}, then remove it",
            member.state.as_str(),
            ago(state.config.unhealthy_threshold.max(Duration::from_secs(1)))
        )),
        _ if member.role == monofs_model::view::Role::Fetcher => {
            refused(format!("{id} is {}: stop it first", member.state.as_str()))
        }
        other => refused(format!(
            "{id} is {}: `monofs-admin drain --node={id}`, stop it when it is drained, then remove it",
            other.as_str()
        )),
    }
}

/// Takes a node off the holders of an entry. Errors: `Refused` when nobody else is one.
async fn no_holder(state: &RouterState, entry: &Repository, id: &NodeId) -> Result<()> {
    let without = |entry: &Repository| {
        if !entry.holders.contains(id) {
            return Ok(None);
        }
        let mut shrunk = entry.clone();
        shrunk.holders.retain(|holder| holder != id);
        if shrunk.holders.is_empty() {
            return Err(Error::refused(format!("{id} became the only holder of {}: start it again", entry.path)));
        }
        Ok(Some(shrunk))
    };
    match state.catalog.update(&entry.path, without).await {
        Ok(_) => Ok(()),
        // Deleted meanwhile.
        Err(error) if error.kind == monofs_model::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
