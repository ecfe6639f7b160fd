//! Makes this copy hold every content that another copy holds, so that the other one can go without
//! anything being lost.
//!
//! Invariant: a cover that succeeds means that whatever the peers listed is in this store,
//! verified; what they took in after they were asked is not part of it. Nothing but the peers is
//! asked, so it does not depend on upstream.
//!
//! Callers: `service::node`; `keep` looks up commits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt};
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{ContentMode, Error, ErrorKind, Oid, Result, StorageId};
use monofs_proto::v1::node_client::NodeClient;
use monofs_proto::{convert, v1};
use monofs_rpc::content::guarded;
use monofs_rpc::{from_status, within};
use monofs_store::repo::{BlobWalk, RepoMeta, RepoStore};

use crate::answer::AnswerSink;
use crate::blocking::blocking;
use crate::chunk_span::{ChunkSpan, split_batch, still_missing};
use crate::rate_limit::{RateLimits, request_bytes};
use crate::stores::NodeStores;
use crate::upstream::pull::{PullTarget, Puller};
use crate::upstream::servers::UpstreamServer;

/// Contents listed in one message.
const LIST_BLOBS: usize = 8192;

/// What to cover, and how far it is.
pub(crate) struct ContentCover {
    id: StorageId,
    commit: Oid,
    peers: Vec<UpstreamServer>,
    blobs_done: AtomicU64,
    bytes_done: AtomicU64,
}

impl ContentCover {
    /// Checks a request. Errors: `Invalid`.
    pub fn parse(request: v1::CoverRequest) -> Result<Self> {
        Ok(Self {
            id: StorageId::new(&request.storage_id)?,
            commit: Oid::from_bytes(&request.commit)?,
            peers: request
                .peers
                .into_iter()
                .map(UpstreamServer::peer)
                .collect(),
            blobs_done: AtomicU64::new(0),
            bytes_done: AtomicU64::new(0),
        })
    }

    /// The repository.
    pub fn id(&self) -> &StorageId {
        &self.id
    }

    /// How far it is, before the end.
    pub fn progress(&self) -> v1::CoverProgress {
        v1::CoverProgress {
            blobs_done: self.blobs_done.load(Ordering::Relaxed),
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            covered: false,
        }
    }

    /// The last message of a cover that succeeded.
    pub fn success(&self) -> v1::CoverProgress {
        v1::CoverProgress {
            covered: true,
            ..self.progress()
        }
    }

    fn note_taken(&self, spans: &[ChunkSpan]) {
        let bytes = spans.iter().map(|span| span.size).sum();
        self.blobs_done
            .fetch_add(spans.len() as u64, Ordering::Relaxed);
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What a cover needs of the node.
pub(crate) struct Coverer {
    stores: Arc<NodeStores>,
    puller: Arc<Puller>,
    limits: Arc<RateLimits>,
}

impl Coverer {
    /// Covers what is in `stores`.
    pub fn new(stores: Arc<NodeStores>, puller: Arc<Puller>, limits: Arc<RateLimits>) -> Self {
        Self {
            stores,
            puller,
            limits,
        }
    }

    /// Takes what is missing. Errors: `NotHeld` (this node does not hold the commit), `Unavailable`
    /// (a peer), `Full`.
    pub async fn run(&self, cover: &ContentCover) -> Result<()> {
        let ContentCover { id, commit, .. } = cover;
        let store = self.stores.get(id).await?;
        let held = HeldCommit::find(&store, id, commit).await?;
        if cover.peers.is_empty() {
            return Ok(());
        }

        // A copy that has everything need not ask.
        let mut whole = is_whole(&store, held.root).await?;
        if !whole {
            for peer in &cover.peers {
                let taken = self.take(cover, &store, &held.meta, peer).await;
                taken.map_err(|e| {
                    let path = &held.meta.path;
                    e.context(format!("contents of {path} from {}", peer.address))
                })?;
            }
            whole = is_whole(&store, held.root).await?;
        }

        // What was taken into a store that is gone by now is covered by nothing.
        if !self.stores.is_current(id, &store) {
            return Err(not_held(id, commit));
        }
        HeldCommit::find(&store, id, commit).await?;

        if whole {
            // The hydrator counts what it took itself.
            self.stores.hydrated.of(id, commit).complete();
        }
        if whole || held.meta.content == ContentMode::Lazy {
            // Of another one the hydrator still has something to do.
            self.limits.set(id, 0);
        }
        Ok(())
    }

    /// Takes what one peer lists and this store lacks.
    async fn take(
        &self,
        cover: &ContentCover,
        store: &Arc<RepoStore>,
        meta: &RepoMeta,
        peer: &UpstreamServer,
    ) -> Result<()> {
        let mut lists = match self.lists(cover, peer).await {
            Ok(lists) => lists,
            Err(error) if error.kind == ErrorKind::NotHeld => return Ok(()),
            Err(error) => return Err(error),
        };
        while let Some(list) = lists.next().await {
            let list = match list {
                // The first message of an error is the status of the call.
                Err(error) if error.kind == ErrorKind::NotHeld => return Ok(()),
                list => list?,
            };
            let listed = listed_spans(&list)?;
            let looked = store.clone();
            let missing = blocking(move || still_missing(&looked, listed)).await?;
            let mut rest = missing.as_slice();
            while !rest.is_empty() {
                let limit = self.limits.of(&cover.id);
                let target = PullTarget {
                    store,
                    meta,
                    commit: Some(cover.commit),
                    limit: limit.as_deref(),
                };
                let (batch, after) = split_batch(rest, request_bytes(target.limit));
                let peers = std::slice::from_ref(peer);
                self.puller
                    .fill(target, peers, batch.to_vec(), |_| {})
                    .await?;
                cover.note_taken(batch);
                rest = after;
            }
        }
        Ok(())
    }

    /// The contents that a peer holds of the commit.
    async fn lists(
        &self,
        cover: &ContentCover,
        peer: &UpstreamServer,
    ) -> Result<impl Stream<Item = Result<v1::ListBlobsResponse>> + Unpin + use<>> {
        let upstreams = &self.puller.upstreams;
        let silence = upstreams.timeout();
        let mut client =
            NodeClient::new(upstreams.channel(peer)?).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = v1::ListBlobsRequest {
            storage_id: cover.id.to_string(),
            commit: convert::oid_bytes(&cover.commit),
        };
        let call = client.list_blobs(upstreams.context().stream(request));
        let answer = within(silence, "list contents", async {
            call.await.map_err(from_status)
        })
        .await?;
        Ok(guarded(answer.into_inner(), silence, "list contents"))
    }
}

/// What this node knows of a commit that it holds.
pub(crate) struct HeldCommit {
    pub meta: RepoMeta,
    pub root: Oid,
}

impl HeldCommit {
    /// Errors: `NotHeld`.
    pub async fn find(store: &Arc<RepoStore>, id: &StorageId, commit: &Oid) -> Result<Self> {
        let store = store.clone();
        let id = id.clone();
        let commit = *commit;
        blocking(move || {
            let meta = store.meta()?;
            match store.snapshot(&commit)? {
                Some(snapshot) => Ok(Self {
                    meta,
                    root: snapshot.root,
                }),
                None => Err(not_held(&id, &commit)),
            }
        })
        .await
    }
}

fn listed_spans(list: &v1::ListBlobsResponse) -> Result<Vec<ChunkSpan>> {
    list.blobs
        .iter()
        .map(|blob| Ok(ChunkSpan::whole(Oid::from_bytes(&blob.oid)?, blob.size)))
        .collect()
}

/// Whether no content below `root` is missing.
async fn is_whole(store: &Arc<RepoStore>, root: Oid) -> Result<bool> {
    let store = store.clone();
    blocking(move || {
        Ok(BlobWalk::new(root)
            .next_missing(&store.read()?, 1)?
            .is_empty())
    })
    .await
}

fn not_held(id: &StorageId, commit: &Oid) -> Error {
    Error::not_held(format!(
        "commit {commit} of repository {id} is not on this node"
    ))
}

/// Sends the contents of a held commit that are here. Errors: `NotHeld`.
pub(crate) async fn list_blobs(
    stores: &Arc<NodeStores>,
    request: v1::ListBlobsRequest,
    sink: AnswerSink<v1::ListBlobsResponse>,
) -> Result<()> {
    let id = StorageId::new(&request.storage_id)?;
    let commit = Oid::from_bytes(&request.commit)?;
    let store = stores.get(&id).await?;
    blocking(move || {
        let snapshot = store
            .snapshot(&commit)?
            .ok_or_else(|| not_held(&id, &commit))?;
        // The walk pauses between messages, so no view of the store is held while one is sent.
        let mut walk = BlobWalk::new(snapshot.root);
        let mut more = true;
        while more {
            let mut blobs = Vec::new();
            more = walk.next_held(&store.read()?, LIST_BLOBS, |oid, size| {
                blobs.push(v1::HeldBlob {
                    oid: convert::oid_bytes(oid),
                    size,
                });
            })?;
            let message = v1::ListBlobsResponse { blobs };
            if !message.blobs.is_empty() && sink.blocking_send(Ok(message)).is_err() {
                break;
            }
        }
        Ok(())
    })
    .await
}
