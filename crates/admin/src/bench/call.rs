//! One operation: the request, the servers that it goes to, and what a complete answer is.
//!
//! Servers are asked as a client of the file system asks them: one after the other in their order,
//! those that failed lately last. Unlike a client this one does not hedge, so that a slow server is
//! seen as slow. Answers are checked for being complete and of the right shape, not hashed: the
//! generator's own time must not hide the servers'.

use std::time::{Duration, Instant};

use futures::StreamExt;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::tree::TreeRecord;
use monofs_model::{Error, ErrorKind, Oid, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_rpc::content::{get_blobs, get_trees};
use monofs_rpc::{Channel, ChannelPool, Context, from_status, within};
use monofs_store::frame;

use super::corpus::{Corpus, KnownFile, KnownRepository};
use super::operation::{LARGE_CHUNKS_MAX, LoadOperation, LoadTask};
use super::peers::LoadPeers;

/// A client: connections of its own, one to each server.
pub struct LoadCaller<'a> {
    pub corpus: &'a Corpus,
    pub peers: &'a LoadPeers,
    pub channels: &'a ChannelPool,
    /// For the whole of one operation.
    pub timeout: Duration,
}

/// A record or a number of frame bytes that arrived.
enum ReceivedAnswer {
    Record { bytes: u64, record: bytes::Bytes },
    Bytes(u64),
}

impl LoadCaller<'_> {
    /// Does what the task says. Gives when the answer was complete and its bytes of records or
    /// frames.
    pub async fn perform(&self, task: LoadTask) -> Result<(Instant, u64)> {
        let LoadTask {
            operation,
            item,
            random,
        } = task;
        // The request, and the directory that its answer must be.
        let (got, oid) = match operation {
            LoadOperation::Resolve => (self.resolve(&self.corpus.repositories[item]).await?, None),
            LoadOperation::Lookup | LoadOperation::List => {
                let directory = &self.corpus.directories[item];
                let repository = &self.corpus.repositories[directory.repository as usize];
                (
                    self.record(repository, directory.oid).await?,
                    Some(directory.oid),
                )
            }
            LoadOperation::ReadSmall => (
                self.contents(&self.corpus.small[item], 0, 0, false).await?,
                None,
            ),
            LoadOperation::ReadLarge => {
                let file = &self.corpus.large[item];
                let chunks = u32::try_from(frame::chunk_count(file.size)).unwrap_or(u32::MAX);
                let first = (random % u64::from(chunks)) as u32;
                (
                    self.contents(file, first, LARGE_CHUNKS_MAX.min(chunks - first), false)
                        .await?,
                    None,
                )
            }
        };
        // The answer is checked after its time was taken.
        let answered = Instant::now();
        match got {
            ReceivedAnswer::Bytes(bytes) => Ok((answered, bytes)),
            ReceivedAnswer::Record { bytes, record } => {
                check(operation, record, random).map_err(|error| match oid {
                    Some(oid) => error.context(format!("directory {oid}")),
                    None => error,
                })?;
                Ok((answered, bytes))
            }
        }
    }

    /// The trees below and including `oids`, breadth first, as many as `budget` bytes allow. For
    /// the survey.
    pub async fn closure(
        &self,
        repository: &KnownRepository,
        oids: &[Oid],
        budget: u64,
    ) -> Result<Vec<(Oid, TreeRecord)>> {
        let request = v1::GetTreesRequest {
            storage_id: repository.storage_id.clone(),
            oids: oids.iter().map(oid_bytes).collect(),
            byte_budget: budget,
            depth: 0,
            origin: Some(repository.origin.clone()),
            held_only: false,
            generations: Vec::new(),
        };
        let attempt = async |channel| {
            let mut answers =
                get_trees(channel, &Context::new(self.timeout), request.clone()).await?;
            let mut trees = Vec::new();
            while let Some(answer) = answers.next().await {
                let answer = answer?;
                // A directory that is missing ends the attempt: another server may hold it.
                if !answer.missing.is_empty() {
                    return Err(Error::not_held(format!(
                        "directories of {} are not there",
                        repository.path
                    )));
                }
                for tree in answer.trees {
                    let oid = Oid::from_bytes(&tree.oid)?;
                    trees.push((oid, TreeRecord::parse_verified(tree.record, &oid)?));
                }
            }
            Ok(trees)
        };
        self.first_of(&repository.peers, attempt).await
    }

    /// Whether the servers have this file without getting it from elsewhere. For the survey.
    pub async fn holds(&self, file: &KnownFile) -> Result<bool> {
        match self.contents(file, 0, 1, true).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind == ErrorKind::NotHeld => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer of the first server that gives one; each is asked at most once.
    async fn first_of<T>(
        &self,
        peers: &[u32],
        attempt: impl AsyncFn(Channel) -> Result<T>,
    ) -> Result<T> {
        let good = peers.iter().filter(|peer| !self.peers.is_suspect(**peer));
        let suspect: Vec<u32> = peers
            .iter()
            .copied()
            .filter(|peer| self.peers.is_suspect(*peer))
            .collect();
        let mut last = Error::unavailable("no server is known to ask");
        for (number, peer) in good.copied().chain(suspect).enumerate() {
            if number > 0 {
                self.peers.failed_over();
            }
            let address = &self.corpus.peers[peer as usize];
            match attempt(self.channels.get(address)?).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if !matches!(error.kind, ErrorKind::NotHeld | ErrorKind::NotFound) {
                        self.peers.suspect(peer);
                    }
                    // That a server could not be reached says more than that another one does not
                    // hold it.
                    if number == 0
                        || last.kind != ErrorKind::Unavailable
                        || error.kind != ErrorKind::NotHeld
                    {
                        last = error.context(address);
                    }
                }
            }
        }
        Err(last)
    }

    async fn resolve(&self, repository: &KnownRepository) -> Result<ReceivedAnswer> {
        let attempt = async |channel| {
            // A catalogue that has it answers with the same path.
            let mut client =
                CatalogClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let request = Context::new(self.timeout).request(v1::ResolveRequest {
                path: repository.path.clone(),
            });
            let call = async { client.resolve(request).await.map_err(from_status) };
            let found = within(self.timeout, "resolve", call)
                .await?
                .into_inner()
                .repository;
            match found {
                Some(found) if found.path == repository.path => Ok(ReceivedAnswer::Bytes(0)),
                _ => Err(Error::internal(format!(
                    "resolve {}: the answer is another repository",
                    repository.path
                ))),
            }
        };
        self.first_of(&self.corpus.routers, attempt).await
    }

    async fn record(&self, repository: &KnownRepository, oid: Oid) -> Result<ReceivedAnswer> {
        let wanted = oid_bytes(&oid);
        // The record of this directory, whatever else comes along.
        let attempt = async |channel| {
            let request = v1::GetTreesRequest {
                storage_id: repository.storage_id.clone(),
                oids: vec![wanted.clone()],
                byte_budget: 0,
                depth: 1,
                origin: Some(repository.origin.clone()),
                held_only: false,
                generations: Vec::new(),
            };
            let mut answers = get_trees(channel, &Context::new(self.timeout), request).await?;
            let mut got = None;
            while let Some(answer) = answers.next().await {
                got = answer?
                    .trees
                    .into_iter()
                    .find(|tree| tree.oid == wanted)
                    .map(|tree| tree.record)
                    .or(got);
            }
            let record =
                got.ok_or_else(|| Error::not_held(format!("directory {oid} is not there")))?;
            Ok(ReceivedAnswer::Record {
                bytes: record.len() as u64,
                record,
            })
        };
        self.first_of(&repository.peers, attempt).await
    }

    async fn contents(
        &self,
        file: &KnownFile,
        first_chunk: u32,
        chunk_count: u32,
        held_only: bool,
    ) -> Result<ReceivedAnswer> {
        let repository = &self.corpus.repositories[file.repository as usize];
        let oid = oid_bytes(&file.oid);
        let size = file.size;
        // No count stands for all chunks of the file.
        let wanted = if chunk_count == 0 {
            frame::chunk_count(size)
        } else {
            u64::from(chunk_count)
        };
        let attempt = async |channel| {
            let span = v1::BlobSpan {
                oid: oid.clone(),
                first_chunk,
                chunk_count,
                size,
            };
            let request = v1::GetBlobsRequest {
                storage_id: repository.storage_id.clone(),
                spans: vec![span],
                origin: Some(repository.origin.clone()),
                held_only,
            };
            let mut answers = get_blobs(channel, &Context::new(self.timeout), request).await?;
            // Chunks come in order, whole, and of this file alone.
            let mut count = 0;
            let mut bytes = 0;
            while let Some(answer) = answers.next().await {
                for chunk in answer?.chunks {
                    if chunk.oid != oid || u64::from(chunk.index) != u64::from(first_chunk) + count
                    {
                        return Err(Error::corrupt(format!(
                            "file {}: chunks arrived out of order",
                            file.oid
                        )));
                    }
                    count += 1;
                    bytes += chunk.frame.len() as u64;
                }
            }
            if count != wanted {
                return Err(Error::not_held(format!(
                    "file {}: {count} of {wanted} chunks are there",
                    file.oid
                )));
            }
            Ok(ReceivedAnswer::Bytes(bytes))
        };
        self.first_of(&repository.peers, attempt).await
    }
}

/// Uses a record as the operation would.
fn check(operation: LoadOperation, record: bytes::Bytes, random: u64) -> Result<()> {
    let record = TreeRecord::parse(record)?;
    if operation != LoadOperation::Lookup || record.is_empty() {
        return Ok(());
    }
    let name = record
        .get((random % record.len() as u64) as usize)
        .map(|entry| entry.name.to_vec());
    match name.and_then(|name| record.find(&name).map(drop)) {
        Some(()) => Ok(()),
        None => Err(Error::corrupt("a name of it is not found in it")),
    }
}
