//! The `Admin` service: the operator's verbs, each decoded, checked and handed to the part that
//! does it.
//!
//! The HTTP API calls the same functions.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::BoxStream;
use monofs_control::Control;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{ContentMode, DisplayPath, ErrorKind, Member, Repository, Result, StorageId};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, context, from_status, to_status, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::fleet::Fleet;
use crate::ingest;
use crate::parts::Parts;
use crate::reconcile::leftovers::orphaned_commits;
use crate::verbs::progress::{Progress, QUEUE, follow};
use crate::verbs::{delete, failovers, ingests, jobs, members, removal, spec};
use crate::{membership, reconcile, status, watch};

pub(crate) struct AdminService {
    state: Arc<Parts>,
}

impl AdminService {
    pub fn new(state: Arc<Parts>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminService {
    type IngestStream = Progress;
    type RefreshStream = Progress;
    type VerifyStream = BoxStream<'static, Result<v1::AdminVerifyProgress, Status>>;
    type WatchJobStream = BoxStream<'static, Result<v1::Job, Status>>;

    async fn ingest(
        &self,
        request: Request<v1::IngestRequest>,
    ) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let spec = spec(&request).map_err(to_status)?;
        let wait_hydrated = request.wait_hydrated && spec.content == ContentMode::Eager;
        let job = ingest::ingest(&self.state, spec).await.map_err(to_status)?;
        Ok(Response::new(follow(
            self.state.clone(),
            job,
            wait_hydrated,
        )))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        let request = request.into_inner();
        let limit = watch::page_size(request.page_size);
        let page = self
            .state
            .control
            .catalog
            .page(&request.prefix, &request.page_token, limit);
        let next_page_token = if page.len() == limit {
            page.last().map_or(String::new(), |e| e.path.to_string())
        } else {
            String::new()
        };
        let repositories = page
            .iter()
            .map(|entry| v1::Repository::from(&**entry))
            .collect();
        Ok(Response::new(v1::ListRepositoriesResponse {
            repositories,
            next_page_token,
        }))
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::GetRepositoryResponse>, Status> {
        let entry = self
            .state
            .control
            .catalog
            .require(&request.into_inner().path)
            .map_err(to_status)?;
        let replicas = status::replicas(&self.state.fleet, &entry).await;
        Ok(Response::new(v1::GetRepositoryResponse {
            repository: Some(v1::Repository::from(&*entry)),
            replicas,
        }))
    }

    async fn refresh(
        &self,
        request: Request<v1::RefreshRequest>,
    ) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let entry = self
            .state
            .control
            .catalog
            .require(&request.path)
            .map_err(to_status)?;
        let job = if request.follow {
            self.state
                .work
                .ingests
                .running(&entry.path)
                .ok_or_else(|| to_status(ingests::nothing_runs(&entry.path)))?
        } else {
            ingest::refresh(&self.state, &entry)
                .await
                .map_err(to_status)?
        };
        Ok(Response::new(follow(self.state.clone(), job, false)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        delete(
            &self.state.control,
            &self.state.work,
            &request.into_inner().path,
        )
        .await
        .map_err(to_status)?;
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let own = request.into_inner().own;
        Ok(Response::new(if own {
            status::own(&self.state)
        } else {
            status::status(&self.state).await
        }))
    }

    async fn node_files(
        &self,
        request: Request<v1::NodeFilesRequest>,
    ) -> Result<Response<v1::NodeFilesResponse>, Status> {
        let request = request.into_inner();
        let storage_id = match request.path.as_str() {
            "" => String::new(),
            path => DisplayPath::new(path)
                .map_err(to_status)?
                .storage_id()
                .to_string(),
        };
        let asked = nodes_named(&self.state.fleet, &request.node_id).map_err(to_status)?;
        let mut nodes = join_all(
            asked
                .iter()
                .map(|node| files_on(&self.state.fleet, node, &storage_id)),
        )
        .await;
        let control = &self.state.control;
        if let Err(error) = mark_orphans(control, &storage_id, &mut nodes).await {
            for node in &mut nodes {
                node.error = format!("cannot say what the catalogue does not name: {error}");
            }
        }
        Ok(Response::new(v1::NodeFilesResponse { nodes }))
    }

    async fn verify(
        &self,
        request: Request<v1::AdminVerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let path = request.into_inner().path;
        let repositories: Vec<Arc<Repository>> = match path.as_str() {
            "" => self.state.control.catalog.page("", "", usize::MAX),
            path => vec![
                self.state
                    .control
                    .catalog
                    .require(path)
                    .map_err(to_status)?,
            ],
        };
        let (sink, stream) = mpsc::channel(QUEUE);
        let state = self.state.clone();
        tokio::spawn(context::carry(async move {
            for entry in repositories.iter().filter(|entry| entry.snapshot.is_some()) {
                for node in state
                    .fleet
                    .members
                    .view()
                    .nodes()
                    .filter(|node| entry.holders.contains(&node.id))
                {
                    verify_on(&state.fleet, node, entry, &sink).await;
                }
            }
        }));
        Ok(Response::new(ReceiverStream::new(stream).boxed()))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        members::drain(&self.state.control, &self.state.fleet, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn undrain(
        &self,
        request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::UndrainResponse>, Status> {
        members::undrain(&self.state.control, &self.state.fleet, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn trigger_failover(
        &self,
        request: Request<v1::TriggerFailoverRequest>,
    ) -> Result<Response<v1::TriggerFailoverResponse>, Status> {
        members::trigger_failover(&self.state.control, &self.state.fleet, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn clear_failover(
        &self,
        request: Request<v1::ClearFailoverRequest>,
    ) -> Result<Response<v1::ClearFailoverResponse>, Status> {
        members::clear_failover(&self.state.control, &self.state.fleet, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn list_failovers(
        &self,
        _: Request<v1::ListFailoversRequest>,
    ) -> Result<Response<v1::ListFailoversResponse>, Status> {
        failovers::list_failovers(&self.state)
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        removal::remove_member(&self.state, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        jobs::rebalance(&self.state, request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let jobs = jobs::list(&self.state.control, request.into_inner().all);
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let job = reconcile::jobs::cancel(&self.state.control, &request.into_inner().id)
            .await
            .map_err(to_status)?;
        Ok(Response::new(v1::CancelJobResponse { job: Some(job) }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        jobs::watch(&self.state, request.into_inner().id)
            .map(Response::new)
            .map_err(to_status)
    }
}

fn nodes_named(fleet: &Fleet, id: &str) -> Result<Vec<Member>> {
    let view = fleet.members.view();
    if id.is_empty() || id == "all" {
        return Ok(view.nodes().cloned().collect());
    }
    membership::node(&view, id).map(|node| vec![node.clone()])
}

async fn files_on(
    fleet: &Fleet,
    node: &Member,
    storage_id: &str,
) -> v1::node_files_response::Entry {
    let ask = async {
        let mut client = fleet
            .node_client(node)?
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = v1::ListHeldRequest {
            storage_id: storage_id.to_owned(),
        };
        client
            .list_held(Context::new(fleet.call_timeout).request(request))
            .await
            .map_err(from_status)
    };
    let (repositories, error) = match within(fleet.call_timeout, "list held", ask).await {
        Ok(answer) => (answer.into_inner().repositories, String::new()),
        Err(error) if error.kind == ErrorKind::NotHeld => (Vec::new(), String::new()),
        Err(error) => (Vec::new(), error.to_string()),
    };
    v1::node_files_response::Entry {
        node_id: node.id.to_string(),
        repositories,
        error,
    }
}

/// Says of each repository that nodes hold which commits nothing names. `storage_id`: of the one
/// that was asked for; empty = all. Errors: the state store's.
async fn mark_orphans(
    control: &Control,
    storage_id: &str,
    nodes: &mut [v1::node_files_response::Entry],
) -> Result<()> {
    let only = match storage_id {
        "" => None,
        id => Some(StorageId::new(id)?),
    };
    let retained = control.retained.of(only.as_ref()).await?;
    for held in nodes.iter_mut().flat_map(|node| &mut node.repositories) {
        let orphaned = orphaned_commits(control, &retained, held).await?;
        held.orphaned_commits = orphaned.iter().map(oid_bytes).collect();
    }
    Ok(())
}

async fn verify_on(
    fleet: &Fleet,
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
    let silence = fleet.progress_timeout;
    let started = async {
        let mut client = fleet.node_client(node)?;
        let request = v1::VerifyRequest {
            storage_id: entry.storage_id().to_string(),
        };
        client
            .verify(Context::new(silence).stream(request))
            .await
            .map_err(from_status)
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
