//! `Node`: what the router asks of a node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use monofs_model::{
    ContentMode, DisplayPath, Error, ErrorKind, NodeId, Oid, RefName, Result, Snapshot, SourceUrl,
    StorageId,
};
use monofs_proto::{convert, v1};
use monofs_rpc::catalogs::CatalogAskers;
use monofs_rpc::metrics::Calls;
use monofs_rpc::{context, to_status};
use monofs_store::repo::{RepoMeta, RepoStore};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::verify::verify;
use crate::adopt::{AdoptReports, AdoptedSnapshot, Adopter};
use crate::answer::{AnswerTasks, StreamedAnswer};
use crate::blocking::blocking;
use crate::cover::{self, ContentCover, Coverer};
use crate::generations::Generations;
use crate::hydrate::Hydrator;
use crate::hydrated::count_held;
use crate::keep::ContentKeeper;
use crate::operations::disk_free;
use crate::rate_limit::RateLimits;
use crate::served::ServedCounters;
use crate::stores::NodeStores;
use crate::upstream::servers::{UpstreamKind, UpstreamServer, Upstreams};

/// Between two progress messages of a cover: the silence of a slow one must not look like death.
const COVER_REPORT_EVERY: Duration = Duration::from_secs(1);
/// The service whose requests `Stat` tells about.
const CONTENT: &str = v1::content_server::SERVICE_NAME;

/// What `Stat` says of this process.
pub(crate) struct NodeIdentity {
    pub node_id: NodeId,
    pub db_path: PathBuf,
    /// The time of this start, so that a router notices a restart that was too quick to be seen as
    /// an absence.
    pub incarnation: u64,
}

/// The service and what it hands requests to.
pub(crate) struct NodeService {
    pub identity: NodeIdentity,
    pub stores: Arc<NodeStores>,
    pub upstreams: Arc<Upstreams>,
    pub limits: Arc<RateLimits>,
    pub hydrator: Arc<Hydrator>,
    pub adopter: Adopter,
    pub generations: Arc<Generations>,
    pub coverer: Coverer,
    pub keeper: Arc<ContentKeeper>,
    pub answers: AnswerTasks,
    pub served: Arc<ServedCounters>,
    /// Requests that the server got.
    pub requests: Arc<Calls>,
    /// Which catalogues this node is asked for.
    pub askers: CatalogAskers,
}

/// What a listing says of each repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeldDetail {
    /// What costs no walk.
    Summary,
    /// How much of the contents is here, too.
    Contents,
}

impl NodeService {
    /// The named repository, or all of them for an empty name.
    async fn ids(&self, storage_id: &str) -> Result<Vec<StorageId>> {
        match storage_id {
            "" => self.stores.list().await,
            one => Ok(vec![StorageId::new(one)?]),
        }
    }

    async fn run_adopt(&self, adoption: AdoptionRequest, reports: AdoptReports) -> Result<()> {
        let AdoptionRequest {
            meta,
            adopted,
            servers,
            bytes_per_second_max,
        } = adoption;
        // Contents come at this limit and from these fetchers, once the records are here.
        self.limits.set(&meta.storage_id, bytes_per_second_max);
        self.upstreams.name_fetchers(
            servers
                .iter()
                .filter(|server| server.kind == UpstreamKind::Fetcher)
                .map(|server| server.address.clone())
                .collect(),
        );
        self.adopter
            .adopt(&meta, &adopted, &servers, &reports)
            .await?;
        if meta.content == ContentMode::Eager {
            self.hydrator.start(meta.storage_id);
        }
        Ok(())
    }

    /// Forgets the commits that are named. Invariant: a commit that the request does not name stays.
    /// Errors: `Refused` when others are held and the request does not say that they stay.
    async fn drop_commits(&self, request: v1::DropRequest) -> Result<v1::DropResponse> {
        let id = StorageId::new(&request.storage_id)?;
        let may_go = convert::oids(&request.only_commits)?;

        // With the writer lock, no commit can be adopted between the look and the removal.
        let _writer = self.stores.lock_writer(&id).await;
        let store = match self.stores.get(&id).await {
            Err(error) if error.kind == ErrorKind::NotHeld => {
                return Ok(v1::DropResponse::default());
            }
            store => store?,
        };

        // What is held decides: all of it may go, others stay, or the request did not expect
        // others.
        let held = blocking(move || store.snapshots()).await?;
        let commits = held.iter().map(|snapshot| snapshot.commit);
        let others: Vec<Oid> = commits.filter(|commit| !may_go.contains(commit)).collect();
        let mut response = v1::DropResponse::default();
        match others.first() {
            None => {
                self.limits.set(&id, 0);
                response.existed = self.stores.drop_repository(&id).await?;
            }
            Some(other) if !request.keep_others => {
                return Err(Error::refused(format!(
                    "{id}: commit {other} is held, too; it is not dropped"
                )));
            }
            Some(_) if others.len() == held.len() => {}
            Some(_) => {
                let report = self.stores.retain(&id, &others).await?;
                response.existed = true;
                response.trees_dropped = report.trees_removed;
                response.chunks_dropped = report.chunks_removed;
            }
        }
        Ok(response)
    }

    async fn held(&self, id: StorageId, detail: HeldDetail) -> Result<v1::HeldRepository> {
        // What the store knows at once.
        let store = self.stores.get(&id).await?;
        let looked = store.clone();
        let (meta, snapshots, counts) =
            blocking(move || Ok((looked.meta()?, looked.snapshots()?, looked.counts()?))).await?;
        let mut held = v1::HeldRepository {
            storage_id: meta.storage_id.to_string(),
            path: meta.path.to_string(),
            snapshots: snapshots.iter().map(v1::Snapshot::from).collect(),
            trees: counts.trees,
            blobs: counts.blobs,
            disk_bytes: store.disk_bytes(),
            hydrated_blobs: 0,
            total_blobs: 0,
            last_error: self.hydrator.last_error(&id),
            orphaned_commits: Vec::new(),
        };
        // What a walk over the files may be needed for.
        if detail == HeldDetail::Contents {
            for snapshot in &snapshots {
                held.total_blobs += snapshot.blobs;
                held.hydrated_blobs += self.hydrated(&meta, &store, snapshot).await?;
            }
        }
        Ok(held)
    }

    /// Distinct blobs of a snapshot that are here. Of an eager repository the hydrator keeps count;
    /// the files of a lazy one are walked each time.
    async fn hydrated(
        &self,
        meta: &RepoMeta,
        store: &Arc<RepoStore>,
        snapshot: &Snapshot,
    ) -> Result<u64> {
        let store = store.clone();
        if meta.content == ContentMode::Lazy {
            let root = snapshot.root;
            return blocking(move || count_held(&store, root)).await;
        }
        let count = self.stores.hydrated.of(&meta.storage_id, &snapshot.commit);
        let snapshot = snapshot.clone();
        // A task of its own, so that a caller that gives up does not make the next one begin anew.
        let counted = tokio::spawn(context::carry(async move {
            count.held(&store, &snapshot).await
        }));
        counted
            .await
            .map_err(|e| Error::internal(format!("counting contents broke off: {e}")))?
    }

    /// Blocking.
    fn stat_blocking(&self, asker: Option<v1::CatalogAsker>) -> Result<v1::StatResponse> {
        // Counters run from the start of this process; the others say how it is at this moment.
        let pool = self.stores.pool();
        let requests = self.requests.totals(CONTENT);
        Ok(v1::StatResponse {
            node_id: self.identity.node_id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            repositories: pool.list()?.len() as u64,
            disk_used_bytes: pool.disk_bytes(),
            disk_free_bytes: disk_free(&self.identity.db_path),
            open_stores: pool.open_count() as u64,
            hydrations_running: self.hydrator.running() as u64,
            hydrations_queued: self.hydrator.queued() as u64,
            trees_served: self.served.trees.get(),
            chunks_served: self.served.chunks.get(),
            bytes_served: self.served.bytes.get(),
            incarnation: self.identity.incarnation,
            request_durations: requests.durations,
            requests_failed: requests.failed,
            chunks_held: self.served.chunks_held.get(),
            chunks_missed: self.served.chunks_missed.get(),
            other_askers: self.askers.asked(asker),
        })
    }
}

/// The calls of the service `Node`. A handle, since answers outlive the call that began them.
#[derive(Clone)]
pub(crate) struct NodeCalls(Arc<NodeService>);

impl NodeCalls {
    /// Serves `service`.
    pub fn new(service: NodeService) -> Self {
        Self(Arc::new(service))
    }
}

#[tonic::async_trait]
impl v1::node_server::Node for NodeCalls {
    type AdoptStream = ReceiverStream<Result<v1::AdoptProgress, Status>>;
    type CoverStream = ReceiverStream<Result<v1::CoverProgress, Status>>;
    type ListBlobsStream = ReceiverStream<Result<v1::ListBlobsResponse, Status>>;
    type VerifyStream = ReceiverStream<Result<v1::VerifyProgress, Status>>;

    async fn adopt(&self, request: Request<v1::AdoptRequest>) -> StreamedAnswer<v1::AdoptProgress> {
        let adoption = AdoptionRequest::parse(request.into_inner()).map_err(to_status)?;
        let node = self.0.clone();
        self.0
            .answers
            .answer(|reports| async move { node.run_adopt(adoption, reports).await })
    }

    async fn make_generations(
        &self,
        request: Request<v1::MakeGenerationsRequest>,
    ) -> Result<Response<v1::MakeGenerationsResponse>, Status> {
        let node = self.0.clone();
        let request = request.into_inner();
        // A task of its own: a caller that gives up does not leave half of it.
        let making = tokio::spawn(context::carry(async move {
            node.generations.make(request).await
        }));
        making
            .await
            .map_err(|e| {
                to_status(Error::internal(format!(
                    "making generations broke off: {e}"
                )))
            })?
            .map(Response::new)
            .map_err(to_status)
    }

    async fn cover(&self, request: Request<v1::CoverRequest>) -> StreamedAnswer<v1::CoverProgress> {
        let request = request.into_inner();
        // One that takes nothing changes no limit of one that does.
        let limit = (!request.peers.is_empty()).then_some(request.bytes_per_second_max);
        let cover = ContentCover::parse(request).map_err(to_status)?;
        if let Some(limit) = limit {
            self.0.limits.set(cover.id(), limit);
        }
        let node = self.0.clone();
        self.0.answers.answer(|sink| async move {
            let mut work = std::pin::pin!(node.coverer.run(&cover));
            let mut report = tokio::time::interval(COVER_REPORT_EVERY);
            loop {
                tokio::select! {
                    outcome = &mut work => {
                        outcome?;
                        let _ = sink.send(Ok(cover.success())).await;
                        return Ok(());
                    }
                    // The caller has gone, and with it the reason to cover.
                    () = sink.closed() => return Ok(()),
                    _ = report.tick() => drop(sink.try_send(Ok(cover.progress()))),
                }
            }
        })
    }

    async fn keep(
        &self,
        request: Request<v1::KeepRequest>,
    ) -> Result<Response<v1::KeepResponse>, Status> {
        let kept = self.0.keeper.keep(request.into_inner()).await;
        kept.map(Response::new).map_err(to_status)
    }

    async fn list_blobs(
        &self,
        request: Request<v1::ListBlobsRequest>,
    ) -> StreamedAnswer<v1::ListBlobsResponse> {
        let stores = self.0.stores.clone();
        let request = request.into_inner();
        self.0
            .answers
            .answer(|sink| async move { cover::list_blobs(&stores, request, sink).await })
    }

    async fn drop(
        &self,
        request: Request<v1::DropRequest>,
    ) -> Result<Response<v1::DropResponse>, Status> {
        self.0
            .drop_commits(request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn retain(
        &self,
        _: Request<v1::RetainRequest>,
    ) -> Result<Response<v1::RetainResponse>, Status> {
        Err(to_status(Error::refused(
            "a node drops only commits that are named; upgrade the router that asks for this",
        )))
    }

    async fn stat(
        &self,
        request: Request<v1::StatRequest>,
    ) -> Result<Response<v1::StatResponse>, Status> {
        let node = self.0.clone();
        let asker = request.into_inner().asker;
        blocking(move || node.stat_blocking(asker))
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn list_held(
        &self,
        request: Request<v1::ListHeldRequest>,
    ) -> Result<Response<v1::ListHeldResponse>, Status> {
        let wanted = request.into_inner().storage_id;
        if !wanted.is_empty() {
            let id = StorageId::new(&wanted).map_err(to_status)?;
            let held = self.0.held(id, HeldDetail::Contents).await;
            let repositories = vec![held.map_err(to_status)?];
            return Ok(Response::new(v1::ListHeldResponse { repositories }));
        }
        let mut repositories = Vec::new();
        for id in self.0.stores.list().await.map_err(to_status)? {
            match self.0.held(id, HeldDetail::Summary).await {
                Ok(held) => repositories.push(held),
                Err(error) => tracing::warn!(%error, "a store is left out of a listing"),
            }
        }
        Ok(Response::new(v1::ListHeldResponse { repositories }))
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> StreamedAnswer<v1::VerifyProgress> {
        let wanted = request.into_inner().storage_id;
        let ids = self.0.ids(&wanted).await.map_err(to_status)?;
        let stores = self.0.stores.clone();
        self.0.answers.answer(|sink| async move {
            for id in ids {
                let store = stores.get(&id).await?;
                let sink = sink.clone();
                blocking(move || verify(&store, &id, &sink)).await?;
            }
            Ok(())
        })
    }
}

/// A checked `AdoptRequest`.
struct AdoptionRequest {
    meta: RepoMeta,
    adopted: AdoptedSnapshot,
    /// Peers, then fetchers.
    servers: Vec<UpstreamServer>,
    /// Of contents; 0 = no limit.
    bytes_per_second_max: u64,
}

impl AdoptionRequest {
    fn parse(request: v1::AdoptRequest) -> Result<Self> {
        // Absent and malformed fields are refused before anything is done.
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
        let peers = request.peers.into_iter().map(UpstreamServer::peer);
        let fetchers = request.fetchers.into_iter().map(UpstreamServer::fetcher);
        Ok(Self {
            meta,
            adopted: AdoptedSnapshot {
                snapshot,
                shown_in: request.generation,
            },
            servers: peers.chain(fetchers).collect(),
            bytes_per_second_max: request.bytes_per_second_max,
        })
    }
}
