//! The `Cluster` service: members announce themselves, clients report failures.

use std::sync::Arc;
use std::time::Instant;

use monofs_model::{Error, Member, NodeId};
use monofs_proto::v1;
use monofs_rpc::to_status;
use tonic::{Request, Response, Status};

use crate::parts::Parts;

pub(crate) struct ClusterService {
    state: Arc<Parts>,
}

impl ClusterService {
    pub fn new(state: Arc<Parts>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl v1::cluster_server::Cluster for ClusterService {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let wire = request
            .into_inner()
            .member
            .ok_or_else(|| to_status(Error::invalid("heartbeat: no member")))?;
        let member = Member::try_from(wire).map_err(to_status)?;
        self.state
            .fleet
            .members
            .announced(member)
            .await
            .map_err(to_status)?;
        let view = v1::ClusterView::from(&self.state.fleet.members.view());
        let interval_ms = self.state.config.health_interval.as_millis() as u64;
        Ok(Response::new(v1::HeartbeatResponse {
            view: Some(view),
            interval_ms,
        }))
    }

    async fn report_failure(
        &self,
        request: Request<v1::ReportFailureRequest>,
    ) -> Result<Response<v1::ReportFailureResponse>, Status> {
        let report = request.into_inner();
        tracing::info!(
            member = report.member_id,
            kind = report.error_kind,
            detail = report.detail,
            "failure reported"
        );
        self.state
            .fleet
            .members
            .reported(&NodeId::new(&report.member_id).map_err(to_status)?);
        Ok(Response::new(v1::ReportFailureResponse {}))
    }

    async fn acknowledged(
        &self,
        _: Request<v1::AcknowledgedRequest>,
    ) -> Result<Response<v1::AcknowledgedResponse>, Status> {
        let epoch = self.state.control.catalog.position().epoch;
        let readers = self.state.work.watchers.readers(&epoch, Instant::now());
        let answer = match readers {
            Some(readers) => readers.to_wire(),
            // Another router of an earlier version keeps everything, too.
            None => v1::AcknowledgedResponse {
                revision: Some(0),
                settling: true,
                ..Default::default()
            },
        };
        Ok(Response::new(answer))
    }
}

#[cfg(test)]
mod tests;
