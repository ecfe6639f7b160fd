//! The cache on disk: bounded, kept over restarts, and never trusted blindly.

use std::time::Duration;

use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::wait::wait_until_async;

use crate::rig::{Rig, assert_same, error_of, noisy, object};

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_repository_goes_first() {
    let rig = Rig::with(|config| config.cache_bytes_max = 2_500_000).await;
    let repos: Vec<Repo> = (0..3).map(|seed| noisy(seed, 1_000_000)).collect();
    let first = rig.ingest(&repos[0].url(), "main").await.unwrap();
    let second = rig.ingest(&repos[1].url(), "main").await.unwrap();
    rig.ingest(&repos[0].url(), "main").await.unwrap();
    rig.ingest(&repos[2].url(), "main").await.unwrap();
    let stat = rig.stat().await;
    assert!(
        stat.cache_bytes <= 2_500_000 && stat.cached_repositories == 2,
        "{stat:?}"
    );
    assert!(rig.fetcher.holds(&first.id, &first.snapshot.commit));
    assert!(!rig.fetcher.holds(&second.id, &second.snapshot.commit));
    // Asked without saying where it comes from: not held. With it: fetched again.
    let root = second.snapshot.root;
    assert_eq!(
        error_of(rig.trees(&second.id, &[root], 0, 1, None).await).kind,
        ErrorKind::NotHeld
    );
    let (trees, _) = rig
        .trees(&second.id, &[root], 0, 1, Some(second.origin.clone()))
        .await
        .unwrap();
    assert_eq!(trees.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_larger_than_the_cache_is_refused() {
    let rig = Rig::with(|config| config.cache_bytes_max = 500_000).await;
    let error = error_of(rig.ingest(&noisy(1, 2_000_000).url(), "main").await);
    assert_eq!(error.kind, ErrorKind::Full);
    assert!(error.message.contains("--max-cache-gb"), "{error}");
    assert_eq!(rig.stat().await.cached_repositories, 0);
    assert_eq!(
        std::fs::read_dir(rig.cache.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_repositories_expire() {
    let rig = Rig::with(|config| config.cache_age = Duration::from_millis(300)).await;
    let fetched = rig.ingest(&noisy(1, 1000).url(), "main").await.unwrap();
    wait_until_async(
        "the repository expires",
        Duration::from_secs(20),
        || async { rig.stat().await.cached_repositories == 0 },
    )
    .await;
    let repos = rig.cache.path().join("repos");
    wait_until_async("its files are gone", Duration::from_secs(20), || async {
        !repos.join(fetched.id.as_str()).exists()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_survives_a_restart_and_leftovers_do_not() {
    let repo = noisy(1, 300_000);
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    let id = fetched.id.to_string();
    let rig = rig
        .restart(|cache| {
            // What a kill in the middle of a fetch leaves.
            std::fs::create_dir_all(cache.join("tmp/half/objects/pack")).unwrap();
            let live = std::fs::read_dir(cache.join("repos").join(&id))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            std::fs::write(live.join("objects/pack/tmp_pack_x"), b"half").unwrap();
            std::fs::write(live.join("objects/pack/pack-half.pack"), b"half").unwrap();
            std::fs::write(live.join("shallow.lock"), b"").unwrap();
            std::fs::create_dir_all(cache.join("repos/not-an-id")).unwrap();
            std::fs::create_dir_all(cache.join("repos").join("0".repeat(32)).join("7")).unwrap();
        })
        .await;
    let stat = rig.stat().await;
    assert_eq!(stat.cached_repositories, 1);
    std::fs::remove_dir_all(repo.path()).unwrap();
    let again = rig
        .fetch(&repo.url(), "main", fetched.origin.commit.clone())
        .await
        .unwrap();
    assert_eq!(
        again.snapshot, fetched.snapshot,
        "served without the remote"
    );
    let cache = rig.cache.path();
    assert!(!cache.join("tmp/half").exists() && !cache.join("repos/not-an-id").exists());
    let live = std::fs::read_dir(cache.join("repos").join(again.id.as_str()))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let names: Vec<_> = std::fs::read_dir(live.join("objects/pack"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_cache_is_noticed_and_fetched_again() {
    let repo = noisy(1, 300_000);
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    let id = fetched.id.to_string();
    let damage = |at: usize| {
        let id = id.clone();
        move |cache: &std::path::Path| {
            let live = std::fs::read_dir(cache.join("repos").join(&id))
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path();
            for entry in std::fs::read_dir(live.join("objects/pack")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == "pack") {
                    let mut bytes = std::fs::read(&path).unwrap();
                    match at {
                        0 => bytes.truncate(1000),
                        at => bytes[at] ^= 0xff,
                    }
                    std::fs::remove_file(&path).unwrap();
                    std::fs::write(&path, bytes).unwrap();
                }
            }
        }
    };
    // A truncated pack: the walk after the restart meets it.
    let rig = rig.restart(damage(0)).await;
    let again = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_same(&rig, &again, &repo, "main").await;
    // A flipped byte in the contents: met when the blob is served; the reader gets the right bytes
    // all the same.
    let rig = rig.restart(damage(100_000)).await;
    let noise = object(&repo, "main:noise");
    let origin = Some(again.origin.clone());
    let (blobs, missing) = rig.blobs(&again.id, &[noise], origin).await.unwrap();
    assert!(missing.is_empty());
    noise
        .verify(monofs_model::ObjectKind::Blob, &blobs[&noise])
        .unwrap();
    assert_eq!(rig.stat().await.fetches_done, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetchers_do_not_share_a_cache() {
    let rig = Rig::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = error_of(monofs_fetcher::spawn(rig.config.clone(), listener).await);
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("--cache-dir"), "{error}");
}
