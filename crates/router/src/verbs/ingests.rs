//! The progress of whatever is ingested at a path right now, wherever in the cluster that runs.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use monofs_model::{Actor, ContentMode, DisplayPath, Error, ErrorKind, Result};
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_proto::v1::path_claim::Purpose;
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, context, from_status, to_status, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::asked::asked;
use super::progress::{Progress, ProgressEnd, QUEUE, hydrated};
use crate::ingest::Job;
use crate::parts::Parts;
use monofs_control::Control;
use monofs_members::fleet::Fleet;

/// How often it is looked again who works on the path.
const TURNS_MAX: usize = 8;
/// Pause before that: a claim goes a moment after its work has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

type Sink = mpsc::Sender<Result<v1::IngestProgress, Status>>;

/// The progress of the ingest or refresh of `path` until it ends, here or on another router, then
/// that of its contents if asked for. The last message says `done`; when nothing runs, it
/// comes at once. An error is why it failed, or failed last. Errors: `NotFound`.
pub fn watch(
    actor: &Actor,
    state: &Arc<Parts>,
    path: DisplayPath,
    end: ProgressEnd,
) -> Result<Progress> {
    asked(actor, "watch an ingest", path.as_str());
    if state.work.ingests.running(&path).is_none() {
        state.control.catalog.require(path.as_str())?;
    }
    let (sink, stream) = mpsc::channel(QUEUE);
    let state = state.clone();
    tokio::spawn(context::carry(async move {
        let work = async {
            let mut last = follow(&state, &path, &sink).await?;
            let eager = state
                .control
                .catalog
                .get(&path)
                .is_some_and(|entry| entry.content == ContentMode::Eager);
            if end == ProgressEnd::Hydrated && eager {
                hydrated(&state.control, &state.fleet, &path, &mut last, &sink).await?;
            }
            last.set_phase(Phase::Done);
            Ok(last)
        };
        let outcome: Result<v1::IngestProgress> = tokio::select! {
            outcome = work => outcome,
            () = sink.closed() => return,
        };
        // Who asked may be gone by now.
        let _ = sink.send(outcome.map_err(to_status)).await;
    }));
    Ok(ReceiverStream::new(stream))
}

/// The job that this router runs at `path`, for another router that follows it. Errors: `NotFound`.
pub(crate) fn running(actor: &Actor, state: &Parts, path: &str) -> Result<Arc<Job>> {
    asked(actor, "follow an ingest", path);
    let entry = state.control.catalog.require(path)?;
    state.work.ingests.running(&entry.path).ok_or_else(|| {
        let path = &entry.path;
        Error::not_found(format!(
            "nothing is being ingested at '{path}' by this router"
        ))
    })
}

async fn follow(state: &Arc<Parts>, path: &DisplayPath, sink: &Sink) -> Result<v1::IngestProgress> {
    for _ in 0..TURNS_MAX {
        let Some(router) = elsewhere(&state.control, path) else {
            return match state.work.ingests.running(path) {
                Some(job) => here(&job, sink).await,
                None => ended(&state.control, path),
            };
        };
        match there(&state.control, &state.fleet, path, &router, sink).await {
            // That router has just ended it, or is gone.
            Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::Unavailable) => {
                tracing::debug!(%path, router, %error, "cannot follow an ingest there; looking \
                 again");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
    ended(&state.control, path)
}

/// The other router that ingests at this path.
fn elsewhere(control: &Control, path: &DisplayPath) -> Option<String> {
    let claim = control.tables.claims.get(path.as_str())?;
    (claim.purpose() == Purpose::Ingest && claim.router_id != control.own.router_id)
        .then_some(claim.router_id)
}

/// The last progress of a job of this router.
async fn here(job: &Job, sink: &Sink) -> Result<v1::IngestProgress> {
    let mut seen = job.follow();
    loop {
        let now = seen.borrow_and_update().clone();
        if let Some(outcome) = now.outcome {
            return outcome.map(|()| now.progress);
        }
        let gone = |_| Error::unavailable("whoever followed this ingest is gone");
        sink.send(Ok(now.progress)).await.map_err(gone)?;
        seen.changed()
            .await
            .map_err(|_| Error::unavailable("this router stops"))?;
    }
}

/// The last progress of a job of another router.
async fn there(
    control: &Control,
    fleet: &Fleet,
    path: &DisplayPath,
    router: &str,
    sink: &Sink,
) -> Result<v1::IngestProgress> {
    let known = control.tables.routers.get(router);
    let address = known
        .ok_or_else(|| Error::unavailable(format!("router {router} is not there any more")))?
        .address;
    let mut client = AdminClient::new(fleet.channels.get(&address)?);
    let request = v1::RefreshRequest {
        path: path.to_string(),
        follow: true,
    };
    let limit = fleet.call_timeout;
    let call = client.refresh(Context::new(limit).stream(request));
    let answer = within(limit, "follow an ingest", async {
        call.await.map_err(from_status)
    })
    .await?;
    let mut messages = guarded(
        answer.into_inner(),
        fleet.progress_timeout,
        "the progress of an ingest",
    );
    while let Some(message) = messages.next().await {
        let message = message?;
        if message.phase() == Phase::Done {
            return Ok(message);
        }
        sink.send(Ok(message))
            .await
            .map_err(|_| Error::unavailable("whoever followed this ingest is gone"))?;
    }
    Err(Error::unavailable(format!(
        "router {router} ended without an outcome"
    )))
}

/// What the catalogue says about the last time. Errors: `NotFound`; `Refused` with why it failed.
fn ended(control: &Control, path: &DisplayPath) -> Result<v1::IngestProgress> {
    let entry = control.catalog.require(path.as_str())?;
    if !entry.last_error.is_empty() {
        return Err(Error::refused(format!(
            "the last ingest or refresh of '{path}' failed: {}",
            entry.last_error
        )));
    }
    if entry.snapshot.is_none() {
        return Err(Error::unavailable(format!(
            "'{path}' is being ingested, but not by any router right now; look again"
        )));
    }
    Ok(v1::IngestProgress {
        repository: Some(v1::Repository::from(&*entry)),
        ..Default::default()
    })
}
