//! One request for content: asked of one replica after the other, hedged, verified, put into the cache as it arrives.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use monofs_model::{Error, ErrorKind, ObjectKind, Oid, Repository, Result, TreeRecord};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_rpc::content::{get_blobs, get_trees};
use monofs_rpc::context::Context;
use monofs_store::frame;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::flights::{Claim, Key};
use super::replicas::Candidate;
use super::{Inner, Span};
use crate::repo::{Repo, snapshot_of};

/// With nothing arriving for this long, the next replica is asked too.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// Pause before all replicas are asked again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    Trees { trees: Vec<Oid>, budget: u64 },
    Spans(Vec<Span>),
}

/// What has arrived of a request, shared by the attempts that serve it.
pub(crate) struct Load {
    state: Mutex<State>,
    arrivals: AtomicU64,
}

struct State {
    needed: HashSet<Key>,
    claim: Claim,
    arrived: Option<oneshot::Sender<Result<()>>>,
}

impl Load {
    /// A request that must bring `needed` and holds `claim` until it ends. The receiver hears when all needed is at hand,
    /// or why it will not be.
    pub fn new(needed: HashSet<Key>, claim: Claim) -> (Self, oneshot::Receiver<Result<()>>) {
        let (sender, arrived) = oneshot::channel();
        let state = Mutex::new(State { needed, claim, arrived: Some(sender) });
        (Self { state, arrivals: AtomicU64::new(0) }, arrived)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn landed(&self, key: &Key) {
        let mut state = self.state();
        state.claim.landed(key);
        if state.needed.remove(key)
            && state.needed.is_empty()
            && let Some(arrived) = state.arrived.take()
        {
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

    fn lacks(&self, key: &Key) -> bool {
        let state = self.state();
        state.needed.contains(key) || state.claim.contains(key)
    }

    /// The request is over.
    pub fn finish(&self, result: Result<()>) {
        if let Some(arrived) = self.state().arrived.take() {
            let _ = arrived.send(result);
        }
    }
}

impl Inner {
    /// Gets what `load` needs. `patient`: somebody waits, so failures of all replicas are retried until the deadline.
    pub(super) async fn fetch(&self, repo: &Arc<Repo>, ask: &Ask, load: &Load, patient: bool) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        let closure = matches!(ask, Ask::Trees { budget, .. } if *budget >= monofs_model::limits::TREE_CLOSURE_BYTES);
        if closure {
            self.closure_begins(repo);
        }
        let result = loop {
            let error = match self.race(repo, ask, load, deadline).await {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let hopeless = !matches!(error.kind, ErrorKind::Unavailable) || !patient || self.is_down();
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
    async fn race(&self, repo: &Arc<Repo>, ask: &Ask, load: &Load, deadline: Instant) -> Result<()> {
        let entry = repo.entry();
        let mut waiting = self.replicas.candidates(&entry).into_iter();
        let mut running = FuturesUnordered::new();
        let mut last = Error::unavailable("no node or router is known to ask");
        let mut arrivals = load.arrivals.load(Ordering::Relaxed);
        let mut start_next = true;
        let mut reached = false;
        loop {
            if start_next && let Some(candidate) = waiting.next() {
                running.push(self.attempt(candidate, &entry, repo, ask, load));
            }
            start_next = false;
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
                        // That somebody could not be reached says more than that somebody else does not hold it.
                        Err(error) if last.kind == ErrorKind::Unavailable && error.kind == ErrorKind::NotHeld => {}
                        Err(error) => last = error.context(&candidate.address),
                    }
                    start_next = true;
                }
                () = tokio::time::sleep(HEDGE_AFTER) => {
                    let now = load.arrivals.load(Ordering::Relaxed);
                    if now == arrivals && !load.is_exhausted() && waiting.len() > 0 {
                        self.counters.hedges.one();
                        start_next = true;
                    }
                    arrivals = now;
                }
                () = tokio::time::sleep_until(deadline), if !load.is_complete() => {
                    self.note_answer(reached);
                    let limit = self.timeout;
                    return Err(Error::unavailable(format!("content of {}: no answer within {limit:?}", entry.path)));
                }
            }
        }
    }

    /// Learns from how an attempt ended. True: the peer was reached.
    fn judge(&self, candidate: &Candidate, outcome: &Result<()>) -> bool {
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

    /// Tells a router that a node failed, so that it looks at once. Best effort.
    fn report(&self, member_id: String, error: &Error) {
        let Some(channel) = self.replicas.routers().first().and_then(|r| self.channels.get(r).ok()) else { return };
        let failure = v1::ReportFailureRequest {
            member_id,
            error_kind: error.kind.as_str().to_owned(),
            detail: error.message.clone(),
        };
        let request = Context::new(self.timeout).request(failure);
        self.spawner.spawn(async move {
            let _ = v1::cluster_client::ClusterClient::new(channel).report_failure(request).await;
        });
    }

    /// One request to one peer. Ends early once nothing is missing.
    async fn attempt(
        &self,
        candidate: Candidate,
        entry: &Repository,
        repo: &Arc<Repo>,
        ask: &Ask,
        load: &Load,
    ) -> (Candidate, Result<()>) {
        self.counters.calls.one();
        let outcome = match ask {
            Ask::Trees { trees, budget } => self.ask_trees(&candidate, entry, repo, trees, *budget, load).await,
            Ask::Spans(spans) => self.ask_blobs(&candidate, entry, spans, load).await,
        };
        (candidate, outcome)
    }

    async fn ask_trees(
        &self,
        candidate: &Candidate,
        entry: &Repository,
        repo: &Arc<Repo>,
        trees: &[Oid],
        budget: u64,
        load: &Load,
    ) -> Result<()> {
        let request = v1::GetTreesRequest {
            storage_id: repo.storage_id().to_string(),
            oids: trees.iter().filter(|tree| load.lacks(&Key::Tree(**tree))).map(oid_bytes).collect(),
            byte_budget: budget,
            depth: 0,
            origin: Some(origin(entry)),
            held_only: false,
        };
        let channel = self.channels.get(&candidate.address)?;
        let mut answers = get_trees(channel, &Context::new(self.timeout), request).await?;
        while let Some(answer) = answers.next().await {
            for tree in answer?.trees {
                load.arrivals.fetch_add(1, Ordering::Relaxed);
                self.take_tree(tree, load)?;
            }
            self.closure_goes_on(repo);
        }
        Ok(())
    }

    fn take_tree(&self, tree: v1::TreeRecord, load: &Load) -> Result<()> {
        let oid = Oid::from_bytes(&tree.oid)?;
        if load.lacks(&Key::Tree(oid)) || !self.cache.has_record(&oid) {
            // A copy: the message that it came in is far larger and would live as long.
            let bytes = Bytes::copy_from_slice(&tree.record);
            self.counters.trees_fetched.one();
            self.counters.bytes_fetched.add(bytes.len() as u64);
            let record = TreeRecord::parse_verified(bytes, &oid).inspect_err(|_| self.counters.corrupt.one())?;
            self.cache.put_record(oid, record);
        }
        load.landed(&Key::Tree(oid));
        Ok(())
    }

    async fn ask_blobs(&self, candidate: &Candidate, entry: &Repository, spans: &[Span], load: &Load) -> Result<()> {
        let lacking = spans.iter().filter(|span| span.keys().any(|key| load.lacks(&key)));
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
            for chunk in answer?.chunks {
                load.arrivals.fetch_add(1, Ordering::Relaxed);
                self.take_chunk(chunk, &sizes, load)?;
            }
            if load.is_exhausted() {
                break;
            }
        }
        Ok(())
    }

    fn take_chunk(&self, chunk: v1::BlobChunk, sizes: &HashMap<Oid, u64>, load: &Load) -> Result<()> {
        let blob = Oid::from_bytes(&chunk.oid)?;
        let key = Key::Chunk(blob, chunk.index);
        if !load.lacks(&key) {
            return Ok(());
        }
        let size = sizes.get(&blob).ok_or_else(|| Error::invalid("an answer to another question"))?;
        let raw = verify_chunk(&blob, *size, &chunk.frame).inspect_err(|_| self.counters.corrupt.one())?;
        self.counters.chunks_fetched.one();
        self.counters.bytes_fetched.add(chunk.frame.len() as u64);
        // A copy: the message that it came in is far larger and would live as long.
        self.cache.put_frame(blob, chunk.index, Bytes::copy_from_slice(&chunk.frame), raw);
        load.landed(&key);
        Ok(())
    }
}

/// A chunk, decoded. A blob of one chunk must match its oid. A chunk of a longer one cannot be checked on its own: the node
/// verified the blob, and the frame's checksum covers the way from there.
fn verify_chunk(blob: &Oid, size: u64, encoded: &Bytes) -> Result<Bytes> {
    let mut raw = Vec::with_capacity(frame::raw_len(encoded)?);
    frame::decode_into(encoded, &mut raw)?;
    if frame::chunk_count(size) == 1 {
        blob.verify(ObjectKind::Blob, &raw)?;
    }
    Ok(raw.into())
}

fn wire_span(span: &Span) -> v1::BlobSpan {
    v1::BlobSpan { oid: oid_bytes(&span.blob), first_chunk: span.first, chunk_count: span.count, size: span.size }
}

fn origin(entry: &Repository) -> v1::Origin {
    v1::Origin {
        source: entry.source.to_string(),
        ref_name: entry.ref_name.as_str().to_owned(),
        commit: oid_bytes(&snapshot_of(entry).commit),
    }
}
