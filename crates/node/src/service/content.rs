//! `Content`: directory records and contents of what this node holds.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use monofs_model::{Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::to_status;
use monofs_store::repo::RepoStore;
use tonic::{Request, Response, Status};

use super::pulled::PulledAnswers;
use crate::answer::{AnswerPieces, AnswerSink, AnswerTasks, StreamedAnswer, send_pieces};
use crate::blobs::HeldPieces;
use crate::blocking::blocking;
use crate::chunk_span::{ChunkSpan, chunk_total, request_size, requested_spans};
use crate::served::ServedCounters;
use crate::stores::NodeStores;
use crate::trees::{ClosureWalk, TreePieces};
use crate::turns::{InlineTurns, RequestSize};

/// See the module.
pub(crate) struct ContentService {
    stores: Arc<NodeStores>,
    served: Arc<ServedCounters>,
    pulled: Arc<PulledAnswers>,
    answers: AnswerTasks,
    turns: InlineTurns,
}

impl ContentService {
    /// Serves `stores`, and what `pulled` brings, in tasks of `answers`.
    pub fn new(
        stores: Arc<NodeStores>,
        served: Arc<ServedCounters>,
        pulled: Arc<PulledAnswers>,
        answers: AnswerTasks,
    ) -> Self {
        Self {
            stores,
            served,
            pulled,
            answers,
            turns: InlineTurns::new(),
        }
    }
}

type BoxedAnswer<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl v1::content_server::Content for ContentService {
    type GetTreesStream = BoxedAnswer<v1::GetTreesResponse>;
    type GetBlobsStream = BoxedAnswer<v1::GetBlobsResponse>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> Result<Response<BoxedAnswer<v1::GetTreesResponse>>, Status> {
        let request = request.into_inner();
        let walk = ClosureWalk::new(&request).map_err(to_status)?;
        let size = walk.size();
        let begun = self
            .begin(&request.storage_id, size, |store| {
                TreePieces::new(store, walk)
            })
            .await?;
        if begun.pieces.is_done() {
            return Ok(at_once(begun.first));
        }
        // The rest of a long answer is made while the first message is on its way.
        let served = self.served.clone();
        boxed(self.answers.answer(|sink| async move {
            send_pieces(&served, begun.first, begun.pieces, &sink)
                .await
                .map(drop)
        }))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<BoxedAnswer<v1::GetBlobsResponse>>, Status> {
        let request = request.into_inner();
        let spans = requested_spans(&request).map_err(to_status)?;
        let commit = requested_commit(&request);
        let requested = chunk_total(&spans);
        let size = request_size(&spans);
        let begun = self
            .begin(&request.storage_id, size, |store| {
                HeldPieces::new(store, spans)
            })
            .await?;
        if begun.pieces.is_done() && begun.pieces.missing.is_empty() {
            self.served.chunks_held.add(requested);
            return Ok(at_once(begun.first));
        }
        // The rest is sent, and what is not held pulled, in a task of its own.
        let rest = BlobsRest {
            served: self.served.clone(),
            pulled: (!request.held_only).then(|| self.pulled.clone()),
            requested,
            commit,
        };
        boxed(
            self.answers
                .answer(|sink| async move { rest.send(begun, &sink).await }),
        )
    }
}

/// An answer that was begun.
struct BegunAnswer<P: AnswerPieces> {
    /// The first message, unless it would be empty.
    first: Option<P::Message>,
    /// What is left.
    pieces: P,
}

impl<P: AnswerPieces> BegunAnswer<P> {
    fn new(mut pieces: P, served: &ServedCounters) -> Result<Self> {
        let first = pieces.next(served)?;
        Ok(Self { first, pieces })
    }
}

impl ContentService {
    /// Begins an answer: finds the store and makes the first message, most often the only one, in
    /// one turn: here if it is small and what it needs is likely to be in memory, else on a thread
    /// that may block.
    async fn begin<P: AnswerPieces>(
        &self,
        storage_id: &str,
        size: RequestSize,
        make: impl FnOnce(Arc<RepoStore>) -> P + Send + 'static,
    ) -> Result<BegunAnswer<P>, Status> {
        let id = StorageId::new(storage_id).map_err(to_status)?;
        if size == RequestSize::Small
            && let Some(_turn) = self.turns.begin()
            && let Some(store) = self.stores.get_open(&id)
        {
            return BegunAnswer::new(make(store), &self.served).map_err(to_status);
        }
        let stores = self.stores.clone();
        let served = self.served.clone();
        blocking(move || BegunAnswer::new(make(stores.get_blocking(&id)?), &served))
            .await
            .map_err(to_status)
    }
}

/// What follows the first message of an answer with contents.
struct BlobsRest {
    served: Arc<ServedCounters>,
    /// Brings what is not held; `None` where the request is about held contents alone.
    pulled: Option<Arc<PulledAnswers>>,
    /// Chunks that were requested.
    requested: u64,
    /// The commit that the reader sees.
    commit: Option<Oid>,
}

impl BlobsRest {
    /// Sends what is held, then what is pulled, then the ids of what no server has.
    async fn send(
        self,
        begun: BegunAnswer<HeldPieces>,
        sink: &AnswerSink<v1::GetBlobsResponse>,
    ) -> Result<()> {
        let Some(held) = send_pieces(&self.served, begun.first, begun.pieces, sink).await? else {
            return Ok(());
        };
        let HeldPieces { store, missing, .. } = held;
        let missed = chunk_total(&missing);
        self.served.chunks_held.add(self.requested - missed);
        if missing.is_empty() {
            return Ok(());
        }
        let missing = match self.pulled {
            Some(pulled) => {
                self.served.chunks_missed.add(missed);
                pulled.serve(&store, missing, self.commit, sink).await?
            }
            None => missing,
        };
        if !missing.is_empty() {
            let _ = sink.send(Ok(missing_message(&missing))).await;
        }
        Ok(())
    }
}

/// The commit that a request is about. One that is not understood is as good as none: only the
/// contents are asked for by name.
fn requested_commit(request: &v1::GetBlobsRequest) -> Option<Oid> {
    let origin = request.origin.as_ref()?;
    Oid::from_bytes(&origin.commit).ok()
}

fn missing_message(missing: &[ChunkSpan]) -> v1::GetBlobsResponse {
    v1::GetBlobsResponse {
        chunks: Vec::new(),
        missing: missing
            .iter()
            .map(|span| convert::oid_bytes(&span.oid))
            .collect(),
    }
}

/// An answer that is complete.
fn at_once<T: Send + 'static>(message: Option<T>) -> Response<BoxedAnswer<T>> {
    Response::new(stream::iter(message.map(Ok)).boxed())
}

fn boxed<T: Send + 'static>(answer: StreamedAnswer<T>) -> Result<Response<BoxedAnswer<T>>, Status> {
    answer.map(|response| response.map(StreamExt::boxed))
}
