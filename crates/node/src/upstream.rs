//! Pulls contents that this node lacks: from a peer replica first, then from a fetcher. Everything
//! is verified before it enters the store.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use monofs_model::oid::ObjectHasher;
use monofs_model::{Error, ErrorKind, ObjectKind, Oid, Result, StorageId};
use monofs_proto::v1;
use monofs_rpc::{Context, context, while_alive};
use monofs_store::frame;
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio::sync::mpsc;

use crate::blobs::Span;
use crate::pace::Pace;
use crate::state::{NodeState, blocking};

/// Frames are written to the store in batches of about this many bytes.
const WRITE_BATCH_BYTES: usize = 8 << 20;
/// And of at most this many frames: each may touch a page of its own, which LMDB keeps in memory
/// until the commit.
const WRITE_BATCH_ITEMS: usize = 4096;
/// Messages between the network and the writer.
const WRITE_QUEUE: usize = 8;

/// Large contents that may arrive at the same time, chunk by chunk.
const LARGE_ARRIVING_MAX: usize = 16;

/// A place to pull from, in the order to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub address: String,
    /// A peer is asked only for what it holds.
    pub peer: bool,
}

/// Peers that may hold the repository, then fetchers; those that failed lately last.
pub(crate) fn servers(state: &NodeState, id: &StorageId) -> Vec<Server> {
    let view = state.view();
    let everyone: Vec<_> = view.nodes().map(|member| member.id.clone()).collect();
    let copies = view.replication_factor.max(1) as usize;
    let peers = view
        .readers(id, &everyone)
        .into_iter()
        .filter(|m| m.id != state.config.node_id)
        .take(copies);
    let mut servers: Vec<Server> = peers
        .map(|m| Server {
            address: m.address.clone(),
            peer: true,
        })
        .collect();
    let seen = view.fetchers_for(id).into_iter().map(|m| m.address.clone());
    let fetchers = seen.chain(state.other_fetchers());
    for address in fetchers {
        if !servers.iter().any(|server| server.address == address) {
            servers.push(Server {
                address,
                peer: false,
            });
        }
    }
    let now = Instant::now();
    servers.sort_by_key(|server| state.suspects.contains(&server.address, now));
    servers
}

/// A server that is asked, and whether there is another to ask instead.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub server: &'a Server,
    pub alternative: bool,
}

impl<'a> Asked<'a> {
    /// The servers one after the other.
    pub fn each(servers: &'a [Server]) -> impl Iterator<Item = Self> {
        let last = servers.len().saturating_sub(1);
        servers.iter().enumerate().map(move |(index, server)| Self {
            server,
            alternative: index < last,
        })
    }

    /// Waits for an answer. A server that has gone silently is given up soon where there is
    /// another, else at the deadline of `answer`.
    pub async fn wait<T>(
        &self,
        state: &NodeState,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let address = &self.server.address;
        let answer = match self.alternative {
            true => while_alive(&state.probes, address, answer).await,
            false => answer.await,
        };
        match &answer {
            Err(error) if error.kind == ErrorKind::Unavailable => {
                state.suspects.failed(address, Instant::now())
            }
            _ => state.suspects.answered(address),
        }
        answer
    }
}

/// Where pulled contents go.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub state: &'a Arc<NodeState>,
    pub store: &'a Arc<RepoStore>,
    pub meta: &'a RepoMeta,
    /// What a fetcher fetches if it has nothing yet.
    pub commit: Option<Oid>,
    /// Limits what is taken; `None` where a reader waits.
    pub pace: Option<&'a Pace>,
}

type Tap = mpsc::Sender<Result<v1::GetBlobsResponse, tonic::Status>>;

/// Pulls `spans` of one repository into its store from the first of `servers` that has them. Frames
/// of the asked spans are also sent to `tap` as they are verified (chunks of a large blob: as they
/// arrive; the whole is verified before it counts as held). Returns what no server had.
pub(crate) async fn pull(
    target: Target<'_>,
    servers: &[Server],
    spans: Vec<Span>,
    tap: Option<Tap>,
) -> Result<Vec<Span>> {
    let mut wanted = spans;
    let mut failure = None;
    for asked in Asked::each(servers) {
        let server = asked.server;
        if wanted.is_empty() {
            break;
        }
        match pull_from(target, asked, &wanted, tap.clone()).await {
            Ok(missing) => wanted = missing,
            // No other server makes room on our own disk.
            Err(Failure { error, own: true }) if error.kind == ErrorKind::Full => {
                return Err(error.context(format!("contents of {}", target.meta.path)));
            }
            Err(Failure { error, .. }) => {
                if error.kind == ErrorKind::Corrupt {
                    target.state.served.corrupt.one();
                }
                if error.kind != ErrorKind::NotHeld {
                    tracing::warn!(server = %server.address, repository = %target.meta.path, %error, "pull failed; trying the next server");
                    failure = Some(error);
                }
                let (held, spans) = (target.store.clone(), wanted);
                wanted = blocking(move || still_missing(&held, spans)).await?;
            }
        }
    }
    match failure {
        Some(error) if !wanted.is_empty() => {
            Err(error.context(format!("contents of {}", target.meta.path)))
        }
        _ => Ok(wanted),
    }
}

/// Returns when all of `wanted` is held, whoever pulled it; `counted` is told of the blobs that
/// came. Errors: `Unavailable` when none of `servers` has one.
pub(crate) async fn fill(
    target: Target<'_>,
    servers: &[Server],
    mut wanted: Vec<Span>,
    mut counted: impl FnMut(usize),
) -> Result<()> {
    while !wanted.is_empty() {
        let (claim, mine, others) = target.state.flights.claim(&target.meta.storage_id, wanted);
        let pulled = mine.len();
        if pulled > 0 {
            let left = pull(target, servers, mine, None).await?;
            if let Some(span) = left.first() {
                let (path, oid, more) = (&target.meta.path, &span.oid, left.len() - 1);
                return Err(Error::unavailable(format!(
                    "{path}: no server has blob {oid} (and {more} more)"
                )));
            }
            counted(pulled);
        }
        drop(claim);
        let mut late = Vec::with_capacity(others.len());
        for (span, mut flight) in others {
            flight.ended().await;
            late.push(span);
        }
        let (store, count) = (target.store.clone(), late.len());
        wanted = blocking(move || still_missing(&store, late)).await?;
        counted(count - wanted.len());
    }
    Ok(())
}

/// Those of `spans` whose blob the store lacks.
pub(crate) fn still_missing(store: &RepoStore, spans: Vec<Span>) -> Result<Vec<Span>> {
    let reader = store.read()?;
    let mut missing = Vec::new();
    for span in spans {
        if !reader.has_blob(&span.oid) {
            missing.push(span);
        }
    }
    Ok(missing)
}

/// Why a pull failed.
struct Failure {
    error: Error,
    /// What came could not be kept; else it did not come.
    own: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, own: false }
    }
}

async fn pull_from(
    target: Target<'_>,
    asked: Asked<'_>,
    wanted: &[Span],
    tap: Option<Tap>,
) -> Result<Vec<Span>, Failure> {
    let Target {
        state,
        store,
        meta,
        commit,
        pace,
    } = target;
    let (server, context) = (asked.server, Context::new(state.config.upstream_timeout));
    let request = v1::GetBlobsRequest {
        storage_id: meta.storage_id.to_string(),
        spans: wanted
            .iter()
            .map(|span| Span::whole(span.oid, span.size).to_wire())
            .collect(),
        origin: (!server.peer).then(|| origin(meta, commit)),
        held_only: server.peer,
    };
    let call =
        monofs_rpc::content::get_blobs(state.channels.get(&server.address)?, &context, request);
    let mut answers = asked.wait(state, call).await?;
    let (queue, frames) = mpsc::channel(WRITE_QUEUE);
    let spans: HashMap<Oid, Span> = wanted.iter().map(|span| (span.oid, *span)).collect();
    let writer = {
        let (store, flights, id) = (
            store.clone(),
            state.flights.clone(),
            meta.storage_id.clone(),
        );
        state.tasks.spawn(context::carry(blocking(move || {
            let arrived = |oid: &Oid, chunks| flights.arrived(&id, oid, chunks);
            Writer {
                store: &store,
                spans,
                tap,
                arrived: &arrived,
                batch: Vec::new(),
                batch_bytes: 0,
            }
            .run(frames)
        })))
    };
    let mut missing = Vec::new();
    let mut outcome = Ok(());
    loop {
        match asked
            .wait(state, async { answers.next().await.transpose() })
            .await
        {
            Ok(None) => break,
            Ok(Some(answer)) => {
                missing.extend(monofs_proto::convert::oids(&answer.missing)?);
                let bytes = answer
                    .chunks
                    .iter()
                    .map(|chunk| chunk.frame.len() as u64)
                    .sum();
                if queue.send(answer.chunks).await.is_err() {
                    break;
                }
                if let Some(pace) = pace {
                    pace.took(bytes).await;
                }
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    drop(queue);
    let written = writer
        .await
        .map_err(|e| Error::internal(format!("the writer of pulled contents ended: {e}")))?;
    written.map_err(|error| Failure { error, own: true })?;
    outcome?;
    let held = store.clone();
    let wanted = wanted.to_vec();
    let missing_now = blocking(move || still_missing(&held, wanted)).await?;
    if missing_now.len() > missing.len() && !server.peer {
        return Err(Failure::from(Error::corrupt(format!(
            "{} left out {} contents without saying so",
            server.address,
            missing_now.len()
        ))));
    }
    Ok(missing_now)
}

/// Where a fetcher gets the repository from.
pub(crate) fn origin(meta: &RepoMeta, commit: Option<Oid>) -> v1::Origin {
    v1::Origin {
        source: meta.source.to_string(),
        ref_name: meta.ref_name.as_str().to_owned(),
        commit: commit
            .map(|oid| monofs_proto::convert::oid_bytes(&oid))
            .unwrap_or_default(),
    }
}

/// Verifies and stores what arrives, in one blocking thread.
struct Writer<'a> {
    store: &'a RepoStore,
    spans: HashMap<Oid, Span>,
    tap: Option<Tap>,
    /// Is told how many chunks of a large blob are in the store.
    arrived: &'a dyn Fn(&Oid, u32),
    batch: Vec<(Oid, Bytes)>,
    batch_bytes: usize,
}

/// A large blob that is arriving.
struct Large<'a> {
    next: u32,
    hasher: ObjectHasher,
    writer: monofs_store::repo::LargeWriter<'a>,
}

impl<'a> Writer<'a> {
    fn run(mut self, mut frames: mpsc::Receiver<Vec<v1::BlobChunk>>) -> Result<()> {
        let mut arriving: HashMap<Oid, Large<'a>> = HashMap::new();
        let mut raw = Vec::new();
        while let Some(chunks) = frames.blocking_recv() {
            let mut tapped = v1::GetBlobsResponse::default();
            for chunk in chunks {
                let oid = Oid::from_bytes(&chunk.oid)?;
                let span = *self
                    .spans
                    .get(&oid)
                    .ok_or_else(|| Error::corrupt(format!("blob {oid} was not asked for")))?;
                raw.clear();
                frame::decode_into(&chunk.frame, &mut raw)?;
                if span.is_large() {
                    self.take_large(&mut arriving, span, &chunk, &raw)?;
                } else {
                    oid.verify(ObjectKind::Blob, &raw)?;
                    self.batch_bytes += chunk.frame.len();
                    self.batch.push((oid, chunk.frame.clone()));
                }
                if (span.first..span.end).contains(&chunk.index) {
                    tapped.chunks.push(chunk);
                }
            }
            if let (Some(tap), false) = (&self.tap, tapped.chunks.is_empty()) {
                // A reader that went away does not stop the contents from being kept.
                let _ = tap.blocking_send(Ok(tapped));
            }
            if self.batch_bytes >= WRITE_BATCH_BYTES || self.batch.len() >= WRITE_BATCH_ITEMS {
                self.flush()?;
            }
        }
        self.flush()
    }

    fn take_large(
        &self,
        arriving: &mut HashMap<Oid, Large<'a>>,
        span: Span,
        chunk: &v1::BlobChunk,
        raw: &[u8],
    ) -> Result<()> {
        if !arriving.contains_key(&span.oid) {
            if arriving.len() >= LARGE_ARRIVING_MAX {
                return Err(Error::corrupt(format!(
                    "more than {LARGE_ARRIVING_MAX} large contents arrive interleaved"
                )));
            }
            let hasher = ObjectHasher::new(span.oid.format(), ObjectKind::Blob, span.size);
            let writer = self.store.begin_large(&span.oid, span.size)?;
            (self.arrived)(&span.oid, 0);
            arriving.insert(
                span.oid,
                Large {
                    next: 0,
                    hasher,
                    writer,
                },
            );
        }
        let large = arriving
            .get_mut(&span.oid)
            .expect("was put there when it was not");
        if chunk.index != large.next {
            return Err(Error::corrupt(format!(
                "blob {}: chunk {} where {} was due",
                span.oid, chunk.index, large.next
            )));
        }
        large.hasher.update(raw);
        large.writer.put(chunk.index, chunk.frame.clone())?;
        (self.arrived)(&span.oid, large.writer.stored());
        large.next += 1;
        if large.next < crate::blobs::chunks_of(span.size) {
            return Ok(());
        }
        let large = arriving.remove(&span.oid).expect("was there above");
        if large.hasher.finish() != span.oid {
            return Err(Error::corrupt(format!(
                "blob {}: the bytes do not match the object id",
                span.oid
            )));
        }
        large.writer.finish()
    }

    fn flush(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.store.put_blobs(&self.batch)?;
        }
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
