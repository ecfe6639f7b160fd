//! The ingest of a repository, and of a new commit of one: resolve, fetch, adopt on the replicas,
//! flip.
//!
//! ```text
//!  resolving -> fetching -> adopting -> published -> (other replicas adopt) -> done
//!      \___________\___________\__ failed: readers keep what they had
//! ```
//!
//! Invariants: one job per path at a time, among all routers ([`claim`]); a second request for the
//! same source and ref joins it, any other is refused; what a router that died left as `ingesting`
//! is taken up by the leader ([`resume`]); nothing that readers see changes before the flip, and
//! the flip is one compare-and-set.

mod claim;
mod job;
mod run;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use monofs_model::{
    Consistency, ContentMode, DisplayPath, Error, ErrorKind, RefName, Repository, RepositoryState,
    Result, SourceUrl,
};

pub(crate) use job::Job;

use claim::{Claim, Taken};
use monofs_proto::v1::path_claim::Purpose;
use monofs_rpc::context;
use monofs_rpc::metrics::{Counter, Samples};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::{RouterState, refresh as refreshing};

/// Most jobs at a time; another one is refused with `Full`.
const JOBS_MAX: usize = 1024;
/// Jobs that have ended and are still remembered.
const ENDED_MAX: usize = 64;
/// How often a job takes over from routers that died on it.
const TURNS_MAX: usize = 8;

/// What is to be ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub path: DisplayPath,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub content: ContentMode,
    pub consistency: Consistency,
}

/// The jobs that run.
#[derive(Default)]
pub(crate) struct Ingests {
    /// How those ended that this router ran: what was asked for, and looks for a new commit.
    outcomes: [Outcomes; 2],
    jobs: Mutex<HashMap<DisplayPath, Arc<Job>>>,
    /// The last ones that ended, newest last: who looks a moment later can still see how far each
    /// came.
    ended: Mutex<VecDeque<Arc<Job>>>,
    /// Paths whose replaced snapshots are being collected: nothing may be adopted there meanwhile.
    held: Mutex<HashSet<DisplayPath>>,
}

/// Keeps ingests away from a path until it is dropped.
pub(crate) struct Hold<'a> {
    ingests: &'a Ingests,
    path: DisplayPath,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.ingests.lock_held().remove(&self.path);
    }
}

/// How jobs ended.
#[derive(Default)]
struct Outcomes {
    ok: Counter,
    failed: [Counter; ErrorKind::ALL.len()],
}

impl Outcomes {
    fn ended(&self, outcome: &Result<()>) {
        match outcome {
            Ok(()) => self.ok.one(),
            Err(error) => self.failed[error.kind as usize].one(),
        }
    }

    fn list(&self) -> impl Iterator<Item = ([&'static str; 1], u64)> {
        let failed = ErrorKind::ALL
            .into_iter()
            .zip(&self.failed)
            .map(|(kind, count)| ([kind.as_str()], count.get()));
        std::iter::once((["ok"], self.ok.get())).chain(failed)
    }
}

impl Ingests {
    /// Adds what they count.
    pub fn samples(&self, out: &mut Samples) {
        out.gauge(
            "monofs_router_ingests_running",
            "Ingests and refreshes that this router runs.",
            self.len(),
        );
        let [ingests, refreshes] = &self.outcomes;
        let help = "Ingests that this router ran to their end, by outcome.";
        out.counters_by(
            "monofs_router_ingests_total",
            help,
            ["outcome"],
            ingests.list(),
        );
        let help = "Refreshes that this router ran to their end, by outcome; ok also when nothing \
         was new.";
        out.counters_by(
            "monofs_router_refreshes_total",
            help,
            ["outcome"],
            refreshes.list(),
        );
    }

    /// The job of this path, if one runs.
    pub fn running(&self, path: &DisplayPath) -> Option<Arc<Job>> {
        self.lock().get(path).cloned()
    }

    /// The job of this path that ended last, if that was not long ago.
    pub fn ended(&self, path: &DisplayPath) -> Option<Arc<Job>> {
        self.lock_ended()
            .iter()
            .rev()
            .find(|job| job.spec.path == *path)
            .cloned()
    }

    /// Keeps ingests away from `path`; `None` when one runs there.
    pub fn hold(&self, path: &DisplayPath) -> Option<Hold<'_>> {
        let jobs = self.lock();
        if jobs.contains_key(path) || !self.lock_held().insert(path.clone()) {
            return None;
        }
        Some(Hold {
            ingests: self,
            path: path.clone(),
        })
    }

    /// Number of jobs that run.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// A new job for `spec` (and true), or the one to join. Errors: `Refused`, `Full`.
    fn claim(&self, spec: &Spec) -> Result<(Arc<Job>, bool)> {
        let mut jobs = self.lock();
        if let Some(job) = jobs.get(&spec.path) {
            if job.spec.source != spec.source || job.spec.ref_name != spec.ref_name {
                let (source, ref_name) = (&job.spec.source, &job.spec.ref_name);
                return Err(Error::refused(format!(
                    "'{}' is being ingested from {source} ({ref_name}) right now; wait for that to \
                     end",
                    spec.path
                )));
            }
            return Ok((job.clone(), false));
        }
        if self.lock_held().contains(&spec.path) {
            return Err(being_cleaned_up(&spec.path));
        }
        if jobs.len() >= JOBS_MAX {
            return Err(Error::full(format!(
                "{JOBS_MAX} ingests are running; try again when some have ended"
            )));
        }
        let job = Arc::new(Job::new(spec.clone()));
        jobs.insert(spec.path.clone(), job.clone());
        Ok((job, true))
    }

    /// The job does not run any more.
    fn release(&self, job: &Arc<Job>) {
        let mut ended = self.lock_ended();
        ended.retain(|other| other.spec.path != job.spec.path);
        ended.push_back(job.clone());
        if ended.len() > ENDED_MAX {
            ended.pop_front();
        }
        drop(ended);
        self.lock().remove(&job.spec.path);
    }

    fn lock_ended(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Job>>> {
        self.ended.lock().expect("no holder of this lock panics")
    }

    /// Taken after `lock`, never before.
    fn lock_held(&self) -> std::sync::MutexGuard<'_, HashSet<DisplayPath>> {
        self.held.lock().expect("no holder of this lock panics")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DisplayPath, Arc<Job>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

/// Keeps the ingests of all routers away from a path until it is let go.
pub(crate) struct Away<'a> {
    _here: Hold<'a>,
    claim: Claim,
}

impl Away<'_> {
    /// Ends when others may work on the path although nobody let go.
    pub async fn lost(&self) {
        self.claim.lost().await;
    }

    /// Lets ingests in again.
    pub async fn let_go(self) {
        self.claim.let_go().await;
    }
}

/// Keeps ingests of any router away from `path`; `None` when one runs there. Errors: `Unavailable`.
pub(crate) async fn keep_away<'a>(
    state: &'a RouterState,
    path: &DisplayPath,
) -> Result<Option<Away<'a>>> {
    let Some(here) = state.ingests.hold(path) else {
        return Ok(None);
    };
    match claim::take(state, path, Purpose::Collect, None).await? {
        Taken::Mine(claim) => Ok(Some(Away { _here: here, claim })),
        Taken::Theirs(_) => Ok(None),
    }
}

fn being_cleaned_up(path: &DisplayPath) -> Error {
    Error::refused(format!(
        "'{path}' is being cleaned up; try again in a moment"
    ))
}

/// Adds a repository, or brings an existing one of the same source to `spec`'s ref.
pub(crate) async fn ingest(state: &Arc<RouterState>, spec: Spec) -> Result<Arc<Job>> {
    start_or_join(state, spec, true).await
}

/// Looks upstream for a new commit of a repository that is in the catalogue.
pub(crate) async fn refresh(state: &Arc<RouterState>, entry: &Repository) -> Result<Arc<Job>> {
    start_or_join(state, spec_of(entry), false).await
}

/// Who works on `path` among the routers, this one included; `None`: nobody.
pub(crate) fn worked_on_by(state: &RouterState, path: &DisplayPath) -> Option<String> {
    let here = state
        .ingests
        .running(path)
        .map(|_| state.own.router_id.clone());
    here.or_else(|| {
        state
            .tables
            .claims
            .get(path.as_str())
            .map(|claim| claim.router_id)
    })
}

/// Goes on with first ingests that nobody runs any more, until `stop`: those of a router that died,
/// or was restarted.
pub(crate) async fn resume(state: Arc<RouterState>, stop: CancellationToken) {
    let mut claims = state.tables.claims.changed();
    loop {
        let can_run = refreshing::can_refresh(&state.members.view());
        for entry in state.catalog.ingesting().iter().filter(|_| can_run) {
            if worked_on_by(&state, &entry.path).is_some() {
                continue;
            }
            tracing::info!(path = %entry.path, "going on with an interrupted ingest");
            if let Err(error) = refresh(&state, entry).await {
                tracing::warn!(path = %entry.path, %error, "an interrupted ingest cannot go on");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(state.config.worker_interval) => {}
            _ = claims.changed() => {}
        }
    }
}

fn spec_of(entry: &Repository) -> Spec {
    Spec {
        path: entry.path.clone(),
        source: entry.source.clone(),
        ref_name: entry.ref_name.clone(),
        content: entry.content,
        consistency: entry.consistency,
    }
}

/// Writes a new entry as `ingesting`, or checks that the existing one may go on. What the spec says
/// otherwise than that one (ref, content, consistency) comes with the flip, so that a failed ingest
/// leaves it as it was.
async fn record(state: &Arc<RouterState>, spec: &Spec) -> Result<()> {
    let Some(existing) = state
        .catalog
        .get(&spec.path)
        .filter(|entry| entry.state != RepositoryState::Failed)
    else {
        return state.catalog.create(new_entry(spec)).await;
    };
    if existing.source == spec.source {
        return Ok(());
    }
    Err(Error::refused(format!(
        "'{}' shows {}; delete it first, or choose another --path",
        spec.path, existing.source
    )))
}

impl Spec {
    /// The entry as it will be when this spec has succeeded.
    fn applied_to(&self, entry: &Repository) -> Repository {
        Repository {
            ref_name: self.ref_name.clone(),
            content: self.content,
            consistency: self.consistency,
            refreshed_at: clock::now(),
            last_error: String::new(),
            ..entry.clone()
        }
    }
}

fn new_entry(spec: &Spec) -> Repository {
    Repository {
        path: spec.path.clone(),
        source: spec.source.clone(),
        ref_name: spec.ref_name.clone(),
        state: RepositoryState::Ingesting,
        snapshot: None,
        generation: 0,
        holders: Vec::new(),
        content: spec.content,
        consistency: spec.consistency,
        created_at: clock::now(),
        refreshed_at: 0,
        last_error: String::new(),
    }
}

/// A job for `spec`; `create`: its entry is made if it is not there. Errors: why it may not run.
async fn start_or_join(state: &Arc<RouterState>, spec: Spec, create: bool) -> Result<Arc<Job>> {
    let (job, mine) = state.ingests.claim(&spec)?;
    if mine {
        let (admit, admitted) = oneshot::channel();
        let (state, running) = (state.clone(), job.clone());
        // On its own: the job goes on, or its claim is let go, also if the caller is gone.
        let run = async move {
            let work = work(&state, &running, create, admit);
            let outcome = state.stop.run_until_cancelled(work).await;
            state.ingests.release(&running);
            let stopped = || {
                Err(Error::unavailable(
                    "this router stops; ask another one, or when it is back",
                ))
            };
            running.end(outcome.unwrap_or_else(stopped));
        };
        tokio::spawn(context::go_on(
            if create { "ingest" } else { "refresh" },
            run,
        ));
        admitted
            .await
            .map_err(|_| Error::unavailable("this router stops; ask another one"))??;
    }
    Ok(job)
}

/// One job: claims the path and runs it, or follows another router that does.
async fn work(
    state: &Arc<RouterState>,
    job: &Arc<Job>,
    create: bool,
    admit: oneshot::Sender<Result<()>>,
) -> Result<()> {
    let spec = &job.spec;
    let mut admit = Some(admit);
    for _ in 0..TURNS_MAX {
        let before = state.catalog.get(&spec.path);
        let taken = claim::take(state, &spec.path, Purpose::Ingest, Some(spec)).await;
        let admitted = match &taken {
            Err(error) => Err(error.clone()),
            Ok(Taken::Theirs(theirs)) => claim::may_join(spec, theirs),
            Ok(Taken::Mine(_)) if create => record(state, spec).await,
            Ok(Taken::Mine(_)) => Ok(()),
        };
        if admitted.is_err()
            && let Ok(Taken::Mine(claim)) = taken
        {
            claim.let_go().await;
            tell(&mut admit, &admitted);
            return admitted;
        }
        tell(&mut admit, &admitted);
        admitted?;
        match taken? {
            Taken::Mine(claim) => {
                let outcome = run_claimed(state, job, claim).await;
                state.ingests.outcomes[usize::from(!create)].ended(&outcome);
                return outcome;
            }
            Taken::Theirs(theirs) => {
                if let Some(outcome) = claim::follow(state, job, &theirs, before).await {
                    return outcome;
                }
            }
        }
    }
    Err(Error::refused(format!(
        "routers keep failing while they ingest '{}'; look at their logs",
        spec.path
    )))
}

/// Says once whether the job may run. Who asked may be gone.
fn tell(admit: &mut Option<oneshot::Sender<Result<()>>>, admitted: &Result<()>) {
    if let Some(admit) = admit.take() {
        let _ = admit.send(admitted.clone());
    }
}

async fn run_claimed(state: &Arc<RouterState>, job: &Arc<Job>, claim: Claim) -> Result<()> {
    let outcome = tokio::select! {
        outcome = run::run(state, job) => outcome,
        () = claim.lost() => {
            let path = &job.spec.path;
            tracing::warn!(%path, "cut off from the state store during an ingest; the leader goes \
             on with it");
            return Err(Error::unavailable(format!(
                "this router was cut off from the state store while it ingested '{path}'; ask \
                 again when it is back"
            )));
        }
    };
    if let Err(error) = &outcome {
        tracing::warn!(path = %job.spec.path, source = %job.spec.source, %error, "ingest failed");
        run::note_failure(state, job, error).await;
    }
    claim.let_go().await;
    outcome
}
