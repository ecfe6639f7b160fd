//! How contents come to a node in the background.

use std::time::{Duration, Instant};

use monofs_model::limits::CHUNK_BYTES;
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::disk::SmallDisk;
use monofs_testkit::repo::pattern;
use monofs_testkit::wait::wait_until_async;

use crate::fake::{FakeMode, FakeServer};
use crate::rig::{AdoptionExt, Rig, SOON, Source};

/// Files of different contents that do not get smaller by compression.
fn heavy(files: usize, bytes: usize) -> Source {
    let repo = Repo::new();
    let contents = pattern(files * bytes);
    repo.commit(|c| {
        for n in 0..files {
            c.file(format!("f{n:03}"), &contents[n * bytes..(n + 1) * bytes]);
        }
    });
    Source::new(repo)
}

/// Lets messages out one by one until the node has taken some contents.
async fn admit_until_held(rig: &Rig, source: &Source, fetcher: &FakeServer, blobs: u64) {
    wait_until_async("some contents are here", SOON, || async {
        fetcher.admit(1);
        rig.held(&source.id()).await.unwrap().blobs >= blobs
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_of_an_eager_repository_come_by_themselves_and_are_what_git_has() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.one_of_everything();
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    rig.wait_hydrated(&source.id()).await;
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.blobs, source.snapshot("main").blobs);
    assert_eq!(held.total_blobs, held.blobs);
    assert_eq!(held.last_error, "");
    for oid in source.objects.blob_ids() {
        let read = rig
            .read_held(&source, vec![source.span(&oid)])
            .await
            .unwrap();
        assert!(read.bytes(&oid) == *source.objects.blob(&oid), "{oid}");
    }
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_of_a_lazy_repository_come_on_first_read_alone() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    rig.adopt(source.adoption().lazy().with_fetcher(&fetcher))
        .await
        .unwrap();
    assert_eq!(rig.stat().await.hydrations_queued, 0);
    let some = source.spans()[..7].to_vec();
    rig.read(&source, some).await.unwrap();
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.hydrated_blobs, 7);
    assert_eq!(held.total_blobs, source.snapshot("main").blobs);
    assert_eq!(fetcher.asked.blobs.lock().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hydration_that_a_stop_interrupted_goes_on_with_what_is_missing() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Gated).await;
    let address = fetcher.address();
    let mut rig = Rig::start_with(move |config| config.fetchers = vec![address.clone()]).await;
    fetcher.admit(source.snapshot("main").trees as usize);
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    wait_until_async("contents are asked for", SOON, || async {
        fetcher.blob_requests() > 0
    })
    .await;
    fetcher.admit(11);
    rig.stop(SOON).await;

    fetcher.set(FakeMode::Serve);
    fetcher.asked.blobs.lock().clear();
    rig.start_again().await.unwrap();
    rig.wait_hydrated(&source.id()).await;
    let blobs = source.snapshot("main").blobs;
    let asked = fetcher.asked.blobs.lock().len() as u64;
    assert!(
        asked <= blobs,
        "nothing is pulled twice: {asked} of {blobs}"
    );
    assert_eq!(rig.held(&source.id()).await.unwrap().blobs, blobs);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_shown_and_tried_again() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let broken = source.server(FakeMode::Fail).await;
    let address = broken.address();
    let rig = Rig::start_with(move |config| config.fetchers = vec![address.clone()]).await;
    // The records come from a server that is not asked for contents.
    rig.adopt(source.adoption().with_peer(&fetcher))
        .await
        .unwrap();
    wait_until_async("the error is shown", SOON, || async {
        let held = rig.held(&source.id()).await.unwrap();
        held.last_error.contains("told to fail")
    })
    .await;
    assert_eq!(rig.stat().await.hydrations_queued, 1);
    broken.set(FakeMode::Serve);
    rig.wait_hydrated(&source.id()).await;
    rig.wait_idle().await;
    assert_eq!(rig.held(&source.id()).await.unwrap().last_error, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_ends_the_pause_after_failures() {
    let source = Source::small();
    let fetcher = source.server(FakeMode::Serve).await;
    let broken = source.server(FakeMode::Fail).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().with_peer(&fetcher).with_fetcher(&broken);
    rig.adopt(request.clone()).await.unwrap();
    // The pauses are over six seconds by then.
    wait_until_async("some tries failed", SOON, || async {
        broken.blob_requests() >= 5
    })
    .await;
    // The router names a fetcher that works.
    request.fetchers = vec![fetcher.address()];
    let from = Instant::now();
    rig.adopt(request).await.unwrap();
    rig.wait_hydrated(&source.id()).await;
    assert!(
        from.elapsed() < Duration::from_secs(3),
        "{:?}",
        from.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_come_no_faster_than_the_limit_says() {
    const RATE: u64 = 256 << 10;
    let source = heavy(24, 32 << 10);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().with_fetcher(&fetcher);
    request.bytes_per_second_max = RATE;
    let from = Instant::now();
    rig.adopt(request).await.unwrap();
    rig.wait_hydrated(&source.id()).await;
    // The last message is not waited for, and what compression saved is not counted.
    let frames: usize = source
        .objects
        .blob_ids()
        .iter()
        .map(|oid| monofs_store::frame::encode(source.objects.blob(oid)).len())
        .sum();
    let least = Duration::from_secs_f64((frames - (64 << 10)) as f64 / RATE as f64);
    assert!(
        from.elapsed() >= least,
        "{:?}, not {least:?}",
        from.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_lifted_holds_nothing_up_any_more() {
    // At this rate the contents take minutes.
    let source = heavy(40, 16 << 10);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().with_fetcher(&fetcher);
    request.bytes_per_second_max = 4 << 10;
    rig.adopt(request.clone()).await.unwrap();
    wait_until_async("contents come slowly", SOON, || async {
        fetcher.blob_requests() >= 1
    })
    .await;
    request.bytes_per_second_max = 0;
    rig.adopt(request).await.unwrap();
    rig.wait_hydrated(&source.id()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_do_not_wait_for_a_limit() {
    // A message would take minutes, a large file an hour.
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", pattern(64 << 10))
            .file("b", pattern(65 << 10))
            .file("0-large", pattern(3 * CHUNK_BYTES));
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Serve).await;
    let rig = Rig::start().await;
    let mut request = source.adoption().with_fetcher(&fetcher);
    request.bytes_per_second_max = 128;
    rig.adopt(request).await.unwrap();
    wait_until_async("contents come slowly", SOON, || async {
        fetcher.blob_requests() >= 1
    })
    .await;
    for oid in source.objects.blob_ids() {
        let read = rig.read(&source, vec![source.span(&oid)]).await.unwrap();
        assert!(read.bytes(&oid) == *source.objects.blob(&oid), "{oid}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_as_many_repositories_as_allowed_are_at_work_at_a_time() {
    let first = Source::small();
    let second = Source::small().at("h/second");
    let records = first.server(FakeMode::Serve).await;
    let slow = first.server(FakeMode::Gated).await;
    let rig = Rig::start_with(|config| config.hydrations_max = 1).await;
    for source in [&first, &second] {
        let request = source.adoption().with_peer(&records).with_fetcher(&slow);
        rig.adopt(request).await.unwrap();
    }
    wait_until_async("one is at work", SOON, || async {
        slow.blob_requests() > 0
    })
    .await;
    let stat = rig.stat().await;
    assert_eq!(stat.hydrations_running, 1);
    assert_eq!(stat.hydrations_queued, 2);
    slow.set(FakeMode::Serve);
    slow.admit(1000);
    for source in [&first, &second] {
        rig.wait_hydrated(&source.id()).await;
    }
    rig.wait_idle().await;
    assert_eq!(rig.stat().await.hydrations_running, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_dropped_is_not_pulled_any_more() {
    // Each of these blobs is a request of its own.
    let source = heavy(30, 48 << 10);
    let fetcher = source.server(FakeMode::Gated).await;
    let rig = Rig::start().await;
    fetcher.admit(1);
    let mut request = source.adoption().with_fetcher(&fetcher);
    request.bytes_per_second_max = 64 << 10;
    rig.adopt(request).await.unwrap();
    admit_until_held(&rig, &source, &fetcher, 2).await;
    let dropped = v1::DropRequest {
        storage_id: source.id().to_string(),
        only_commits: vec![oid_bytes(&source.repo.rev("main"))],
        keep_others: false,
    };
    assert!(rig.drop_repository(dropped).await.unwrap());
    fetcher.set(FakeMode::Serve);
    fetcher.admit(1000);
    rig.wait_idle().await;
    let asked = fetcher.asked.blobs.lock().len();
    assert!(asked < 10, "{asked} of 30 were pulled for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_collected_meanwhile_does_not_end_the_hydration_of_the_others() {
    // The older commit is the one to keep, as after a push of an older history.
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("kept/file", "to keep");
    });
    repo.commit(|c| {
        for n in 0..30 {
            c.file(format!("d{n}/f"), pattern((48 << 10) + n));
        }
    });
    let source = Source::new(repo);
    let fetcher = source.server(FakeMode::Gated).await;
    let address = fetcher.address();
    let mut rig = Rig::start_with(move |config| config.fetchers = vec![address.clone()]).await;
    fetcher.admit(1000);
    for revision in ["main", "main~"] {
        let request = source.adoption_of(revision).lazy().with_fetcher(&fetcher);
        rig.adopt(request).await.unwrap();
    }
    // What was lazy becomes eager, and the newer commit is begun first.
    rig.restart().await;
    fetcher.shut_gate();
    let mut eager = source.adoption_of("main~").with_fetcher(&fetcher);
    eager.bytes_per_second_max = 64 << 10;
    rig.adopt(eager).await.unwrap();
    admit_until_held(&rig, &source, &fetcher, 1).await;
    rig.drop_others(&source.id(), &[source.repo.rev("main~")])
        .await
        .unwrap();
    fetcher.set(FakeMode::Serve);
    fetcher.admit(1000);
    rig.wait_idle().await;
    let held = rig.held(&source.id()).await.unwrap();
    assert_eq!(held.snapshots.len(), 1);
    assert_eq!(held.hydrated_blobs, 1);
    let asked = fetcher.asked.blobs.lock().len();
    assert!(asked < 10, "{asked} of 31 were pulled for nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_named_and_hydration_goes_on_once_there_is_room() {
    let source = heavy(32, 256 << 10);
    let fetcher = source.server(FakeMode::Gated).await;
    let mounts = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(&mounts.path().join("disk"), 24 << 20);
    let db_path = mounts.path().join("disk/db");
    let mut rig = Rig::start_with(move |config| config.db_path = db_path.clone()).await;
    fetcher.admit(1);
    rig.adopt(source.adoption().with_fetcher(&fetcher))
        .await
        .unwrap();
    disk.fill();
    fetcher.set(FakeMode::Serve);
    fetcher.admit(1000);
    wait_until_async("the full disk is named", SOON, || async {
        let error = rig.held(&source.id()).await.unwrap().last_error;
        error.contains("make room")
    })
    .await;
    disk.free();
    rig.wait_hydrated(&source.id()).await;
    assert_eq!(rig.verify().await, Vec::<String>::new());
    rig.stop(SOON).await;
}
