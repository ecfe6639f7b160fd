//! The ingest jobs that this router runs, and the paths that they are kept away from.
//!
//! Invariants: one job per path at a time; a path that is guarded has none.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use monofs_control::Control;
use monofs_control::path_lease::{self, LeaseOutcome, PathLease, PathWork};
use monofs_model::{DisplayPath, Error, ErrorKind, Result};
use monofs_rpc::metrics::{Counter, Samples};
use parking_lot::Mutex;

use super::job::Job;
use super::spec::IngestSpec;

/// Most jobs at a time; another one is refused with `Full`.
const JOBS_MAX: usize = 1024;
/// Jobs that have ended and are still remembered.
const ENDED_MAX: usize = 64;

/// The jobs that run.
#[derive(Default)]
pub struct Ingests {
    /// How those ended that this router ran: what was asked for, and looks for a new commit.
    pub(super) outcomes: [JobOutcomes; 2],
    jobs: Mutex<HashMap<DisplayPath, Arc<Job>>>,
    /// The last ones that ended, newest last: who looks a moment later can still see how far each
    /// came.
    ended: Mutex<VecDeque<Arc<Job>>>,
    /// Paths whose replaced snapshots are being collected: nothing may be adopted there meanwhile.
    held: Mutex<HashSet<DisplayPath>>,
}

/// Keeps ingests away from a path until it is dropped.
struct LocalGuard<'a> {
    ingests: &'a Ingests,
    path: DisplayPath,
}

impl Drop for LocalGuard<'_> {
    fn drop(&mut self) {
        self.ingests.lock_held().remove(&self.path);
    }
}

/// How jobs ended.
#[derive(Default)]
pub(super) struct JobOutcomes {
    ok: Counter,
    failed: [Counter; ErrorKind::ALL.len()],
}

impl JobOutcomes {
    pub(super) fn ended(&self, outcome: &Result<()>) {
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
    fn guard_here(&self, path: &DisplayPath) -> Option<LocalGuard<'_>> {
        let jobs = self.lock();
        if jobs.contains_key(path) || !self.lock_held().insert(path.clone()) {
            return None;
        }
        Some(LocalGuard {
            ingests: self,
            path: path.clone(),
        })
    }

    /// Number of jobs that run.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Number of jobs that work; those that wait for a host do not.
    pub fn working(&self) -> usize {
        let jobs = self.lock();
        jobs.values().filter(|job| !job.is_waiting()).count()
    }

    /// Whether no job runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new job for `spec` (and true), or the one to join. Errors: `Refused`, `Full`.
    pub(super) fn start_or_join(
        &self,
        spec: &IngestSpec,
        patience: Option<Duration>,
    ) -> Result<(Arc<Job>, bool)> {
        let mut jobs = self.lock();
        if let Some(job) = jobs.get(&spec.path) {
            if job.spec.source != spec.source || job.spec.ref_name != spec.ref_name {
                let source = &job.spec.source;
                let ref_name = &job.spec.ref_name;
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
        let job = Arc::new(Job::new(spec.clone(), patience));
        jobs.insert(spec.path.clone(), job.clone());
        Ok((job, true))
    }

    /// Keeps ingests of any router away from `path`; `None` when one runs there. Errors:
    /// `Unavailable` when the state store is away.
    pub async fn keep_away<'a>(
        &'a self,
        control: &Control,
        path: &DisplayPath,
    ) -> Result<Option<PathGuard<'a>>> {
        let Some(here) = self.guard_here(path) else {
            return Ok(None);
        };
        match path_lease::take(control, path, PathWork::CleanUp).await? {
            LeaseOutcome::Mine(lease) => Ok(Some(PathGuard { _here: here, lease })),
            LeaseOutcome::Theirs(_) => Ok(None),
        }
    }

    /// The job does not run any more.
    pub(super) fn ended_now(&self, job: &Arc<Job>) {
        let mut ended = self.lock_ended();
        ended.retain(|other| other.spec.path != job.spec.path);
        ended.push_back(job.clone());
        if ended.len() > ENDED_MAX {
            ended.pop_front();
        }
        drop(ended);
        self.lock().remove(&job.spec.path);
    }

    fn lock_ended(&self) -> parking_lot::MutexGuard<'_, VecDeque<Arc<Job>>> {
        self.ended.lock()
    }

    /// LeaseOutcome after `lock`, never before.
    fn lock_held(&self) -> parking_lot::MutexGuard<'_, HashSet<DisplayPath>> {
        self.held.lock()
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<DisplayPath, Arc<Job>>> {
        self.jobs.lock()
    }
}

/// Keeps the ingests of all routers away from a path until it is released.
pub struct PathGuard<'a> {
    _here: LocalGuard<'a>,
    lease: PathLease,
}

impl PathGuard<'_> {
    /// Ends when others may work on the path although the guard was not released.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Lets ingests in again.
    pub async fn release(self) {
        self.lease.release().await;
    }
}

/// The refusal while copies of `path` are being collected or moved.
pub(super) fn being_cleaned_up(path: &DisplayPath) -> Error {
    Error::refused(format!(
        "'{path}' is being cleaned up; try again in a moment"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{TestRouter, entry, path};

    fn spec(at: &str, ref_name: &str) -> IngestSpec {
        IngestSpec {
            ref_name: monofs_model::RefName::new(ref_name).expect("a ref"),
            ..IngestSpec::of_entry(&entry(at))
        }
    }

    #[test]
    fn the_same_request_joins_and_another_ref_is_refused() {
        let ingests = Ingests::default();
        let (job, is_new) = ingests
            .start_or_join(&spec("a/b", "main"), None)
            .expect("starts");
        assert!(is_new);
        let (joined, is_new) = ingests
            .start_or_join(&spec("a/b", "main"), None)
            .expect("joins");
        assert!(!is_new && Arc::ptr_eq(&job, &joined));
        let refused = ingests.start_or_join(&spec("a/b", "next"), None).err();
        let refused = refused.expect("another ref");
        assert_eq!(refused.kind, ErrorKind::Refused);
        assert!(
            refused.message.contains("(main) right now"),
            "{}",
            refused.message
        );
        assert_eq!(ingests.len(), 1);
    }

    #[test]
    fn jobs_beyond_the_bound_are_refused_until_one_ends() {
        let ingests = Ingests::default();
        let at = |number: usize| spec(&format!("a/r{number}"), "main");
        let started: Vec<_> = (0..JOBS_MAX)
            .map(|number| ingests.start_or_join(&at(number), None).expect("starts").0)
            .collect();
        let refused = ingests.start_or_join(&at(JOBS_MAX), None).err();
        assert_eq!(refused.expect("one too many").kind, ErrorKind::Full);
        // Who asks for one that runs joins it all the same.
        assert!(ingests.start_or_join(&at(7), None).is_ok());
        ingests.ended_now(&started[7]);
        assert!(ingests.start_or_join(&at(JOBS_MAX), None).is_ok());
    }

    #[test]
    fn only_the_jobs_that_ended_last_are_remembered_one_a_path() {
        let ingests = Ingests::default();
        for number in 0..2 * ENDED_MAX {
            let spec = spec(&format!("a/r{number}"), "main");
            let (job, _) = ingests.start_or_join(&spec, None).expect("starts");
            ingests.ended_now(&job);
        }
        assert_eq!(ingests.lock_ended().len(), ENDED_MAX);
        assert!(ingests.ended(&path("a/r0")).is_none());
        let last = format!("a/r{}", 2 * ENDED_MAX - 1);
        let (again, _) = ingests
            .start_or_join(&spec(&last, "next"), None)
            .expect("starts");
        assert!(ingests.running(&path(&last)).is_some());
        ingests.ended_now(&again);
        let remembered = ingests.ended(&path(&last)).expect("it ended just now");
        assert_eq!(remembered.spec.ref_name.as_str(), "next");
        assert_eq!(ingests.lock_ended().len(), ENDED_MAX);
        assert_eq!(ingests.len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_guarded_path_takes_no_ingest_and_a_running_ingest_no_guard() {
        let router = TestRouter::start().await;
        let control = &router.parts().control;
        let ingests = Ingests::default();
        let here = path("a/b");
        let guard = ingests.keep_away(control, &here).await.expect("no fault");
        let guard = guard.expect("nothing runs there");
        let second = ingests.keep_away(control, &here).await.expect("no fault");
        assert!(second.is_none(), "one guard at a time");
        let refused = ingests.start_or_join(&spec("a/b", "main"), None).err();
        assert_eq!(refused.expect("guarded").kind, ErrorKind::Refused);
        assert!(ingests.start_or_join(&spec("a/c", "main"), None).is_ok());
        guard.release().await;
        let (job, _) = ingests
            .start_or_join(&spec("a/b", "main"), None)
            .expect("free");
        let none = ingests.keep_away(control, &here).await.expect("no fault");
        assert!(none.is_none(), "an ingest runs there");
        ingests.ended_now(&job);
        // A guard that is dropped instead of released lets ingests in, too.
        drop(ingests.keep_away(control, &here).await);
        assert!(ingests.start_or_join(&spec("a/b", "main"), None).is_ok());
    }
}
