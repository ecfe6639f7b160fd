//! Who works on a path, among all routers: a row that is held in the state store meanwhile.
//!
//! With a state store of its own a router needs no rows: [`super::Ingests`] is enough.

use std::sync::Arc;
use std::time::Duration;

use monofs_model::{DisplayPath, Error, Repository, RepositoryState, Result};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_proto::v1::path_claim::Purpose;
use tokio::time::Instant;

use super::{Job, Spec};
use crate::RouterState;
use crate::clock;
use crate::state::Hold;

/// Pause before a claim that was in the way is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long letting go may take; then the row goes a moment later.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(3);
/// How often somebody else's work is looked at without being told of a change.
const POLL: Duration = Duration::from_secs(1);

/// A path that this router works on.
pub(crate) struct Claim {
    hold: Option<Hold>,
}

pub(crate) enum Taken {
    Mine(Claim),
    Theirs(v1::PathClaim),
}

impl Claim {
    /// Ends when the claim is lost, which it may never be.
    pub async fn lost(&self) {
        match &self.hold {
            Some(hold) => hold.lost.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Lets others work on the path; returns when they can.
    pub async fn let_go(self) {
        if let Some(hold) = self.hold {
            hold.let_go(LET_GO_TIMEOUT).await;
        }
    }
}

/// Claims `path`, or says who has it. Errors: `Unavailable` when the state store is away, `Refused`
/// when it stays unclear.
pub(crate) async fn take(
    state: &RouterState,
    path: &DisplayPath,
    purpose: Purpose,
    spec: Option<&Spec>,
) -> Result<Taken> {
    if !state.shared.store().is_shared() {
        return Ok(Taken::Mine(Claim { hold: None }));
    }
    let row = v1::PathClaim {
        path: path.to_string(),
        router_id: state.own.router_id.clone(),
        purpose: purpose.into(),
        source: spec.map_or(String::new(), |spec| spec.source.to_string()),
        ref_name: spec.map_or(String::new(), |spec| spec.ref_name.as_str().to_owned()),
        since: clock::now(),
    };
    let (key, value) = state.tables.claims.row(path.as_str(), &row);
    // A claim of an earlier life of this router ends with its lease.
    let give_up = Instant::now() + state.config.lease * 2;
    loop {
        let mut changed = state.tables.claims.changed();
        let taken = state
            .shared
            .store()
            .hold(&key, value.clone(), state.config.lease)
            .await;
        if let Some(hold) = taken.map_err(|error| state.shared.refused(error))? {
            return Ok(Taken::Mine(Claim { hold: Some(hold) }));
        }
        // Memory may still show an earlier one.
        if let Some(theirs) = state.tables.claims.stored(path.as_str()).await?
            && theirs.router_id != state.own.router_id
        {
            return Ok(Taken::Theirs(theirs));
        }
        if Instant::now() > give_up {
            return Err(Error::refused(format!(
                "'{path}' is being worked on; try again in a moment"
            )));
        }
        // What was in the way is gone in a moment.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed.changed()).await;
    }
}

/// Whether a request for `spec` may join what another router does. Errors: `Refused`.
pub(super) fn may_join(spec: &Spec, theirs: &v1::PathClaim) -> Result<()> {
    let router = &theirs.router_id;
    if theirs.purpose() != Purpose::Ingest {
        return Err(super::being_cleaned_up(&spec.path));
    }
    if theirs.source == spec.source.to_string() && theirs.ref_name == spec.ref_name.as_str() {
        return Ok(());
    }
    Err(Error::refused(format!(
        "'{}' is being ingested from {} ({}) by router {router} right now; wait for that to end",
        spec.path, theirs.source, theirs.ref_name
    )))
}

/// Waits until `theirs` has ended; its progress is what the catalogue shows. `None`: it ended
/// without an outcome (that router is gone), so somebody else has to go on. `before`: the entry
/// before it was known that somebody works on it.
pub(super) async fn follow(
    state: &RouterState,
    job: &Job,
    theirs: &v1::PathClaim,
    before: Option<Arc<Repository>>,
) -> Option<Result<()>> {
    let path = &job.spec.path;
    let mut claims = state.tables.claims.changed();
    let mut catalog = state.catalog.changed();
    let generation = before.as_ref().map_or(0, |entry| entry.generation);
    let mut silent_since = None;
    job.phase(Phase::Fetching);
    while state.tables.claims.get(path.as_str()).as_ref() == Some(theirs) {
        if let Some(entry) = state
            .catalog
            .get(path)
            .filter(|entry| entry.generation > generation)
        {
            job.update(|progress| {
                progress.repository = Some(v1::Repository::from(&*entry));
                progress.set_phase(Phase::Published);
            });
        }
        if *state.shared.reachable().borrow() {
            silent_since = None;
        } else if silent_since.get_or_insert_with(Instant::now).elapsed() > state.config.lease * 2 {
            let router = &theirs.router_id;
            return Some(Err(Error::unavailable(format!(
                "the state store cannot be reached; router {router} may go on with '{path}': look \
                 again when it is back"
            ))));
        }
        tokio::select! {
            _ = claims.changed() => {}
            _ = catalog.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    let after = state.catalog.get(path)?;
    if after.state == RepositoryState::Ingesting
        || before
            .as_ref()
            .is_some_and(|before| same_outcome(before, &after))
    {
        return None;
    }
    if !after.last_error.is_empty() {
        return Some(Err(Error::unavailable(format!(
            "router {}: {}",
            theirs.router_id, after.last_error
        ))));
    }
    job.update(|progress| {
        progress.unchanged = after.generation == generation;
        progress.repository = Some(v1::Repository::from(&*after));
    });
    Some(Ok(()))
}

fn same_outcome(before: &Repository, after: &Repository) -> bool {
    (
        before.generation,
        before.refreshed_at,
        &before.last_error,
        before.created_at,
    ) == (
        after.generation,
        after.refreshed_at,
        &after.last_error,
        after.created_at,
    )
}
