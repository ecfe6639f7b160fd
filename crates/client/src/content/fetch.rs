//! One request for content: asked of one replica after the other, hedged, verified, put into the
//! cache as it arrives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use monofs_model::limits::{CHUNK_BYTES, TREE_CLOSURE_BYTES};
use monofs_model::{Error, ErrorKind, ObjectKind, Oid, Repository, Result, TreeRecord};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::content::{get_blobs, get_trees};
use monofs_rpc::context::Context;
use monofs_store::frame;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Inner;
use super::flights::Claim;
use super::hedge::{HANGS_AFTER, HEDGE_AFTER_MAX, Kind};
use super::replicas::Candidate;
use crate::repo::{Repo, snapshot_of};
use crate::want::{ContentKey, Span};

/// Pause before all replicas are asked again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Content up to this size is one small read: a node answers it with one message.
const SMALL_BYTES_MAX: u64 = 256 << 10;

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Trees { trees: Vec<Oid>, budget: u64 },
    Spans(Vec<Span>),
}

impl Ask {
    /// What its time to the first message can be compared with.
    fn kind(&self, patient: bool) -> Kind {
        match self {
            _ if !patient => Kind::Bulk,
            Self::Trees { budget, .. } if *budget < TREE_CLOSURE_BYTES => Kind::Trees,
            Self::Spans(spans) if spans.iter().map(Span::bytes).sum::<u64>() <= SMALL_BYTES_MAX => {
                Kind::Blobs
            }
            _ => Kind::Bulk,
        }
    }
}

/// What has arrived of a request, shared by the attempts that serve it.
pub(crate) struct Load {
    state: Mutex<State>,
    arrivals: AtomicU64,
}

struct State {
    needed: HashSet<ContentKey>,
    claim: Claim,
    arrived: Option<oneshot::Sender<Result<()>>>,
}

impl Load {
    /// A request that must bring `needed` and holds `claim` until it ends. The receiver hears when
    /// all needed is at hand, or why it will not be.
    pub fn new(needed: HashSet<ContentKey>, claim: Claim) -> (Self, oneshot::Receiver<Result<()>>) {
        let (sender, arrived) = oneshot::channel();
        let state = Mutex::new(State {
            needed,
            claim,
            arrived: Some(sender),
        });
        (
            Self {
                state,
                arrivals: AtomicU64::new(0),
            },
            arrived,
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn landed(&self, key: &ContentKey) {
        let (landed, arrived) = {
            let mut state = self.state();
            let landed = state.claim.landed(key);
            let is_last = state.needed.remove(key) && state.needed.is_empty();
            (landed, state.arrived.take_if(|_| is_last))
        };
        // Both wake tasks, so they are told without the lock.
        drop(landed);
        if let Some(arrived) = arrived {
            let _ = arrived.send(Ok(()));
        }
    }

    fn is_complete(&self) -> bool {
        self.state().needed.is_empty()
    }

    /// Whether nobody gets anything from going on.
    fn is_exhausted(&self) -> bool {
        let state = self.state();
        state.needed.is_empty() && state.claim.is_empty()
    }

    fn lacks(&self, key: &ContentKey) -> bool {
        let state = self.state();
        state.needed.contains(key) || state.claim.contains(key)
    }

    /// How many records and chunks have arrived.
    fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// The request is over.
    pub fn finish(&self, result: Result<()>) {
        let arrived = self.state().arrived.take();
        if let Some(arrived) = arrived {
            let _ = arrived.send(result);
        }
    }
}

impl Inner {
    /// Gets what `load` needs. `patient`: somebody waits, so failures of all replicas are retried
    /// until the deadline.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        repo: &Arc<Repo>,
        ask: &Ask,
        load: &Load,
        patient: bool,
    ) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let closure = matches!(ask, Ask::Trees { budget, .. } if *budget >= TREE_CLOSURE_BYTES);
        if closure {
            self.closure_begins(repo);
        }
        let result = loop {
            let error = match self.race(repo, ask, load, patient, deadline).await {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let hopeless =
                !matches!(error.kind, ErrorKind::Unavailable) || !patient || self.is_down();
            if hopeless || Instant::now() + RETRY_AFTER >= deadline {
                break Err(error);
            }
            tokio::time::sleep(RETRY_AFTER).await;
        };
        if closure {
            self.closure_ends(repo);
        }
        if let Err(error) = &result {
            tracing::debug!(repo = %repo.storage_id(), %error, "content could not be had");
        }
        result
    }

    /// Asks every candidate at most once, the next one as soon as one fails or none delivers.
    async fn race(
        self: &Arc<Self>,
        repo: &Arc<Repo>,
        ask: &Ask,
        load: &Load,
        patient: bool,
        deadline: Instant,
    ) -> Result<()> {
        let entry = repo.entry();
        let kind = ask.kind(patient);
        let candidates = self
            .replicas
            .candidates(&entry, kind, Instant::now().into_std());
        let mut stall = Stall::new(load, self.hedge_after(&candidates, kind, patient));
        let mut waiting = candidates.into_iter();
        let mut running = FuturesUnordered::new();
        let mut last = Error::unavailable("no node or router is known to ask");
        let mut next = Some(Reason::Turn);
        let mut reached = false;
        self.hedging.request();
        loop {
            if let Some(reason) = next.take()
                && let Some(candidate) = waiting.next()
            {
                running.push(self.attempt(
                    candidate,
                    &entry,
                    repo,
                    ask,
                    Progress { load, kind, reason },
                ));
            }
            if running.is_empty() {
                self.note_answer(reached);
                return Err(last);
            }
            tokio::select! {
                Some((candidate, outcome)) = running.next() => {
                    reached |= self.judge(&candidate, &outcome);
                    match outcome {
                        Ok(()) if load.is_complete() => {
                            self.note_answer(true);
                            return Ok(());
                        }
                        Ok(()) => last = Error::not_held(format!("{} does not hold all of it", candidate.address)),
                        // That somebody could not be reached says more than that somebody else does
                        // not hold it.
                        Err(error) if last.kind == ErrorKind::Unavailable && error.kind == ErrorKind::NotHeld => {}
                        Err(error) => last = error.context(&candidate.address),
                    }
                    next = Some(Reason::Turn);
                }
                () = tokio::time::sleep(stall.wait) => {
                    if let Some(candidate) = waiting.as_slice().first()
                        && stall.is_stalled(load)
                        // A router would ask the same nodes: what nobody waits for can wait for
                        // them as well.
                        && (stall.hangs() || ((patient || candidate.node.is_some()) && self.hedging.take()))
                    {
                        next = Some(Reason::Hedge { arrivals: load.arrivals() });
                    }
                }
                () = tokio::time::sleep_until(deadline), if !load.is_complete() => {
                    self.note_answer(reached);
                    let limit = self.timeout;
                    return Err(Error::unavailable(format!("content of {}: no answer within \
                     {limit:?}", entry.path)));
                }
            }
        }
    }

    /// When the second of the candidates is asked too. Early only if it is another node: a router
    /// would ask the same one.
    fn hedge_after(&self, candidates: &[Candidate], kind: Kind, patient: bool) -> Duration {
        match candidates {
            [
                Candidate {
                    node: Some(first), ..
                },
                Candidate {
                    node: Some(second), ..
                },
                ..,
            ] if first != second => self.hedging.delay(kind, patient),
            _ => HEDGE_AFTER_MAX,
        }
    }

    /// Learns from how an attempt ended. True: the peer was reached.
    fn judge(self: &Arc<Self>, candidate: &Candidate, outcome: &Result<()>) -> bool {
        match outcome {
            Ok(()) => self.replicas.answered(candidate),
            Err(error) if matches!(error.kind, ErrorKind::NotHeld | ErrorKind::NotFound) => {
                self.replicas.answered(candidate);
            }
            Err(error) => {
                self.counters.calls_failed.one();
                if let Some(node) = self.replicas.failed(candidate) {
                    tracing::warn!(node = %node, address = candidate.address, %error, "a replica failed; asking another");
                    self.report(node.to_string(), error);
                }
                return error.kind != ErrorKind::Unavailable;
            }
        }
        true
    }

    /// Tells a router that a node failed, so that it looks at once. Best effort: the first router
    /// that takes it.
    fn report(self: &Arc<Self>, member_id: String, error: &Error) {
        let failure = v1::ReportFailureRequest {
            member_id,
            error_kind: error.kind.as_str().to_owned(),
            detail: error.message.clone(),
        };
        // Not the whole of it: the cache in it must be free as soon as the mount has ended.
        let (channels, timeout, inner) =
            (self.channels.clone(), self.timeout, Arc::downgrade(self));
        let routers = self.replicas.reporters();
        self.spawner.spawn(async move {
            for router in routers {
                let Ok(channel) = channels.get(&router) else {
                    continue;
                };
                let request = Context::new(timeout).request(failure.clone());
                match v1::cluster_client::ClusterClient::new(channel)
                    .report_failure(request)
                    .await
                {
                    Ok(_) => {
                        if let Some(inner) = inner.upgrade() {
                            inner.replicas.reported_to(&router);
                        }
                        return;
                    }
                    Err(error) => {
                        tracing::debug!(router, %error, "a report of a failure was not taken")
                    }
                }
            }
        });
    }

    /// One request to one peer. Ends early once nothing is missing.
    async fn attempt(
        &self,
        candidate: Candidate,
        entry: &Repository,
        repo: &Arc<Repo>,
        ask: &Ask,
        progress: Progress<'_>,
    ) -> (Candidate, Result<()>) {
        self.counters.calls.one();
        let mut timed = Timed::begin(self, &candidate, progress);
        let outcome = match ask {
            Ask::Trees { trees, budget } => {
                self.ask_trees(&candidate, entry, repo, trees, *budget, &mut timed)
                    .await
            }
            Ask::Spans(spans) => self.ask_blobs(&candidate, entry, spans, &mut timed).await,
        };
        drop(timed);
        (candidate, outcome)
    }

    async fn ask_trees(
        &self,
        candidate: &Candidate,
        entry: &Repository,
        repo: &Arc<Repo>,
        trees: &[Oid],
        budget: u64,
        timed: &mut Timed<'_>,
    ) -> Result<()> {
        let load = timed.progress.load;
        let request = v1::GetTreesRequest {
            storage_id: repo.storage_id().to_string(),
            oids: trees
                .iter()
                .filter(|tree| load.lacks(&ContentKey::Tree(**tree)))
                .map(oid_bytes)
                .collect(),
            byte_budget: budget,
            depth: 0,
            origin: Some(origin(entry)),
            held_only: false,
        };
        let channel = self.channels.get(&candidate.address)?;
        let mut answers = get_trees(channel, &Context::new(self.timeout), request).await?;
        while let Some(answer) = answers.next().await {
            let trees = answer?.trees;
            timed.arrived(trees.len());
            for tree in trees {
                self.take_tree(tree, load)?;
            }
            self.closure_goes_on(repo);
        }
        Ok(())
    }

    fn take_tree(&self, tree: v1::TreeRecord, load: &Load) -> Result<()> {
        let oid = Oid::from_bytes(&tree.oid)?;
        if load.lacks(&ContentKey::Tree(oid)) || !self.cache.has_record(&oid) {
            // A copy: the message that it came in is far larger and would live as long.
            let bytes = Bytes::copy_from_slice(&tree.record);
            self.counters.trees_fetched.one();
            self.counters.bytes_fetched.add(bytes.len() as u64);
            let record = TreeRecord::parse_verified(bytes, &oid)
                .inspect_err(|_| self.counters.corrupt.one())?;
            self.cache.put_record(oid, record);
        }
        load.landed(&ContentKey::Tree(oid));
        Ok(())
    }

    async fn ask_blobs(
        &self,
        candidate: &Candidate,
        entry: &Repository,
        spans: &[Span],
        timed: &mut Timed<'_>,
    ) -> Result<()> {
        let load = timed.progress.load;
        let lacking = spans
            .iter()
            .filter(|span| span.keys().any(|key| load.lacks(&key)));
        let request = v1::GetBlobsRequest {
            storage_id: entry.storage_id().to_string(),
            spans: lacking.map(wire_span).collect(),
            origin: Some(origin(entry)),
            held_only: false,
        };
        let sizes: HashMap<Oid, u64> = spans.iter().map(|span| (span.blob, span.size)).collect();
        let channel = self.channels.get(&candidate.address)?;
        let mut answers = get_blobs(channel, &Context::new(self.timeout), request).await?;
        while let Some(answer) = answers.next().await {
            let chunks = answer?.chunks;
            timed.arrived(chunks.len());
            for chunk in chunks {
                self.take_chunk(chunk, &sizes, load)?;
            }
            if load.is_exhausted() {
                break;
            }
        }
        Ok(())
    }

    fn take_chunk(
        &self,
        chunk: v1::BlobChunk,
        sizes: &HashMap<Oid, u64>,
        load: &Load,
    ) -> Result<()> {
        let blob = Oid::from_bytes(&chunk.oid)?;
        let key = ContentKey::Chunk(blob, chunk.index);
        if !load.lacks(&key) {
            return Ok(());
        }
        let size = sizes
            .get(&blob)
            .ok_or_else(|| Error::invalid("an answer to another question"))?;
        // A small one is copied: the message that it came in is far larger and would live as long.
        let is_most = chunk.frame.len() > CHUNK_BYTES / 2;
        let frame = if is_most {
            chunk.frame
        } else {
            Bytes::copy_from_slice(&chunk.frame)
        };
        let raw =
            verify_chunk(&blob, *size, &frame).inspect_err(|_| self.counters.corrupt.one())?;
        self.counters.chunks_fetched.one();
        self.counters.bytes_fetched.add(frame.len() as u64);
        self.cache.put_frame(blob, chunk.index, frame, raw);
        load.landed(&key);
        Ok(())
    }
}

/// Why a peer is asked.
#[derive(Clone, Copy)]
enum Reason {
    /// It is the best one, or the better ones have failed.
    Turn,
    /// Those asked before are slow: so much had arrived when that was found.
    Hedge { arrivals: u64 },
}

/// The request that an attempt serves.
#[derive(Clone, Copy)]
struct Progress<'a> {
    load: &'a Load,
    kind: Kind,
    reason: Reason,
}

/// Notices that nothing arrives any more.
struct Stall {
    /// How long to wait before looking.
    wait: Duration,
    arrivals: u64,
    since: Instant,
}

impl Stall {
    fn new(load: &Load, wait: Duration) -> Self {
        Self {
            wait,
            arrivals: load.arrivals(),
            since: Instant::now(),
        }
    }

    /// Whether nothing has arrived since the last look, and something is still wanted.
    fn is_stalled(&mut self, load: &Load) -> bool {
        self.wait = HEDGE_AFTER_MAX;
        let arrivals = load.arrivals();
        let stalled = arrivals == self.arrivals;
        if !stalled {
            (self.arrivals, self.since) = (arrivals, Instant::now());
        }
        stalled && !load.is_exhausted()
    }

    fn hangs(&self) -> bool {
        self.since.elapsed() >= HANGS_AFTER
    }
}

/// The clock of one attempt: tells the peer's load, and what the delay of hedges is made of.
struct Timed<'a> {
    inner: &'a Inner,
    address: &'a str,
    progress: Progress<'a>,
    begun: Instant,
    answered: bool,
}

impl<'a> Timed<'a> {
    fn begin(inner: &'a Inner, candidate: &'a Candidate, progress: Progress<'a>) -> Self {
        if matches!(progress.reason, Reason::Hedge { .. }) {
            inner.counters.hedges.one();
        }
        let begun = Instant::now();
        inner
            .replicas
            .loads()
            .begin(&candidate.address, begun.into_std());
        Self {
            inner,
            address: &candidate.address,
            progress,
            begun,
            answered: false,
        }
    }

    /// A message with so many records or chunks came.
    fn arrived(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let before = self
            .progress
            .load
            .arrivals
            .fetch_add(count as u64, Ordering::Relaxed);
        let (kind, now) = (self.progress.kind, Instant::now());
        self.inner
            .replicas
            .loads()
            .heard(self.address, now.into_std());
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        let took = now - self.begun;
        self.inner.hedging.observe(kind, took);
        self.inner
            .replicas
            .loads()
            .observe(self.address, kind, took, now.into_std());
        if matches!(self.progress.reason, Reason::Hedge { arrivals } if arrivals == before) {
            self.inner.counters.hedges_won.one();
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let loads = self.inner.replicas.loads();
        if !self.answered {
            let (kind, now) = (self.progress.kind, Instant::now());
            let took = now - self.begun;
            self.inner.hedging.observe_at_least(kind, took);
            let lost = matches!(self.progress.reason, Reason::Turn);
            loads.given_up(self.address, kind, took, lost, now.into_std());
        }
        loads.end(self.address);
    }
}

/// A chunk, decoded. A blob of one chunk must match its oid. A chunk of a longer one cannot be
/// checked on its own: the node verified the blob, and the frame's checksum covers the way from
/// there.
fn verify_chunk(blob: &Oid, size: u64, encoded: &Bytes) -> Result<Bytes> {
    let raw = frame::decode_shared(encoded)?;
    if frame::chunk_count(size) == 1 {
        blob.verify(ObjectKind::Blob, &raw)?;
    }
    Ok(raw)
}

fn wire_span(span: &Span) -> v1::BlobSpan {
    v1::BlobSpan {
        oid: oid_bytes(&span.blob),
        first_chunk: span.first,
        chunk_count: span.count,
        size: span.size,
    }
}

fn origin(entry: &Repository) -> v1::Origin {
    v1::Origin {
        source: entry.source.to_string(),
        ref_name: entry.ref_name.as_str().to_owned(),
        commit: oid_bytes(&snapshot_of(entry).commit),
    }
}
