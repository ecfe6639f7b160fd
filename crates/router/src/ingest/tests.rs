//! Ingests over nodes and a fetcher that speak the protocol: what becomes of them, and of those that
//! fail.

use monofs_model::{Consistency, ErrorKind, RefName, Snapshot, SourceUrl};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;

use super::*;
use crate::fixture::peers::{FakeFetcher, FakeNode};
use crate::fixture::{SOON, TestRouter, actor, entry, path, snapshot};

/// A router with two nodes and a fetcher whose remote is at the first snapshot.
struct Rig {
    router: TestRouter,
    nodes: [FakeNode; 2],
    fetcher: FakeFetcher,
}

impl Rig {
    async fn start() -> Self {
        let router = TestRouter::start().await;
        let nodes = [router.fake_node("n1").await, router.fake_node("n2").await];
        let fetcher = router.fake_fetcher(snapshot(1)).await;
        Self {
            router,
            nodes,
            fetcher,
        }
    }

    async fn ingest(&self, spec: IngestSpec) -> (Result<()>, v1::IngestProgress) {
        ingest_at(&self.router, spec).await
    }

    /// What is shown, without when its names last changed.
    fn shown(&self) -> Option<Snapshot> {
        let entry = self.router.parts().control.catalog.get(&path("a/b"));
        without_generations(entry.and_then(|entry| entry.snapshot.clone()))
    }
}

fn without_generations(snapshot: Option<Snapshot>) -> Option<Snapshot> {
    snapshot.map(|snapshot| Snapshot {
        generations: None,
        ..snapshot
    })
}

fn spec() -> IngestSpec {
    IngestSpec::of_entry(&entry("a/b"))
}

/// Ingests and waits for the end; gives the outcome and the last progress.
async fn ingest_at(router: &TestRouter, spec: IngestSpec) -> (Result<()>, v1::IngestProgress) {
    match ingest(actor(), router.parts(), spec).await {
        Ok(job) => ended(&job).await,
        Err(error) => (Err(error), v1::IngestProgress::default()),
    }
}

async fn ended(job: &Job) -> (Result<()>, v1::IngestProgress) {
    let mut seen = job.follow();
    let end = seen.wait_for(|state| state.outcome.is_some());
    let end = tokio::time::timeout(SOON, end).await.expect("it ends");
    let end = end.expect("the job lives").clone();
    (end.outcome.expect("it has one"), end.progress)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_adopts_and_holds_what_is_published() {
    let rig = Rig::start().await;
    let (outcome, progress) = rig.ingest(spec()).await;
    outcome.expect("ingested");
    assert_eq!(rig.shown(), Some(snapshot(1)));
    assert_eq!(rig.router.holders("a/b"), ["n1", "n2"]);
    for node in &rig.nodes {
        assert_eq!(node.commits("a/b"), [snapshot(1).commit]);
        let adopted = &node.adopted()[0];
        assert_eq!(adopted.fetchers, [rig.fetcher.address.as_str()]);
        assert!(adopted.peers.is_empty(), "no peer holds it yet");
    }
    let fetched = progress.fetch.expect("the fetch was told");
    assert_eq!((fetched.objects_done, fetched.objects_total), (3, 9));
    assert!(progress.replicas.iter().all(|replica| replica.durable));
    let told = progress.repository.expect("the entry was told");
    assert_eq!(told.holders.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_refuses_is_told_and_the_other_one_publishes() {
    let rig = Rig::start().await;
    rig.nodes[1].refuse(Some(Error::full("no room")));
    let (outcome, progress) = rig.ingest(spec()).await;
    outcome.expect("one node is enough");
    assert_eq!(rig.shown(), Some(snapshot(1)));
    assert_eq!(rig.router.holders("a/b"), ["n1"]);
    let of = |id: &str| {
        let mut replicas = progress.replicas.iter();
        replicas.find(|replica| replica.node_id == id).cloned()
    };
    assert!(of("n2").is_some_and(|replica| replica.error.contains("no room")));
    assert!(of("n1").is_some_and(|replica| replica.error.is_empty() && replica.durable));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_strong_consistency_a_refusal_leaves_readers_what_they_had() {
    let rig = Rig::start().await;
    rig.ingest(spec()).await.0.expect("the first commit");
    rig.fetcher.moves_to(snapshot(2));
    rig.nodes[1].refuse(Some(Error::full("no room")));
    let strong = IngestSpec {
        consistency: Consistency::Strong,
        ..spec()
    };
    let (outcome, _) = rig.ingest(strong.clone()).await;
    assert_eq!(outcome.expect_err("one node refused").kind, ErrorKind::Full);
    let control = &rig.router.parts().control;
    let entry = control.catalog.get(&path("a/b")).expect("it is there");
    assert_eq!(
        without_generations(entry.snapshot.clone()),
        Some(snapshot(1))
    );
    assert_eq!((entry.generation, entry.state), (1, RepositoryState::Ready));
    assert!(entry.last_error.contains("no room"), "{}", entry.last_error);
    assert_eq!(
        entry.consistency,
        Consistency::Eventual,
        "nothing came of it"
    );
    // The node that adopted it has a commit that is not published: it is noted, to be collected.
    let id = entry.storage_id();
    let retained = control.retained.of(Some(&id)).await.expect("the notes");
    assert_eq!(retained[&id][0].snapshot, snapshot(2));
    // The same request again, with room.
    rig.nodes[1].refuse(None);
    rig.ingest(strong).await.0.expect("both adopt now");
    assert_eq!(rig.shown(), Some(snapshot(2)));
    assert_eq!(rig.router.holders("a/b"), ["n1", "n2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ref_that_has_not_moved_is_not_fetched_again() {
    let rig = Rig::start().await;
    rig.ingest(spec()).await.0.expect("the first commit");
    let parts = rig.router.parts();
    let before = parts.control.catalog.get(&path("a/b")).expect("there");
    let job = refresh(actor(), parts, &before).await.expect("it begins");
    let (outcome, progress) = ended(&job).await;
    outcome.expect("looked");
    assert!(progress.unchanged);
    assert_eq!(progress.phase(), Phase::Done);
    assert_eq!(rig.fetcher.fetches(), 1);
    let after = parts.control.catalog.get(&path("a/b")).expect("there");
    assert_eq!(after.generation, before.generation);
    assert!(after.refreshed_at >= before.refreshed_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetcher_that_gives_another_commit_is_not_believed() {
    let rig = Rig::start().await;
    rig.fetcher.resolves(Ok(snapshot(3).commit));
    let (outcome, _) = rig.ingest(spec()).await;
    assert_eq!(
        outcome.expect_err("another commit").kind,
        ErrorKind::Corrupt
    );
    assert!(rig.nodes.iter().all(|node| node.adopted().is_empty()));
    let catalog = &rig.router.parts().control.catalog;
    let failed = catalog.get(&path("a/b")).expect("the entry stays");
    assert_eq!(failed.state, RepositoryState::Failed);
    // What failed before it had readers may be asked for again, from elsewhere too.
    rig.fetcher.moves_to(snapshot(3));
    let elsewhere = IngestSpec {
        source: SourceUrl::new("https://example.com/other/b").expect("a source"),
        ..spec()
    };
    rig.ingest(elsewhere).await.0.expect("ingested");
    assert_eq!(rig.shown(), Some(snapshot(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_remote_says_is_told_as_it_is() {
    let rig = Rig::start().await;
    let missing = Error::not_found("the source has no ref 'main'");
    rig.fetcher.resolves(Err(missing.clone()));
    let (outcome, _) = rig.ingest(spec()).await;
    let error = outcome.expect_err("no such ref");
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains(&missing.message), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_cannot_take_the_path_of_a_repository_that_readers_see() {
    let rig = Rig::start().await;
    rig.ingest(spec()).await.0.expect("the first one");
    let other = IngestSpec {
        source: SourceUrl::new("https://example.com/other/b").expect("a source"),
        ..spec()
    };
    let refused = rig.ingest(other).await.0.expect_err("it is taken");
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert!(refused.message.contains("delete it first"), "{refused}");
    assert_eq!(rig.shown(), Some(snapshot(1)));
    // Another ref of the same source is the next commit of the same repository.
    rig.fetcher.moves_to(snapshot(4));
    let next = IngestSpec {
        ref_name: RefName::new("next").expect("a ref"),
        ..spec()
    };
    rig.ingest(next).await.0.expect("it moves on");
    let catalog = &rig.router.parts().control.catalog;
    let entry = catalog.get(&path("a/b")).expect("there");
    assert_eq!((entry.ref_name.as_str(), entry.generation), ("next", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_lacks_members_says_which() {
    let router = TestRouter::start().await;
    let without_nodes = ingest_at(&router, spec()).await.0;
    let error = without_nodes.expect_err("no node");
    assert!(error.message.starts_with("no node is active"), "{error}");
    let _node = router.fake_node("n1").await;
    let error = ingest_at(&router, spec()).await.0.expect_err("no fetcher");
    assert!(
        error.message.starts_with("no fetcher answers (0 known)"),
        "{error}"
    );
    let strong = IngestSpec {
        consistency: Consistency::Strong,
        ..spec()
    };
    let error = ingest_at(&router, strong).await.0.expect_err("one node");
    assert!(
        error.message.contains("needs 2 active nodes, 1 are"),
        "{error}"
    );
    assert_eq!(error.kind, ErrorKind::Unavailable);
}
