//! The verbs about the reconciler: what it would do, what it does, and to stop it. Answered by
//! every router: the job rows are shared, and the leader acts on them.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use monofs_model::{Actor, Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::job::Kind;
use monofs_rpc::to_status;
use tonic::Status;

use super::asked::asked;
use crate::parts::Parts;
use crate::reconcile::jobs::{self, has_ended};
use crate::reconcile::preview::{self, Scope};
use monofs_control::Control;

/// Says what there is to move, and starts a job for it unless only the plan is asked for.
pub async fn rebalance(
    actor: &Actor,
    state: &Arc<Parts>,
    request: v1::RebalanceRequest,
) -> Result<v1::RebalanceResponse> {
    asked(actor, "rebalance", &request.path);
    let scope = Scope::of(&state.control, &request)?;
    let subject = match &scope {
        Scope::Everything => String::new(),
        Scope::One(entry) => entry.path.to_string(),
    };
    let planned = state.clone();
    let plan = tokio::task::spawn_blocking(move || {
        preview::moves(&planned.control, &planned.fleet, &scope)
    })
    .await;
    let mut plan = plan.map_err(|e| Error::internal(format!("the plan ended early: {e}")))?;
    if request.dry_run {
        return Ok(plan);
    }
    if let Some(maintenance) = state.control.tables.maintenance.get("") {
        return Err(Error::refused(format!(
            "the cluster is drained ({}), so nothing moves; `monofs-admin undrain` ends that",
            maintenance.reason
        )));
    }
    if subject.is_empty() {
        jobs::release(actor, &state.control).await?;
    }
    if plan.copies_total + plan.deletes_total > 0 {
        plan.job_id = jobs::open(
            actor,
            &state.control,
            Kind::Rebalance,
            &subject,
            "an operator asked for it",
        )
        .await?
        .id;
    }
    Ok(plan)
}

/// Which jobs are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobSelection {
    /// Those that have not ended.
    Open,
    All,
}

/// The jobs of a selection, the newest first, and those that have ended last.
pub fn list(actor: &Actor, control: &Control, selection: JobSelection) -> Vec<v1::Job> {
    asked(actor, "list jobs", "");
    let mut jobs = control.tables.jobs.list();
    jobs.retain(|job| selection == JobSelection::All || !has_ended(job));
    jobs.sort_by(|a, b| {
        (has_ended(a), b.started_at, &a.id).cmp(&(has_ended(b), a.started_at, &b.id))
    });
    jobs
}

/// One job. Errors: `NotFound`.
pub fn get(actor: &Actor, control: &Control, id: &str) -> Result<v1::Job> {
    asked(actor, "get job", id);
    control.tables.jobs.get(id).ok_or_else(|| unknown(id))
}

/// Ends a job; what it left undone is held back. Returns the row as it is then. Errors: `NotFound`;
/// `Refused` when it has ended, or follows from what is wanted of a node.
pub async fn cancel(actor: &Actor, control: &Control, id: &str) -> Result<v1::Job> {
    asked(actor, "cancel job", id);
    jobs::cancel(actor, control, id).await
}

/// The error for a job that is not there.
fn unknown(id: &str) -> Error {
    Error::not_found(format!(
        "no job '{}'; `monofs-admin jobs --all` lists them",
        id.escape_debug()
    ))
}

/// The job now and after every change, until it has ended. Errors: `NotFound`.
pub fn watch(
    actor: &Actor,
    state: &Arc<Parts>,
    id: String,
) -> Result<BoxStream<'static, std::result::Result<v1::Job, Status>>> {
    asked(actor, "watch a job", &id);
    let mut changed = state.control.tables.jobs.changed();
    changed.mark_changed();
    if state.control.tables.jobs.get(&id).is_none() {
        return Err(unknown(&id));
    }
    let next = move |(state, mut changed, last): (
        Arc<Parts>,
        tokio::sync::watch::Receiver<()>,
        Option<v1::Job>,
    )| {
        let id = id.clone();
        async move {
            if last.as_ref().is_some_and(has_ended) {
                return None;
            }
            loop {
                changed.changed().await.ok()?;
                match state.control.tables.jobs.get(&id) {
                    None => {
                        let gone = v1::Job {
                            ended_at: 1,
                            state: v1::job::State::Done.into(),
                            ..Default::default()
                        };
                        return Some((Err(to_status(unknown(&id))), (state, changed, Some(gone))));
                    }
                    now if now != last => {
                        let job = now.clone().unwrap_or_default();
                        return Some((Ok(job), (state, changed, now)));
                    }
                    _ => {}
                }
            }
        }
    };
    Ok(stream::unfold((state.clone(), changed, None), next).boxed())
}
