//! Parts that stop, and readers that go on.

use std::time::{Duration, Instant};

use monofs_cluster::{Cluster, Ingest};
use monofs_testkit::random::{self, Rng};
use monofs_testkit::{ExpectedTree, Repo};

use crate::system::{SOON, System, can_mount, off_thread};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_costs_no_read() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    random::populate(&repo, &mut Rng::new(5), 300);
    let mut system = System::start().await;
    let entry = system
        .cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/r")
                .strong()
                .hydrated(),
        )
        .await
        .unwrap();
    assert_eq!(entry.holders.len(), 2);
    let expected = ExpectedTree::of(&repo, "main");
    for number in 0..2 {
        system
            .wait_commit("h/r", &expected.commit.to_string())
            .await;
        system.unmount().await;
        std::fs::remove_dir_all(system.dir.path().join("cluster/client-cache")).unwrap();
        system.mount().await;
        system.cluster.stop_node(number).await;
        system.assert_shows("h/r", &repo).await;
        system.cluster.start_node(number).await.unwrap();
        system.cluster.wait_members(2, 1).await.unwrap();
    }
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = crate::system::builder(dir.path()).start().await.unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    let both = || async {
        cluster
            .repository("h/r")
            .await
            .is_ok_and(|entry| entry.holders.len() == 2)
    };
    monofs_testkit::wait::wait_until_async("both nodes hold the first commit", SOON, both).await;
    cluster.stop_node(0).await;
    cluster.wait_members(1, 1).await.unwrap();
    repo.commit(|c| {
        c.file("f", "2");
    });
    let entry = cluster.refresh("h/r").await.unwrap();
    assert_eq!(
        entry.holders.len(),
        1,
        "a node that is away cannot have acknowledged"
    );
    cluster.start_node(0).await.unwrap();
    let caught_up = || async {
        cluster
            .repository("h/r")
            .await
            .is_ok_and(|entry| entry.holders.len() == 2)
    };
    monofs_testkit::wait::wait_until_async("both nodes hold the new commit", SOON, caught_up).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_cluster_serves_what_is_cached_and_fails_the_rest_in_time() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("seen/f", "cached")
            .file("unseen/g", vec![9u8; 2 << 20]);
    });
    let mut system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").hydrated())
        .await
        .unwrap();
    let (seen, unseen) = (system.at("h/r/seen/f"), system.at("h/r/unseen/g"));
    let read = seen.clone();
    assert_eq!(
        off_thread(move || std::fs::read(read).unwrap()).await,
        b"cached"
    );
    for number in 0..2 {
        system.cluster.stop_node(number).await;
    }
    system.cluster.stop_router(0).await;
    let (error, took) = off_thread(move || {
        assert_eq!(std::fs::read(&seen).unwrap(), b"cached");
        let from = Instant::now();
        let error = std::fs::read(&unseen).expect_err("no server can have it");
        (error, from.elapsed())
    })
    .await;
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    assert!(
        took < Duration::from_secs(6),
        "{took:?} for a deadline of 3 s"
    );
    // A new mount without any cluster starts from the cache.
    system.unmount().await;
    system.mount().await;
    let seen = system.at("h/r/seen/f");
    assert_eq!(
        off_thread(move || std::fs::read(seen).unwrap()).await,
        b"cached"
    );
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_router_knows_everything_and_clients_follow_it() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    let mut system = System::start().await;
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").strong())
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    system.cluster.stop_router(0).await;
    system.assert_shows("h/r", &repo).await;
    system.cluster.start_router(0).await.unwrap();
    system.cluster.wait_members(2, 1).await.unwrap();
    assert_eq!(
        system
            .cluster
            .repository("h/r")
            .await
            .unwrap()
            .holders
            .len(),
        2
    );
    repo.commit(|c| {
        c.file("f", "2").file("g", "new");
    });
    system.cluster.refresh("h/r").await.unwrap();
    system.assert_follows("h/r", &repo).await;
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_snapshots_are_collected_and_what_is_shown_stays() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("keep", "same").file("f", vec![1u8; 200_000]);
    });
    let quick = |builder: monofs_cluster::Builder| {
        builder.router(|config| {
            config.health_interval = Duration::from_millis(200);
            config.worker_interval = Duration::from_millis(200);
            config.refresh_interval = Duration::ZERO;
            config.snapshot_grace = Duration::ZERO;
        })
    };
    let system = System::start_with(quick).await;
    system
        .cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/r")
                .strong()
                .hydrated(),
        )
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    repo.commit(|c| {
        c.file("f", "small");
    });
    system.cluster.refresh("h/r").await.unwrap();
    let held = || async {
        let mut admin = system.cluster.admin().unwrap();
        let request = monofs_proto::v1::GetRepositoryRequest { path: "h/r".into() };
        let answer = admin.get_repository(request).await.unwrap().into_inner();
        answer.replicas.iter().all(|replica| {
            replica
                .held
                .as_ref()
                .is_some_and(|held| held.snapshots.len() == 1)
        })
    };
    monofs_testkit::wait::wait_until_async("every node keeps one snapshot", SOON, held).await;
    system.assert_follows("h/r", &repo).await;
    system.stop().await;
}

/// Waits until two nodes are holders and have one snapshot each.
async fn wait_two_copies(cluster: &Cluster, path: &str) {
    let whole = || async {
        let mut admin = cluster.admin().unwrap();
        let request = monofs_proto::v1::GetRepositoryRequest { path: path.into() };
        let answer = admin.get_repository(request).await.unwrap().into_inner();
        let holds = |replica: &monofs_proto::v1::ReplicaStatus| {
            replica.holder
                && replica
                    .held
                    .as_ref()
                    .is_some_and(|held| held.snapshots.len() == 1)
        };
        answer.replicas.len() == 2 && answer.replicas.iter().all(holds)
    };
    monofs_testkit::wait::wait_until_async("both copies are whole", SOON, whole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_gets_its_copies_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = crate::system::builder(dir.path()).start().await.unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    cluster
        .ingest(
            Ingest::of(repo.url())
                .at("main")
                .shown_as("h/r")
                .strong()
                .hydrated(),
        )
        .await
        .unwrap();
    cluster.stop_node(0).await;
    std::fs::remove_dir_all(dir.path().join("node1")).unwrap();
    cluster.start_node(0).await.unwrap();
    wait_two_copies(&cluster, "h/r").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_node_lost_comes_back_from_git_without_a_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = crate::system::builder(dir.path()).start().await.unwrap();
    let repo = Repo::new();
    random::populate(&repo, &mut Rng::new(5), 50);
    let ingest = Ingest::of(repo.url())
        .at("main")
        .shown_as("h/r")
        .strong()
        .hydrated();
    let entry = cluster.ingest(ingest).await.unwrap();
    // As an operator removes a damaged copy: of one repository, while the node is stopped.
    for node in 0..2 {
        cluster.stop_node(node).await;
        let repos = dir.path().join(format!("node{}/repos", node + 1));
        std::fs::remove_dir_all(repos.join(entry.storage_id().as_str())).unwrap();
    }
    for node in 0..2 {
        cluster.start_node(node).await.unwrap();
    }
    wait_two_copies(&cluster, "h/r").await;
    assert_verified(&cluster, "h/r").await;
    cluster.shutdown().await;
}

/// Every object of every copy is what its id says.
async fn assert_verified(cluster: &Cluster, path: &str) {
    let mut admin = cluster.admin().unwrap();
    let request = monofs_proto::v1::AdminVerifyRequest { path: path.into() };
    let mut checks = admin.verify(request).await.unwrap().into_inner();
    while let Some(check) = checks.message().await.unwrap() {
        let errors = check.progress.iter().map(|progress| &progress.errors);
        assert!(check.error.is_empty(), "{check:?}");
        assert_eq!(errors.flatten().count(), 0, "{check:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_store_is_set_aside_and_copied_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = crate::system::builder(dir.path()).start().await.unwrap();
    let repo = Repo::new();
    random::populate(&repo, &mut Rng::new(3), 100);
    let ingest = Ingest::of(repo.url())
        .at("main")
        .shown_as("h/r")
        .strong()
        .hydrated();
    let entry = cluster.ingest(ingest).await.unwrap();
    cluster.stop_node(0).await;
    let store = dir
        .path()
        .join("node1/repos")
        .join(entry.storage_id().as_str());
    let data = std::fs::OpenOptions::new()
        .write(true)
        .open(store.join("data.mdb"))
        .unwrap();
    data.set_len(data.metadata().unwrap().len() / 2).unwrap();
    cluster.start_node(0).await.unwrap();
    wait_two_copies(&cluster, "h/r").await;
    assert_verified(&cluster, "h/r").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_clients_cache_costs_no_read() {
    if !can_mount() {
        return;
    }
    let mut rng = Rng::new(11);
    let noise = |rng: &mut Rng| {
        (0..400_000u32)
            .map(|_| rng.bits() as u8)
            .collect::<Vec<u8>>()
    };
    let repo = Repo::new();
    repo.commit(|c| {
        for n in 0..60 {
            c.file(format!("d{}/f{n}", n / 10), noise(&mut rng));
        }
    });
    let mut system = System::start().await;
    system.unmount().await;
    let small = system.dir.path().join("small-disk");
    std::fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(&small)
        .status();
    assert!(
        mounted.unwrap().success(),
        "this test mounts a small tmpfs, which needs root"
    );
    let mut config = system.cluster.client_config("unused");
    (config.mount, config.cache_dir) = (system.root.clone(), small.join("cache"));
    system.mounted = Some(monofs_cluster::client::mount(config).await.unwrap());
    system
        .cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").hydrated())
        .await
        .unwrap();
    system.assert_shows("h/r", &repo).await;
    system.unmount().await;
    assert!(
        std::process::Command::new("umount")
            .arg("-l")
            .arg(&small)
            .status()
            .unwrap()
            .success()
    );
    system.stop().await;
}
