//! What an ingest that does not end well leaves on nodes, and what is taken away again.

use monofs_model::{Consistency, NodeId};
use monofs_testkit::wait::wait_until_async;

use crate::collect;
use crate::fixture::peers::{FakeAdoption, FakeFetcher, FakeNode};
use crate::fixture::{SOON, TestRouter, actor, entry, node_id, path, snapshot};
use crate::ingest::{self, IngestSpec};

/// A router, a fetcher that has commit 2 of everything, and the nodes n1 and n2.
struct Ingesting {
    router: TestRouter,
    nodes: [FakeNode; 2],
    _fetcher: FakeFetcher,
}

impl Ingesting {
    async fn start() -> Self {
        let router = TestRouter::start_with(|config| {
            config.snapshot_grace = std::time::Duration::ZERO;
            config.reader_linger = Some(std::time::Duration::ZERO);
        })
        .await;
        let fetcher = router.fake_fetcher(snapshot(2)).await;
        let nodes = [router.fake_node("n1").await, router.fake_node("n2").await];
        Self {
            router,
            nodes,
            _fetcher: fetcher,
        }
    }

    /// Ingests `at`, with all copies before the flip. Whether that succeeded.
    async fn ingest(&self, at: &str) -> bool {
        let spec = IngestSpec {
            consistency: Consistency::Strong,
            ..IngestSpec::of_entry(&entry(at))
        };
        let job = ingest::ingest(actor(), self.router.parts(), spec).await;
        let mut followed = job.expect("it may run").follow();
        let ended = followed.wait_for(|seen| seen.outcome.is_some()).await;
        let outcome = ended.expect("it ends").outcome.clone();
        outcome.expect("it ended").is_ok()
    }

    /// The nodes that are noted to have been given commit 2.
    async fn noted(&self, at: &str) -> Vec<NodeId> {
        let retained = self.router.parts().control.retained.of(None).await;
        let rows = retained.expect("it can be read");
        let rows = rows.get(&path(at).storage_id()).into_iter().flatten();
        rows.filter(|row| row.snapshot == snapshot(2))
            .flat_map(|row| row.holders.clone())
            .collect()
    }

    async fn collect(&self) {
        let collected = collect::round(self.router.parts()).await;
        collected.expect("no fault");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_ingest_takes_away_what_it_gave_and_leaves_what_was_there_before() {
    let ingesting = Ingesting::start().await;
    let [before, given] = &ingesting.nodes;
    before.put("a/b", &snapshot(2));
    for node in [before, given] {
        node.set_adoption(FakeAdoption::FailsAfterwards);
    }
    assert!(!ingesting.ingest("a/b").await);
    assert_eq!(given.commits("a/b"), [snapshot(2).commit]);
    assert_eq!(ingesting.noted("a/b").await, [node_id("n2")]);
    ingesting.collect().await;
    assert_eq!(before.commits("a/b"), [snapshot(2).commit]);
    assert_eq!(given.commits("a/b"), []);
    assert_eq!(ingesting.noted("a/b").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_refresh_takes_from_each_node_only_what_names_it() {
    let ingesting = Ingesting::start().await;
    let [first, second] = &ingesting.nodes;
    let at = path("a/b");
    // Replaced on the first node, which has what will be given for another reason.
    ingesting.router.repository("a/b", &["n1"], 1).await;
    let control = &ingesting.router.parts().control;
    let entry = control.catalog.get(&at).expect("there");
    let entries = &control.entries;
    let next = entries
        .flip(actor(), &entry, &snapshot(3), &node_id("n2"))
        .await;
    next.expect("published");
    first.put(at.as_str(), &snapshot(1));
    first.put(at.as_str(), &snapshot(2));
    second.put(at.as_str(), &snapshot(3));
    for node in [first, second] {
        node.set_adoption(FakeAdoption::FailsAfterwards);
    }
    assert!(!ingesting.ingest("a/b").await);
    ingesting.collect().await;
    assert_eq!(first.commits(at.as_str()), [snapshot(2).commit]);
    assert_eq!(second.commits(at.as_str()), [snapshot(3).commit]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_be_asked_before_is_not_named() {
    let ingesting = Ingesting::start().await;
    let [unreadable, given] = &ingesting.nodes;
    unreadable.set_readable("a/b", false);
    for node in [unreadable, given] {
        node.set_adoption(FakeAdoption::FailsAfterwards);
    }
    assert!(!ingesting.ingest("a/b").await);
    assert_eq!(ingesting.noted("a/b").await, [node_id("n2")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nodes_are_noted_before_they_are_given_a_commit_and_no_more_when_they_are_holders() {
    let ingesting = Ingesting::start().await;
    ingesting.nodes[0].set_adoption(FakeAdoption::Stalls);
    let runs = ingesting.ingest("a/b");
    let given = wait_until_async("a node has taken the commit", SOON, || async {
        !ingesting.nodes[0].commits("a/b").is_empty()
    });
    tokio::select! {
        _ = runs => panic!("a node has not answered"),
        () = given => {}
    }
    assert_eq!(ingesting.noted("a/b").await, ["n1", "n2"].map(node_id));

    let again = Ingesting::start().await;
    assert!(again.ingest("a/b").await);
    assert_eq!(again.noted("a/b").await, []);
    let entry = again.router.parts().control.catalog.get(&path("a/b"));
    assert_eq!(entry.expect("there").holders, ["n1", "n2"].map(node_id));
}
