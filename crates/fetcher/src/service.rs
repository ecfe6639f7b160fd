//! The gRPC face of a fetcher: `Fetcher` and `Content`. Translates, checks, and hands on.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::{BoxStream, unfold};
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{Error, ErrorKind, Oid, RefName, Result, SourceUrl, StorageId};
use monofs_proto::convert;
use monofs_proto::v1;
use monofs_proto::v1::content_server::Content;
use monofs_proto::v1::fetcher_server::Fetcher;
use monofs_rpc::catalogs::CatalogAskers;
use monofs_rpc::{context, to_status, within};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::cache::CachedRepo;
use crate::content::{self, AnswerSink, BlobRange, MESSAGES_WAITING};
use crate::flights::{FetchFlights, FetchOrigin, FlightTicket, ReadyCommit};
use crate::records::TreeClosure;
use crate::source::{FetchPhase, FetchProgress, FetchTask};

/// How often progress is looked at.
const PROGRESS_PERIOD: Duration = Duration::from_millis(100);
/// Unchanged progress is repeated this often, so that silence means a dead fetcher.
const PROGRESS_REPEAT: Duration = Duration::from_secs(5);
/// Content requests that may run at once; further ones wait.
const CONTENT_REQUESTS_MAX: usize = 64;
/// How long a content request may wait for its turn.
const CONTENT_TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// Resolutions that may run at once; further ones wait.
const RESOLVES_MAX: usize = 64;

/// Both services, over the same state.
#[derive(Clone)]
pub struct FetcherService {
    fetcher_id: Arc<str>,
    flights: Arc<FetchFlights>,
    content_turns: Arc<Semaphore>,
    resolve_turns: Arc<Semaphore>,
    /// Which catalogues this fetcher is asked for.
    askers: Arc<CatalogAskers>,
}

impl FetcherService {
    /// Serves what `flights` fetches and caches.
    pub fn new(fetcher_id: &str, flights: Arc<FetchFlights>) -> Self {
        Self {
            fetcher_id: fetcher_id.into(),
            flights,
            content_turns: Arc::new(Semaphore::new(CONTENT_REQUESTS_MAX)),
            resolve_turns: Arc::new(Semaphore::new(RESOLVES_MAX)),
            askers: Arc::default(),
        }
    }

    async fn resolve_ref(&self, request: v1::ResolveRefRequest) -> Result<v1::ResolveRefResponse> {
        let source = SourceUrl::new(&request.source)?;
        let ref_name = RefName::new(&request.ref_name)?;

        // The request is over when its caller goes or its time is up, and the work on its thread is
        // then cancelled.
        let limits = self.flights.limits();
        let limit = limits.connect_timeout + limits.idle_timeout;
        let doing = format!("resolve '{ref_name}' of {source}");
        let task = FetchTask::new(limits);
        let _cancel = CancelOnDrop(task.clone());

        // The turn goes to the blocking thread: it is free again when the work has really ended.
        let work = async {
            let turn = self.resolve_turns.clone().acquire_owned().await;
            let turn = turn.map_err(|_| Error::unavailable("the fetcher stops"))?;
            let remote = self.flights.source().clone();
            let asked = tokio::task::spawn_blocking(context::carried(move || {
                let _turn = turn;
                remote.resolve(&source, &ref_name, &task)
            }));
            asked
                .await
                .unwrap_or_else(|e| Err(Error::internal(format!("a resolution broke off: {e}"))))
        };
        let resolved = within(limit, &doing, work).await?;
        Ok(v1::ResolveRefResponse {
            commit: convert::oid_bytes(&resolved.commit),
            full_ref: resolved.full_ref,
        })
    }

    /// The repository to answer from: cached, or fetched again when the request says from where.
    async fn hold(
        &self,
        id: &StorageId,
        origin: Option<FetchOrigin>,
        held_only: bool,
    ) -> Result<Arc<CachedRepo>> {
        let cached = self.flights.cache.get(id);
        match (cached, origin) {
            // Contents prove themselves: what another source left under this id answers as well.
            (Some(repo), Some(origin)) if repo.holds(&origin.commit) => Ok(repo),
            (Some(repo), None) => Ok(repo),
            (Some(repo), Some(_)) if held_only => Ok(repo),
            (None, Some(origin)) | (Some(_), Some(origin)) if !held_only => {
                let ReadyCommit { repo, .. } = self.flights.join(origin)?.ready().await?;
                Ok(repo)
            }
            _ => Err(Error::not_held(format!(
                "this fetcher does not cache the repository {id}"
            ))),
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turn = self.content_turns.clone().acquire_owned();
        within(CONTENT_TURN_TIMEOUT, "a turn to read contents", async {
            turn.await
                .map_err(|_| Error::unavailable("the fetcher stops"))
        })
        .await
    }

    /// Runs `work` on a blocking thread and streams what it sends. A damaged repository leaves the
    /// cache, and the request that met the damage before anything was sent is answered from a fresh
    /// fetch.
    fn stream<T: Send + 'static>(
        &self,
        id: StorageId,
        origin: Option<FetchOrigin>,
        held_only: bool,
        work: impl Fn(&Arc<CachedRepo>, &AnswerSink<T>) -> Result<()> + Send + Sync + 'static,
    ) -> BoxStream<'static, std::result::Result<T, Status>> {
        let (answers, receiver) = mpsc::channel(MESSAGES_WAITING);
        let this = self.clone();
        let work = Arc::new(work);
        tokio::spawn(context::carry(async move {
            let result = tokio::select! {
                result = this.answer(&id, origin, held_only, work, &answers) => result,
                () = answers.closed() => Ok(()),
            };
            if let Err(error) = result {
                // The reader may be gone; then the error is of no use.
                let _ = answers.send(Err(to_status(error))).await;
            }
        }));
        Box::pin(ReceiverStream::new(receiver))
    }

    async fn answer<T: Send + 'static>(
        &self,
        id: &StorageId,
        origin: Option<FetchOrigin>,
        held_only: bool,
        work: Arc<impl Fn(&Arc<CachedRepo>, &AnswerSink<T>) -> Result<()> + Send + Sync + 'static>,
        answers: &AnswerSink<T>,
    ) -> Result<()> {
        let mut tries = 0;
        loop {
            let repo = self.hold(id, origin.clone(), held_only).await?;
            let turn = self.turn().await?;
            let work = work.clone();
            let answers = answers.clone();
            let reading = repo.clone();
            let done = tokio::task::spawn_blocking(context::carried(move || {
                let _turn = turn;
                work(&reading, &answers)
            }));
            let done = done.await.unwrap_or_else(|e| {
                Err(Error::internal(format!("reading contents broke off: {e}")))
            });
            match done {
                Err(error) if error.kind == ErrorKind::Corrupt => {
                    tracing::warn!(storage_id = %id, %error, "a cached repository is damaged: \
                     dropped it");
                    self.flights.cache.discard(&repo);
                    tries += 1;
                    // What was sent already is right, and the same again does no harm.
                    if tries > 1 || origin.is_none() {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }
}

/// Cancels work whose caller has left.
struct CancelOnDrop(Arc<FetchTask>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn origin_of(id: &StorageId, wire: Option<v1::Origin>) -> Result<Option<FetchOrigin>> {
    let Some(wire) = wire else { return Ok(None) };
    let commit = Oid::from_bytes(&wire.commit).map_err(|e| e.context("origin.commit"))?;
    let source = SourceUrl::new(&wire.source)?;
    let ref_name = RefName::new(&wire.ref_name)?;
    Ok(Some(FetchOrigin {
        id: id.clone(),
        source,
        ref_name,
        commit,
    }))
}

fn check_items(count: usize) -> Result<()> {
    if count > CONTENT_REQUEST_ITEMS_MAX {
        return Err(Error::invalid(format!(
            "a request for {count} objects; the limit is {CONTENT_REQUEST_ITEMS_MAX}"
        )));
    }
    Ok(())
}

fn wire_progress(progress: FetchProgress) -> v1::FetchProgress {
    use v1::fetch_progress::Phase as Wire;
    let phase = match progress.phase {
        FetchPhase::Connecting => Wire::Connecting,
        FetchPhase::Receiving => Wire::Receiving,
        FetchPhase::Indexing => Wire::Indexing,
        // Done is said by the last message, with the snapshot.
        FetchPhase::Walking | FetchPhase::Done => Wire::Walking,
    };
    v1::FetchProgress {
        phase: phase.into(),
        objects_done: progress.objects_done,
        objects_total: progress.objects_total,
        bytes_done: progress.bytes_done,
        snapshot: None,
    }
}

/// Progress of a fetch whenever it changes, then the snapshot.
fn follow(
    ticket: FlightTicket,
) -> impl Stream<Item = std::result::Result<v1::FetchProgress, Status>> {
    let start = (Some(ticket), None::<FetchProgress>);
    unfold(start, |(ticket, said)| async move {
        let ticket = ticket?;

        // The stream waits until the fetch ends or there is something to say: progress that moved,
        // or the same again after a while. The end is looked at first.
        let ended = {
            let ended = ticket.ready();
            tokio::pin!(ended);
            let began = tokio::time::Instant::now();
            loop {
                tokio::select! {
                    biased;
                    result = &mut ended => break Some(result),
                    () = tokio::time::sleep(PROGRESS_PERIOD) => {
                        if said != Some(ticket.progress()) || began.elapsed() > PROGRESS_REPEAT {
                            break None;
                        }
                    }
                }
            }
        };
        let progress = ticket.progress();

        // The snapshot is in the last message, and nothing follows it or an error.
        match ended {
            None => Some((Ok(wire_progress(progress)), (Some(ticket), Some(progress)))),
            Some(Ok(ready)) => {
                let mut last = wire_progress(progress);
                last.set_phase(v1::fetch_progress::Phase::Done);
                last.snapshot = Some(v1::Snapshot::from(&ready.snapshot));
                Some((Ok(last), (None, None)))
            }
            Some(Err(error)) => Some((Err(to_status(error)), (None, None))),
        }
    })
}

#[tonic::async_trait]
impl Fetcher for FetcherService {
    type FetchStream = BoxStream<'static, std::result::Result<v1::FetchProgress, Status>>;

    async fn resolve(
        &self,
        request: Request<v1::ResolveRefRequest>,
    ) -> std::result::Result<Response<v1::ResolveRefResponse>, Status> {
        self.resolve_ref(request.into_inner())
            .await
            .map(Response::new)
            .map_err(to_status)
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> std::result::Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let join = || {
            let id = content::storage_id(&request.storage_id)?;
            let origin = origin_of(&id, request.origin.clone())?;
            self.flights
                .join(origin.ok_or_else(|| Error::invalid("a fetch needs an origin"))?)
        };
        let ticket = join().map_err(to_status)?;
        Ok(Response::new(Box::pin(follow(ticket))))
    }

    async fn stat(
        &self,
        request: Request<v1::FetcherStatRequest>,
    ) -> std::result::Result<Response<v1::FetcherStatResponse>, Status> {
        // Counters run from the start of this process; the others say how it is at this moment.
        let cache = &self.flights.cache;
        let counters = &self.flights.counters;
        let fetched = self.flights.hosts.totals();
        Ok(Response::new(v1::FetcherStatResponse {
            fetcher_id: self.fetcher_id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cache_bytes: cache.disk_bytes(),
            cache_bytes_max: cache.bytes_max(),
            cached_repositories: cache.len() as u64,
            cache_hits: counters.hits.get(),
            cache_misses: counters.misses.get(),
            fetches_running: self.flights.running() as u64,
            fetches_done: fetched.done,
            fetches_failed: fetched.failed,
            bytes_fetched: fetched.bytes,
            fetches_waiting: self.flights.waiting() as u64,
            other_askers: self.askers.asked(request.into_inner().asker),
            hosts_paused: self
                .flights
                .gates
                .closed()
                .iter()
                .map(v1::HostPause::from)
                .collect(),
        }))
    }
}

#[tonic::async_trait]
impl Content for FetcherService {
    type GetTreesStream = BoxStream<'static, std::result::Result<v1::GetTreesResponse, Status>>;
    type GetBlobsStream = BoxStream<'static, std::result::Result<v1::GetBlobsResponse, Status>>;

    async fn get_trees(
        &self,
        request: Request<v1::GetTreesRequest>,
    ) -> std::result::Result<Response<Self::GetTreesStream>, Status> {
        let request = request.into_inner();

        // The whole request is checked before the cache is asked, so a wrong one costs no fetch.
        let parse = || {
            check_items(request.oids.len())?;
            let id = content::storage_id(&request.storage_id)?;
            let roots = convert::oids(&request.oids)?;
            let closure = TreeClosure {
                roots,
                byte_budget: request.byte_budget,
                depth: request.depth,
            };
            Ok((origin_of(&id, request.origin.clone())?, id, closure))
        };
        let (origin, id, closure) = parse().map_err(to_status)?;

        // The work may run a second time, after a damaged repository was fetched anew.
        let records = self.flights.records.clone();
        let work = move |repo: &Arc<CachedRepo>, answers: &AnswerSink<_>| {
            content::send_trees(repo, &records, &closure, answers)
        };
        Ok(Response::new(self.stream(
            id,
            origin,
            request.held_only,
            work,
        )))
    }

    async fn get_blobs(
        &self,
        request: Request<v1::GetBlobsRequest>,
    ) -> std::result::Result<Response<Self::GetBlobsStream>, Status> {
        let request = request.into_inner();

        // The whole request is checked before the cache is asked, so a wrong one costs no fetch.
        let parse = || {
            check_items(request.spans.len())?;
            let id = content::storage_id(&request.storage_id)?;
            let spans = request
                .spans
                .iter()
                .map(BlobRange::try_from)
                .collect::<Result<Vec<_>>>()?;
            Ok((origin_of(&id, request.origin.clone())?, id, spans))
        };
        let (origin, id, spans) = parse().map_err(to_status)?;

        // The work may run a second time, after a damaged repository was fetched anew.
        let limits = self.flights.limits();
        let work = move |repo: &Arc<CachedRepo>, answers: &AnswerSink<_>| {
            content::send_blobs(repo, spans.clone(), answers, limits)
        };
        Ok(Response::new(self.stream(
            id,
            origin,
            request.held_only,
            work,
        )))
    }
}
