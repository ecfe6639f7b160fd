//! Fetches under way: one per repository and commit, shared by all requests that wait for it.
//!
//! ```text
//! join -> (cached?) -> wait for the repository's lock and a worker -> fetch -> walk -> ready
//!   \________ the last waiting request leaves: cancelled ________/
//! ```
//!
//! Invariants: at most one fetch per repository writes to the cache; a failed one leaves what was
//! cached before as it was.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use monofs_model::{Error, ErrorKind, Oid, RefName, Result, Snapshot, SourceUrl, StorageId};
use monofs_rpc::context;
use monofs_rpc::metrics::Counter;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};

use crate::cache::{CachedRepo, RepoCache};
use crate::gates::{GatedSource, HostGates};
use crate::git::{failure, layout};
use crate::hosts::HostTallies;
use crate::records::EncodedRecords;
use crate::source::{CommitWant, FetchLimits, FetchPhase, FetchProgress, FetchTask, RemoteSource};
use crate::walk;

/// Most repositories that may wait for or be in a fetch.
const FLIGHTS_MAX: usize = 10_000;

/// Which commit of which repository, and where it comes from.
#[derive(Debug, Clone)]
pub struct FetchOrigin {
    pub id: StorageId,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub commit: Oid,
}

/// A commit that is in the cache.
#[derive(Clone)]
pub struct ReadyCommit {
    pub repo: Arc<CachedRepo>,
    pub snapshot: Snapshot,
}

type Key = (StorageId, Oid, SourceUrl);
type FlightOutcome = Option<Result<ReadyCommit>>;

struct Flight {
    key: Key,
    task: Arc<FetchTask>,
    outcome: watch::Receiver<FlightOutcome>,
    waiting: Mutex<usize>,
}

impl Flight {
    fn has_failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Err(_)))
    }
}

/// Fetches answered from the cache, and those that had to ask the remote, since the start.
#[derive(Debug, Default)]
pub struct FetchCounters {
    pub hits: Counter,
    pub misses: Counter,
}

/// A fetch that waits; counted until it is dropped.
struct WaitingFetch<'a>(&'a AtomicUsize);

impl<'a> WaitingFetch<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingFetch<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All fetches of a fetcher.
pub struct FetchFlights {
    source: Arc<dyn RemoteSource>,
    pub cache: Arc<RepoCache>,
    pub records: Arc<EncodedRecords>,
    pub counters: FetchCounters,
    /// Fetches that ended, by where they were from.
    pub hosts: HostTallies,
    /// Remote hosts that are not asked for a while.
    pub gates: Arc<HostGates>,
    waiting: AtomicUsize,
    limits: FetchLimits,
    worker_count: usize,
    workers: Arc<Semaphore>,
    flights: Mutex<HashMap<Key, Arc<Flight>>>,
    locks: Mutex<HashMap<StorageId, Weak<tokio::sync::Mutex<()>>>>,
}

/// A place in a flight; dropping the last one cancels it.
pub struct FlightTicket {
    flights: Arc<FetchFlights>,
    flight: Arc<Flight>,
}

impl FlightTicket {
    /// How far the fetch is.
    pub fn progress(&self) -> FetchProgress {
        self.flight.task.progress()
    }

    /// Waits for the end.
    pub async fn ready(&self) -> Result<ReadyCommit> {
        let mut outcome = self.flight.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.map(|outcome| outcome.clone()) {
            Ok(Some(result)) => result,
            _ => Err(Error::internal("a fetch ended without an outcome")),
        }
    }
}

impl Drop for FlightTicket {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let mut waiting = self.flight.waiting.lock();
        *waiting -= 1;
        if *waiting == 0 {
            self.flight.task.cancel();
            if flights
                .get(&self.flight.key)
                .is_some_and(|current| Arc::ptr_eq(current, &self.flight))
            {
                flights.remove(&self.flight.key);
            }
        }
    }
}

impl FetchFlights {
    /// No fetch is under way.
    pub fn new(
        source: Arc<dyn RemoteSource>,
        cache: Arc<RepoCache>,
        records: Arc<EncodedRecords>,
        workers: usize,
        limits: FetchLimits,
    ) -> Arc<Self> {
        let gates = Arc::<HostGates>::default();
        Arc::new(Self {
            source: Arc::new(GatedSource::new(source, gates.clone())),
            gates,
            cache,
            records,
            counters: FetchCounters::default(),
            hosts: HostTallies::default(),
            waiting: AtomicUsize::new(0),
            limits,
            worker_count: workers,
            workers: Arc::new(Semaphore::new(workers)),
            flights: Mutex::new(HashMap::new()),
            locks: Mutex::new(HashMap::new()),
        })
    }

    /// What remotes are asked through.
    pub fn source(&self) -> &Arc<dyn RemoteSource> {
        &self.source
    }

    /// The bounds of one task.
    pub fn limits(&self) -> FetchLimits {
        self.limits
    }

    /// Number of fetches under way.
    pub fn running(&self) -> usize {
        self.lock().len()
    }

    /// Of [`FetchFlights::running`], those that wait for a worker or for another fetch of the same
    /// repository.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Asks every fetch under way to stop, and waits for that at most `limit`. No fetch can begin
    /// afterwards.
    pub async fn end(&self, limit: std::time::Duration) {
        self.lock().values().for_each(|flight| flight.task.cancel());
        let all = u32::try_from(self.worker_count).unwrap_or(u32::MAX);
        // Every permit is back once no fetch runs any more.
        let _ = tokio::time::timeout(limit, self.workers.acquire_many(all)).await;
        self.workers.close();
    }

    /// Joins the fetch of `origin`, starting it if there is none. Errors: `Unavailable` when too
    /// many are under way.
    pub fn join(self: &Arc<Self>, origin: FetchOrigin) -> Result<FlightTicket> {
        let key = (origin.id.clone(), origin.commit, origin.source.clone());
        let mut flights = self.lock();
        // A flight that failed stays until its last reader has left; a request that comes now gets
        // a new try.
        if let Some(flight) = flights.get(&key).filter(|flight| !flight.has_failed()) {
            *flight.waiting.lock() += 1;
            return Ok(FlightTicket {
                flights: self.clone(),
                flight: flight.clone(),
            });
        }
        if flights.len() >= FLIGHTS_MAX {
            return Err(Error::unavailable(format!(
                "{FLIGHTS_MAX} fetches are under way; try later or another fetcher"
            )));
        }
        let task = FetchTask::new(self.limits);
        let (sender, outcome) = watch::channel(None);
        let flight = Arc::new(Flight {
            key: key.clone(),
            task: task.clone(),
            outcome,
            waiting: Mutex::new(1),
        });
        flights.insert(key, flight.clone());
        drop(flights);
        let this = self.clone();
        tokio::spawn(context::carry(async move {
            let result = this.run(origin, &task).await;
            sender.send_replace(Some(result));
        }));
        Ok(FlightTicket {
            flights: self.clone(),
            flight,
        })
    }

    async fn run(
        self: &Arc<Self>,
        origin: FetchOrigin,
        task: &Arc<FetchTask>,
    ) -> Result<ReadyCommit> {
        let waiting = WaitingFetch::begin(&self.waiting);
        // Guards travel into the blocking work: a cancelled flight gives them back only when it has
        // really stopped.
        let guard = self.repository_lock(&origin.id).lock_owned().await;
        task.check()?;
        let known = self
            .cache
            .get(&origin.id)
            .filter(|repo| repo.source == origin.source && repo.holds(&origin.commit));
        let counter = if known.is_some() {
            &self.counters.hits
        } else {
            &self.counters.misses
        };
        counter.one();
        if let Some(repo) = &known
            && let Some(snapshot) = repo.snapshot(&origin.commit)
        {
            task.set_phase(FetchPhase::Done);
            return Ok(ReadyCommit {
                repo: repo.clone(),
                snapshot,
            });
        }
        let permit = self
            .workers
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::unavailable("the fetcher stops"))?;
        task.check()?;
        drop(waiting);
        let this = self.clone();
        let task = task.clone();
        let work = tokio::task::spawn_blocking(context::carried(move || {
            let _guards = (guard, permit);
            this.bring(&origin, known, &task)
        }));
        work.await
            .unwrap_or_else(|e| Err(Error::internal(format!("a fetch broke off: {e}"))))
    }

    /// Blocking: walks what is cached, else fetches.
    fn bring(
        &self,
        origin: &FetchOrigin,
        known: Option<Arc<CachedRepo>>,
        task: &Arc<FetchTask>,
    ) -> Result<ReadyCommit> {
        // What is cached needs a walk at most.
        if let Some(repo) = known {
            match self.walk(&origin.id, &repo.objects(), &origin.commit, task) {
                Ok(snapshot) => {
                    repo.add(&snapshot)?;
                    return Ok(ReadyCommit { repo, snapshot });
                }
                Err(error) if error.kind == ErrorKind::Corrupt => {
                    tracing::warn!(storage_id = %origin.id, %error, "the cached repository is \
                     damaged: fetching it again");
                    self.cache.discard(&repo);
                }
                Err(error) => return Err(error),
            }
        }
        // All else is fetched, and the outcome logged and counted for its host.
        let began = std::time::Instant::now();
        let result = self.fetch(origin, task);
        match &result {
            Ok(ready) => {
                tracing::info!(
                    source = %origin.source,
                    commit = %origin.commit,
                    bytes = task.bytes(),
                    trees = ready.snapshot.trees,
                    blobs = ready.snapshot.blobs,
                    seconds = began.elapsed().as_secs_f64(),
                    "fetched"
                );
            }
            Err(error) => {
                tracing::warn!(
                    source = %origin.source,
                    commit = %origin.commit,
                    %error,
                    "a fetch failed"
                );
            }
        }
        let outcome = result.as_ref().map(drop).map_err(|error| error.kind);
        self.hosts
            .fetched(&origin.source, outcome, task.bytes(), began.elapsed());
        self.cache.evict(None, Some(&origin.id));
        result
    }

    fn fetch(&self, origin: &FetchOrigin, task: &Arc<FetchTask>) -> Result<ReadyCommit> {
        // A repository that may grow takes only what the commit has beyond it.
        let format = origin.commit.format();
        if let Some(repo) = self
            .cache
            .get(&origin.id)
            .filter(|repo| repo.can_grow(&origin.source, format))
        {
            match self.grow(origin, &repo, task) {
                Ok(snapshot) => return Ok(ReadyCommit { repo, snapshot }),
                Err(error) if failure::worth_another_try(&error) => {
                    tracing::warn!(storage_id = %origin.id, %error, "cannot add to the cached \
                     repository: fetching all of it");
                    task.set_bytes(0);
                }
                Err(error) => return Err(error),
            }
        }
        // Any other is fetched whole beside what is cached, and takes its place at the end.
        let work = self.cache.workspace(&origin.id)?;
        layout::create(work.dir(), format)?;
        self.source.fetch(&want(origin, &[], work.dir()), task)?;
        let objects = crate::objects::PackFiles::open(work.dir(), format)?.reader();
        let snapshot = self.walk(&origin.id, &objects, &origin.commit, task)?;
        let repo = self
            .cache
            .publish(&origin.id, &origin.source, work, &snapshot)?;
        Ok(ReadyCommit { repo, snapshot })
    }

    /// Fetches only what the commit has beyond those that the repository holds.
    fn grow(
        &self,
        origin: &FetchOrigin,
        repo: &Arc<CachedRepo>,
        task: &Arc<FetchTask>,
    ) -> Result<Snapshot> {
        self.source
            .fetch(&want(origin, &repo.commits(), repo.dir()), task)?;
        let snapshot = self.walk(&origin.id, &repo.reopen()?, &origin.commit, task)?;
        repo.add(&snapshot)?;
        Ok(snapshot)
    }

    fn walk(
        &self,
        id: &StorageId,
        objects: &crate::objects::ObjectReader,
        commit: &Oid,
        task: &FetchTask,
    ) -> Result<Snapshot> {
        task.set_phase(FetchPhase::Walking);
        let snapshot = walk::snapshot(objects, commit, task, &mut |oid, record| {
            self.records.keep(id, oid, record)
        })?;
        task.set_phase(FetchPhase::Done);
        Ok(snapshot)
    }

    fn repository_lock(&self, id: &StorageId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if let Some(lock) = locks.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.flights.lock()
    }
}

fn want<'a>(origin: &'a FetchOrigin, have: &'a [Oid], into: &'a std::path::Path) -> CommitWant<'a> {
    CommitWant {
        source: &origin.source,
        ref_name: &origin.ref_name,
        commit: origin.commit,
        have,
        into,
    }
}
