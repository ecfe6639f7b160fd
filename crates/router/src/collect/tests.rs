//! What may be collected, and when: one round at a time.

use monofs_proto::v1::catalog_client::CatalogClient;
use monofs_proto::v1::watch_request::Message;
use monofs_testkit::wait::wait_until;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::fixture::peers::FakeNode;
use crate::fixture::{SOON, TestRouter, actor, node_id, path, snapshot};

/// A router that collects at once, and two nodes that hold the first commit of `a/b`.
async fn rig() -> (TestRouter, [FakeNode; 2]) {
    let no_grace = |config: &mut crate::Config| {
        config.snapshot_grace = Duration::ZERO;
        config.reader_linger = Some(Duration::ZERO);
    };
    let router = TestRouter::start_with(no_grace).await;
    let nodes = [router.fake_node("n1").await, router.fake_node("n2").await];
    for node in &nodes {
        node.put("a/b", &snapshot(1));
    }
    router.repository("a/b", &["n1", "n2"], 1).await;
    (router, nodes)
}

/// Both nodes adopt another commit, and readers see it.
async fn publish(router: &TestRouter, nodes: &[FakeNode; 2], byte: u8) {
    for node in nodes {
        if !node.commits("a/b").contains(&snapshot(byte).commit) {
            node.put("a/b", &snapshot(byte));
        }
    }
    let control = &router.parts().control;
    let entry = control.catalog.get(&path("a/b")).expect("it is there");
    let next = snapshot(byte);
    let holders = [node_id("n1"), node_id("n2")];
    let entries = &control.entries;
    let flipped = entries.flip(actor(), &entry, &next, &holders[0]).await;
    let flipped = flipped.expect("published");
    let add = entries.add_holder(actor(), &flipped.path, flipped.generation, &holders[1]);
    add.await.expect("recorded");
}

async fn retained(router: &TestRouter) -> usize {
    let retained = router.parts().control.retained.of(None).await;
    retained.expect("the notes").values().map(Vec::len).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_commit_goes_when_every_client_has_acknowledged_the_next_one() {
    let (router, nodes) = rig().await;
    let parts = router.parts();
    // A client that saw the first commit.
    let (channel, _serving) = router.serve().await;
    let (say, said) = mpsc::channel(4);
    let hello = v1::WatchHello {
        client_id: "c1".into(),
        ..Default::default()
    };
    let message = |message| v1::WatchRequest {
        message: Some(message),
    };
    say.send(message(Message::Hello(hello)))
        .await
        .expect("sent");
    let watch = CatalogClient::new(channel)
        .watch(ReceiverStream::new(said))
        .await;
    let _hears = watch.expect("it is let in").into_inner();
    publish(&router, &nodes, 2).await;
    round(parts).await.expect("a round");
    assert!(
        nodes.iter().all(|node| node.dropped().is_empty()),
        "it may still read the first one"
    );
    // It has seen the second one.
    let position = parts.control.catalog.position();
    let ack = v1::Position {
        epoch: position.epoch,
        revision: position.revision,
    };
    say.send(message(Message::Ack(ack))).await.expect("sent");
    wait_until("the acknowledgement arrives", SOON, || {
        parts.work.watchers.acknowledged_by_all() == Some(position.revision)
    });
    round(parts).await.expect("a round");
    let id = path("a/b").storage_id().to_string();
    for node in &nodes {
        assert_eq!(node.dropped(), [(id.clone(), vec![snapshot(1).commit])]);
        assert_eq!(node.commits("a/b"), [snapshot(2).commit]);
    }
    assert_eq!(retained(&router).await, 0, "nothing is left to collect");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_before_the_grace_is_over() {
    let router = TestRouter::start().await;
    let nodes = [router.fake_node("n1").await, router.fake_node("n2").await];
    nodes.iter().for_each(|node| node.put("a/b", &snapshot(1)));
    router.repository("a/b", &["n1", "n2"], 1).await;
    publish(&router, &nodes, 2).await;
    round(router.parts()).await.expect("a round");
    assert!(nodes.iter().all(|node| node.dropped().is_empty()));
    assert_eq!(retained(&router).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_commits_stay_while_no_holder_has_the_one_that_readers_see() {
    let (router, nodes) = rig().await;
    publish(&router, &nodes, 2).await;
    // As after a restore of an older disk: the nodes have the first commit only.
    for node in &nodes {
        node.lose("a/b");
        node.put("a/b", &snapshot(1));
    }
    round(router.parts()).await.expect("a round");
    assert!(nodes.iter().all(|node| node.dropped().is_empty()));
    assert_eq!(retained(&router).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_published_again_stays_and_its_note_goes() {
    let (router, nodes) = rig().await;
    publish(&router, &nodes, 2).await;
    publish(&router, &nodes, 1).await;
    round(router.parts()).await.expect("a round");
    for node in &nodes {
        assert_eq!(node.commits("a/b"), [snapshot(1).commit]);
    }
    assert_eq!(retained(&router).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_adopted_and_never_published_goes() {
    let (router, nodes) = rig().await;
    nodes[0].put("a/b", &snapshot(2));
    let entries = &router.parts().control.entries;
    let (given, to) = (snapshot(2), [node_id("n1")]);
    let noted = entries.note_given(actor(), &path("a/b"), &given, &to).await;
    noted.expect("noted");
    round(router.parts()).await.expect("a round");
    assert_eq!(nodes[0].commits("a/b"), [snapshot(1).commit]);
    assert!(nodes[1].dropped().is_empty());
    assert_eq!(retained(&router).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_repository_showed_is_dropped_by_those_that_held_it() {
    let (router, nodes) = rig().await;
    let control = &router.parts().control;
    let removed = control.entries.remove(actor(), &path("a/b")).await;
    removed.expect("deleted");
    // A node that is gone for good has nothing to drop and holds nothing up.
    round(router.parts()).await.expect("a round");
    assert!(nodes.iter().all(|node| node.commits("a/b").is_empty()));
    assert_eq!(retained(&router).await, 0);
}

const LINGER: Duration = Duration::from_secs(60);

#[test]
fn a_router_that_left_holds_collection_up_for_a_while() {
    let mut routers = RouterPresence::new(LINGER);
    let start = Instant::now();
    let mut settled = |present: &[&str], seconds| {
        let now = start + Duration::from_secs(seconds);
        routers.are_settled(present.iter().copied(), now)
    };
    assert!(!settled(&["a", "b"], 1), "who left before is not known");
    assert!(settled(&["a", "b"], 61));
    assert!(!settled(&["a"], 62));
    assert!(settled(&["a", "b"], 70), "it is back with what it knows");
    assert!(!settled(&["a"], 71));
    assert!(!settled(&["a"], 129));
    assert!(settled(&["a"], 131));
    assert!(settled(&["a", "c"], 132), "a new one has no clients yet");
}
