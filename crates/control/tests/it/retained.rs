//! Snapshots that were replaced, and the commits that entries showed.

use futures::FutureExt;
use monofs_control::clock;
use monofs_model::{NodeId, Repository};
use monofs_proto::convert::oid_bytes;

use crate::rig::{SharedStore, TestRouter, actor, entry, node, path, snapshot};

async fn created(router: &TestRouter, at: &str) {
    router
        .control
        .entries
        .create(actor(), entry(at))
        .await
        .unwrap();
}

async fn publish(router: &TestRouter, at: &str, number: u64) -> std::sync::Arc<Repository> {
    let entry = router.control.catalog.require(at).unwrap();
    router
        .control
        .entries
        .flip(actor(), &entry, &snapshot(number), &node("a"))
        .await
        .unwrap()
}

async fn expired(router: &TestRouter, before: i64) -> Vec<(String, u64)> {
    let expired = router.control.retained.expired(before).await.unwrap();
    let shown = expired
        .iter()
        .map(|(retained, _)| (retained.path.to_string(), retained.snapshot.blobs));
    shown.collect()
}

#[tokio::test]
async fn a_replaced_snapshot_is_retained_with_its_holders_until_it_is_forgotten() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let (control, at) = (&router.control, path("h/x"));
    created(&router, "h/x").await;
    let first = publish(&router, "h/x", 1).await;
    control
        .entries
        .add_holder(actor(), &at, first.generation, &node("b"))
        .await
        .unwrap();
    let far = clock::now() + 1000;
    assert_eq!(expired(&router, far).await, []);
    publish(&router, "h/x", 2).await;
    let retained = control.retained.expired(far).await.unwrap();
    let [(snapshot, revision)] = &retained[..] else {
        panic!("{retained:?}")
    };
    assert_eq!(
        (snapshot.snapshot.blobs, &snapshot.holders[..]),
        (1, &[node("a"), node("b")][..])
    );
    assert_eq!(snapshot.generation, 1);
    let id = at.storage_id();
    assert!(control.retained.is_on(&id, &node("b")).await.unwrap());
    assert!(!control.retained.is_on(&id, &node("c")).await.unwrap());
    let other = path("h/y").storage_id();
    assert!(!control.retained.is_on(&other, &node("b")).await.unwrap());
    control.retained.forget(snapshot, *revision).await.unwrap();
    assert_eq!(expired(&router, far).await, []);
    assert!(!control.retained.is_on(&id, &node("b")).await.unwrap());
}

#[tokio::test]
async fn the_store_is_not_asked_while_nothing_can_have_expired() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    publish(&router, "h/x", 1).await;
    let now = clock::now();
    expired(&router, now - 1000).await;
    let scans = router.faults.scans();
    assert_eq!(expired(&router, now + 1000).await, []);
    assert_eq!(
        router.faults.scans(),
        scans,
        "it is known that there is none"
    );
    publish(&router, "h/x", 2).await;
    let scans = router.faults.scans();
    assert_eq!(expired(&router, now - 1000).await, [], "it is too young");
    assert_eq!(router.faults.scans(), scans);
    let expected = [("h/x".to_owned(), 1)];
    assert_eq!(expired(&router, now + 1000).await, expected);
    assert_eq!(router.faults.scans(), scans + 1);
}

#[tokio::test]
async fn a_look_that_is_given_up_or_fails_does_not_hide_what_expired() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    for number in [1, 2] {
        publish(&router, "h/x", number).await;
    }
    let far = clock::now() + 1000;
    let given_up = router.control.retained.expired(far).now_or_never();
    assert!(given_up.is_none(), "the store is being asked");
    assert_eq!(expired(&router, far).await, [("h/x".to_owned(), 1)]);
    router.faults.set_away(true);
    router.control.retained.expired(far).await.unwrap_err();
    router.faults.set_away(false);
    assert_eq!(expired(&router, far).await, [("h/x".to_owned(), 1)]);
}

#[tokio::test]
async fn what_another_router_retained_is_found_after_a_start_and_through_the_watch() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    created(&first, "h/x").await;
    created(&first, "h/y").await;
    for number in [1, 2] {
        publish(&first, "h/x", number).await;
    }
    let second = store.router("second").await;
    let far = clock::now() + 1000;
    assert_eq!(expired(&second, far).await, [("h/x".to_owned(), 1)]);
    for number in [5, 6] {
        publish(&first, "h/y", number).await;
    }
    second.catches_up(&store).await;
    assert_eq!(
        expired(&second, far).await.len(),
        2,
        "it is not passed over because of what was known before"
    );
}

#[tokio::test]
async fn a_snapshot_that_was_replaced_again_is_not_forgotten() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    for number in [1, 2] {
        publish(&router, "h/x", number).await;
    }
    let far = clock::now() + 1000;
    let retained = router.control.retained.expired(far).await.unwrap();
    let (old, revision) = &retained[0];
    // The same commit is shown and replaced once more.
    for number in [1, 3] {
        publish(&router, "h/x", number).await;
    }
    router
        .control
        .retained
        .forget(old, *revision)
        .await
        .unwrap();
    let mut left = expired(&router, far).await;
    left.sort();
    assert_eq!(left, [("h/x".to_owned(), 1), ("h/x".to_owned(), 2)]);
}

#[tokio::test]
async fn a_commit_that_was_only_given_is_noted_as_itself_whatever_the_entry_shows() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let far = clock::now() + 1000;
    // A first ingest that failed after a node had adopted the commit: the entry shows none.
    created(&router, "h/new").await;
    // The same of an entry that shows another commit.
    created(&router, "h/old").await;
    publish(&router, "h/old", 1).await;
    for (name, number) in [("h/new", 3), ("h/old", 4)] {
        let entry = router.control.catalog.get(&path(name)).unwrap();
        let entries = &router.control.entries;
        let (given, nodes) = (snapshot(number), [node("b")]);
        let noted = entries.note_given(actor(), &entry.path, &given, &nodes);
        noted.await.unwrap();
        let id = entry.storage_id();
        let noted = router.control.retained.of(Some(&id)).await.unwrap();
        assert_eq!(noted[&id][0].snapshot, given);
        assert_eq!(noted[&id][0].holders, [node("b")]);
    }
    // Each is forgotten under its own name.
    for (retained, revision) in router.control.retained.expired(far).await.unwrap() {
        let forgotten = router.control.retained.forget(&retained, revision);
        forgotten.await.unwrap();
    }
    assert_eq!(expired(&router, far).await, []);
}

#[tokio::test]
async fn a_removed_entry_leaves_its_snapshot_readable_and_takes_its_history_along() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    publish(&router, "h/x", 1).await;
    let at = path("h/x");
    assert_eq!(router.control.published.of(&at).await.unwrap().len(), 1);
    router.control.entries.remove(actor(), &at).await.unwrap();
    let far = clock::now() + 1000;
    assert_eq!(expired(&router, far).await, [("h/x".to_owned(), 1)]);
    assert_eq!(router.control.published.of(&at).await.unwrap(), []);
}

#[tokio::test]
async fn the_last_commits_that_an_entry_showed_are_kept_with_the_router_that_showed_them() {
    let store = SharedStore::open().await;
    let routers = [store.router("first").await, store.router("second").await];
    created(&routers[0], "h/x").await;
    for number in 1..=25 {
        let router = &routers[number as usize % 2];
        router.catches_up(&store).await;
        publish(router, "h/x", number).await;
    }
    let shown = routers[0].control.published.of(&path("h/x")).await.unwrap();
    let expected: Vec<_> = (6..=25).collect();
    let numbers: Vec<u64> = shown.iter().map(|shown| shown.blobs).collect();
    assert_eq!(numbers, expected, "the oldest go first");
    for shown in &shown {
        let router = ["first", "second"][shown.blobs as usize % 2];
        assert_eq!(shown.router_id, router);
        assert_eq!(shown.commit, oid_bytes(&snapshot(shown.blobs).commit));
        assert_eq!(shown.generation, shown.blobs);
    }
}

/// The nodes that the row of this snapshot names; nothing when there is no row.
async fn named(router: &TestRouter, at: &str, number: u64) -> Vec<NodeId> {
    let rows = router.control.retained.of(None).await.unwrap();
    let rows = rows.get(&path(at).storage_id()).into_iter().flatten();
    rows.filter(|row| row.snapshot == snapshot(number))
        .flat_map(|row| row.holders.clone())
        .collect()
}

#[tokio::test]
async fn nodes_that_are_given_a_commit_are_named_until_they_are_holders() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    let at = path("h/x");
    let entries = &router.control.entries;
    for given in [&["a", "b"][..], &["c"]] {
        let given: Vec<NodeId> = given.iter().map(|id| node(id)).collect();
        entries
            .note_given(actor(), &at, &snapshot(1), &given)
            .await
            .unwrap();
    }
    assert_eq!(named(&router, "h/x", 1).await, ["a", "b", "c"].map(node));
    let shown = publish(&router, "h/x", 1).await;
    assert_eq!(named(&router, "h/x", 1).await, ["b", "c"].map(node));
    for holder in ["b", "c"] {
        entries
            .add_holder(actor(), &at, shown.generation, &node(holder))
            .await
            .unwrap();
    }
    assert_eq!(named(&router, "h/x", 1).await, []);
    assert_eq!(expired(&router, clock::now() + 1000).await, []);
}

#[tokio::test]
async fn a_commit_that_is_replaced_again_is_retained_on_its_earlier_holders_too() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    created(&router, "h/x").await;
    let at = path("h/x");
    let first = publish(&router, "h/x", 1).await;
    let entries = &router.control.entries;
    entries
        .add_holder(actor(), &at, first.generation, &node("b"))
        .await
        .unwrap();
    for number in [2, 1, 2] {
        publish(&router, "h/x", number).await;
    }
    assert_eq!(named(&router, "h/x", 1).await, ["a", "b"].map(node));
    entries.remove(actor(), &at).await.unwrap();
    assert_eq!(named(&router, "h/x", 2).await, [node("a")]);
}
