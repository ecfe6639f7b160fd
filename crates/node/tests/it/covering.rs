//! How a copy comes to hold what another copy holds.

use std::time::Duration;

use futures::StreamExt;
use monofs_model::{ErrorKind, Oid};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_testkit::wait::wait_until_async;

use crate::fake::{FakeMode, FakeServer};
use crate::rig::{AdoptionExt, Rig, SOON, Source, kind};

/// A node that holds the records of `main` and no contents.
async fn lazy(source: &Source) -> Rig {
    let records = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().lazy().with_peer(&records))
        .await
        .unwrap();
    rig
}

fn cover_of(source: &Source, peers: &[&FakeServer]) -> v1::CoverRequest {
    v1::CoverRequest {
        storage_id: source.id().to_string(),
        commit: source.snapshot("main").commit,
        peers: peers.iter().map(|peer| peer.address()).collect(),
        bytes_per_second_max: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cover_takes_what_the_peer_has_and_says_so_last() {
    let source = Source::small();
    let peer = source.server(FakeMode::Serve).await;
    let rig = lazy(&source).await;
    rig.adopt(source.adoption().lazy()).await.unwrap();
    let messages = rig.cover(cover_of(&source, &[&peer])).await.unwrap();
    let (last, before) = messages.split_last().unwrap();
    let snapshot = source.snapshot("main");
    assert!(last.covered);
    assert_eq!(last.blobs_done, snapshot.blobs);
    assert_eq!(last.bytes_done, snapshot.bytes);
    assert!(before.iter().all(|message| !message.covered));
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.hydrated_blobs, snapshot.blobs);
    assert_eq!(rig.verify().await, Vec::<String>::new());

    // A second cover takes nothing.
    let asked = peer.blob_requests();
    let again = rig.cover(cover_of(&source, &[&peer])).await.unwrap();
    assert!(again.last().unwrap().covered);
    assert_eq!(peer.blob_requests(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_peers_a_cover_confirms_that_the_commit_is_held() {
    let source = Source::small();
    let rig = lazy(&source).await;
    let held = rig.cover(cover_of(&source, &[])).await.unwrap();
    assert!(held.last().unwrap().covered);

    let mut other_commit = cover_of(&source, &[]);
    other_commit.commit = oid_bytes(&Oid::from_bytes(&[3; 20]).unwrap());
    assert_eq!(kind(rig.cover(other_commit).await), ErrorKind::NotHeld);
    let unknown = cover_of(&Source::small().at("h/unknown"), &[]);
    assert_eq!(kind(rig.cover(unknown).await), ErrorKind::NotHeld);
    let mut no_commit = cover_of(&source, &[]);
    no_commit.commit = vec![1, 2, 3].into();
    assert_eq!(kind(rig.cover(no_commit).await), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_holds_nothing_has_nothing_to_cover() {
    let source = Source::small();
    let peer = source.server(FakeMode::Empty).await;
    let rig = lazy(&source).await;
    let messages = rig.cover(cover_of(&source, &[&peer])).await.unwrap();
    assert!(messages.last().unwrap().covered);
    assert_eq!(peer.blob_requests(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cover_fails_when_a_peer_does_not_give_what_it_listed() {
    let source = Source::small();
    let rig = lazy(&source).await;
    for (bad, expected) in [
        (FakeMode::Fail, ErrorKind::Unavailable),
        (FakeMode::Corrupt, ErrorKind::Corrupt),
        (FakeMode::LeaveOut, ErrorKind::Unavailable),
        (FakeMode::BreakAfter(2), ErrorKind::Unavailable),
    ] {
        let peer = source.server(bad).await;
        let covered = rig.cover(cover_of(&source, &[&peer])).await;
        assert_eq!(kind(covered), expected, "{bad:?}");
    }
    let mut gone = source.server(FakeMode::Serve).await;
    gone.stop().await;
    let covered = rig.cover(cover_of(&source, &[&gone])).await;
    assert_eq!(kind(covered), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_lists_is_what_it_holds() {
    let source = Source::small();
    let rig = lazy(&source).await;
    let fetcher = source.server(FakeMode::Serve).await;
    rig.adopt(source.adoption().lazy().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.read(&source, source.spans()[..5].to_vec())
        .await
        .unwrap();
    let request = v1::ListBlobsRequest {
        storage_id: source.id().to_string(),
        commit: source.snapshot("main").commit,
    };
    let mut stream = rig.node().list_blobs(request).await.unwrap().into_inner();
    let mut listed = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        listed.extend(message.blobs.into_iter().map(|blob| blob.oid));
    }
    listed.sort();
    let expected: Vec<_> = source.spans()[..5].iter().map(|s| s.oid.clone()).collect();
    assert_eq!(listed, expected);

    let unknown = v1::ListBlobsRequest {
        storage_id: source.id().to_string(),
        commit: vec![7; 20].into(),
    };
    let mut stream = rig.node().list_blobs(unknown).await.unwrap().into_inner();
    let refused = stream.message().await.map_err(monofs_rpc::from_status);
    assert_eq!(kind(refused), ErrorKind::NotHeld);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cover_of_a_repository_that_is_dropped_meanwhile_is_no_cover() {
    let source = Source::small();
    let peer = source.server(FakeMode::Gated).await;
    let rig = lazy(&source).await;
    let drops = async {
        wait_until_async("contents are taken", SOON, || async {
            peer.blob_requests() > 0
        })
        .await;
        let dropped = v1::DropRequest {
            storage_id: source.id().to_string(),
            only_commits: vec![oid_bytes(&source.repo.rev("main"))],
            keep_others: false,
        };
        assert!(rig.drop_repository(dropped).await.unwrap());
        peer.admit(1000);
    };
    let (covered, ()) = tokio::join!(rig.cover(cover_of(&source, &[&peer])), drops);
    assert_eq!(kind(covered), ErrorKind::NotHeld);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_cover_shows_that_it_goes_on_and_ends_with_its_caller() {
    let source = Source::small();
    let peer = source.server(FakeMode::Gated).await;
    let rig = lazy(&source).await;
    let request = cover_of(&source, &[&peer]);
    let mut stream = rig.node().cover(request).await.unwrap().into_inner();
    for _ in 0..2 {
        let message = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        assert!(!message.unwrap().unwrap().unwrap().covered);
    }
    drop(stream);
    // What it claimed is free again: a read asks for itself and need not wait for the peer.
    let fetcher = source.server(FakeMode::Serve).await;
    rig.adopt(source.adoption().lazy().with_fetcher(&fetcher))
        .await
        .unwrap();
    let read = tokio::time::timeout(SOON, rig.read(&source, source.spans())).await;
    assert_eq!(read.unwrap().unwrap().missing, []);
}
