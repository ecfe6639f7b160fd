//! How a repository, or what of it is not needed any more, goes.

use monofs_model::limits::CHUNK_BYTES;
use monofs_model::{ErrorKind, Oid};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;

use crate::fake::FakeMode;
use crate::rig::{AdoptionExt, Rig, SOON, Source, decoded, kind};

fn drop_of(source: &Source, only: &[Oid]) -> v1::DropRequest {
    v1::DropRequest {
        storage_id: source.id().to_string(),
        only_commits: only.iter().map(oid_bytes).collect(),
        keep_others: false,
    }
}

/// All of a source with one commit.
fn drop_all_of(source: &Source) -> v1::DropRequest {
    drop_of(source, &[source.repo.rev("main")])
}

/// Two commits; the second one has other contents in one file and one directory less.
fn two_commits() -> Source {
    let repo = Source::small().repo;
    repo.commit(|c| {
        c.file("d0/e0/f0", "other contents").delete("d3");
    });
    Source::new(repo)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_repository_is_gone_and_can_be_adopted_again() {
    let source = Source::small();
    let other = Source::small().at("h/other");
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    for source in [&source, &other] {
        rig.adopt(source.adoption().with_fetcher(&fetcher))
            .await
            .unwrap();
        rig.wait_hydrated(&source.id()).await;
    }
    assert!(rig.drop_repository(drop_all_of(&source)).await.unwrap());
    assert_eq!(kind(rig.held(&source.id()).await), ErrorKind::NotHeld);
    let read = rig.read_held(&source, source.spans()).await;
    assert_eq!(kind(read), ErrorKind::NotHeld);
    let left = rig.list_held().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].storage_id, other.id().to_string());

    // Dropping is idempotent, and no obstacle to a new copy.
    assert!(!rig.drop_repository(drop_all_of(&source)).await.unwrap());
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_holds_another_commit_than_those_named_is_not_dropped() {
    let source = two_commits();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    for revision in ["main~", "main"] {
        let request = source.adoption_of(revision).with_fetcher(&fetcher);
        rig.adopt(request).await.unwrap();
    }
    let old = source.repo.rev("main~");
    let new = source.repo.rev("main");
    let refused = rig.drop_repository(drop_of(&source, &[old])).await;
    assert_eq!(kind(refused), ErrorKind::Refused);
    assert_eq!(rig.held(&source.id()).await.unwrap().snapshots.len(), 2);
    let named = rig.drop_repository(drop_of(&source, &[old, new])).await;
    assert!(named.unwrap());
    // Nothing that is held speaks against a repository that is not there.
    let gone = rig.drop_repository(drop_of(&source, &[old])).await;
    assert!(!gone.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_in_the_middle_of_a_file_reads_it_to_its_end_after_a_drop() {
    let repo = Repo::new();
    let contents = pattern(24 * CHUNK_BYTES);
    repo.commit(|c| {
        c.file("large", &contents);
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;

    let request = v1::GetBlobsRequest {
        storage_id: source.id().to_string(),
        spans: source.spans(),
        held_only: true,
        ..Default::default()
    };
    let mut stream = rig.content().get_blobs(request).await.unwrap().into_inner();
    let mut chunks = stream.message().await.unwrap().unwrap().chunks;
    assert!(rig.drop_repository(drop_all_of(&source)).await.unwrap());
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.missing.len(), 0);
        chunks.extend(message.chunks);
    }
    assert!(decoded(&chunks) == contents);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_a_commit_keeps_all_of_the_others_and_collects_the_rest() {
    let source = two_commits();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    for revision in ["main~", "main"] {
        let request = source.adoption_of(revision).with_fetcher(&fetcher);
        rig.adopt(request).await.unwrap();
    }
    rig.wait_hydrated(&source.id()).await;
    let report = rig
        .drop_others(&source.id(), &[source.repo.rev("main")])
        .await
        .unwrap();
    assert!(report.trees_dropped > 0);
    assert!(report.chunks_dropped > 0);

    let held = rig.held(&source.id()).await.unwrap();
    let snapshot = source.snapshot("main");
    assert_eq!(held.snapshots, std::slice::from_ref(&snapshot));
    assert_eq!(held.trees, snapshot.trees);
    assert_eq!(held.blobs, snapshot.blobs);
    assert_eq!(held.hydrated_blobs, snapshot.blobs);
    assert_eq!(rig.verify().await, Vec::<String>::new());
    // Once more there is nothing to collect.
    let again = rig
        .drop_others(&source.id(), &[source.repo.rev("main")])
        .await;
    assert_eq!(again.unwrap(), v1::DropResponse::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_waits_for_an_adoption_under_way() {
    let repo = two_commits().repo;
    repo.commit(|c| {
        c.file("d0/e0/f0", "the newest contents").delete("d2");
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    for revision in ["main~2", "main~"] {
        let old = source.adoption_of(revision).with_fetcher(&fetcher);
        rig.adopt(old).await.unwrap();
    }
    rig.wait_idle().await;

    // The records of the new commit arrive one by one; no snapshot reaches them yet.
    fetcher.set(FakeMode::Gated);
    let new = source.adoption().lazy().with_fetcher(&fetcher);
    let oldest = v1::DropRequest {
        keep_others: true,
        ..drop_of(&source, &[source.repo.rev("main~2")])
    };
    let before = fetcher.tree_requests();
    let collects = async {
        wait_until_async("the adoption is under way", SOON, || async {
            fetcher.tree_requests() > before
        })
        .await;
        let opens = async { fetcher.admit(1000) };
        tokio::join!(rig.drop_repository(oldest), opens).0
    };
    let (adopted, collected) = tokio::join!(rig.adopt(new), collects);
    adopted.unwrap();
    assert!(collected.unwrap());
    assert_eq!(rig.held(&source.id()).await.unwrap().snapshots.len(), 2);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_named_is_not_dropped() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    let all = rig.drop_repository(drop_of(&source, &[])).await;
    assert_eq!(kind(all), ErrorKind::Refused);
    let nothing = v1::DropRequest {
        keep_others: true,
        ..drop_of(&source, &[])
    };
    assert!(!rig.drop_repository(nothing).await.unwrap());
    // Which commits to keep, older routers said: others may be ones that they do not know of.
    for kept in [&[][..], &[source.repo.rev("main")]] {
        let retained = rig.retain(&source.id(), kept).await;
        assert_eq!(kind(retained), ErrorKind::Refused);
    }
    let no_id = v1::DropRequest {
        storage_id: "..".to_owned(),
        ..Default::default()
    };
    assert_eq!(kind(rig.drop_repository(no_id).await), ErrorKind::Invalid);
    let no_commit = v1::DropRequest {
        only_commits: vec![vec![1; 7].into()],
        ..drop_of(&source, &[])
    };
    assert_eq!(
        kind(rig.drop_repository(no_commit).await),
        ErrorKind::Invalid
    );
    assert_eq!(rig.held(&source.id()).await.unwrap().snapshots.len(), 1);
}
