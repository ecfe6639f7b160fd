//! The operator's verbs: `Admin`.

use futures::{StreamExt, stream};
use monofs_model::Error;
use monofs_proto::v1;
use monofs_rpc::to_status;
use tonic::{Request, Response, Status};

use super::answers::steps;
use super::operations::Operations;
use super::{Answers, REPO, World, ready, streamed};

impl World {
    /// Does something with what operators want of the cluster.
    fn operate<T>(
        &self,
        work: impl FnOnce(&mut Operations) -> Result<T, Error>,
    ) -> Result<Response<T>, Status> {
        self.able()?;
        work(&mut self.operations.lock())
            .map(Response::new)
            .map_err(to_status)
    }
}

#[tonic::async_trait]
impl v1::admin_server::Admin for World {
    type IngestStream = Answers<v1::IngestProgress>;
    type RefreshStream = Answers<v1::IngestProgress>;
    type VerifyStream = Answers<v1::AdminVerifyProgress>;
    type WatchJobStream = Answers<v1::Job>;

    async fn ingest(
        &self,
        request: Request<v1::IngestRequest>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        self.able()?;
        let request = request.into_inner();
        self.ingests.lock().push(request.clone());
        let source = request.source.as_str();
        if source.contains("taken") {
            return Err(to_status(Error::refused(
                "path github.com/org/repo is taken by another source",
            )));
        }
        let path = if request.path.is_empty() {
            "example.com/x".to_owned()
        } else {
            request.path
        };
        let mut steps = steps(ready(&path), false);
        if source.contains("offline") {
            steps.truncate(2);
            steps.push(Err(to_status(Error::unavailable(
                "fetch https://offline/x.git: connection refused",
            ))));
        }
        if source.contains("slow") {
            let first = steps.swap_remove(0);
            return Ok(Response::new(
                stream::iter([first]).chain(stream::pending()).boxed(),
            ));
        }
        if source.contains("partly")
            && let Some(Ok(last)) = steps.last_mut()
        {
            let error = "disk full".to_owned();
            last.replicas.push(v1::ReplicaProgress {
                node_id: "node2".into(),
                error,
                ..Default::default()
            });
            last.repository = Some(v1::Repository {
                last_error: "node2: disk full".into(),
                ..ready(&path)
            });
        }
        if source.contains("mute") {
            steps.truncate(2);
        }
        Ok(streamed(steps))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        let request = request.into_inner();
        let all = self.repositories.lock();
        let mut matching = all
            .iter()
            .filter(|repository| repository.path.starts_with(&request.prefix))
            .cloned();
        // One on each page.
        let at: usize = request.page_token.parse().unwrap_or(0);
        let repositories: Vec<_> = matching.by_ref().skip(at).take(1).collect();
        let next_page_token = if matching.next().is_some() {
            (at + 1).to_string()
        } else {
            String::new()
        };
        Ok(Response::new(v1::ListRepositoriesResponse {
            repositories,
            next_page_token,
        }))
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::GetRepositoryResponse>, Status> {
        let repository = self.find(&request.into_inner().path)?;
        let held = v1::HeldRepository {
            disk_bytes: 8192,
            hydrated_blobs: 1,
            total_blobs: 4,
            snapshots: repository.snapshot.iter().cloned().collect(),
            last_error: "fetcher1: no answer".into(),
            ..Default::default()
        };
        let replicas = vec![
            v1::ReplicaStatus {
                node_id: "node1".into(),
                holder: true,
                held: Some(held),
                error: String::new(),
            },
            v1::ReplicaStatus {
                node_id: "node2".into(),
                holder: false,
                held: None,
                error: "no answer".into(),
            },
        ];
        Ok(Response::new(v1::GetRepositoryResponse {
            repository: Some(repository),
            replicas,
        }))
    }

    async fn refresh(
        &self,
        request: Request<v1::RefreshRequest>,
    ) -> Result<Response<Self::RefreshStream>, Status> {
        let repository = self.find(&request.into_inner().path)?;
        if repository.state() == v1::RepositoryState::Ingesting {
            return Err(to_status(Error::refused(
                "gitlab.com/new is being ingested",
            )));
        }
        let unchanged = repository.path == REPO;
        Ok(streamed(steps(repository, unchanged)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        self.able()?;
        let path = request.into_inner().path;
        self.find(&path)?;
        self.repositories
            .lock()
            .retain(|repository| repository.path != path);
        Ok(Response::new(v1::DeleteResponse {}))
    }

    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.status_now()))
    }

    async fn node_files(
        &self,
        request: Request<v1::NodeFilesRequest>,
    ) -> Result<Response<v1::NodeFilesResponse>, Status> {
        let request = request.into_inner();
        if request.node_id == "node9" {
            return Err(to_status(Error::not_found("no node is called node9")));
        }
        let held = v1::HeldRepository {
            path: REPO.into(),
            disk_bytes: 8192,
            trees: 2,
            blobs: 5,
            snapshots: ready(REPO).snapshot.into_iter().collect(),
            last_error: "fetcher1: no answer".into(),
            orphaned_commits: vec![vec![0xab; 20].into()],
            ..Default::default()
        };
        let down = "connection refused".to_owned();
        let nodes = vec![
            v1::node_files_response::Entry {
                node_id: "node1".into(),
                repositories: vec![held],
                error: String::new(),
            },
            v1::node_files_response::Entry {
                node_id: "node2".into(),
                repositories: Vec::new(),
                error: down,
            },
        ];
        let wanted = |entry: &v1::node_files_response::Entry| {
            request.node_id == "all" || entry.node_id == request.node_id
        };
        Ok(Response::new(v1::NodeFilesResponse {
            nodes: nodes.into_iter().filter(wanted).collect(),
        }))
    }

    async fn verify(
        &self,
        request: Request<v1::AdminVerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let step = |node: &str, objects, errors: &[&str], finished| {
            let errors = errors.iter().map(|error| (*error).to_owned()).collect();
            let progress = v1::VerifyProgress {
                objects_checked: objects,
                bytes_checked: 10 * objects,
                errors,
                finished,
                ..Default::default()
            };
            Ok(v1::AdminVerifyProgress {
                node_id: node.into(),
                path: REPO.into(),
                progress: Some(progress),
                error: String::new(),
            })
        };
        let damaged = request.into_inner().path == REPO;
        let errors: &[&str] = if damaged {
            &["blob ab12: the bytes do not match"]
        } else {
            &[]
        };
        Ok(streamed(vec![
            step("node1", 5, &[], false),
            step("node2", 3, errors, true),
            step("node1", 9, &[], true),
        ]))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        self.operate(|operations| operations.drain(request.into_inner()))
    }

    async fn undrain(
        &self,
        request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::UndrainResponse>, Status> {
        self.operate(|operations| operations.undrain(request.into_inner()))
    }

    async fn trigger_failover(
        &self,
        request: Request<v1::TriggerFailoverRequest>,
    ) -> Result<Response<v1::TriggerFailoverResponse>, Status> {
        self.operate(|operations| operations.trigger_failover(request.into_inner()))
    }

    async fn clear_failover(
        &self,
        request: Request<v1::ClearFailoverRequest>,
    ) -> Result<Response<v1::ClearFailoverResponse>, Status> {
        self.operate(|operations| operations.clear_failover(request.into_inner()))
    }

    async fn list_failovers(
        &self,
        request: Request<v1::ListFailoversRequest>,
    ) -> Result<Response<v1::ListFailoversResponse>, Status> {
        self.operate(|operations| operations.list_failovers(request.into_inner()))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        self.operate(|operations| operations.remove_member(request.into_inner()))
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        self.operate(|operations| operations.rebalance(request.into_inner()))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.operate(|operations| operations.list_jobs(request.into_inner()))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        self.operate(|operations| operations.cancel_job(request.into_inner()))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = request.get_ref().id.clone();
        let told = self
            .operate(|operations| operations.watch_job(request.into_inner()))?
            .into_inner();
        let told = stream::iter(told.into_iter().map(Ok));
        Ok(Response::new(if id.ends_with("mute") {
            told.chain(stream::pending()).boxed()
        } else {
            told.boxed()
        }))
    }
}
