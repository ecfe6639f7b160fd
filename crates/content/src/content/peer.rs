//! One request to one peer: what arrives is verified and put into the cache at once, and the time
//! that it takes tells how loaded the peer is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::StreamExt;
use monofs_model::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX};
use monofs_model::{
    Error, GenerationNode, ObjectKind, Oid, Repository, Result, StorageId, TreeRecord,
};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_rpc::channel::ChannelPool;
use monofs_rpc::content::{get_blobs, get_trees};
use monofs_rpc::context::Context;
use monofs_rpc::status::from_status;
use monofs_store::frame;
use tokio::time::Instant;

use super::balance::GivenUp;
use super::closures::Closures;
use super::hedge::{Hedging, RequestClass};
use super::need::ContentRequest;
use super::progress::RequestProgress;
use super::replicas::{ReplicaCandidate, Replicas};
use crate::cache::Cache;
use crate::counters::Counters;
use crate::repo::{Repo, snapshot_of};
use crate::shown::DirectoryKey;
use crate::want::{ContentKey, Span};

/// Reads from one peer at a time.
pub(super) struct PeerReader {
    pub cache: Arc<Cache>,
    pub counters: Arc<Counters>,
    pub replicas: Arc<Replicas>,
    pub channels: ChannelPool,
    /// Deadline of one call.
    pub timeout: Duration,
    pub hedging: Hedging,
    pub closures: Closures,
}

/// Why a peer is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum AttemptReason {
    /// It is the best one, or the better ones have failed.
    Turn,
    /// Those asked before are slow: so much had arrived when that was found.
    Hedge { arrivals: u64 },
}

/// The request that an attempt serves.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub repo: &'a Repo,
    /// What was served of the repository when the request began.
    pub entry: &'a Repository,
    pub request: &'a ContentRequest,
    pub class: RequestClass,
    pub progress: &'a RequestProgress,
    pub reason: AttemptReason,
}

impl PeerReader {
    /// Makes one attempt at one peer. It ends early once nothing is missing.
    pub async fn attempt(
        &self,
        candidate: ReplicaCandidate,
        attempt: Attempt<'_>,
    ) -> (ReplicaCandidate, Result<()>) {
        self.counters.calls.one();
        let mut clock = AttemptClock::start(self, &candidate.address, attempt);
        let outcome = match attempt.request {
            ContentRequest::Trees { trees, budget } => {
                self.ask_trees(trees, *budget, &mut clock).await
            }
            ContentRequest::Chunks(spans) => self.ask_blobs(spans, &mut clock).await,
        };
        drop(clock);
        (candidate, outcome)
    }

    async fn ask_trees(
        &self,
        trees: &[DirectoryKey],
        budget: u64,
        clock: &mut AttemptClock<'_>,
    ) -> Result<()> {
        let attempt = clock.attempt;
        let storage_id = attempt.repo.storage_id();
        let lacking: Vec<&DirectoryKey> = trees
            .iter()
            .filter(|tree| ContentKey::of_directory(tree).any(|key| attempt.progress.lacks(&key)))
            .collect();
        let node_of = |tree: &&DirectoryKey| tree.node.as_ref().map(oid_bytes).unwrap_or_default();
        let request = v1::GetTreesRequest {
            storage_id: storage_id.to_string(),
            oids: lacking.iter().map(|tree| oid_bytes(&tree.tree)).collect(),
            byte_budget: budget,
            depth: 0,
            origin: Some(origin(attempt.entry)),
            held_only: false,
            generations: match lacking.iter().any(|tree| tree.node.is_some()) {
                true => lacking.iter().map(node_of).collect(),
                false => Vec::new(),
            },
        };
        let channel = self.channels.get(clock.address)?;
        let mut answers = get_trees(channel, &Context::new(self.timeout), request).await?;

        // The records of a closure come in many messages.
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            clock.arrived(answer.trees.len() + answer.generations.len());
            for tree in answer.trees {
                self.take_tree(tree, attempt.progress)?;
            }
            for node in answer.generations {
                self.take_generations(node, attempt.progress)?;
            }
            self.closures.advance(storage_id);
        }
        Ok(())
    }

    /// Rows of the times of a repository's generations, from the first router that answers.
    pub async fn ask_times(
        &self,
        id: &StorageId,
        rows: &[u64],
    ) -> Result<Vec<v1::GenerationTimes>> {
        let request = v1::GetTimesRequest {
            storage_id: id.to_string(),
            rows: rows.to_vec(),
        };
        let mut failure = Error::unavailable("no router is known to ask for times");
        for router in self.replicas.routers() {
            let context = Context::new(self.timeout);
            let mut client = CatalogClient::new(self.channels.get(router)?)
                .max_decoding_message_size(MESSAGE_BYTES_MAX);
            let call = client.get_times(context.request(request.clone()));
            match tokio::time::timeout(self.timeout, call).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner().rows),
                Ok(Err(status)) => failure = from_status(status),
                Err(_) => {
                    failure = Error::unavailable(format!("no answer within {:?}", self.timeout));
                }
            }
            failure = failure.context(format!("times from router {router}"));
        }
        Err(failure)
    }

    fn take_tree(&self, tree: v1::TreeRecord, progress: &RequestProgress) -> Result<()> {
        let oid = Oid::from_bytes(&tree.oid)?;
        let key = ContentKey::Tree(oid);
        if progress.lacks(&key) || !self.cache.has_record(&oid) {
            // A copy: the message that it came in is far larger and would live as long.
            let bytes = Bytes::copy_from_slice(&tree.record);
            self.counters.trees_fetched.one();
            self.counters.bytes_fetched.add(bytes.len() as u64);
            let record = TreeRecord::parse_verified(bytes, &oid)
                .inspect_err(|_| self.counters.corrupt.one())?;
            self.cache.put_record(oid, record);
        }
        progress.landed(&key);
        Ok(())
    }

    fn take_generations(&self, node: v1::GenerationNode, progress: &RequestProgress) -> Result<()> {
        let id = Oid::from_bytes(&node.id)?;
        let key = ContentKey::Generations(id);
        if progress.lacks(&key) || self.cache.generations(&id).is_none() {
            // A copy, for the same reason.
            let bytes = Bytes::copy_from_slice(&node.node);
            self.counters.bytes_fetched.add(bytes.len() as u64);
            let decoded = GenerationNode::decode_verified(&bytes, &id)
                .inspect_err(|_| self.counters.corrupt.one())?;
            self.cache.put_generations(id, bytes, decoded);
        }
        progress.landed(&key);
        Ok(())
    }

    async fn ask_blobs(&self, spans: &[Span], clock: &mut AttemptClock<'_>) -> Result<()> {
        let attempt = clock.attempt;
        let progress = attempt.progress;
        let lacking = spans
            .iter()
            .filter(|span| span.keys().any(|key| progress.lacks(&key)));
        let request = v1::GetBlobsRequest {
            storage_id: attempt.entry.storage_id().to_string(),
            spans: lacking.map(wire_span).collect(),
            origin: Some(origin(attempt.entry)),
            held_only: false,
        };
        let sizes: HashMap<Oid, u64> = spans.iter().map(|span| (span.blob, span.size)).collect();
        let channel = self.channels.get(clock.address)?;
        let mut answers = get_blobs(channel, &Context::new(self.timeout), request).await?;

        // Another attempt may bring what this one has not brought yet.
        while let Some(answer) = answers.next().await {
            let chunks = answer?.chunks;
            clock.arrived(chunks.len());
            for chunk in chunks {
                self.take_chunk(chunk, &sizes, progress)?;
            }
            if progress.is_exhausted() {
                break;
            }
        }
        Ok(())
    }

    fn take_chunk(
        &self,
        chunk: v1::BlobChunk,
        sizes: &HashMap<Oid, u64>,
        progress: &RequestProgress,
    ) -> Result<()> {
        let blob = Oid::from_bytes(&chunk.oid)?;
        let key = ContentKey::Chunk(blob, chunk.index);
        if !progress.lacks(&key) {
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
        progress.landed(&key);
        Ok(())
    }
}

/// The clock of one attempt: tells the peer's load, and what the delay of hedges is made of. An
/// attempt that is dropped without an answer counts as one that was given up.
struct AttemptClock<'a> {
    peer: &'a PeerReader,
    address: &'a str,
    attempt: Attempt<'a>,
    started: Instant,
    is_answered: bool,
}

impl<'a> AttemptClock<'a> {
    fn start(peer: &'a PeerReader, address: &'a str, attempt: Attempt<'a>) -> Self {
        if matches!(attempt.reason, AttemptReason::Hedge { .. }) {
            peer.counters.hedges.one();
        }
        let started = Instant::now();
        peer.replicas.loads().begin(address, started.into_std());
        Self {
            peer,
            address,
            attempt,
            started,
            is_answered: false,
        }
    }

    /// A message with so many records or chunks came.
    fn arrived(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let now = Instant::now();
        let before = self.attempt.progress.add_arrivals(count as u64);
        let loads = self.peer.replicas.loads();
        loads.heard(self.address, now.into_std());
        if std::mem::replace(&mut self.is_answered, true) {
            return;
        }

        // The first message: what the delay of hedges and the choice of replicas are made of.
        let took = now - self.started;
        let class = self.attempt.class;
        self.peer.hedging.observe(class, took);
        loads.observe(self.address, class, took, now.into_std());
        let is_first_of_all =
            matches!(self.attempt.reason, AttemptReason::Hedge { arrivals } if arrivals == before);
        if is_first_of_all {
            self.peer.counters.hedges_won.one();
        }
    }
}

impl Drop for AttemptClock<'_> {
    fn drop(&mut self) {
        let loads = self.peer.replicas.loads();
        if !self.is_answered {
            let now = Instant::now();
            let took = now - self.started;
            let class = self.attempt.class;
            self.peer.hedging.observe_at_least(class, took);
            let why = match self.attempt.reason {
                AttemptReason::Turn => GivenUp::Overtaken,
                AttemptReason::Hedge { .. } => GivenUp::Unneeded,
            };
            loads.given_up(self.address, class, took, why, now.into_std());
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
