//! `Content`: directory records and contents of what this node holds.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use monofs_model::{Error, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::to_status;
use monofs_store::repo::RepoStore;
use tonic::{Request, Response, Status};

use super::{Answer, Pieces, Sink, answer};
use crate::blobs::{self, Held, Span};
use crate::state::{NodeState, blocking};
use crate::trees::{Trees, Walk};
use crate::upstream;

pub(crate) struct ContentService {
    state: Arc<NodeState>,
}

impl ContentService {
    pub fn new(state: Arc<NodeState>) -> Self {
        Self { state }
    }
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl v1::content_server::Content for ContentService {
    type GetTreesStream = Stream<v1::GetTreesResponse>;
    type GetBlobsStream = Stream<v1::GetBlobsResponse>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<Stream<v1::GetTreesResponse>>, Status> {
        let request = request.into_inner();
        let walk = Walk::new(&request).map_err(to_status)?;
        let (first, trees) = self.begin(&request.storage_id, move |store| Trees::new(store, walk)).await?;
        if trees.is_done() {
            return Ok(at_once(first));
        }
        let state = self.state.clone();
        boxed(answer(|sink| async move { send_rest(&state, first, trees, &sink).await.map(drop) }))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Stream<v1::GetBlobsResponse>>, Status> {
        let request = request.into_inner();
        let spans = blobs::spans(&request).map_err(to_status)?;
        let (first, held) = self.begin(&request.storage_id, move |store| Held::new(store, spans)).await?;
        if held.is_done() && held.missing.is_empty() {
            return Ok(at_once(first));
        }
        let state = self.state.clone();
        let held_only = request.held_only;
        boxed(answer(move |sink| async move {
            let Some(Held { store, missing, .. }) = send_rest(&state, first, held, &sink).await? else { return Ok(()) };
            if missing.is_empty() {
                return Ok(());
            }
            let missing = if held_only { missing } else { serve_pulled(&state, &store, missing, &sink).await? };
            let missing: Vec<_> = missing.iter().map(|span| convert::oid_bytes(&span.oid)).collect();
            if !missing.is_empty() {
                let _ = sink.send(Ok(v1::GetBlobsResponse { chunks: Vec::new(), missing })).await;
            }
            Ok(())
        }))
    }
}

impl ContentService {
    /// Begins an answer: finds the store and makes the first message, most often the only one, in one turn on a thread
    /// that may block. Small answers are bound by such turns.
    async fn begin<P: Pieces>(
        &self,
        storage_id: &str,
        make: impl FnOnce(Arc<RepoStore>) -> P + Send + 'static,
    ) -> Result<(Option<P::Message>, P), Status> {
        let id = StorageId::new(storage_id).map_err(to_status)?;
        let state = self.state.clone();
        let begun = blocking(move || {
            let mut pieces = make(state.store_blocking(&id)?);
            Ok((pieces.next(&state.served)?, pieces))
        });
        begun.await.map_err(to_status)
    }
}

/// An answer that is complete.
fn at_once<T: Send + 'static>(message: Option<T>) -> Response<Stream<T>> {
    Response::new(stream::iter(message.map(Ok)).boxed())
}

fn boxed<T: Send + 'static>(answer: Answer<T>) -> Result<Response<Stream<T>>, Status> {
    answer.map(|response| response.map(StreamExt::boxed))
}

/// Sends what was begun, to its end; `None` when the receiver is gone.
async fn send_rest<P: Pieces>(
    state: &Arc<NodeState>,
    first: Option<P::Message>,
    mut pieces: P,
    sink: &Sink<P::Message>,
) -> Result<Option<P>> {
    let (state, sink) = (state.clone(), sink.clone());
    blocking(move || {
        let mut ready = first;
        loop {
            if let Some(message) = ready
                && sink.blocking_send(Ok(message)).is_err()
            {
                return Ok(None);
            }
            if pieces.is_done() {
                return Ok(Some(pieces));
            }
            ready = pieces.next(&state.served)?;
        }
    })
    .await
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
    let late = send_rest(state, None, Held::new(store.clone(), late), sink).await?;
    left.extend(late.map(|held| held.missing).unwrap_or_default());
    Ok(left)
}
