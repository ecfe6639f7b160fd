//! Following another router that works on the same path already.

use std::sync::Arc;
use std::time::Duration;

use monofs_control::Control;
use monofs_model::{Error, Repository, RepositoryState, Result};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use monofs_proto::v1::path_claim::Purpose;
use tokio::time::Instant;

use super::job::Job;
use super::spec::IngestSpec;
use super::table::being_cleaned_up;

/// How often another router's work is looked at without being told of a change.
const POLL: Duration = Duration::from_secs(1);

/// Whether a request for `spec` may join what another router does. Errors: `Refused`.
pub(super) fn may_join(spec: &IngestSpec, theirs: &v1::PathClaim) -> Result<()> {
    let router = &theirs.router_id;
    if theirs.purpose() != Purpose::Ingest {
        return Err(being_cleaned_up(&spec.path));
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
    control: &Control,
    job: &Job,
    theirs: &v1::PathClaim,
    before: Option<Arc<Repository>>,
) -> Option<Result<()>> {
    let path = &job.spec.path;
    let mut claims = control.tables.claims.changed();
    let mut catalog = control.catalog.changed();
    let generation = before.as_ref().map_or(0, |entry| entry.generation);
    let mut silent_since = None;
    job.phase(Phase::Fetching);
    while control.tables.claims.get(path.as_str()).as_ref() == Some(theirs) {
        if let Some(entry) = control
            .catalog
            .get(path)
            .filter(|entry| entry.generation > generation)
        {
            job.update(|progress| {
                progress.repository = Some(v1::Repository::from(&*entry));
                progress.set_phase(Phase::Published);
            });
        }
        if *control.shared.reachable().borrow() {
            silent_since = None;
        } else if silent_since.get_or_insert_with(Instant::now).elapsed() > control.lease * 2 {
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
    let after = control.catalog.get(path)?;
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
