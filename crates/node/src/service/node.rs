//! `Node`: what the router asks of a node.

use std::sync::Arc;
use std::time::Duration;

use monofs_model::{
    ContentMode, DisplayPath, Error, ErrorKind, Oid, RefName, Result, Snapshot, SourceUrl,
    StorageId,
};
use monofs_proto::{convert, v1};
use monofs_rpc::{context, to_status};
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answer, Sink, answer};
use crate::cover::Cover;
use crate::operations::disk_free;
use crate::state::{NodeState, blocking};
use crate::upstream::Server;
use crate::{adopt, cover, hydrate, progress};

/// Objects between two progress messages of a verification.
const VERIFY_REPORT_EVERY: u64 = 1000;
/// Between two progress messages of a cover: the silence of a slow one must not look like death.
const COVER_REPORT_EVERY: Duration = Duration::from_secs(1);
/// The service whose requests `Stat` tells about.
const CONTENT: &str = v1::content_server::SERVICE_NAME;
/// Wrong objects named in one answer; the rest are counted.
const VERIFY_ERRORS_MAX: usize = 100;

pub(crate) struct NodeService {
    state: Arc<NodeState>,
}

impl NodeService {
    pub fn new(state: Arc<NodeState>) -> Self {
        Self { state }
    }

    async fn ids(&self, storage_id: &str) -> Result<Vec<StorageId>> {
        if storage_id.is_empty() {
            let stores = self.state.stores.clone();
            return blocking(move || stores.list()).await;
        }
        Ok(vec![StorageId::new(storage_id)?])
    }

    async fn drop_repository(&self, request: v1::DropRequest) -> Result<bool> {
        let id = StorageId::new(&request.storage_id)?;
        let only = convert::oids(&request.only_commits)?;
        let lock = self.state.writer(&id);
        let _writer = lock.lock().await;
        if !only.is_empty() {
            self.refuse_others(&id, &only).await?;
        }
        let (stores, dropped) = (self.state.stores.clone(), id.clone());
        let existed = blocking(move || stores.drop_repo(&dropped)).await;
        self.state.progress.retain(&id, &[]);
        existed
    }

    /// Errors: `Refused` when another commit than `only` is held.
    async fn refuse_others(&self, id: &StorageId, only: &[Oid]) -> Result<()> {
        let store = match self.state.store(id).await {
            Err(error) if error.kind == ErrorKind::NotHeld => return Ok(()),
            store => store?,
        };
        let snapshots = blocking(move || store.snapshots()).await?;
        match snapshots
            .iter()
            .find(|snapshot| !only.contains(&snapshot.commit))
        {
            Some(other) => Err(Error::refused(format!(
                "{id}: commit {} is held, too; it is not dropped",
                other.commit
            ))),
            None => Ok(()),
        }
    }

    async fn retain(&self, request: v1::RetainRequest) -> Result<v1::RetainResponse> {
        let id = StorageId::new(&request.storage_id)?;
        let keep = convert::oids(&request.commits)?;
        if keep.is_empty() {
            return Err(Error::invalid(
                "nothing to retain; use Drop to forget a repository",
            ));
        }
        let lock = self.state.writer(&id);
        let _writer = lock.lock().await;
        let store = self.state.store(&id).await?;
        let kept = keep.clone();
        let report = blocking(move || store.gc(&kept)).await;
        self.state.progress.retain(&id, &keep);
        let report = report?;
        Ok(v1::RetainResponse {
            trees_dropped: report.trees_removed,
            chunks_dropped: report.chunks_removed,
        })
    }

    async fn held(&self, id: StorageId, detailed: bool) -> Result<v1::HeldRepository> {
        let store = self.state.store(&id).await?;
        let looked = store.clone();
        let (meta, snapshots, counts) =
            blocking(move || Ok((looked.meta()?, looked.snapshots()?, looked.counts()?))).await?;
        let (mut hydrated, mut total) = (0, 0);
        for snapshot in snapshots.iter().filter(|_| detailed) {
            total += snapshot.blobs;
            hydrated += self.hydrated(&meta, &store, snapshot).await?;
        }
        Ok(v1::HeldRepository {
            storage_id: meta.storage_id.to_string(),
            path: meta.path.to_string(),
            snapshots: snapshots.iter().map(v1::Snapshot::from).collect(),
            trees: counts.trees,
            blobs: counts.blobs,
            disk_bytes: store.disk_bytes(),
            hydrated_blobs: hydrated,
            total_blobs: total,
            last_error: self.state.hydrator.last_error(&id),
        })
    }

    /// Distinct blobs of a snapshot that are here. Of an eager repository the hydrator keeps count;
    /// of a lazy one nobody does, so its files are walked each time.
    async fn hydrated(
        &self,
        meta: &RepoMeta,
        store: &Arc<RepoStore>,
        snapshot: &Snapshot,
    ) -> Result<u64> {
        let (store, snapshot) = (store.clone(), snapshot.clone());
        if meta.content == ContentMode::Lazy {
            return blocking(move || progress::count(&store, snapshot.root)).await;
        }
        let counter = self.state.progress.of(&meta.storage_id, &snapshot.commit);
        // A task of its own, so that a caller who gives up does not make the next one begin anew.
        let counted = tokio::spawn(context::carry(async move {
            counter.held(&store, &snapshot).await
        }));
        counted
            .await
            .map_err(|e| Error::internal(format!("counting contents broke off: {e}")))?
    }
}

#[tonic::async_trait]
impl v1::node_server::Node for NodeService {
    type AdoptStream = ReceiverStream<Result<v1::AdoptProgress, Status>>;
    type CoverStream = ReceiverStream<Result<v1::CoverProgress, Status>>;
    type ListBlobsStream = ReceiverStream<Result<v1::ListBlobsResponse, Status>>;
    type VerifyStream = ReceiverStream<Result<v1::VerifyProgress, Status>>;

    async fn adopt(&self, request: Request<v1::AdoptRequest>) -> Answer<v1::AdoptProgress> {
        let adoption = Adoption::parse(request.into_inner()).map_err(to_status)?;
        let state = self.state.clone();
        answer(|sink| async move {
            let Adoption {
                meta,
                snapshot,
                servers,
                bytes_per_second_max,
            } = adoption;
            state.paces.set(&meta.storage_id, bytes_per_second_max);
            let fetchers = servers
                .iter()
                .filter(|server| !server.peer)
                .map(|server| server.address.clone());
            state.name_fetchers(fetchers.collect());
            let (id, content) = (meta.storage_id.clone(), meta.content);
            adopt::adopt(&state, meta, snapshot, servers, &sink).await?;
            if content == ContentMode::Eager {
                hydrate::start(&state, id);
            }
            Ok(())
        })
    }

    async fn cover(&self, request: Request<v1::CoverRequest>) -> Answer<v1::CoverProgress> {
        let request = request.into_inner();
        let limit = request.bytes_per_second_max;
        let cover = Cover::parse(request).map_err(to_status)?;
        self.state.paces.set(cover.id(), limit);
        let state = self.state.clone();
        answer(|sink| async move {
            let mut work = std::pin::pin!(cover.run(&state));
            let mut report = tokio::time::interval(COVER_REPORT_EVERY);
            loop {
                tokio::select! {
                    outcome = &mut work => {
                        outcome?;
                        let _ = sink.send(Ok(cover.progress(true))).await;
                        return Ok(());
                    }
                    // Nobody waits for it any more.
                    () = sink.closed() => return Ok(()),
                    _ = report.tick() => drop(sink.try_send(Ok(cover.progress(false)))),
                }
            }
        })
    }

    async fn list_blobs(
        &self,
        request: Request<v1::ListBlobsRequest>,
    ) -> Answer<v1::ListBlobsResponse> {
        let (state, request) = (self.state.clone(), request.into_inner());
        answer(|sink| async move { cover::list(&state, request, sink).await })
    }

    async fn drop(
        &self,
        request: Request<v1::DropRequest>,
    ) -> Result<Response<v1::DropResponse>, Status> {
        let existed = self
            .drop_repository(request.into_inner())
            .await
            .map_err(to_status)?;
        Ok(Response::new(v1::DropResponse { existed }))
    }

    async fn retain(
        &self,
        request: Request<v1::RetainRequest>,
    ) -> Result<Response<v1::RetainResponse>, Status> {
        self.retain(request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn stat(
        &self,
        _: Request<v1::StatRequest>,
    ) -> Result<Response<v1::StatResponse>, Status> {
        let state = self.state.clone();
        let stat = blocking(move || {
            let served = &state.served;
            let requests = state.requests.totals(CONTENT);
            Ok(v1::StatResponse {
                node_id: state.config.node_id.to_string(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                repositories: state.stores.list()?.len() as u64,
                disk_used_bytes: state.stores.disk_bytes(),
                disk_free_bytes: disk_free(&state.config.db_path),
                open_stores: state.stores.open_count() as u64,
                hydrations_running: state.hydrator.running() as u64,
                hydrations_queued: state.hydrator.queued() as u64,
                trees_served: served.trees.get(),
                chunks_served: served.chunks.get(),
                bytes_served: served.bytes.get(),
                incarnation: state.incarnation,
                request_durations: requests.durations,
                requests_failed: requests.failed,
                chunks_held: served.chunks_held.get(),
                chunks_missed: served.chunks_missed.get(),
            })
        });
        stat.await.map(Response::new).map_err(to_status)
    }

    async fn list_held(
        &self,
        request: Request<v1::ListHeldRequest>,
    ) -> Result<Response<v1::ListHeldResponse>, Status> {
        let wanted = request.into_inner().storage_id;
        let mut repositories = Vec::new();
        for id in self.ids(&wanted).await.map_err(to_status)? {
            match self.held(id, !wanted.is_empty()).await {
                Ok(held) => repositories.push(held),
                Err(error) if wanted.is_empty() => {
                    tracing::warn!(%error, "a store is left out of a listing")
                }
                Err(error) => return Err(to_status(error)),
            }
        }
        Ok(Response::new(v1::ListHeldResponse { repositories }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answer<v1::VerifyProgress> {
        let ids = self
            .ids(&request.into_inner().storage_id)
            .await
            .map_err(to_status)?;
        let state = self.state.clone();
        answer(|sink| async move {
            for id in ids {
                let store = state.store(&id).await?;
                let sink = sink.clone();
                blocking(move || verify(&store, &id, &sink)).await?;
            }
            Ok(())
        })
    }
}

fn verify(store: &RepoStore, id: &StorageId, sink: &Sink<v1::VerifyProgress>) -> Result<()> {
    let message = |objects, bytes, errors, finished| v1::VerifyProgress {
        storage_id: id.to_string(),
        objects_checked: objects,
        bytes_checked: bytes,
        errors,
        finished,
    };
    let mut reported = 0;
    let report = store.check(&mut |progress| {
        if progress.rows_done < reported + VERIFY_REPORT_EVERY {
            return true;
        }
        reported = progress.rows_done;
        sink.blocking_send(Ok(message(
            progress.rows_done,
            progress.bytes_done,
            Vec::new(),
            false,
        )))
        .is_ok()
    })?;
    let mut errors: Vec<String> = report
        .problems
        .iter()
        .take(VERIFY_ERRORS_MAX)
        .map(ToString::to_string)
        .collect();
    if report.problems_total > errors.len() as u64 {
        errors.push(format!(
            "and {} more",
            report.problems_total - errors.len() as u64
        ));
    }
    // The receiver may be gone: then nobody wants to know.
    let _ = sink.blocking_send(Ok(message(
        report.trees + report.blobs,
        report.bytes,
        errors,
        true,
    )));
    Ok(())
}

/// A checked `AdoptRequest`.
struct Adoption {
    meta: RepoMeta,
    snapshot: Snapshot,
    servers: Vec<Server>,
    /// Of contents; 0 = no limit.
    bytes_per_second_max: u64,
}

impl Adoption {
    fn parse(request: v1::AdoptRequest) -> Result<Self> {
        let content: ContentMode = request.content().try_into()?;
        let origin = request
            .origin
            .ok_or_else(|| Error::invalid("adopt: no origin"))?;
        let snapshot: Snapshot = request
            .snapshot
            .ok_or_else(|| Error::invalid("adopt: no snapshot"))?
            .try_into()?;
        let meta = RepoMeta {
            storage_id: StorageId::new(&request.storage_id)?,
            path: DisplayPath::new(&request.path)?,
            source: SourceUrl::new(&origin.source)?,
            ref_name: RefName::new(&origin.ref_name)?,
            content,
            format: Oid::format(&snapshot.commit),
        };
        let peers = request.peers.into_iter().map(|address| Server {
            address,
            peer: true,
        });
        let fetchers = request.fetchers.into_iter().map(|address| Server {
            address,
            peer: false,
        });
        let bytes_per_second_max = request.bytes_per_second_max;
        Ok(Self {
            meta,
            snapshot,
            servers: peers.chain(fetchers).collect(),
            bytes_per_second_max,
        })
    }
}
