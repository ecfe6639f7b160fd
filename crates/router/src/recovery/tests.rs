//! Whom the leader asks what it holds, how often, and what follows from the answers.

use monofs_testkit::wait::wait_until;

use crate::fixture::peers::FakeNode;
use crate::fixture::{SOON, TestRouter, path, snapshot};

/// Announces `node` and waits until it was asked what it holds.
async fn audited(router: &TestRouter, id: &str, node: &FakeNode) {
    router.node_at(id, &node.address).await;
    wait_until("the node was asked what it holds", SOON, || {
        let row = router.parts().control.tables.audits.get(id);
        row.is_some_and(|row| row.at != 0)
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_copy_that_is_unsettled_is_asked_once_in_a_round() {
    let router = TestRouter::start().await;
    router.repository("a/b", &["n9"], 1).await;
    let node = FakeNode::start("n1").await;
    node.put("a/b", &snapshot(2));
    let ingests = &router.parts().work.ingests;
    let here = path("a/b");
    let busy = ingests.keep_away(&router.parts().control, &here).await;
    let busy = busy.expect("no fault").expect("nothing runs there");
    audited(&router, "n1", &node).await;
    for id in ["n2", "n3", "n4"] {
        audited(&router, id, &FakeNode::start(id).await).await;
    }
    assert_eq!(node.listings(), 1);
    busy.release().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_answer_is_asked_once_in_a_round() {
    let router = TestRouter::start().await;
    let node = FakeNode::start("n1").await;
    node.put("a/b", &snapshot(2));
    audited(&router, "n1", &node).await;
    // It is known to the catalogue from now on, so that it is looked at again.
    node.set_readable("a/b", false);
    router.repository("a/b", &["n9"], 1).await;
    for id in ["n2", "n3", "n4"] {
        audited(&router, id, &FakeNode::start(id).await).await;
    }
    assert!(node.listings() <= 2, "{}", node.listings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_is_removed_only_if_it_says_that_it_lost_the_commit() {
    let router = TestRouter::start().await;
    let node = FakeNode::start("n1").await;
    for at in ["a/held", "a/unlisted", "a/lost"] {
        router.repository(at, &["n1"], 1).await;
    }
    node.put("a/held", &snapshot(1));
    node.put("a/unlisted", &snapshot(1));
    node.set_readable("a/unlisted", false);
    audited(&router, "n1", &node).await;
    let catalog = &router.parts().control.catalog;
    let holders = |at: &str| catalog.get(&path(at)).expect("there").holders.len();
    assert_eq!(holders("a/lost"), 0);
    assert_eq!(holders("a/held"), 1);
    assert_eq!(holders("a/unlisted"), 1, "its store cannot be opened now");
}
