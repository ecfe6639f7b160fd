//! Fetches under way: requests share them, wait in turn, and stop what they leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use monofs_fetcher::Credentials;
use monofs_fetcher::cache::RepoCache;
use monofs_fetcher::flights::{FetchFlights, FetchOrigin};
use monofs_fetcher::git::GitSource;
use monofs_fetcher::records::EncodedRecords;
use monofs_fetcher::source::{
    CommitWant, FetchLimits, FetchPhase, FetchTask, LocalFiles, RemoteSource, ResolvedRef,
};
use monofs_model::{Error, ErrorKind, RefName, Result, SourceUrl};
use monofs_testkit::Repo;
use tokio::sync::{Semaphore, mpsc};

use crate::rig::{error_of, id_of};

/// Git behind a gate: each fetch is announced, and waits for a permit or for its end.
struct GatedSource {
    git: GitSource,
    gate: Semaphore,
    begun: mpsc::UnboundedSender<()>,
    cancelled: AtomicUsize,
    refuse: bool,
}

impl RemoteSource for GatedSource {
    fn resolve(
        &self,
        source: &SourceUrl,
        ref_name: &RefName,
        task: &Arc<FetchTask>,
    ) -> Result<ResolvedRef> {
        self.git.resolve(source, ref_name, task)
    }

    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()> {
        let _ = self.begun.send(());
        loop {
            if let Err(error) = task.check() {
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                return Err(error);
            }
            if let Ok(permit) = self.gate.try_acquire() {
                permit.forget();
                break;
            }
            std::thread::yield_now();
        }
        if self.refuse {
            return Err(Error::refused("the gate is closed"));
        }
        self.git.fetch(want, task)
    }
}

/// Flights over a gated source, with a cache of their own.
struct FlightRig {
    flights: Arc<FetchFlights>,
    source: Arc<GatedSource>,
    begun: mpsc::UnboundedReceiver<()>,
    _dir: tempfile::TempDir,
}

impl FlightRig {
    fn new(workers: usize, refuse: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, begun) = mpsc::unbounded_channel();
        let source = Arc::new(GatedSource {
            git: GitSource::new(Credentials::default(), LocalFiles::Allowed),
            gate: Semaphore::new(0),
            begun: sender,
            cancelled: AtomicUsize::new(0),
            refuse,
        });
        let cache = Arc::new(RepoCache::open(dir.path(), u64::MAX).unwrap());
        let records = Arc::new(EncodedRecords::new(1 << 20));
        let limits = FetchLimits::default();
        Self {
            flights: FetchFlights::new(source.clone(), cache, records, workers, limits),
            source,
            begun,
            _dir: dir,
        }
    }

    /// Lets one fetch that waits at the gate go on.
    fn open(&self) {
        self.source.gate.add_permits(1);
    }

    async fn begun(&mut self) {
        self.begun.recv().await.expect("a fetch begins");
    }
}

fn origin(repo: &Repo) -> FetchOrigin {
    FetchOrigin {
        id: id_of(&repo.url()),
        source: SourceUrl::new(&repo.url()).unwrap(),
        ref_name: RefName::new("main").unwrap(),
        commit: repo.rev("main"),
    }
}

fn sample(contents: &str) -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("file", contents);
    });
    repo
}

async fn until(doing: &str, condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .unwrap_or_else(|_| panic!("not reached: {doing}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_one_commit_share_its_fetch_and_later_ones_find_it_cached() {
    let mut rig = FlightRig::new(2, false);
    let repo = sample("shared");
    let first = rig.flights.join(origin(&repo)).unwrap();
    rig.begun().await;
    let second = rig.flights.join(origin(&repo)).unwrap();
    assert_eq!(rig.flights.running(), 1);
    assert_eq!(first.progress().phase, FetchPhase::Connecting);
    rig.open();
    let snapshots = (
        first.ready().await.unwrap().snapshot,
        second.ready().await.unwrap().snapshot,
    );
    assert_eq!(snapshots.0, snapshots.1);
    assert_eq!(first.progress().phase, FetchPhase::Done);
    drop((first, second));
    assert_eq!(rig.flights.running(), 0);

    let cached = rig.flights.join(origin(&repo)).unwrap();
    assert_eq!(cached.ready().await.unwrap().snapshot, snapshots.0);
    assert_eq!(rig.flights.counters.hits.get(), 1);
    assert_eq!(rig.flights.counters.misses.get(), 1);
    assert!(rig.begun.try_recv().is_err(), "nothing was fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_goes_on_for_one_request_and_stops_with_the_last() {
    let mut rig = FlightRig::new(1, false);
    let repo = sample("left alone");
    let first = rig.flights.join(origin(&repo)).unwrap();
    let second = rig.flights.join(origin(&repo)).unwrap();
    rig.begun().await;
    drop(first);
    assert_eq!(rig.flights.running(), 1, "one request still waits");
    assert_eq!(rig.source.cancelled.load(Ordering::Relaxed), 0);
    drop(second);
    assert_eq!(rig.flights.running(), 0);
    until("the fetch notices that it was cancelled", || {
        rig.source.cancelled.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(rig.flights.cache.len(), 0, "it left nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_after_a_failure_gets_a_try_of_its_own() {
    let mut rig = FlightRig::new(1, true);
    let repo = sample("refused");
    let first = rig.flights.join(origin(&repo)).unwrap();
    rig.begun().await;
    rig.open();
    let error = error_of(first.ready().await);
    assert_eq!(error.kind, ErrorKind::Refused);

    let second = rig.flights.join(origin(&repo)).unwrap();
    rig.begun().await;
    assert_eq!(
        error_of(first.ready().await).kind,
        ErrorKind::Refused,
        "the first request keeps its outcome"
    );
    drop(first);
    assert_eq!(
        rig.flights.running(),
        1,
        "the second fetch is not cancelled"
    );
    rig.open();
    assert_eq!(error_of(second.ready().await).kind, ErrorKind::Refused);
    assert_eq!(rig.flights.hosts.totals().failed, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_wait_for_a_worker_in_their_turn() {
    let mut rig = FlightRig::new(1, false);
    let repos = [sample("one"), sample("two")];
    let first = rig.flights.join(origin(&repos[0])).unwrap();
    rig.begun().await;
    let second = rig.flights.join(origin(&repos[1])).unwrap();
    until("the second fetch waits", || rig.flights.waiting() == 1).await;
    assert_eq!(rig.flights.running(), 2);
    assert!(rig.begun.try_recv().is_err(), "there is one worker");
    rig.open();
    first.ready().await.unwrap();
    rig.begun().await;
    rig.open();
    second.ready().await.unwrap();
    assert_eq!(rig.flights.waiting(), 0);
    assert_eq!(rig.flights.cache.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_fetches_are_stopped_and_none_can_begin() {
    let mut rig = FlightRig::new(2, false);
    let repo = sample("stopped");
    let running = rig.flights.join(origin(&repo)).unwrap();
    rig.begun().await;
    rig.flights.end(Duration::from_secs(30)).await;
    let error = error_of(running.ready().await);
    assert_eq!(error.kind, ErrorKind::Unavailable);
    drop(running);
    let late = rig.flights.join(origin(&repo)).unwrap();
    let error = error_of(late.ready().await);
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("stops"), "{error}");
}
