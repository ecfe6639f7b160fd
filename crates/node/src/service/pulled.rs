//! Answers with contents that are not here yet: pulled from upstream and sent on while they arrive.
//!
//! Invariants: a blob is pulled once at a time, however many readers want it and however soon they
//! leave; contents that a reader waits for have no rate limit.
//!
//! Callers: `service::content`.

use std::sync::Arc;

use monofs_model::{Error, Oid, Result};
use monofs_proto::v1;
use monofs_rpc::context;
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{AnswerSink, send_pieces};
use crate::blobs::{ArrivingPieces, HeldPieces};
use crate::blocking::blocking;
use crate::chunk_span::ChunkSpan;
use crate::flights::{ChunkArrival, ClaimedSpans, ForeignPull, PullClaim};
use crate::served::ServedCounters;
use crate::upstream::pull::{PullTarget, Puller};
use crate::upstream::receive::ReaderTap;

/// What such answers need of the node.
pub(crate) struct PulledAnswers {
    puller: Arc<Puller>,
    served: Arc<ServedCounters>,
    /// Pulls of large blobs: a shutdown waits for them, and they end soon after `stop`.
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl PulledAnswers {
    /// Pulls large blobs in tasks of `tasks` that end after `stop`.
    pub fn new(
        puller: Arc<Puller>,
        served: Arc<ServedCounters>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            puller,
            served,
            tasks,
            stop,
        }
    }

    /// Pulls what is missing of `commit` and sends it on; what is being pulled already is waited
    /// for. Without a commit that is held, it is of the latest one. Returns what no server has.
    pub async fn serve(
        &self,
        store: &Arc<RepoStore>,
        missing: Vec<ChunkSpan>,
        commit: Option<Oid>,
        sink: &AnswerSink<v1::GetBlobsResponse>,
    ) -> Result<Vec<ChunkSpan>> {
        let looked = store.clone();
        let (meta, snapshots) = blocking(move || Ok((looked.meta()?, looked.snapshots()?))).await?;
        let answer = PulledAnswer {
            node: self,
            store,
            meta: Arc::new(meta),
            commit: snapshots
                .iter()
                .max_by_key(|held| (Some(held.commit) == commit, held.commit_time))
                .map(|held| held.commit),
            sink,
        };
        let (large, small): (Vec<ChunkSpan>, Vec<ChunkSpan>) =
            missing.into_iter().partition(ChunkSpan::is_large);
        let mut left = answer.small(small).await?;
        for span in large {
            left.extend(answer.large(span).await?);
        }
        Ok(left)
    }
}

/// One answer with contents that are not here yet.
struct PulledAnswer<'a> {
    node: &'a PulledAnswers,
    store: &'a Arc<RepoStore>,
    meta: Arc<RepoMeta>,
    commit: Option<Oid>,
    sink: &'a AnswerSink<v1::GetBlobsResponse>,
}

impl PulledAnswer<'_> {
    fn claim(&self, spans: Vec<ChunkSpan>) -> ClaimedSpans {
        let flights = &self.node.puller.flights;
        flights.claim(&self.meta.storage_id, spans)
    }

    /// Blobs of one chunk, sent on as they arrive.
    async fn small(&self, spans: Vec<ChunkSpan>) -> Result<Vec<ChunkSpan>> {
        let patience = self.node.puller.upstreams.timeout();
        let mut wanted = spans;
        let mut left = Vec::new();
        while !wanted.is_empty() {
            let ClaimedSpans {
                claim,
                mine,
                others,
            } = self.claim(wanted);
            let tap = Arc::new(ReaderTap::new(self.sink.clone()));
            if !mine.is_empty() {
                left.extend(self.pull_small(mine, tap.clone()).await?);
            }
            drop(claim);

            // What the reader was too slow for is in the store, and the rest when the other pulls
            // have ended. What is not, because they failed, is claimed in the next round.
            let deadline = Instant::now() + patience;
            let mut late = tap.take_skipped();
            for ForeignPull { span, mut arrival } in others {
                tokio::time::timeout_at(deadline, arrival.ended())
                    .await
                    .map_err(|_| still_pulled(&span))?;
                late.push(span);
            }
            wanted = self.held(late).await?;
        }
        Ok(left)
    }

    /// Pulls what this answer claimed. Returns what no server has.
    async fn pull_small(
        &self,
        mine: Vec<ChunkSpan>,
        tap: Arc<ReaderTap>,
    ) -> Result<Vec<ChunkSpan>> {
        let puller = &self.node.puller;
        let target = PullTarget {
            store: self.store,
            meta: &self.meta,
            commit: self.commit,
            limit: None,
        };
        let servers = puller.upstreams.servers(&self.meta.storage_id);
        puller.pull(target, &servers, mine, Some(tap)).await
    }

    /// Sends what the store holds by now; gives the rest.
    async fn held(&self, spans: Vec<ChunkSpan>) -> Result<Vec<ChunkSpan>> {
        if spans.is_empty() {
            return Ok(spans);
        }
        let pieces = HeldPieces::new(self.store.clone(), spans);
        let sent = send_pieces(&self.node.served, None, pieces, self.sink).await?;
        // Without a receiver there is nothing left to send.
        Ok(sent.map(|held| held.missing).unwrap_or_default())
    }

    /// Some chunks of a large blob. The whole of it is pulled, once, whichever reader asks for
    /// which part and however soon they leave; the answer ends with the chunks that it is about.
    async fn large(&self, span: ChunkSpan) -> Result<Option<ChunkSpan>> {
        let mut span = span;
        loop {
            let ClaimedSpans {
                claim, mut others, ..
            } = self.claim(vec![span]);
            let mut pull = None;
            let arrival = match others.pop() {
                Some(other) => other.arrival,
                None => {
                    let own = claim
                        .follow(&span.oid)
                        .expect("a claim covers what no other caller pulls");
                    pull = Some(self.pull_whole(span, claim));
                    own
                }
            };

            // Chunks are sent as they arrive, those that came last from the store.
            let Some(rest) = self.follow(span, arrival).await? else {
                return Ok(None);
            };
            let is_own = pull.is_some();
            if let Some(pull) = pull {
                pull.await.map_err(|e| {
                    Error::internal(format!("pulling blob {} broke off: {e}", span.oid))
                })??;
            }
            match self.held(vec![rest]).await?.pop() {
                // The pull of another reader failed, so this one pulls itself.
                Some(rest) if !is_own => span = rest,
                left => return Ok(left),
            }
        }
    }

    /// Pulls a large blob in a task of its own.
    fn pull_whole(&self, span: ChunkSpan, claim: PullClaim) -> JoinHandle<Result<()>> {
        let puller = self.node.puller.clone();
        let store = self.store.clone();
        let meta = self.meta.clone();
        let commit = self.commit;
        let stop = self.node.stop.clone();
        self.node.tasks.spawn(context::carry(async move {
            // The claim lasts as long as the pull, however that ends.
            let pull = async {
                let _claim = claim;
                let turns = puller.flights.large_turns.clone();
                let _turn = turns
                    .acquire_owned()
                    .await
                    .map_err(|_| Error::internal("the turns of large pulls are closed"))?;
                let target = PullTarget {
                    store: &store,
                    meta: &meta,
                    commit,
                    limit: None,
                };
                let servers = puller.upstreams.servers(&meta.storage_id);
                let whole = vec![ChunkSpan::whole(span.oid, span.size)];
                puller.pull(target, &servers, whole, None).await.map(drop)
            };
            match stop.run_until_cancelled(pull).await {
                Some(pulled) => pulled,
                None => Err(Error::unavailable("the node stops")),
            }
        }))
    }

    /// Sends the chunks of `span` as they enter the store; gives what is left of it when the pull
    /// has ended.
    async fn follow(
        &self,
        mut span: ChunkSpan,
        mut arrival: ChunkArrival,
    ) -> Result<Option<ChunkSpan>> {
        let patience = self.node.puller.upstreams.timeout();
        while span.first < span.end {
            // The next chunk is waited for, until the pull ends.
            let stored = tokio::time::timeout(patience, arrival.beyond(span.first))
                .await
                .map_err(|_| still_pulled(&span))?;
            if stored.is_none() {
                return Ok(Some(span));
            }

            // All that has arrived is sent.
            let pieces = ArrivingPieces::new(self.store.clone(), span);
            let sent = send_pieces(&self.node.served, None, pieces, self.sink).await?;
            // Without a receiver there is nothing left to send.
            let next = sent.map_or(span.end, |arrived| arrived.span.first);
            if next == span.first {
                // What had arrived was taken back: the next server is tried from the start.
                let goes_on = tokio::time::timeout(patience, arrival.news())
                    .await
                    .map_err(|_| still_pulled(&span))?;
                if !goes_on {
                    return Ok(Some(span));
                }
            }
            span.first = next;
        }
        Ok(None)
    }
}

fn still_pulled(span: &ChunkSpan) -> Error {
    Error::unavailable(format!(
        "blob {} is still being pulled; try again",
        span.oid
    ))
}
