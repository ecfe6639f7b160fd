//! The `Admin` service: each call is decoded, handed to the verb of its name with the actor that the
//! call came from, and its answer encoded.
//!
//! The HTTP API calls the same verbs.

use std::sync::Arc;

use futures::stream::BoxStream;
use monofs_model::{ContentMode, Result};
use monofs_proto::v1;
use monofs_rpc::{context, to_status};
use tonic::{Request, Response, Status};

use crate::parts::Parts;
use crate::verbs::jobs::JobSelection;
use crate::verbs::progress::{Progress, ProgressEnd, follow};
use crate::verbs::verification::Verification;
use crate::verbs::{
    failovers, ingests, jobs, members, removal, reports, repositories, verification,
};

pub(crate) struct AdminService {
    state: Arc<Parts>,
}

impl AdminService {
    pub fn new(state: Arc<Parts>) -> Self {
        Self { state }
    }
}

/// What a verb gave, as the answer of a call.
fn answered<T>(outcome: Result<T>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(to_status)
}

#[tonic::async_trait]
impl v1::admin_server::Admin for AdminService {
    type IngestStream = Progress;
    type RefreshStream = Progress;
    type VerifyStream = Verification;
    type WatchJobStream = BoxStream<'static, Result<v1::Job, Status>>;

    async fn ingest(
        &self,
        request: Request<v1::IngestRequest>,
    ) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let spec = repositories::spec(&request).map_err(to_status)?;
        // Contents that are copied on first read only are never complete.
        let end = match spec.content {
            ContentMode::Eager if request.wait_hydrated => ProgressEnd::Hydrated,
            _ => ProgressEnd::Published,
        };
        let job = repositories::ingest(&context::actor(), &self.state, spec).await;
        answered(job.map(|job| follow(self.state.clone(), job, end)))
    }

    async fn list_repositories(
        &self,
        request: Request<v1::ListRepositoriesRequest>,
    ) -> Result<Response<v1::ListRepositoriesResponse>, Status> {
        let control = &self.state.control;
        let listed = repositories::list(&context::actor(), control, request.get_ref());
        Ok(Response::new(listed))
    }

    async fn get_repository(
        &self,
        request: Request<v1::GetRepositoryRequest>,
    ) -> Result<Response<v1::GetRepositoryResponse>, Status> {
        let path = request.into_inner().path;
        answered(repositories::get(&context::actor(), &self.state, &path).await)
    }

    async fn refresh(
        &self,
        request: Request<v1::RefreshRequest>,
    ) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let actor = context::actor();
        let job = if request.follow {
            ingests::running(&actor, &self.state, &request.path)
        } else {
            repositories::refresh(&actor, &self.state, &request.path).await
        };
        answered(job.map(|job| follow(self.state.clone(), job, ProgressEnd::Published)))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let Parts { control, work, .. } = &*self.state;
        let path = request.into_inner().path;
        let deleted = repositories::delete(&context::actor(), control, work, &path).await;
        answered(deleted.map(|()| v1::DeleteResponse {}))
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let status = reports::status(&context::actor(), &self.state, request.get_ref()).await;
        Ok(Response::new(status))
    }

    async fn node_files(
        &self,
        request: Request<v1::NodeFilesRequest>,
    ) -> Result<Response<v1::NodeFilesResponse>, Status> {
        let Parts { control, fleet, .. } = &*self.state;
        answered(reports::node_files(&context::actor(), control, fleet, request.get_ref()).await)
    }

    async fn verify(
        &self,
        request: Request<v1::AdminVerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let path = request.into_inner().path;
        answered(verification::verify(&context::actor(), &self.state, &path))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let Parts { control, fleet, .. } = &*self.state;
        answered(members::drain(&context::actor(), control, fleet, request.into_inner()).await)
    }

    async fn undrain(
        &self,
        request: Request<v1::UndrainRequest>,
    ) -> Result<Response<v1::UndrainResponse>, Status> {
        let Parts { control, fleet, .. } = &*self.state;
        answered(members::undrain(&context::actor(), control, fleet, request.into_inner()).await)
    }

    async fn trigger_failover(
        &self,
        request: Request<v1::TriggerFailoverRequest>,
    ) -> Result<Response<v1::TriggerFailoverResponse>, Status> {
        let Parts { control, fleet, .. } = &*self.state;
        let request = request.into_inner();
        answered(members::trigger_failover(&context::actor(), control, fleet, request).await)
    }

    async fn clear_failover(
        &self,
        request: Request<v1::ClearFailoverRequest>,
    ) -> Result<Response<v1::ClearFailoverResponse>, Status> {
        let Parts { control, fleet, .. } = &*self.state;
        let request = request.into_inner();
        answered(members::clear_failover(&context::actor(), control, fleet, request).await)
    }

    async fn list_failovers(
        &self,
        _: Request<v1::ListFailoversRequest>,
    ) -> Result<Response<v1::ListFailoversResponse>, Status> {
        answered(failovers::list_failovers(&context::actor(), &self.state).await)
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let request = request.into_inner();
        answered(removal::remove_member(&context::actor(), &self.state, request).await)
    }

    async fn rebalance(
        &self,
        request: Request<v1::RebalanceRequest>,
    ) -> Result<Response<v1::RebalanceResponse>, Status> {
        answered(jobs::rebalance(&context::actor(), &self.state, request.into_inner()).await)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let selection = if request.into_inner().all {
            JobSelection::All
        } else {
            JobSelection::Open
        };
        let jobs = jobs::list(&context::actor(), &self.state.control, selection);
        Ok(Response::new(v1::ListJobsResponse { jobs }))
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let id = request.into_inner().id;
        let job = jobs::cancel(&context::actor(), &self.state.control, &id).await;
        answered(job.map(|job| v1::CancelJobResponse { job: Some(job) }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let id = request.into_inner().id;
        answered(jobs::watch(&context::actor(), &self.state, id))
    }
}
