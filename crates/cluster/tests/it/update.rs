//! Updates under readers: what changed is seen, what did not change is left alone, and no reader
//! sees a mix.

use std::io::Read;
use std::os::unix::fs::MetadataExt;

use monofs_cluster::Ingest;
use monofs_testkit::random::{self, Rng};
use monofs_testkit::{ExpectedTree, Repo};

use crate::system::{System, can_mount, off_thread};

/// Names and directories that the kernel was told about so far.
fn invalidations(system: &System) -> u64 {
    let sent = system
        .mounted
        .as_ref()
        .unwrap()
        .status()
        .unwrap()
        .invalidations;
    sent.names + sent.directories
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_change_is_seen_and_nothing_else_moves() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("same/file", "same")
            .file("change", "one")
            .file("gone", "x")
            .file("old-name", "moved");
        c.file("becomes-dir", "file")
            .file("becomes-file/inside", "dir")
            .file("deep/a/b/c", "1")
            .file("deep/z", "z");
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    let root = system.at("h/r");
    let (same, absent) = (root.join("same/file"), root.join("added"));
    let before = off_thread(move || {
        assert!(!absent.exists(), "a name that is added later");
        std::fs::metadata(same).unwrap()
    })
    .await;
    let mut held_open = std::fs::File::open(root.join("change")).unwrap();
    let invalidated = invalidations(&system);

    repo.commit(|c| {
        c.file("change", "two, and longer")
            .delete("gone")
            .rename("old-name", "new-name")
            .file("added", "new");
        c.delete("becomes-dir")
            .file("becomes-dir/now", "dir")
            .delete("becomes-file/inside")
            .file("becomes-file", "file");
        c.file("deep/a/b/c", "2");
    });
    system.cluster.refresh("h/r").await.unwrap();
    system.assert_follows("h/r", &repo).await;

    off_thread(move || {
        let mut old = String::new();
        held_open.read_to_string(&mut old).unwrap();
        assert_eq!(
            old, "one",
            "a reader that was open before the flip keeps its bytes"
        );
        let after = std::fs::metadata(root.join("same/file")).unwrap();
        assert_eq!(
            (before.ino(), before.mtime()),
            (after.ino(), after.mtime()),
            "an unchanged file moved"
        );
    })
    .await;
    let sent = invalidations(&system) - invalidated;
    // 9 names that changed (one of them twice: away and back as another kind), and the 4
    // directories around them.
    assert!(
        (1..=24).contains(&sent),
        "{sent} invalidations for 9 changed names"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_edits_are_exact_after_every_flip() {
    if !can_mount() {
        return;
    }
    let seed = random::seed_or(42);
    println!("replay with MONOFS_SEED={seed}");
    let mut rng = Rng::new(seed);
    let repo = Repo::new();
    random::populate(&repo, &mut rng, 80);
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    for _ in 0..12 {
        random::edit(&repo, &mut rng, 10);
        system.cluster.refresh("h/r").await.unwrap();
        system.assert_follows("h/r", &repo).await;
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_never_torn_while_commits_fly_past() {
    if !can_mount() {
        return;
    }
    // Every version of the file is one byte value repeated, so any mix shows.
    let version = |n: u8| vec![b'a' + n; 300_000 + 1000 * usize::from(n)];
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", version(0));
    });
    let system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").hydrated())
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    let file = system.at("h/r/f");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut reads = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let bytes = std::fs::read(&file).unwrap();
            let first = bytes[0];
            assert!(bytes.iter().all(|&b| b == first), "a torn read");
            assert_eq!(
                bytes.len(),
                300_000 + 1000 * usize::from(first - b'a'),
                "bytes of one version, length of another"
            );
            reads += 1;
        }
        reads
    });
    for n in 1..10 {
        repo.commit(|c| {
            c.file("f", version(n));
        });
        system.cluster.refresh("h/r").await.unwrap();
    }
    system
        .wait_commit("h/r", &ExpectedTree::of(&repo, "main").commit.to_string())
        .await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_come_and_go_under_a_mount() {
    if !can_mount() {
        return;
    }
    let (one, two) = (Repo::new(), Repo::new());
    one.commit(|c| {
        c.file("one", "1");
    });
    two.commit(|c| {
        c.file("two", "2");
    });
    let system = System::start().await;
    let names = |path: std::path::PathBuf| {
        off_thread(move || {
            let mut names: Vec<String> = std::fs::read_dir(path)
                .map(|dir| {
                    dir.map(|entry| entry.unwrap().file_name().into_string().unwrap())
                        .collect()
                })
                .unwrap_or_default();
            names.sort();
            names
        })
    };
    assert!(names(system.root.clone()).await.is_empty());
    system
        .cluster
        .ingest(Ingest::of(one.url()).at("main").shown_as("h/g/one"))
        .await
        .unwrap();
    system.assert_shows("h/g/one", &one).await;
    system
        .cluster
        .ingest(Ingest::of(two.url()).at("main").shown_as("h/g/two"))
        .await
        .unwrap();
    system.assert_shows("h/g/two", &two).await;
    assert_eq!(names(system.at("h/g")).await, ["one", "two"]);
    system.cluster.delete("h/g/one").await.unwrap();
    let gone = system.at("h/g/one");
    off_thread(move || {
        monofs_testkit::wait_until(
            "the deleted repository is gone",
            crate::system::SOON,
            || !gone.exists(),
        )
    })
    .await;
    assert_eq!(names(system.at("h/g")).await, ["two"]);
    system.assert_shows("h/g/two", &two).await;
    system.stop().await;
}
