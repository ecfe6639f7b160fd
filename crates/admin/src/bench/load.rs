//! Threads and clients that ask: an open loop (a schedule) or a closed one (as fast as answers
//! come).
//!
//! Each thread has a runtime of its own and a part of the clients; nothing is shared between
//! threads while they run. Requests under way are bounded. What is due while they are too many
//! waits, still measured from when it was due.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use monofs_model::Error;
use monofs_rpc::ChannelPool;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::call::LoadCaller;
use super::corpus::Corpus;
use super::mix::LoadMix;
use super::operation::{LoadOperation, LoadTask};
use super::pace::{Arrivals, PreciseTimer};
use super::peers::LoadPeers;
use super::rng::SeededRng;
use super::tally::LoadTally;

/// From the decision to begin until the first request may be due: threads start meanwhile.
const START_IN: Duration = Duration::from_millis(50);

/// How much and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadPlan {
    /// Requests per second of all clients; `None` = a closed loop.
    pub rate: Option<f64>,
    pub clients: usize,
    pub threads: usize,
    /// Most requests under way in an open loop, of all clients.
    pub in_flight: usize,
    pub warmup: Duration,
    pub duration: Duration,
    /// For the whole of one operation; a schedule may be caught up with for as long after its end.
    pub timeout: Duration,
    pub seed: u64,
}

/// The threads at work.
pub struct LoadRun {
    /// When the first request may be due.
    pub start: Instant,
    threads: Vec<std::thread::JoinHandle<Result<LoadTally>>>,
}

impl LoadRun {
    /// Waits for the threads. Errors: a thread could not do its work at all.
    pub async fn finish(self) -> Result<LoadTally> {
        tokio::task::spawn_blocking(move || self.join())
            .await
            .context("waiting for the load generator")?
    }

    fn join(self) -> Result<LoadTally> {
        let mut all = LoadTally::default();
        for thread in self.threads {
            // A panic of a thread has already ended the process.
            let tally = thread
                .join()
                .map_err(|_| Error::internal("a thread of the load generator ended"))??;
            all.add(&tally);
        }
        Ok(all)
    }
}

/// Starts the threads.
pub fn start(plan: &LoadPlan, corpus: Corpus, mix: LoadMix) -> Result<LoadRun> {
    let corpus = Arc::new(corpus);
    let mix = Arc::new(mix);
    let start = Instant::now() + START_IN;
    let mut threads = Vec::new();
    for number in 0..plan.threads {
        let part = LoadPlan {
            rate: plan.rate.map(|rate| rate / plan.threads as f64),
            clients: share(plan.clients, number, plan.threads),
            in_flight: share(plan.in_flight, number, plan.threads).max(1),
            ..plan.clone()
        };
        let corpus = Arc::clone(&corpus);
        let mix = Arc::clone(&mix);
        let thread = std::thread::Builder::new()
            .name(format!("bench-{number}"))
            .spawn(move || drive(part, start, number as u64, corpus, mix));
        threads.push(thread.context("starting a thread of the load generator")?);
    }
    Ok(LoadRun { start, threads })
}

/// The part of one of `threads` threads; parts differ by one at most.
fn share(whole: usize, number: usize, threads: usize) -> usize {
    whole / threads + usize::from(number < whole % threads)
}

fn drive(
    plan: LoadPlan,
    start: Instant,
    number: u64,
    corpus: Arc<Corpus>,
    mix: Arc<LoadMix>,
) -> Result<LoadTally> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("starting a runtime of the load generator")?;
    // Everything of this thread hangs on one worker.
    let worker = Rc::new(LoadWorker {
        clients: (0..plan.clients).map(|_| ChannelPool::default()).collect(),
        plan,
        start,
        corpus,
        mix,
        peers: LoadPeers::default(),
        tally: RefCell::default(),
    });
    let rng = SeededRng::new(worker.plan.seed, number);
    let work = async {
        match worker.plan.rate {
            Some(rate) => open_loop(&worker, rate, rng).await,
            None => closed_loop(&worker, rng).await,
        }
    };
    // It runs until the plan is over.
    LocalSet::new().block_on(&runtime, work)?;
    let mut tally = worker.tally.take();
    tally.failovers = worker.peers.failovers();
    Ok(tally)
}

/// What the tasks of one thread share.
struct LoadWorker {
    plan: LoadPlan,
    start: Instant,
    corpus: Arc<Corpus>,
    mix: Arc<LoadMix>,
    clients: Vec<ChannelPool>,
    peers: LoadPeers,
    tally: RefCell<LoadTally>,
}

impl LoadWorker {
    fn begin(&self) -> Instant {
        self.start + self.plan.warmup
    }

    fn end(&self) -> Instant {
        self.begin() + self.plan.duration
    }

    /// Does one task and counts it, unless it was due during the warm-up.
    async fn run(&self, client: usize, task: LoadTask, due: Instant) {
        let sent = Instant::now();
        let timeout = self.plan.timeout;
        let caller = LoadCaller {
            corpus: &self.corpus,
            peers: &self.peers,
            channels: &self.clients[client],
            timeout,
        };
        let result = match tokio::time::timeout(timeout, caller.perform(task)).await {
            Ok(result) => result,
            Err(_) => Err(Error::unavailable(format!(
                "{}: not done within {timeout:?}",
                task.operation
            ))),
        };
        if due >= self.begin() {
            self.count(task.operation, due, sent, result);
        }
    }

    fn count(
        &self,
        operation: LoadOperation,
        due: Instant,
        sent: Instant,
        result: Result<(Instant, u64), Error>,
    ) {
        let mut tally = self.tally.borrow_mut();
        tally.lag.record(sent.saturating_duration_since(due));
        match result {
            Ok((answered, bytes)) => {
                tally.succeeded(operation, answered.saturating_duration_since(due), bytes);
                tally.last = tally.last.max(Some(answered));
            }
            Err(error) => {
                tally.failed(operation, error.kind, &error.message);
                tally.last = tally.last.max(Some(Instant::now()));
            }
        }
    }
}

/// Sends what is due when it is due. The schedule knows nothing of the answers.
async fn open_loop(worker: &Rc<LoadWorker>, rate: f64, mut rng: SeededRng) -> Result<()> {
    let timer = PreciseTimer::new().context("making a timer")?;
    let slots = Arc::new(Semaphore::new(worker.plan.in_flight));
    let give_up = worker.end() + worker.plan.timeout;
    let mut arrivals = Arrivals::new(rate, SeededRng::new(rng.bits(), 0));
    let due = |offset: Duration| Some(worker.start + offset).filter(|due| *due < worker.end());
    let mut free_again = worker.start;
    for number in 0.. {
        let Some(due) = arrivals.next().and_then(due) else {
            break;
        };
        timer.until(due).await.context("waiting on a timer")?;
        let slot = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => Some(slot),
            Err(_) => {
                let freed = Arc::clone(&slots).acquire_owned();
                let freed = tokio::time::timeout_at(give_up.into(), freed)
                    .await
                    .ok()
                    .and_then(Result::ok);
                free_again = Instant::now();
                freed
            }
        };
        // What became due while another one waited for a place was held up by the same.
        worker.tally.borrow_mut().delayed += u64::from(due < free_again && due >= worker.begin());
        let Some(slot) = slot.filter(|_| Instant::now() < give_up) else {
            let rest = arrivals
                .take_while(|offset| worker.start + *offset < worker.end())
                .count();
            worker.tally.borrow_mut().unsent += 1 + rest as u64;
            break;
        };
        let task = worker.mix.draw(&mut rng);
        let client = number % worker.clients.len();
        let running = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            running.run(client, task, due).await;
            drop(slot);
        });
    }
    // Every request ends by its timeout.
    let all = u32::try_from(worker.plan.in_flight).unwrap_or(u32::MAX);
    drop(
        slots
            .acquire_many(all)
            .await
            .context("waiting for the last answers")?,
    );
    Ok(())
}

/// Each client sends its next request when the last one was answered.
async fn closed_loop(worker: &Rc<LoadWorker>, mut rng: SeededRng) -> Result<()> {
    tokio::time::sleep_until(worker.start.into()).await;
    let client = |number: usize| {
        let worker = Rc::clone(worker);
        let mut rng = SeededRng::new(rng.bits(), number as u64);
        tokio::task::spawn_local(async move {
            loop {
                let now = Instant::now();
                if now >= worker.end() {
                    return;
                }
                let task = worker.mix.draw(&mut rng);
                worker.run(number, task, now).await;
            }
        })
    };
    let clients: Vec<_> = (0..worker.clients.len()).map(client).collect();
    for client in clients {
        client.await.context("waiting for a client")?;
    }
    Ok(())
}
