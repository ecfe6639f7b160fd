//! The ingest of a repository, and of a new commit of one: resolve, fetch, adopt on the replicas, flip.
//!
//! ```text
//!  resolving -> fetching -> adopting -> published -> (other replicas adopt) -> done
//!      \___________\___________\__ failed: readers keep what they had
//! ```
//!
//! Invariants: one job per path at a time; a second request for the same source and ref joins it, any other is refused;
//! nothing that readers see changes before the flip, and the flip is one compare-and-set.

mod job;
mod run;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use monofs_model::{
    Consistency, ContentMode, DisplayPath, Error, RefName, Repository, RepositoryState, Result, SourceUrl,
};

pub(crate) use job::Job;

use crate::RouterState;
use crate::clock;

/// Most jobs at a time; another one is refused with `Full`.
const JOBS_MAX: usize = 1024;

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
    jobs: Mutex<HashMap<DisplayPath, Arc<Job>>>,
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

impl Ingests {
    /// The job of this path, if one runs.
    pub fn running(&self, path: &DisplayPath) -> Option<Arc<Job>> {
        self.lock().get(path).cloned()
    }

    /// Keeps ingests away from `path`; `None` when one runs there.
    pub fn hold(&self, path: &DisplayPath) -> Option<Hold<'_>> {
        let jobs = self.lock();
        if jobs.contains_key(path) || !self.lock_held().insert(path.clone()) {
            return None;
        }
        Some(Hold { ingests: self, path: path.clone() })
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
                    "'{}' is being ingested from {source} ({ref_name}) right now; wait for that to end",
                    spec.path
                )));
            }
            return Ok((job.clone(), false));
        }
        if self.lock_held().contains(&spec.path) {
            return Err(Error::refused(format!("'{}' is being cleaned up; try again in a moment", spec.path)));
        }
        if jobs.len() >= JOBS_MAX {
            return Err(Error::full(format!("{JOBS_MAX} ingests are running; try again when some have ended")));
        }
        let job = Arc::new(Job::new(spec.clone()));
        jobs.insert(spec.path.clone(), job.clone());
        Ok((job, true))
    }

    fn release(&self, path: &DisplayPath) {
        self.lock().remove(path);
    }

    /// Taken after `lock`, never before.
    fn lock_held(&self) -> std::sync::MutexGuard<'_, HashSet<DisplayPath>> {
        self.held.lock().expect("no holder of this lock panics")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<DisplayPath, Arc<Job>>> {
        self.jobs.lock().expect("no holder of this lock panics")
    }
}

/// Adds a repository, or brings an existing one of the same source to `spec`'s ref.
pub(crate) async fn ingest(state: &Arc<RouterState>, spec: Spec) -> Result<Arc<Job>> {
    let (job, mine) = state.ingests.claim(&spec)?;
    if mine {
        if let Err(error) = record(state, &spec).await {
            state.ingests.release(&spec.path);
            return Err(error);
        }
        start(state, job.clone());
    }
    Ok(job)
}

/// Looks upstream for a new commit of a repository that is in the catalogue.
pub(crate) fn refresh(state: &Arc<RouterState>, entry: &Repository) -> Result<Arc<Job>> {
    let (job, mine) = state.ingests.claim(&spec_of(entry))?;
    if mine {
        start(state, job.clone());
    }
    Ok(job)
}

/// Goes on with ingests that were running when the router stopped.
pub(crate) fn resume(state: &Arc<RouterState>) {
    for entry in state.catalog.ingesting() {
        if let Err(error) = refresh(state, &entry) {
            tracing::warn!(path = %entry.path, %error, "an interrupted ingest cannot go on");
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

/// Writes a new entry as `ingesting`, or checks that the existing one may go on. What the spec says otherwise than that
/// one (ref, content, consistency) comes with the flip, so that a failed ingest leaves it as it was.
async fn record(state: &Arc<RouterState>, spec: &Spec) -> Result<()> {
    let Some(existing) = state.catalog.get(&spec.path).filter(|entry| entry.state != RepositoryState::Failed) else {
        return state.catalog.create(new_entry(spec)).await;
    };
    if existing.source == spec.source {
        return Ok(());
    }
    Err(Error::refused(format!("'{}' shows {}; delete it first, or choose another --path", spec.path, existing.source)))
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

fn start(state: &Arc<RouterState>, job: Arc<Job>) {
    let state = state.clone();
    tokio::spawn(async move {
        let outcome = run::run(&state, &job).await;
        if let Err(error) = &outcome {
            tracing::warn!(path = %job.spec.path, source = %job.spec.source, %error, "ingest failed");
            run::note_failure(&state, &job, error).await;
        }
        state.ingests.release(&job.spec.path);
        job.end(outcome);
    });
}
