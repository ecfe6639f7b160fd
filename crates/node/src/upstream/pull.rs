//! Pulls contents that this node lacks: from a peer replica first, then from a fetcher.
//!
//! Invariants: everything is verified before it enters the store; a blob is pulled once at a time,
//! by the caller that claimed it.
//!
//! Callers: `hydrate` and `cover` fill, `service::pulled` pulls what a reader waits for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use monofs_model::{Error, ErrorKind, Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::context;
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::receive::{PulledWriter, ReaderTap};
use super::servers::{ServerAttempt, UpstreamKind, UpstreamServer, Upstreams};
use crate::blocking::blocking;
use crate::chunk_span::{ChunkSpan, still_missing};
use crate::flights::{ClaimedSpans, PullFlights};
use crate::rate_limit::RateLimit;
use crate::served::ServedCounters;

/// Messages between the network and the writer.
const WRITE_QUEUE: usize = 8;
/// While a limit holds a pull up: a reader that comes meanwhile waits this long at most.
const READERS_LOOKED_FOR_EVERY: Duration = Duration::from_millis(50);

/// Where pulled contents go.
#[derive(Clone, Copy)]
pub(crate) struct PullTarget<'a> {
    pub store: &'a Arc<RepoStore>,
    pub meta: &'a RepoMeta,
    /// What a fetcher fetches if it has nothing yet.
    pub commit: Option<Oid>,
    /// Limits what is pulled; `None` where a reader waits.
    pub limit: Option<&'a RateLimit>,
}

/// Why a pull from one server failed.
enum PullFailure {
    /// The contents did not come.
    Theirs(Error),
    /// What came could not be kept.
    Ours(Error),
}

impl From<Error> for PullFailure {
    fn from(error: Error) -> Self {
        Self::Theirs(error)
    }
}

/// See the module.
pub(crate) struct Puller {
    pub upstreams: Arc<Upstreams>,
    pub flights: Arc<PullFlights>,
    served: Arc<ServedCounters>,
    /// Writers of what arrives: a shutdown waits for them.
    tasks: TaskTracker,
}

impl Puller {
    /// Asks `upstreams`; its writers are tasks of `tasks`.
    pub fn new(upstreams: Arc<Upstreams>, served: Arc<ServedCounters>, tasks: TaskTracker) -> Self {
        Self {
            upstreams,
            flights: Arc::default(),
            served,
            tasks,
        }
    }

    /// Pulls `spans` of one repository into its store from the first of `servers` that has them.
    /// Small contents are also offered to `tap` as they are verified. Returns what no server had.
    pub async fn pull(
        &self,
        target: PullTarget<'_>,
        servers: &[UpstreamServer],
        spans: Vec<ChunkSpan>,
        tap: Option<Arc<ReaderTap>>,
    ) -> Result<Vec<ChunkSpan>> {
        let path = &target.meta.path;
        let mut wanted = self.lacking(target, spans, tap.as_deref()).await?;
        let mut failure = None;
        for attempt in ServerAttempt::each(servers) {
            if wanted.is_empty() {
                break;
            }
            let error = match self.pull_from(target, attempt, &wanted, tap.clone()).await {
                Ok(missing) => {
                    wanted = missing;
                    continue;
                }
                // No other server makes room on this node's disk.
                Err(PullFailure::Ours(error)) if error.kind == ErrorKind::Full => {
                    return Err(error.context(format!("contents of {path}")));
                }
                Err(PullFailure::Ours(error) | PullFailure::Theirs(error)) => error,
            };
            if error.kind == ErrorKind::Corrupt {
                self.served.corrupt.one();
            }
            if error.kind != ErrorKind::NotHeld {
                let server = &attempt.server.address;
                tracing::warn!(%server, repository = %path, %error, "pull failed; trying the next \
                 server");
                failure = Some(error);
            }
            // A part may have been stored before the failure.
            let store = target.store.clone();
            wanted = blocking(move || still_missing(&store, wanted)).await?;
        }
        match failure {
            Some(error) if !wanted.is_empty() => Err(error.context(format!("contents of {path}"))),
            _ => Ok(wanted),
        }
    }

    /// Those of `spans` that still have to be pulled: another pull may have ended between the look
    /// that missed them and the claim. The reader gets the others from the store.
    async fn lacking(
        &self,
        target: PullTarget<'_>,
        spans: Vec<ChunkSpan>,
        tap: Option<&ReaderTap>,
    ) -> Result<Vec<ChunkSpan>> {
        let store = target.store.clone();
        let looked = spans.clone();
        let lacking = blocking(move || still_missing(&store, looked)).await?;
        if let Some(tap) = tap
            && lacking.len() < spans.len()
        {
            let left: HashSet<Oid> = lacking.iter().map(|span| span.oid).collect();
            tap.skip(spans.into_iter().filter(|span| !left.contains(&span.oid)));
        }
        Ok(lacking)
    }

    /// Returns when all of `wanted` is held, whichever caller pulled it; `counted` is told of the
    /// blobs that came. Errors: `Unavailable` when none of `servers` has one.
    pub async fn fill(
        &self,
        target: PullTarget<'_>,
        servers: &[UpstreamServer],
        mut wanted: Vec<ChunkSpan>,
        mut counted: impl FnMut(usize),
    ) -> Result<()> {
        while !wanted.is_empty() {
            // Nothing is claimed meanwhile, so no reader waits for the limit.
            if let Some(limit) = target.limit {
                limit.ready().await;
            }
            let ClaimedSpans {
                claim,
                mine,
                others,
            } = self.flights.claim(&target.meta.storage_id, wanted);

            // What no other caller pulls is pulled here.
            let pulled = mine.len();
            if pulled > 0 {
                let left = self.pull(target, servers, mine, None).await?;
                if let Some(span) = left.first() {
                    return Err(Error::unavailable(format!(
                        "{}: no server has blob {} (and {} more)",
                        target.meta.path,
                        span.oid,
                        left.len() - 1
                    )));
                }
                counted(pulled);
            }
            drop(claim);

            // The rest is waited for; what did not come is claimed in the next round.
            let mut late = Vec::with_capacity(others.len());
            for mut other in others {
                other.arrival.ended().await;
                late.push(other.span);
            }
            let store = target.store.clone();
            let count = late.len();
            wanted = blocking(move || still_missing(&store, late)).await?;
            counted(count - wanted.len());
        }
        Ok(())
    }

    /// Pulls from one server. Returns what it does not have.
    async fn pull_from(
        &self,
        target: PullTarget<'_>,
        attempt: ServerAttempt<'_>,
        wanted: &[ChunkSpan],
        tap: Option<Arc<ReaderTap>>,
    ) -> Result<Vec<ChunkSpan>, PullFailure> {
        // The whole of each blob is requested, since only that can be verified.
        let PullTarget { store, meta, .. } = target;
        let server = attempt.server;
        let request = v1::GetBlobsRequest {
            storage_id: meta.storage_id.to_string(),
            spans: wanted
                .iter()
                .map(|span| ChunkSpan::whole(span.oid, span.size).to_wire())
                .collect(),
            origin: server.origin(meta, target.commit),
            held_only: server.held_only(),
        };
        let context = self.upstreams.context();
        let call =
            monofs_rpc::content::get_blobs(self.upstreams.channel(server)?, &context, request);
        let answers = self.upstreams.wait(attempt, call).await?;

        // A thread of its own verifies and stores, while this task receives.
        let (queue, frames) = mpsc::channel(WRITE_QUEUE);
        let writer = self.start_writer(target, wanted, tap, frames);
        let received = self.receive(target, attempt, wanted, answers, queue).await;
        writer
            .await
            .map_err(|e| Error::internal(format!("the writer of pulled contents ended: {e}")))?
            .map_err(PullFailure::Ours)?;
        let told_missing = received?;

        // What the store lacks now is missing, whatever the server said about it.
        let store = store.clone();
        let wanted = wanted.to_vec();
        let missing = blocking(move || still_missing(&store, wanted)).await?;
        if missing.len() > told_missing && server.kind == UpstreamKind::Fetcher {
            return Err(PullFailure::Theirs(Error::corrupt(format!(
                "{} left out {} contents without saying so",
                server.address,
                missing.len()
            ))));
        }
        Ok(missing)
    }

    fn start_writer(
        &self,
        target: PullTarget<'_>,
        wanted: &[ChunkSpan],
        tap: Option<Arc<ReaderTap>>,
        frames: mpsc::Receiver<Vec<v1::BlobChunk>>,
    ) -> JoinHandle<Result<()>> {
        let store = target.store.clone();
        let flights = self.flights.clone();
        let id = target.meta.storage_id.clone();
        let wanted = wanted.to_vec();
        self.tasks.spawn(context::carry(blocking(move || {
            PulledWriter::new(&store, &flights, &id, &wanted, tap).run(frames)
        })))
    }

    /// Hands the chunks of `answers` to the writer, at the target's limit. Returns how many blobs
    /// the server says that it lacks.
    async fn receive(
        &self,
        target: PullTarget<'_>,
        attempt: ServerAttempt<'_>,
        wanted: &[ChunkSpan],
        mut answers: impl futures::Stream<Item = Result<v1::GetBlobsResponse>> + Unpin,
        queue: mpsc::Sender<Vec<v1::BlobChunk>>,
    ) -> Result<usize> {
        let mut missing = 0;
        while let Some(answer) = self
            .upstreams
            .wait(attempt, async { answers.next().await.transpose() })
            .await?
        {
            // What came before must be within the limit first; the answer's end is not held up.
            if let Some(limit) = target.limit {
                self.wait_unless_awaited(limit, &target.meta.storage_id, wanted)
                    .await;
                let frames = answer.chunks.iter().map(|chunk| chunk.frame.len() as u64);
                limit.note_pulled(frames.sum());
            }
            missing += convert::oids(&answer.missing)?.len();
            if queue.send(answer.chunks).await.is_err() {
                // The writer failed and says why.
                break;
            }
        }
        Ok(missing)
    }

    /// Waits for the limit, unless a reader waits for one of these spans.
    async fn wait_unless_awaited(&self, limit: &RateLimit, id: &StorageId, wanted: &[ChunkSpan]) {
        while !self.flights.is_awaited(id, wanted) {
            let ready = tokio::time::timeout(READERS_LOOKED_FOR_EVERY, limit.ready());
            if ready.await.is_ok() {
                return;
            }
        }
    }
}
