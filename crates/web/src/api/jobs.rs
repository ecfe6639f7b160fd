//! Jobs, and what operators want of nodes: drain, failover, rebalance.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures::StreamExt;
use monofs_api::ListPaging;
use monofs_api::jobs::{
    Accepted, FailoverList, JobDocument, JobList, RebalancePlan, RequestOutcome,
};
use monofs_api::requests::{
    DrainRequest, FailoverRequest, LetBackRequest, RebalanceRequest, UndrainRequest, WantedJobs,
};
use monofs_model::Error;
use monofs_proto::v1;
use monofs_rpc::from_status;

use super::repos::EmptyRequest;
use crate::error::Answer;
use crate::extract::{Body, Document, Name, Query, RequestActor};
use crate::routes::Routes;
use crate::site::Site;
use crate::sse::{self, Event};
use monofs_router::parts::Parts;
use monofs_router::verbs::failovers::list_failovers;
use monofs_router::verbs::jobs::JobSelection;
use monofs_router::verbs::{jobs, members};

pub(super) fn routes() -> Routes {
    Routes::default()
        .get("/api/v1/jobs", list)
        .get("/api/v1/jobs/{id}", one)
        .get("/api/v1/jobs/{id}/events", events)
        .post("/api/v1/jobs/{id}/cancel", cancel)
        .post("/api/v1/drain", drain)
        .post("/api/v1/undrain", undrain)
        .get("/api/v1/failover", failovers)
        .post("/api/v1/failover", fail_over)
        .post("/api/v1/failover/clear", clear)
        .post("/api/v1/rebalance", rebalance)
}

/// Jobs
///
/// Those that run, the newest first, and with `all` those that ended last.
#[utoipa::path(get, path = "/api/v1/jobs", tag = "jobs", params(WantedJobs), responses((status = 200, body = JobList)))]
pub(super) async fn list(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Query(wanted): Query<WantedJobs>,
) -> Answer<Document<JobList>> {
    let paging = ListPaging {
        offset: wanted.offset,
        limit: wanted.limit,
    };
    let selection = if wanted.all {
        JobSelection::All
    } else {
        JobSelection::Open
    };
    let (jobs, page) = paging.cut(jobs::list(&actor, &state.control, selection))?;
    Ok(Document(JobList {
        jobs: jobs.iter().map(JobDocument::from).collect(),
        page,
    }))
}

/// One job
#[utoipa::path(get, path = "/api/v1/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobDocument)))]
pub(super) async fn one(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(id): Name,
) -> Answer<Document<JobDocument>> {
    Ok(Document((&jobs::get(&actor, &state.control, &id)?).into()))
}

/// A job while it runs
///
/// Events `job` with a Job: now and after every change; the stream ends when the job has ended.
#[utoipa::path(get, path = "/api/v1/jobs/{id}/events", tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    RequestActor(actor): RequestActor,
    State(site): State<Site>,
    Name(id): Name,
) -> Answer<Response> {
    let jobs = jobs::watch(&actor, &site.router, id)?;
    sse::answer(
        &site,
        jobs.map(|told| -> Result<Event, Error> {
            Event::new("job", &JobDocument::from(&told.map_err(from_status)?))
        }),
    )
}

/// Cancel a job
///
/// What it left undone is held back until a rebalance is asked for.
#[utoipa::path(post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs",
    params(("id" = String, Path, description = "The id of the job")), responses((status = 200, body = JobDocument)))]
pub(super) async fn cancel(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Name(id): Name,
    Body(_): Body<EmptyRequest>,
) -> Answer<Document<JobDocument>> {
    Ok(Document(
        (&jobs::cancel(&actor, &state.control, &id).await?).into(),
    ))
}

/// Drain a node or the cluster
///
/// A node: its copies move off. Without one, maintenance: nobody fails over and nothing moves.
#[utoipa::path(post, path = "/api/v1/drain", tag = "operations", request_body = DrainRequest,
    responses((status = 200, body = Accepted)))]
pub(super) async fn drain(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<DrainRequest>,
) -> Answer<Document<Accepted>> {
    let node_id = named(asked.node_id)?;
    let request = v1::DrainRequest {
        node_id: node_id.clone(),
        reason: asked.reason,
        force: asked.force,
    };
    let done = members::drain(&actor, &state.control, &state.fleet, request).await?;
    let outcome = RequestOutcome {
        action: "drain",
        node_id: &node_id,
        unchanged: done.unchanged,
        job_id: &done.job_id,
    };
    Ok(Document(outcome.into()))
}

/// End a drain
#[utoipa::path(post, path = "/api/v1/undrain", tag = "operations", request_body = UndrainRequest,
    responses((status = 200, body = Accepted)))]
pub(super) async fn undrain(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<UndrainRequest>,
) -> Answer<Document<Accepted>> {
    let node_id = named(asked.node_id)?;
    let request = v1::UndrainRequest {
        node_id: node_id.clone(),
    };
    let done = members::undrain(&actor, &state.control, &state.fleet, request).await?;
    let outcome = RequestOutcome {
        action: "undrain",
        node_id: &node_id,
        unchanged: done.unchanged,
        job_id: "",
    };
    Ok(Document(outcome.into()))
}

/// A node that is named; an empty name would mean the whole cluster, which is asked for by naming
/// none. Errors: it is empty.
fn named(node: Option<String>) -> Result<String, Error> {
    match node {
        Some(id) if id.is_empty() => Err(Error::invalid(
            "'node_id' is empty: leave it out for the whole cluster",
        )),
        node => Ok(node.unwrap_or_default()),
    }
}

/// Where reads go instead of where placement wants them
#[utoipa::path(get, path = "/api/v1/failover", tag = "operations", responses((status = 200, body = FailoverList)))]
pub(super) async fn failovers(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
) -> Answer<Document<FailoverList>> {
    let listed = list_failovers(&actor, &state).await?.failovers;
    Ok(Document(FailoverList {
        failovers: listed.iter().map(Into::into).collect(),
    }))
}

/// Move reads and copies off a node
#[utoipa::path(post, path = "/api/v1/failover", tag = "operations", request_body = FailoverRequest,
    responses((status = 200, body = Accepted)))]
pub(super) async fn fail_over(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<FailoverRequest>,
) -> Answer<Document<Accepted>> {
    let request = v1::TriggerFailoverRequest {
        node_id: asked.node_id.clone(),
        reason: asked.reason,
        force: asked.force,
    };
    let done = members::trigger_failover(&actor, &state.control, &state.fleet, request).await?;
    let outcome = RequestOutcome {
        action: "trigger-failover",
        node_id: &asked.node_id,
        unchanged: done.unchanged,
        job_id: &done.job_id,
    };
    Ok(Document(outcome.into()))
}

/// Let a node back
///
/// What it lacks is copied to it, then reads return to it.
#[utoipa::path(post, path = "/api/v1/failover/clear", tag = "operations", request_body = LetBackRequest,
    responses((status = 200, body = Accepted)))]
pub(super) async fn clear(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<LetBackRequest>,
) -> Answer<Document<Accepted>> {
    let request = v1::ClearFailoverRequest {
        node_id: asked.node_id.clone(),
    };
    let done = members::clear_failover(&actor, &state.control, &state.fleet, request).await?;
    let outcome = RequestOutcome {
        action: "clear-failover",
        node_id: &asked.node_id,
        unchanged: done.unchanged,
        job_id: "",
    };
    Ok(Document(outcome.into()))
}

/// Bring copies to where placement wants them
///
/// With `dry_run` it only says what it would do.
#[utoipa::path(post, path = "/api/v1/rebalance", tag = "operations", request_body = RebalanceRequest,
    responses((status = 200, body = RebalancePlan)))]
pub(super) async fn rebalance(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<RebalanceRequest>,
) -> Answer<Document<RebalancePlan>> {
    let mode = asked.mode();
    let request = v1::RebalanceRequest {
        storage_id: asked.storage_id.unwrap_or_default(),
        path: asked.path.unwrap_or_default(),
        dry_run: asked.dry_run,
    };
    let plan = jobs::rebalance(&actor, &state, request).await?;
    Ok(Document(RebalancePlan::new(&plan, mode)))
}
