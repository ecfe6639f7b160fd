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

#[cfg(test)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;
    use crate::fixture::{TestRouter, actor, entry, node_id, path, snapshot};

    fn theirs(purpose: Purpose) -> v1::PathClaim {
        let spec = IngestSpec::of_entry(&entry("a/b"));
        v1::PathClaim {
            path: "a/b".into(),
            router_id: "router2".into(),
            purpose: purpose.into(),
            source: spec.source.to_string(),
            ref_name: spec.ref_name.as_str().into(),
            since: 1,
        }
    }

    /// The lease of another router, as this one sees it.
    async fn hold(control: &Control, row: Option<v1::PathClaim>) {
        let claims = &control.tables.claims;
        let set = claims.update(actor(), "a/b", |_| Ok(row.clone())).await;
        set.expect("the row is written");
    }

    /// Follows router2 while `meanwhile` happens; then router2's lease is gone.
    async fn followed(
        router: &TestRouter,
        meanwhile: impl Future<Output = ()>,
    ) -> (Option<Result<()>>, v1::IngestProgress) {
        let control = &router.parts().control;
        let lease = theirs(Purpose::Ingest);
        hold(control, Some(lease.clone())).await;
        let job = Job::new(IngestSpec::of_entry(&entry("a/b")), None);
        let before = control.catalog.get(&path("a/b"));
        let acts = async {
            meanwhile.await;
            hold(control, None).await;
        };
        let (outcome, ()) = tokio::join!(follow(control, &job, &lease, before), acts);
        let progress = job.follow().borrow().progress.clone();
        (outcome, progress)
    }

    #[test]
    fn only_the_same_ingest_may_be_joined() {
        let spec = IngestSpec::of_entry(&entry("a/b"));
        assert!(may_join(&spec, &theirs(Purpose::Ingest)).is_ok());
        let cleaned = may_join(&spec, &theirs(Purpose::Collect)).expect_err("it is cleaned up");
        assert_eq!(cleaned.kind, ErrorKind::Refused);
        let other = v1::PathClaim {
            ref_name: "next".into(),
            ..theirs(Purpose::Ingest)
        };
        let refused = may_join(&spec, &other).expect_err("another ref");
        assert!(refused.message.contains("by router router2"), "{refused}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_the_other_router_published_is_the_outcome() {
        let router = TestRouter::start().await;
        let (outcome, progress) = followed(&router, async {
            router.repository("a/b", &["n1"], 1).await;
        })
        .await;
        assert!(matches!(outcome, Some(Ok(()))), "{outcome:?}");
        let shown = progress.repository.expect("it is told");
        assert_eq!(shown.generation, 1);
        assert!(!progress.unchanged);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_look_that_found_nothing_new_is_told_as_unchanged() {
        let router = TestRouter::start().await;
        let entry = router.repository("a/b", &["n1"], 1).await;
        let (outcome, progress) = followed(&router, async {
            let looked = |entry: &Repository| {
                Ok(Some(Repository {
                    refreshed_at: entry.refreshed_at + 1,
                    ..entry.clone()
                }))
            };
            let entries = &router.parts().control.entries;
            entries
                .update(actor(), &entry.path, looked)
                .await
                .expect("noted");
        })
        .await;
        assert!(matches!(outcome, Some(Ok(()))), "{outcome:?}");
        assert!(progress.unchanged);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_failure_of_the_other_router_is_told() {
        let router = TestRouter::start().await;
        let (outcome, _) = followed(&router, async {
            let entries = &router.parts().control.entries;
            entries
                .create(actor(), entry("a/b"))
                .await
                .expect("created");
            let failed = |entry: &Repository| {
                Ok(Some(Repository {
                    state: RepositoryState::Failed,
                    last_error: "the remote is away".into(),
                    ..entry.clone()
                }))
            };
            entries
                .update(actor(), &path("a/b"), failed)
                .await
                .expect("noted");
        })
        .await;
        let error = outcome.expect("it ended").expect_err("it failed");
        assert_eq!(error.message, "router router2: the remote is away");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_router_that_vanishes_leaves_the_work_to_the_next_one() {
        let router = TestRouter::start().await;
        let (outcome, _) = followed(&router, async {
            let entries = &router.parts().control.entries;
            entries
                .create(actor(), entry("a/b"))
                .await
                .expect("created");
        })
        .await;
        assert!(outcome.is_none(), "the entry is still being ingested");
        let again = TestRouter::start().await;
        again.repository("a/b", &["n1"], 1).await;
        let (outcome, _) = followed(&again, async {}).await;
        assert!(outcome.is_none(), "nothing came of it");
        assert_eq!(snapshot(1).commit, snapshot(1).root);
        assert_eq!(node_id("n1").as_str(), "n1");
    }
}
