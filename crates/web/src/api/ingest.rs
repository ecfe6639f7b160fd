//! Adding a repository, and how far that is.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use monofs_api::ingest::{IngestDocument, IngestStarted};
use monofs_api::requests::IngestRequest;
use monofs_model::{DisplayPath, Error};
use monofs_proto::v1::ingest_progress::Phase;
use monofs_rpc::from_status;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::error::Answer;
use crate::extract::{Body, Document, Name, Query, RequestActor};
use crate::routes::Routes;
use crate::site::Site;
use crate::sse::{self, Event};
use monofs_router::parts::Parts;
use monofs_router::verbs::progress::ProgressEnd;
use monofs_router::verbs::{ingests, repositories};

pub(super) fn routes() -> Routes {
    Routes::default()
        .post("/api/v1/repos", add)
        .get("/api/v1/repos/{path}/events", events)
}

/// Add a repository
///
/// Begins its ingest, or joins the one that runs; the answer says where its progress is.
#[utoipa::path(post, path = "/api/v1/repos", tag = "repositories", request_body = IngestRequest,
    responses((status = 202, body = IngestStarted, headers(("location" = String, description = "Where the repository is")))))]
pub(super) async fn add(
    RequestActor(actor): RequestActor,
    State(state): State<Arc<Parts>>,
    Body(asked): Body<IngestRequest>,
) -> Answer<Response> {
    let spec = repositories::spec(&asked.into())?;
    let started = IngestStarted::at(&spec.path);
    repositories::ingest(&actor, &state, spec).await?;
    let location = [(header::LOCATION, started.repository.clone())];
    Ok((StatusCode::ACCEPTED, location, Document(started)).into_response())
}

/// How long progress is told.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Until {
    /// Go on until the contents are on all replicas.
    pub hydrated: bool,
}

/// The progress of an ingest or a refresh
///
/// Events `progress` with an IngestProgress; the last one is `done`, or `failed` with an error. It
/// is told wherever in the cluster it runs; when nothing runs, the last event comes at once.
#[utoipa::path(get, path = "/api/v1/repos/{path}/events", tag = "repositories",
    params(("path" = String, Path, description = "Percent-encoded, slashes too"), Until),
    responses((status = 200, description = "Server-sent events", content_type = "text/event-stream", body = String)))]
pub(super) async fn events(
    RequestActor(actor): RequestActor,
    State(site): State<Site>,
    Name(path): Name,
    Query(until): Query<Until>,
) -> Answer<Response> {
    let path = DisplayPath::new(&path)?;
    let end = if until.hydrated {
        ProgressEnd::Hydrated
    } else {
        ProgressEnd::Published
    };
    let progress = ingests::watch(&actor, &site.router, path, end)?;
    let events = progress.map(|told| -> Result<Event, Error> {
        let progress = told.map_err(from_status)?;
        let name = if progress.phase() == Phase::Done {
            "done"
        } else {
            "progress"
        };
        Event::new(name, &IngestDocument::from(&progress))
    });
    sse::answer(&site, events)
}
