//! Makes this copy hold every content that another copy holds, so that the other one can go without
//! anything being lost.
//!
//! Invariant: a cover that succeeds means that whatever the peers listed is in this store,
//! verified; what they took in after they were asked is not part of it. Nothing but the peers is
//! asked, so it does not depend on upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use monofs_model::limits::MESSAGE_BYTES_MAX;
use monofs_model::{ContentMode, Error, ErrorKind, Oid, Result, StorageId};
use monofs_proto::v1::node_client::NodeClient;
use monofs_proto::{convert, v1};
use monofs_rpc::content::guarded;
use monofs_rpc::{Context, from_status, within};
use monofs_store::repo::{BlobWalk, RepoMeta, RepoStore};
use tokio::sync::mpsc;

use crate::blobs::Span;
use crate::hydrate::batches;
use crate::state::{NodeState, blocking};
use crate::upstream::{self, Server, Target};

/// Contents listed in one message.
const LIST_BLOBS: usize = 8192;

/// What to cover, and how far it is.
pub(crate) struct Cover {
    id: StorageId,
    commit: Oid,
    peers: Vec<Server>,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Cover {
    /// Checks a request. Errors: `Invalid`.
    pub fn parse(request: v1::CoverRequest) -> Result<Self> {
        let peers = request
            .peers
            .into_iter()
            .map(|address| Server {
                address,
                peer: true,
            })
            .collect();
        let (id, commit) = (
            StorageId::new(&request.storage_id)?,
            Oid::from_bytes(&request.commit)?,
        );
        Ok(Self {
            id,
            commit,
            peers,
            blobs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    pub fn id(&self) -> &StorageId {
        &self.id
    }

    pub fn progress(&self, covered: bool) -> v1::CoverProgress {
        let (blobs, bytes) = (
            self.blobs.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        );
        v1::CoverProgress {
            blobs_done: blobs,
            bytes_done: bytes,
            covered,
        }
    }

    /// Takes what is missing. Errors: `NotHeld` (this node does not hold the commit), `Unavailable`
    /// (a peer), `Full`.
    pub async fn run(&self, state: &Arc<NodeState>) -> Result<()> {
        let store = state.store(&self.id).await?;
        let (meta, root) = self.held(&store).await?;
        if self.peers.is_empty() {
            return Ok(());
        }
        let mut whole = is_whole(&store, root).await?;
        if !whole {
            for peer in &self.peers {
                let taken = self.take(state, &store, &meta, peer).await;
                taken.map_err(|e| {
                    e.context(format!("contents of {} from {}", meta.path, peer.address))
                })?;
            }
            whole = is_whole(&store, root).await?;
        }
        if whole {
            // The hydrator counts what it took itself.
            state.progress.of(&self.id, &self.commit).complete();
        }
        if whole || meta.content == ContentMode::Lazy {
            // Of another one the hydrator still has something to do.
            state.paces.set(&self.id, 0);
        }
        Ok(())
    }

    async fn held(&self, store: &Arc<RepoStore>) -> Result<(RepoMeta, Oid)> {
        let (looked, commit) = (store.clone(), self.commit);
        let (meta, snapshots) = blocking(move || Ok((looked.meta()?, looked.snapshots()?))).await?;
        match snapshots.iter().find(|snapshot| snapshot.commit == commit) {
            Some(snapshot) => Ok((meta, snapshot.root)),
            None => Err(not_held(&self.id, &commit)),
        }
    }

    /// Takes what one peer lists and this store lacks.
    async fn take(
        &self,
        state: &Arc<NodeState>,
        store: &Arc<RepoStore>,
        meta: &RepoMeta,
        peer: &Server,
    ) -> Result<()> {
        let silence = state.config.upstream_timeout;
        let mut client = NodeClient::new(state.channels.get(&peer.address)?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let request = v1::ListBlobsRequest {
            storage_id: self.id.to_string(),
            commit: convert::oid_bytes(&self.commit),
        };
        let call = client.list_blobs(Context::new(silence).stream(request));
        let answer = within(silence, "list contents", async {
            call.await.map_err(from_status)
        })
        .await;
        let mut lists = match answer {
            Ok(answer) => guarded(answer.into_inner(), silence, "list contents"),
            Err(error) if error.kind == ErrorKind::NotHeld => return Ok(()),
            Err(error) => return Err(error),
        };
        let pace = state.paces.of(&self.id);
        let target = Target {
            state,
            store,
            meta,
            commit: Some(self.commit),
            pace: pace.as_deref(),
        };
        while let Some(list) = lists.next().await {
            let list = match list {
                // The first message of an error is the status of the call.
                Err(error) if error.kind == ErrorKind::NotHeld => return Ok(()),
                list => list?,
            };
            let span =
                |blob: &v1::HeldBlob| Ok(Span::whole(Oid::from_bytes(&blob.oid)?, blob.size));
            let listed: Vec<Span> = list.blobs.iter().map(span).collect::<Result<_>>()?;
            let looked = store.clone();
            let missing = blocking(move || upstream::still_missing(&looked, listed)).await?;
            for batch in batches(&missing, pace.as_deref()) {
                let bytes = batch.iter().map(|span| span.size).sum();
                upstream::fill(target, std::slice::from_ref(peer), batch.to_vec(), |_| {}).await?;
                self.blobs.fetch_add(batch.len() as u64, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        Ok(())
    }
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
pub(crate) async fn list(
    state: &Arc<NodeState>,
    request: v1::ListBlobsRequest,
    sink: mpsc::Sender<Result<v1::ListBlobsResponse, tonic::Status>>,
) -> Result<()> {
    let (id, commit) = (
        StorageId::new(&request.storage_id)?,
        Oid::from_bytes(&request.commit)?,
    );
    let store = state.store(&id).await?;
    blocking(move || {
        let snapshots = store.snapshots()?;
        let snapshot = snapshots.iter().find(|snapshot| snapshot.commit == commit);
        let mut walk = BlobWalk::new(snapshot.ok_or_else(|| not_held(&id, &commit))?.root);
        let mut more = true;
        while more {
            let mut blobs = Vec::new();
            let held = |oid: &Oid, size| {
                blobs.push(v1::HeldBlob {
                    oid: convert::oid_bytes(oid),
                    size,
                })
            };
            more = walk.next_held(&store.read()?, LIST_BLOBS, held)?;
            if !blobs.is_empty()
                && sink
                    .blocking_send(Ok(v1::ListBlobsResponse { blobs }))
                    .is_err()
            {
                break;
            }
        }
        Ok(())
    })
    .await
}
