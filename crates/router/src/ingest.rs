//! The ingest of a repository, and of a new commit of one: resolve, fetch, adopt on the replicas,
//! flip.
//!
//! ```text
//!  resolving -> fetching -> adopting -> published -> (other replicas adopt) -> done
//!                                     ^ with the generations of its names, made by the first replica
//!      \___________\___________\__ failed: readers keep what they had
//! ```
//!
//! Invariants: one job per path at a time, among all routers ([`monofs_control::path_lease`]); a second request for the
//! same source and ref joins it, any other is refused; what a router that died left as `ingesting`
//! is taken up by the leader ([`resume`]); nothing that readers see changes before the flip, and
//! the flip is one compare-and-set.

mod generations;
mod host_wait;
pub mod job;
mod join;
mod run;
pub mod spec;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use monofs_control::path_lease::{self, LeaseOutcome, PathLease, PathWork};
use monofs_model::{Actor, DisplayPath, Error, Repository, RepositoryState, Result};
use monofs_rpc::context;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::nesting;
use crate::parts::Parts;
use crate::parts::Work;
pub use job::Job;
use monofs_control::Control;
use monofs_members::membership;
pub use spec::IngestSpec;
pub use table::{Ingests, PathGuard};

/// How often a job takes over from routers that died on it.
const TURNS_MAX: usize = 8;

/// Adds a repository, or brings an existing one of the same source to `spec`'s ref.
pub async fn ingest(actor: &Actor, state: &Arc<Parts>, spec: IngestSpec) -> Result<Arc<Job>> {
    let patience = Some(state.config.host_wait);
    start_or_join(actor, state, spec, true, patience).await
}

/// Looks upstream for a new commit of a repository that is in the catalogue. As an ingest it waits
/// for a host that says "not now".
pub async fn refresh(actor: &Actor, state: &Arc<Parts>, entry: &Repository) -> Result<Arc<Job>> {
    let patience = Some(state.config.host_wait);
    start_or_join(actor, state, IngestSpec::of_entry(entry), false, patience).await
}

/// [`refresh`] by a worker, which comes again: it does not wait for a host.
pub async fn refresh_now(
    actor: &Actor,
    state: &Arc<Parts>,
    entry: &Repository,
) -> Result<Arc<Job>> {
    start_or_join(actor, state, IngestSpec::of_entry(entry), false, None).await
}

/// Who works on `path` among the routers, this one included; `None`: nobody.
pub fn worked_on_by(control: &Control, work: &Work, path: &DisplayPath) -> Option<String> {
    let here = work
        .ingests
        .running(path)
        .map(|_| control.own.router_id.clone());
    here.or_else(|| {
        control
            .tables
            .claims
            .get(path.as_str())
            .map(|claim| claim.router_id)
    })
}

/// Goes on with first ingests that nobody runs any more, until `stop`: those of a router that died,
/// or was restarted.
pub async fn resume(state: Arc<Parts>, stop: CancellationToken) {
    let mut claims = state.control.tables.claims.changed();
    loop {
        let can_run = membership::can_refresh(&state.fleet.members.view());
        for entry in state.control.catalog.ingesting().iter().filter(|_| can_run) {
            if worked_on_by(&state.control, &state.work, &entry.path).is_some() {
                continue;
            }
            tracing::info!(path = %entry.path, "going on with an interrupted ingest");
            if let Err(error) = refresh(&context::actor(), &state, entry).await {
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

/// Writes a new entry as `ingesting`, or checks that the existing one may go on. What the spec says
/// otherwise than that one (ref, content, consistency) comes with the flip, so that a failed ingest
/// leaves it as it was.
async fn record(actor: &Actor, state: &Parts, spec: &IngestSpec) -> Result<()> {
    let control = &state.control;
    let Some(existing) = control
        .catalog
        .get(&spec.path)
        .filter(|entry| entry.state != RepositoryState::Failed)
    else {
        let entry = spec.new_entry();
        return nesting::create(actor, control, &state.fleet, &state.work, entry).await;
    };
    if spec.source.is_recorded_as(&existing.source) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "'{}' shows {}; delete it first, or choose another --path",
        spec.path, existing.source
    )))
}

/// A job for `spec`; `create`: its entry is made if it is not there. Errors: why it may not run.
async fn start_or_join(
    actor: &Actor,
    state: &Arc<Parts>,
    spec: IngestSpec,
    create: bool,
    patience: Option<Duration>,
) -> Result<Arc<Job>> {
    let (job, mine) = state.work.ingests.start_or_join(&spec, patience)?;
    if mine {
        let (admit, admitted) = oneshot::channel();
        let mut admit = Some(admit);
        let state = state.clone();
        let running = job.clone();
        let caller = actor.clone();
        // On its own: the job goes on, or its claim is let go, also if the caller is gone.
        let run = async move {
            let work = work(&caller, &state, &running, create, &mut admit);
            let outcome = state.work.stop.run_until_cancelled(work).await;
            let outcome = outcome.unwrap_or_else(|| {
                Err(Error::unavailable(
                    "this router stops; ask another one, or when it is back",
                ))
            });
            // Who is told that it ended, or was not admitted, may ask for another at once.
            state.work.ingests.ended_now(&running);
            tell(&mut admit, &outcome);
            running.end(outcome);
        };
        let doing = if create { "ingest" } else { "refresh" };
        tokio::spawn(context::go_on(actor, doing, run));
        admitted
            .await
            .map_err(|_| Error::unavailable("this router stops; ask another one"))??;
    }
    Ok(job)
}

/// One job: claims the path and runs it, or follows another router that does. `admit` is told when
/// it may run, and left to the caller when it may not.
async fn work(
    actor: &Actor,
    state: &Arc<Parts>,
    job: &Arc<Job>,
    create: bool,
    admit: &mut Option<oneshot::Sender<Result<()>>>,
) -> Result<()> {
    let spec = &job.spec;
    let asked = PathWork::Ingest {
        source: &spec.source,
        ref_name: &spec.ref_name,
    };
    for _ in 0..TURNS_MAX {
        let before = state.control.catalog.get(&spec.path);
        let taken = path_lease::take(&state.control, &spec.path, asked).await;
        let admitted = match &taken {
            Err(error) => Err(error.clone()),
            Ok(LeaseOutcome::Theirs(theirs)) => join::may_join(spec, theirs),
            Ok(LeaseOutcome::Mine(_)) if create => record(actor, state, spec).await,
            Ok(LeaseOutcome::Mine(_)) => Ok(()),
        };
        if admitted.is_err()
            && let Ok(LeaseOutcome::Mine(lease)) = taken
        {
            lease.release().await;
            return admitted;
        }
        admitted?;
        tell(admit, &Ok(()));
        match taken? {
            LeaseOutcome::Mine(lease) => {
                let outcome = run_with_lease(actor, state, job, lease).await;
                state.work.ingests.outcomes[usize::from(!create)].ended(&outcome);
                return outcome;
            }
            LeaseOutcome::Theirs(theirs) => {
                if let Some(outcome) = join::follow(&state.control, job, &theirs, before).await {
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

async fn run_with_lease(
    actor: &Actor,
    state: &Arc<Parts>,
    job: &Arc<Job>,
    lease: PathLease,
) -> Result<()> {
    let outcome = tokio::select! {
        outcome = run::run(actor, &state.control, &state.fleet, job) => outcome,
        () = lease.lost() => {
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
        run::note_failure(actor, &state.control, job, error).await;
    }
    lease.release().await;
    outcome
}

#[cfg(test)]
mod tests;
