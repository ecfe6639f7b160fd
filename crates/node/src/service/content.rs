//! `Content`: directory records and contents of what this node holds.

use std::sync::Arc;

use monofs_model::{Error, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::to_status;
use monofs_store::repo::RepoStore;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::{Answer, Sink, answer};
use crate::blobs::{self, Span};
use crate::state::{NodeState, blocking};
use crate::trees::{self, Walk};
use crate::upstream;

pub(crate) struct ContentService {
    state: Arc<NodeState>,
}

impl ContentService {
    pub fn new(state: Arc<NodeState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl v1::content_server::Content for ContentService {
    type GetTreesStream = ReceiverStream<Result<v1::GetTreesResponse, Status>>;
    type GetBlobsStream = ReceiverStream<Result<v1::GetBlobsResponse, Status>>;

    async fn get_trees(&self, request: Request<v1::GetTreesRequest>) -> Answer<v1::GetTreesResponse> {
        let request = request.into_inner();
        let store = self.store(&request.storage_id).await?;
        let walk = Walk::new(&request).map_err(to_status)?;
        let state = self.state.clone();
        answer(|sink| blocking(move || trees::stream(&store, walk, &state.served, &sink)))
    }

    async fn get_blobs(&self, request: Request<v1::GetBlobsRequest>) -> Answer<v1::GetBlobsResponse> {
        let request = request.into_inner();
        let store = self.store(&request.storage_id).await?;
        let spans = blobs::spans(&request).map_err(to_status)?;
        let state = self.state.clone();
        let held_only = request.held_only;
        answer(move |sink| async move {
            let missing = serve_held(&state, &store, spans, &sink).await?;
            if missing.is_empty() {
                return Ok(());
            }
            let missing = if held_only { missing } else { serve_pulled(&state, &store, missing, &sink).await? };
            let missing: Vec<_> = missing.iter().map(|span| convert::oid_bytes(&span.oid)).collect();
            if !missing.is_empty() {
                let _ = sink.send(Ok(v1::GetBlobsResponse { chunks: Vec::new(), missing })).await;
            }
            Ok(())
        })
    }
}

impl ContentService {
    async fn store(&self, storage_id: &str) -> Result<Arc<RepoStore>, Status> {
        let id = StorageId::new(storage_id).map_err(to_status)?;
        self.state.store(&id).await.map_err(to_status)
    }
}

async fn serve_held(
    state: &Arc<NodeState>,
    store: &Arc<RepoStore>,
    spans: Vec<Span>,
    sink: &Sink<v1::GetBlobsResponse>,
) -> Result<Vec<Span>> {
    let (state, store, sink) = (state.clone(), store.clone(), sink.clone());
    blocking(move || blobs::stream(&store, &spans, &state.served, &sink)).await
}

/// Pulls what is missing and sends it on; what somebody else already pulls is waited for. Returns what no server has.
async fn serve_pulled(
    state: &Arc<NodeState>,
    store: &Arc<RepoStore>,
    missing: Vec<Span>,
    sink: &Sink<v1::GetBlobsResponse>,
) -> Result<Vec<Span>> {
    let held = store.clone();
    let (meta, snapshots) = blocking(move || Ok((held.meta()?, held.snapshots()?))).await?;
    let commit = snapshots.iter().max_by_key(|snapshot| snapshot.commit_time).map(|snapshot| snapshot.commit);
    let (claim, mine, others) = state.flights.claim(&meta.storage_id, missing);
    let mut left = Vec::new();
    if !mine.is_empty() {
        left = upstream::pull(state, store, &meta, commit, mine, Some(sink.clone())).await?;
    }
    drop(claim);
    let mut late = Vec::new();
    for (span, mut flight) in others {
        // The sender is dropped, without a word, when the other pull ends, well or badly.
        let _ = tokio::time::timeout(state.config.upstream_timeout, flight.changed())
            .await
            .map_err(|_| Error::unavailable(format!("blob {} is still being pulled", span.oid)))?;
        late.push(span);
    }
    left.extend(serve_held(state, store, late, sink).await?);
    Ok(left)
}
