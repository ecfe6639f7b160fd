//! What is mounted is what Git says: generated repositories against the reference model.

use monofs_cluster::Ingest;
use monofs_model::ObjectFormat;
use monofs_testkit::model::{Checks, assert_matches_with};
use monofs_testkit::random::{self, Rng};
use monofs_testkit::{ExpectedTree, Repo};

use crate::system::{SOON, System, can_mount, off_thread};

async fn shows_everything(repo: Repo) {
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/org/repo"))
        .await
        .unwrap();
    system.assert_shows("h/org/repo", &repo).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_everything_is_exact() {
    if !can_mount() {
        return;
    }
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let repo = Repo::with_format(format);
        repo.commit(|c| {
            c.one_of_everything();
        });
        shows_everything(repo).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_repositories_are_exact() {
    if !can_mount() {
        return;
    }
    let seed = random::seed_or(20_260_101);
    println!("replay with MONOFS_SEED={seed}");
    let system = System::start().await;
    for round in 0..4 {
        let repo = Repo::new();
        random::populate(&repo, &mut Rng::new(seed + round), 150);
        let path = format!("h/random/{round}");
        system
            .cluster
            .ingest(Ingest::of(repo.url()).at("main").shown_as(&path))
            .await
            .unwrap();
        system.assert_shows(&path, &repo).await;
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_entries_and_a_thousand_levels() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("many", 100_000).deep("deep", 1000);
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/org/big"))
        .await
        .unwrap();
    let expected = ExpectedTree::of(&repo, "main");
    system
        .wait_commit("h/org/big", &expected.commit.to_string())
        .await;
    let at = system.at("h/org/big");
    off_thread(move || {
        assert_matches_with(
            &at,
            &expected,
            Checks {
                mount: false,
                contents: false,
                exact_times: true,
            },
        )
    })
    .await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lazy_repository_is_exact_and_copies_only_what_was_read() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.one_of_everything()
            .file("read/me", "yes")
            .file("other/not", vec![7; 3 << 20]);
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/lazy").lazy())
        .await
        .unwrap();
    let held = |system: &System| {
        let admin = system.cluster.admin().unwrap();
        async move {
            let mut admin = admin;
            let request = monofs_proto::v1::GetRepositoryRequest {
                path: "h/lazy".into(),
            };
            let answer = admin.get_repository(request).await.unwrap().into_inner();
            answer
                .replicas
                .iter()
                .map(|replica| replica.held.as_ref().map_or(0, |held| held.blobs))
                .max()
                .unwrap()
        }
    };
    assert_eq!(held(&system).await, 0, "a lazy ingest copied contents");
    let file = system.at("h/lazy/read/me");
    assert_eq!(
        off_thread(move || std::fs::read(file).unwrap()).await,
        b"yes"
    );
    let kept = || async { held(&system).await >= 1 };
    monofs_testkit::wait::wait_until_async("the content that was read stays on a node", SOON, kept)
        .await;
    system.assert_shows("h/lazy", &repo).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_exact_at_every_offset() {
    if !can_mount() {
        return;
    }
    let bytes = monofs_testkit::repo::pattern((40 << 20) + 12_345);
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("large", &bytes);
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/large")
                .hydrated(),
        )
        .await
        .unwrap();
    let file = system.at("h/large/large");
    off_thread(move || {
        use std::os::unix::fs::FileExt;
        let open = std::fs::File::open(&file).unwrap();
        for offset in [
            0usize,
            1,
            (1 << 20) - 1,
            1 << 20,
            17 << 20,
            bytes.len() - 10,
            bytes.len(),
        ] {
            let mut read = vec![0; 100_000];
            let got = open.read_at(&mut read, offset as u64).unwrap();
            let end = (offset + got).min(bytes.len());
            assert!(got > 0 || offset == bytes.len(), "nothing at {offset}");
            assert!(read[..got] == bytes[offset..end], "wrong bytes at {offset}");
        }
        assert!(
            std::fs::read(&file).unwrap() == bytes,
            "wrong bytes in a whole read"
        );
    })
    .await;
    system.stop().await;
}
