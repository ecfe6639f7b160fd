//! `Content`: directory records and contents of what this node holds.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use monofs_model::{Error, Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::{context, to_status};
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use super::{Answer, Pieces, Sink, answer};
use crate::blobs::{self, Arriving, Held, Span};
use crate::flights::{Arrival, Claim};
use crate::state::{NodeState, blocking};
use crate::trees::{Trees, Walk};
use crate::upstream::{self, Target};

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
        let (first, trees) = self
            .begin(&request.storage_id, walk.is_small(), move |store| {
                Trees::new(store, walk)
            })
            .await?;
        if trees.is_done() {
            return Ok(at_once(first));
        }
        let state = self.state.clone();
        boxed(answer(|sink| async move {
            send_rest(&state, first, trees, &sink).await.map(drop)
        }))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> Result<Response<Stream<v1::GetBlobsResponse>>, Status> {
        let request = request.into_inner();
        let spans = blobs::spans(&request).map_err(to_status)?;
        let (asked, is_small) = (blobs::chunks(&spans), blobs::is_small(&spans));
        let (first, held) = self
            .begin(&request.storage_id, is_small, move |store| {
                Held::new(store, spans)
            })
            .await?;
        if held.is_done() && held.missing.is_empty() {
            self.state.served.chunks_held.add(asked);
            return Ok(at_once(first));
        }
        let state = self.state.clone();
        let held_only = request.held_only;
        boxed(answer(move |sink| async move {
            let Some(Held { store, missing, .. }) = send_rest(&state, first, held, &sink).await?
            else {
                return Ok(());
            };
            let missed = blobs::chunks(&missing);
            state.served.chunks_held.add(asked - missed);
            if missing.is_empty() {
                return Ok(());
            }
            if !held_only {
                state.served.chunks_missed.add(missed);
            }
            let missing = if held_only {
                missing
            } else {
                serve_pulled(&state, &store, missing, &sink).await?
            };
            let missing: Vec<_> = missing
                .iter()
                .map(|span| convert::oid_bytes(&span.oid))
                .collect();
            if !missing.is_empty() {
                let _ = sink
                    .send(Ok(v1::GetBlobsResponse {
                        chunks: Vec::new(),
                        missing,
                    }))
                    .await;
            }
            Ok(())
        }))
    }
}

impl ContentService {
    /// Begins an answer: finds the store and makes the first message, most often the only one, in
    /// one turn: here if it is small and what it needs is likely to be in memory, else on a thread
    /// that may block.
    async fn begin<P: Pieces>(
        &self,
        storage_id: &str,
        is_small: bool,
        make: impl FnOnce(Arc<RepoStore>) -> P + Send + 'static,
    ) -> Result<(Option<P::Message>, P), Status> {
        let id = StorageId::new(storage_id).map_err(to_status)?;
        if is_small
            && let Some(_turn) = self.state.turns.begin()
            && let Some(store) = self.state.stores.get_open(&id)
        {
            let mut pieces = make(store);
            return Ok((pieces.next(&self.state.served).map_err(to_status)?, pieces));
        }
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

/// Pulls what is missing and sends it on; what somebody else already pulls is waited for. Returns
/// what no server has.
async fn serve_pulled(
    state: &Arc<NodeState>,
    store: &Arc<RepoStore>,
    missing: Vec<Span>,
    sink: &Sink<v1::GetBlobsResponse>,
) -> Result<Vec<Span>> {
    let held = store.clone();
    let (meta, snapshots) = blocking(move || Ok((held.meta()?, held.snapshots()?))).await?;
    let commit = snapshots
        .iter()
        .max_by_key(|snapshot| snapshot.commit_time)
        .map(|snapshot| snapshot.commit);
    let pulled = Pulled {
        state,
        store,
        meta: Arc::new(meta),
        commit,
        sink,
    };
    let (large, small): (Vec<Span>, Vec<Span>) = missing.into_iter().partition(Span::is_large);
    let mut left = pulled.small(small).await?;
    for span in large {
        left.extend(pulled.large(span).await?);
    }
    Ok(left)
}

/// One answer with contents that are not here yet.
struct Pulled<'a> {
    state: &'a Arc<NodeState>,
    store: &'a Arc<RepoStore>,
    meta: Arc<RepoMeta>,
    commit: Option<Oid>,
    sink: &'a Sink<v1::GetBlobsResponse>,
}

impl Pulled<'_> {
    fn target(&self) -> Target<'_> {
        Target {
            state: self.state,
            store: self.store,
            meta: &self.meta,
            commit: self.commit,
            pace: None,
        }
    }

    /// Blobs of one chunk, sent on as they arrive.
    async fn small(&self, spans: Vec<Span>) -> Result<Vec<Span>> {
        let (claim, mine, others) = self.state.flights.claim(&self.meta.storage_id, spans);
        let mut left = Vec::new();
        if !mine.is_empty() {
            let tap = Some(self.sink.clone());
            let servers = upstream::servers(self.state, &self.meta.storage_id);
            left = upstream::pull(self.target(), &servers, mine, tap).await?;
        }
        drop(claim);
        let mut late = Vec::new();
        for (span, mut flight) in others {
            let ended = tokio::time::timeout(self.state.config.upstream_timeout, flight.ended());
            ended.await.map_err(|_| still_pulled(&span))?;
            late.push(span);
        }
        if !late.is_empty() {
            left.extend(self.held(late).await?);
        }
        Ok(left)
    }

    /// Sends what the store holds by now; gives the rest.
    async fn held(&self, spans: Vec<Span>) -> Result<Vec<Span>> {
        let sent = send_rest(
            self.state,
            None,
            Held::new(self.store.clone(), spans),
            self.sink,
        )
        .await?;
        Ok(sent.map(|held| held.missing).unwrap_or_default())
    }

    /// Some chunks of a large blob. The whole of it is pulled, once, whoever asks for which part
    /// and however soon they leave; the answer ends with the chunks that it is about.
    async fn large(&self, span: Span) -> Result<Option<Span>> {
        let (claim, mine, mut others) = self.state.flights.claim(&self.meta.storage_id, vec![span]);
        let own = if mine.is_empty() {
            None
        } else {
            claim.follow(&span.oid)
        };
        let (arrival, pull) = match own {
            Some(arrival) => (arrival, Some(self.pull_whole(span, claim))),
            None => match others.pop() {
                Some((_, arrival)) => (arrival, None),
                None => {
                    return Err(Error::internal(format!(
                        "blob {}: neither claimed nor elsewhere",
                        span.oid
                    )));
                }
            },
        };
        let Some(rest) = self.follow(span, arrival).await? else {
            return Ok(None);
        };
        if let Some(pull) = pull {
            pull.await.map_err(|e| {
                Error::internal(format!("pulling blob {} broke off: {e}", span.oid))
            })??;
        }
        Ok(self.held(vec![rest]).await?.pop())
    }

    /// Pulls a large blob in a task of its own.
    fn pull_whole(&self, span: Span, claim: Claim) -> JoinHandle<Result<()>> {
        let (state, store, meta, commit) = (
            self.state.clone(),
            self.store.clone(),
            self.meta.clone(),
            self.commit,
        );
        let (tasks, stop) = (state.tasks.clone(), state.stop.clone());
        let pull = async move {
            let _claim = claim;
            let turn = state.flights.large_turns.clone().acquire_owned().await;
            let _turn = turn.map_err(|_| Error::internal("the turns of large pulls are closed"))?;
            let whole = Span::whole(span.oid, span.size);
            let target = Target {
                state: &state,
                store: &store,
                meta: &meta,
                commit,
                pace: None,
            };
            upstream::pull(
                target,
                &upstream::servers(&state, &meta.storage_id),
                vec![whole],
                None,
            )
            .await
            .map(drop)
        };
        let stops = || Err(Error::unavailable("the node stops"));
        tasks.spawn(context::carry(async move {
            stop.run_until_cancelled(pull).await.unwrap_or_else(stops)
        }))
    }

    /// Sends the chunks of `span` as they enter the store; gives what is left of it when the pull
    /// has ended.
    async fn follow(&self, mut span: Span, mut arrival: Arrival) -> Result<Option<Span>> {
        let patience = self.state.config.upstream_timeout;
        while span.first < span.end {
            let beyond = tokio::time::timeout(patience, arrival.beyond(span.first));
            if beyond.await.map_err(|_| still_pulled(&span))?.is_none() {
                return Ok(Some(span));
            }
            let arrived = send_rest(
                self.state,
                None,
                Arriving::new(self.store.clone(), span),
                self.sink,
            )
            .await?;
            // Without a receiver there is nothing left to send.
            let next = arrived.map_or(span.end, |arrived| arrived.span.first);
            if next == span.first {
                // What had arrived was taken back: the next server is tried from the start.
                let news = tokio::time::timeout(patience, arrival.news());
                if !news.await.map_err(|_| still_pulled(&span))? {
                    return Ok(Some(span));
                }
            }
            span.first = next;
        }
        Ok(None)
    }
}

fn still_pulled(span: &Span) -> Error {
    Error::unavailable(format!(
        "blob {} is still being pulled; try again",
        span.oid
    ))
}
