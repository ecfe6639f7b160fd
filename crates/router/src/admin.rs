//! The `Admin` service: the operator's verbs, each decoded, checked and handed to the part that does it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use monofs_model::{
    Consistency, ContentMode, DisplayPath, Error, ErrorKind, Member, RefName, Repository, Result, SourceUrl,
};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, from_status, to_status, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::ingest::{self, Job, Spec};
use crate::{RouterState, membership, status, watch};

/// Messages waiting for a slow caller.
const QUEUE: usize = 16;
/// How often hydration is looked at while somebody waits for it.
const HYDRATION_POLL: Duration = Duration::from_millis(250);
/// Hydration that makes no progress for this long ends the wait with an error.
const HYDRATION_STALL: Duration = Duration::from_secs(120);
/// So does a holder that does not answer for this long.
const HYDRATION_SILENCE: Duration = Duration::from_secs(300);

pub(crate) struct AdminService {
    state: Arc<RouterState>,
}

impl AdminService {
    pub fn new(state: Arc<RouterState>) -> Self {
        Self { state }
    }
}

type Progress = ReceiverStream<Result<v1::IngestProgress, Status>>;

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminService {
    type IngestStream = Progress;
    type RefreshStream = Progress;
    type VerifyStream = BoxStream<'static, Result<v1::AdminVerifyProgress, Status>>;
    type WatchJobStream = BoxStream<'static, Result<v1::Job, Status>>;

    async fn ingest(&self, request: Request<v1::IngestRequest>) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let spec = spec(&request).map_err(to_status)?;
        let wait_hydrated = request.wait_hydrated && spec.content == ContentMode::Eager;
        let job = ingest::ingest(&self.state, spec).await.map_err(to_status)?;
        Ok(Response::new(follow(self.state.clone(), job, wait_hydrated)))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        let request = request.into_inner();
        let limit = watch::page_size(request.page_size);
        let page = self.state.catalog.page(&request.prefix, &request.page_token, limit);
        let next_page_token =
            if page.len() == limit { page.last().map_or(String::new(), |e| e.path.to_string()) } else { String::new() };
        let repositories = page.iter().map(|entry| v1::Repository::from(&**entry)).collect();
        Ok(Response::new(v1::ListRepositoriesResponse { repositories, next_page_token }))
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::GetRepositoryResponse>, Status> {
        let entry = self.state.catalog.require(&request.into_inner().path).map_err(to_status)?;
        let replicas = status::replicas(&self.state, &entry).await;
        Ok(Response::new(v1::GetRepositoryResponse { repository: Some(v1::Repository::from(&*entry)), replicas }))
    }

    async fn refresh(&self, request: Request<v1::RefreshRequest>) -> Result<Response<Progress>, Status> {
        let entry = self.state.catalog.require(&request.into_inner().path).map_err(to_status)?;
        let job = ingest::refresh(&self.state, &entry).await.map_err(to_status)?;
        Ok(Response::new(follow(self.state.clone(), job, false)))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        let entry = self.state.catalog.require(&request.into_inner().path).map_err(to_status)?;
        if let Some(router) = ingest::worked_on_by(&self.state, &entry.path) {
            let busy = format!(
                "'{}' is being ingested right now (router {router}); delete it when that has ended",
                entry.path
            );
            return Err(to_status(Error::refused(busy)));
        }
        self.state.catalog.remove(&entry.path).await.map_err(to_status)?;
        tracing::info!(path = %entry.path, "deleted");
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.state).await))
    }

    async fn node_files(
        &self,
        request: Request<v1::NodeFilesRequest>,
    ) -> Result<Response<v1::NodeFilesResponse>, Status> {
        let request = request.into_inner();
        let storage_id = match request.path.as_str() {
            "" => String::new(),
            path => DisplayPath::new(path).map_err(to_status)?.storage_id().to_string(),
        };
        let asked = nodes_named(&self.state, &request.node_id).map_err(to_status)?;
        let nodes = join_all(asked.iter().map(|node| files_on(&self.state, node, &storage_id))).await;
        Ok(Response::new(v1::NodeFilesResponse { nodes }))
    }

    async fn verify(&self, request: Request<v1::AdminVerifyRequest>) -> Result<Response<Self::VerifyStream>, Status> {
        let path = request.into_inner().path;
        let repositories: Vec<Arc<Repository>> = match path.as_str() {
            "" => self.state.catalog.page("", "", usize::MAX),
            path => vec![self.state.catalog.require(path).map_err(to_status)?],
        };
        let (sink, stream) = mpsc::channel(QUEUE);
        let state = self.state.clone();
        tokio::spawn(async move {
            for entry in repositories.iter().filter(|entry| entry.snapshot.is_some()) {
                for node in state.members.view().nodes().filter(|node| entry.holders.contains(&node.id)) {
                    verify_on(&state, node, entry, &sink).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn drain(&self, _: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented("drain"))
    }

    async fn undrain(&self, _: Request<v1::UndrainRequest>) -> Result<Response<v1::UndrainResponse>, Status> {
        Err(Status::unimplemented("undrain"))
    }

    async fn trigger_failover(
        &self,
        _: Request<v1::TriggerFailoverRequest>,
    ) -> Result<Response<v1::TriggerFailoverResponse>, Status> {
        Err(Status::unimplemented("trigger_failover"))
    }

    async fn clear_failover(
        &self,
        _: Request<v1::ClearFailoverRequest>,
    ) -> Result<Response<v1::ClearFailoverResponse>, Status> {
        Err(Status::unimplemented("clear_failover"))
    }

    async fn list_failovers(
        &self,
        _: Request<v1::ListFailoversRequest>,
    ) -> Result<Response<v1::ListFailoversResponse>, Status> {
        Err(Status::unimplemented("list_failovers"))
    }

    async fn remove_member(
        &self,
        _: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("remove_member"))
    }

    async fn rebalance(&self, _: Request<v1::RebalanceRequest>) -> Result<Response<v1::RebalanceResponse>, Status> {
        Err(Status::unimplemented("rebalance"))
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        Err(Status::unimplemented("list_jobs"))
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Result<Response<v1::CancelJobResponse>, Status> {
        Err(Status::unimplemented("cancel_job"))
    }

    async fn watch_job(&self, _: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        Err(Status::unimplemented("watch_job"))
    }
}

/// Checks everything that an ingest request says.
fn spec(request: &v1::IngestRequest) -> Result<Spec> {
    let source = SourceUrl::new(&request.source)?;
    let path = if request.path.is_empty() { source.display_path()? } else { DisplayPath::new(&request.path)? };
    let content = match request.content() {
        v1::ContentMode::Unspecified => ContentMode::default(),
        given => given.try_into()?,
    };
    let consistency = match request.consistency() {
        v1::Consistency::Unspecified => Consistency::default(),
        given => given.try_into()?,
    };
    Ok(Spec { path, source, ref_name: RefName::new(&request.ref_name)?, content, consistency })
}

/// The progress of a job until it ends, and then of the hydration if asked for.
fn follow(state: Arc<RouterState>, job: Arc<Job>, wait_hydrated: bool) -> Progress {
    let (sink, stream) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut seen = job.follow();
        let mut last = loop {
            let now = seen.borrow_and_update().clone();
            if let Some(outcome) = now.outcome {
                if let Err(error) = outcome {
                    let _ = sink.send(Err(to_status(error))).await;
                    return;
                }
                break now.progress;
            }
            if sink.send(Ok(now.progress)).await.is_err() || seen.changed().await.is_err() {
                return;
            }
        };
        if wait_hydrated && let Err(error) = hydrated(&state, &job, &mut last, &sink).await {
            let _ = sink.send(Err(to_status(error))).await;
            return;
        }
        last.set_phase(Phase::Done);
        let _ = sink.send(Ok(last)).await;
    });
    ReceiverStream::new(stream)
}

/// Waits until every holder has all contents. Errors: `Unavailable` when nothing moves any more.
async fn hydrated(
    state: &Arc<RouterState>,
    job: &Job,
    progress: &mut v1::IngestProgress,
    sink: &mpsc::Sender<Result<v1::IngestProgress, Status>>,
) -> Result<()> {
    progress.set_phase(Phase::Hydrating);
    let mut patience = Patience::new(tokio::time::Instant::now());
    loop {
        let entry = state.catalog.require(job.spec.path.as_str())?;
        let replicas = status::replicas(state, &entry).await.into_iter().filter(|replica| replica.holder);
        progress.replicas = replicas.map(|replica| patience.see(replica)).collect();
        let seen = &progress.replicas;
        if seen.iter().all(|replica| replica.error.is_empty() && replica.blobs_done == replica.blobs_total) {
            return Ok(());
        }
        patience.check(tokio::time::Instant::now())?;
        if sink.send(Ok(progress.clone())).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(HYDRATION_POLL).await;
    }
}

/// Tells hydration that stands still from a node that does not answer, which may well work: the figures last seen stand
/// until it does, and it is given more time.
struct Patience {
    seen: HashMap<String, v1::ReplicaProgress>,
    /// A figure changed.
    moved: tokio::time::Instant,
    /// All holders answered.
    answered: tokio::time::Instant,
    changed: bool,
    /// The last error of a look: a node that did not answer.
    silent: Option<String>,
    /// The last error that a node told of its hydration.
    told: Option<String>,
}

impl Patience {
    fn new(now: tokio::time::Instant) -> Self {
        Self { seen: HashMap::new(), moved: now, answered: now, changed: false, silent: None, told: None }
    }

    /// Takes in what one holder said, or that it said nothing.
    fn see(&mut self, replica: v1::ReplicaStatus) -> v1::ReplicaProgress {
        let node_id = replica.node_id;
        let Some(held) = replica.held.filter(|_| replica.error.is_empty()) else {
            self.silent = Some(format!("{node_id}: {}", replica.error));
            let last = self.seen.get(&node_id).cloned();
            let last = last.unwrap_or_else(|| v1::ReplicaProgress { node_id, ..Default::default() });
            return v1::ReplicaProgress { error: replica.error, ..last };
        };
        if !held.last_error.is_empty() {
            self.told = Some(format!("{node_id}: {}", held.last_error));
        }
        let now = v1::ReplicaProgress {
            node_id: node_id.clone(),
            trees_done: held.trees,
            trees_total: held.trees,
            blobs_done: held.hydrated_blobs,
            blobs_total: held.total_blobs,
            durable: true,
            error: held.last_error,
        };
        let before = self.seen.insert(node_id, now.clone());
        self.changed |= before.is_none_or(|before| before.blobs_done != now.blobs_done);
        now
    }

    /// Ends a look at all holders. Errors: `Unavailable` after [`HYDRATION_STALL`] without a change while all answer, or
    /// [`HYDRATION_SILENCE`] without an answer of all.
    fn check(&mut self, now: tokio::time::Instant) -> Result<()> {
        let silent = self.silent.take();
        if std::mem::take(&mut self.changed) {
            (self.moved, self.told) = (now, None);
        }
        let goes_on = "it goes on in the background";
        if let Some(why) = silent {
            // Time without an answer is not time without progress.
            if now - self.answered > HYDRATION_SILENCE {
                let message = format!("published, but a node does not say how far its hydration is ({why}); {goes_on}");
                return Err(Error::unavailable(message));
            }
            self.moved = now;
            return Ok(());
        }
        self.answered = now;
        if now - self.moved > HYDRATION_STALL {
            let why = self.told.as_ref().map_or(String::new(), |why| format!(" ({why})"));
            return Err(Error::unavailable(format!("published, but hydration makes no progress{why}; {goes_on}")));
        }
        Ok(())
    }
}

fn nodes_named(state: &RouterState, id: &str) -> Result<Vec<Member>> {
    let view = state.members.view();
    if id.is_empty() || id == "all" {
        return Ok(view.nodes().cloned().collect());
    }
    membership::node(&view, id).map(|node| vec![node.clone()])
}

async fn files_on(state: &RouterState, node: &Member, storage_id: &str) -> v1::node_files_response::Entry {
    let ask = async {
        let mut client = state.node_client(node)?;
        let request = v1::ListHeldRequest { storage_id: storage_id.to_owned() };
        client.list_held(Context::new(state.config.call_timeout).request(request)).await.map_err(from_status)
    };
    let (repositories, error) = match within(state.config.call_timeout, "list held", ask).await {
        Ok(answer) => (answer.into_inner().repositories, String::new()),
        Err(error) if error.kind == ErrorKind::NotHeld => (Vec::new(), String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    v1::node_files_response::Entry { node_id: node.id.to_string(), repositories, error }
}

async fn verify_on(
    state: &RouterState,
    node: &Member,
    entry: &Repository,
    sink: &mpsc::Sender<Result<v1::AdminVerifyProgress, Status>>,
) {
    let message = |progress, error| v1::AdminVerifyProgress {
        node_id: node.id.to_string(),
        path: entry.path.to_string(),
        progress,
        error,
    };
    let silence = state.config.progress_timeout;
    let started = async {
        let mut client = state.node_client(node)?;
        let request = v1::VerifyRequest { storage_id: entry.storage_id().to_string() };
        client.verify(Context::new(silence).stream(request)).await.map_err(from_status)
    };
    let mut answers = match within(silence, "verify", started).await {
        Ok(answer) => guarded(answer.into_inner(), silence, "verify"),
        Err(error) => {
            let _ = sink.send(Ok(message(None, error.to_string()))).await;
            return;
        }
    };
    while let Some(answer) = answers.next().await {
        let told = match answer {
            Ok(progress) => message(Some(progress), String::new()),
            Err(error) => message(None, error.to_string()),
        };
        if sink.send(Ok(told)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(done: u64, error: &str) -> v1::ReplicaStatus {
        let held = v1::HeldRepository { hydrated_blobs: done, total_blobs: 10, ..Default::default() };
        let held = error.is_empty().then_some(held);
        v1::ReplicaStatus { node_id: "n".into(), holder: true, held, error: error.into() }
    }

    #[test]
    fn a_node_that_is_slow_to_answer_is_no_hydration_that_stands_still() {
        let start = tokio::time::Instant::now();
        let mut patience = Patience::new(start);
        patience.see(replica(3, ""));
        patience.check(start).expect("it begins");
        let silent = patience.see(replica(0, "Timeout expired"));
        assert_eq!((silent.blobs_done, silent.blobs_total), (3, 10), "the last figures stand");
        patience.check(start + HYDRATION_STALL * 2).expect("it may work all the time");
        patience.see(replica(3, ""));
        patience.check(start + HYDRATION_STALL * 3 - Duration::from_secs(1)).expect("it answers again");
        patience.see(replica(3, ""));
        let stalled = patience.check(start + HYDRATION_STALL * 4).expect_err("now it stands still");
        assert!(stalled.message.contains("makes no progress"), "{stalled}");
        patience.see(replica(0, "Timeout expired"));
        let silent = patience.check(start + HYDRATION_STALL * 4 + HYDRATION_SILENCE * 2).expect_err("it is gone");
        assert!(silent.message.contains("n: Timeout expired"), "{silent}");
    }
}
