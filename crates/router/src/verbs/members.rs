//! What operators want of nodes: drain and failover, and maintenance of the whole cluster. It is
//! written to the state store, where every router follows it; who carries it out is
//! [`crate::membership`] and the reconciler.
//!
//! Every verb is idempotent: what is so already is answered with `unchanged`.

use monofs_model::{Error, MemberState, NodeId, Result};
use monofs_proto::v1;
use monofs_proto::v1::job;
use monofs_proto::v1::node_intent::Kind;

use crate::fleet::Fleet;
use crate::membership;
use crate::reconcile::jobs;
use monofs_control::Control;
use monofs_control::clock;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1000;

/// A node, or without one the whole cluster.
pub async fn drain(
    control: &Control,
    fleet: &Fleet,
    request: v1::DrainRequest,
) -> Result<v1::DrainResponse> {
    check_reason(&request.reason)?;
    if !request.node_id.is_empty() {
        let unchanged = want(
            control,
            fleet,
            &request.node_id,
            Kind::Drain,
            &request.reason,
            request.force,
        )
        .await?;
        let job_id = job(
            control,
            unchanged,
            job::Kind::Drain,
            &request.node_id,
            &request.reason,
        )
        .await?;
        return Ok(v1::DrainResponse { unchanged, job_id });
    }
    let mut unchanged = false;
    let drained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_some();
        let new = || v1::Maintenance {
            reason: request.reason.clone(),
            since: clock::now(),
        };
        Ok(Some(row.cloned().unwrap_or_else(new)))
    };
    control.tables.maintenance.update("", drained).await?;
    tracing::info!(reason = request.reason, unchanged, "the cluster is drained");
    Ok(v1::DrainResponse {
        unchanged,
        job_id: String::new(),
    })
}

pub async fn undrain(
    control: &Control,
    fleet: &Fleet,
    request: v1::UndrainRequest,
) -> Result<v1::UndrainResponse> {
    if !request.node_id.is_empty() {
        let unchanged = let_back(control, fleet, &request.node_id, Kind::Drain).await?;
        return Ok(v1::UndrainResponse { unchanged });
    }
    let mut unchanged = false;
    let undrained = |row: Option<&v1::Maintenance>| {
        unchanged = row.is_none();
        Ok(None)
    };
    control.tables.maintenance.update("", undrained).await?;
    tracing::info!(unchanged, "the cluster is undrained");
    Ok(v1::UndrainResponse { unchanged })
}

pub async fn trigger_failover(
    control: &Control,
    fleet: &Fleet,
    request: v1::TriggerFailoverRequest,
) -> Result<v1::TriggerFailoverResponse> {
    check_reason(&request.reason)?;
    let unchanged = want(
        control,
        fleet,
        &request.node_id,
        Kind::Failover,
        &request.reason,
        request.force,
    )
    .await?;
    let job_id = job(
        control,
        unchanged,
        job::Kind::Failover,
        &request.node_id,
        &request.reason,
    )
    .await?;
    Ok(v1::TriggerFailoverResponse { unchanged, job_id })
}

/// The id of the job that moves the copies off: a new one, or if nothing new is wanted the one that
/// runs, if any.
async fn job(
    control: &Control,
    unchanged: bool,
    kind: job::Kind,
    node_id: &str,
    reason: &str,
) -> Result<String> {
    let job = match jobs::running(control, kind, node_id) {
        None if unchanged => None,
        None => Some(jobs::open(control, kind, node_id, reason).await?),
        running => running,
    };
    Ok(job.map_or(String::new(), |job| job.id))
}

pub async fn clear_failover(
    control: &Control,
    fleet: &Fleet,
    request: v1::ClearFailoverRequest,
) -> Result<v1::ClearFailoverResponse> {
    let unchanged = let_back(control, fleet, &request.node_id, Kind::Failover).await?;
    Ok(v1::ClearFailoverResponse { unchanged })
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a reason is one line of at most {REASON_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// Records that copies shall leave a node; returns whether that was so already. Errors: `NotFound`;
/// `Refused` when something else is wanted of it, it cannot be known yet what it holds, or too few
/// nodes would be left.
async fn want(
    control: &Control,
    fleet: &Fleet,
    node_id: &str,
    kind: Kind,
    reason: &str,
    force: bool,
) -> Result<bool> {
    let view = fleet.members.view();
    let node = membership::node(&view, node_id)?;
    if node.state == MemberState::Joining {
        return Err(Error::refused(format!(
            "{node_id} is joining and holds nothing; when it shall not join, stop it instead"
        )));
    }
    let left = membership::placeable(&view)
        .iter()
        .filter(|other| other.id != node.id)
        .count();
    let copies = view.replication_factor.max(1) as usize;
    let mut unchanged = false;
    let wanted = |row: Option<&v1::NodeIntent>| {
        unchanged = false;
        match row {
            Some(row) if row.kind() == kind => {
                unchanged = row.force || !force;
                Ok(Some(v1::NodeIntent {
                    force: row.force || force,
                    ..row.clone()
                }))
            }
            Some(row) => Err(Error::refused(other_intent(row))),
            None if left < copies && !force => Err(Error::refused(format!(
                "without {node_id} there are {left} active nodes for {copies} copies: add a node \
                 first, or go on with --force"
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
    control.tables.intents.update(node_id, wanted).await?;
    tracing::info!(
        node = node_id,
        kind = kind.as_str_name(),
        reason,
        unchanged,
        "copies shall leave a node"
    );
    Ok(unchanged)
}

/// Takes back what was wanted of a node; returns whether nothing was. Errors: `NotFound`; `Refused`
/// when something else is.
async fn let_back(control: &Control, fleet: &Fleet, node_id: &str, kind: Kind) -> Result<bool> {
    let Some(row) = control.tables.intents.get(node_id) else {
        membership::node(&fleet.members.view(), node_id)?;
        return Ok(true);
    };
    if row.kind() != kind {
        return Err(Error::refused(other_intent(&row)));
    }
    // First: nobody may take it for complete in between.
    fleet.members.fell_behind(&NodeId::new(node_id)?).await?;
    let back = |row: Option<&v1::NodeIntent>| match row {
        Some(row) if row.kind() != kind => Err(Error::refused(other_intent(row))),
        _ => Ok(None),
    };
    control.tables.intents.update(node_id, back).await?;
    tracing::info!(node = node_id, "a node is let back");
    Ok(false)
}

fn other_intent(row: &v1::NodeIntent) -> String {
    let id = &row.node_id;
    let reason = &row.reason;
    let why = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    match row.kind() {
        Kind::Failover => format!(
            "{id} is failed over{why}, which moves its copies off too; `monofs-admin \
             clear-failover --node-id={id}` first"
        ),
        _ => format!("{id} is being drained{why}; `monofs-admin undrain --node={id}` first"),
    }
}
