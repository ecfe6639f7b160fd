//! The verbs about the reconciler: what it would do, what it does, and to stop it. Answered by
//! every router: the job rows are shared, and the leader acts on them.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use monofs_model::{Error, Result};
use monofs_proto::v1;
use monofs_proto::v1::job::Kind;
use monofs_rpc::to_status;
use tonic::Status;

use crate::parts::Parts;
use crate::reconcile::jobs::{self, has_ended};
use crate::reconcile::preview::{self, Scope};
use monofs_control::Control;

/// Says what there is to move, and starts a job for it unless only the plan is asked for.
pub async fn rebalance(
    state: &Arc<Parts>,
    request: v1::RebalanceRequest,
) -> Result<v1::RebalanceResponse> {
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
        jobs::release(&state.control).await?;
    }
    if plan.copies_total + plan.deletes_total > 0 {
        plan.job_id = jobs::open(
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

/// The jobs that have not ended, or all; the newest first.
pub fn list(control: &Control, all: bool) -> Vec<v1::Job> {
    let mut jobs = control.tables.jobs.list();
    jobs.retain(|job| all || !has_ended(job));
    jobs.sort_by(|a, b| {
        (has_ended(a), b.started_at, &a.id).cmp(&(has_ended(b), a.started_at, &b.id))
    });
    jobs
}

/// The error for a job that is not there.
pub fn unknown(id: &str) -> Error {
    Error::not_found(format!(
        "no job '{}'; `monofs-admin jobs --all` lists them",
        id.escape_debug()
    ))
}

/// The job now and after every change, until it has ended. Errors: `NotFound`.
pub fn watch(
    state: &Arc<Parts>,
    id: String,
) -> Result<BoxStream<'static, std::result::Result<v1::Job, Status>>> {
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
