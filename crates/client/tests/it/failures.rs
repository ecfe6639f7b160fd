//! Dead and slow peers: other replicas, deadlines, readers that can be killed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use monofs_client::{Config, mount};
use monofs_model::ErrorKind;
use monofs_testkit::Repo;

use crate::fake::{FakeCluster, Mode};
use crate::{blocking, on_mount};

async fn cluster_with_files(nodes: usize) -> FakeCluster {
    let cluster = FakeCluster::start(nodes).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a/one", "1")
            .file("b/two", "2")
            .file("c/three", "3")
            .file("d/four", "4");
    });
    cluster.publish("h/r", &repo, "main");
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_replica_costs_no_error_and_no_pause() {
    for dead in 0..2 {
        for mode in [Mode::Fail, Mode::Silent, Mode::Empty] {
            let cluster = cluster_with_files(2).await;
            let mounted = cluster.mount().await;
            on_mount(&mounted, "h/r/a/one", |at| {
                assert_eq!(fs::read(at).unwrap(), b"1")
            })
            .await;
            cluster.nodes[dead].set(mode);
            let start = Instant::now();
            on_mount(&mounted, "h/r", |at| {
                assert_eq!(fs::read(at.join("b/two")).unwrap(), b"2");
                assert_eq!(fs::read(at.join("c/three")).unwrap(), b"3");
                assert_eq!(fs::read(at.join("d/four")).unwrap(), b"4");
            })
            .await;
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "{mode:?} took {:?}",
                start.elapsed()
            );
            mounted.unmount().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nodes_cannot_be_reached_the_router_serves() {
    let mut cluster = cluster_with_files(1).await;
    cluster.nodes[0].stop().await;
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r/a/one", |at| {
        assert_eq!(fs::read(at).unwrap(), b"1")
    })
    .await;
    mounted.unmount().await.unwrap();
    let proxied = mount(Config {
        via_router: true,
        keep_cache: false,
        ..cluster.config()
    })
    .await
    .unwrap();
    on_mount(&proxied, "h/r/b/two", |at| {
        assert_eq!(fs::read(at).unwrap(), b"2")
    })
    .await;
    assert_eq!(proxied.status().unwrap().reads.calls_failed, 0);
    proxied.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cluster_is_an_error_within_the_deadline_and_what_is_cached_is_served() {
    let cluster = cluster_with_files(2).await;
    let mounted = mount(Config {
        rpc_timeout: Duration::from_secs(1),
        ..cluster.config()
    })
    .await
    .unwrap();
    on_mount(&mounted, "h/r/a/one", |at| {
        assert_eq!(fs::read(at).unwrap(), b"1")
    })
    .await;
    for node in cluster.nodes.iter().chain([&cluster.router]) {
        node.set(Mode::Silent);
    }
    let start = Instant::now();
    let result = on_mount(&mounted, "h/r/b/two", |at| fs::read(at)).await;
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "took {:?}",
        start.elapsed()
    );
    on_mount(&mounted, "h/r/a/one", |at| {
        assert_eq!(fs::read(at).unwrap(), b"1")
    })
    .await;
    // And it gets better by itself.
    for node in cluster.nodes.iter().chain([&cluster.router]) {
        node.set(Mode::Serve);
    }
    on_mount(&mounted, "h/r/b/two", |at| {
        assert_eq!(fs::read(at).unwrap(), b"2")
    })
    .await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_reader_is_gone_by_the_deadline() {
    let cluster = cluster_with_files(1).await;
    let mounted = mount(Config {
        rpc_timeout: Duration::from_secs(2),
        ..cluster.config()
    })
    .await
    .unwrap();
    on_mount(&mounted, "h/r/a/one", |at| drop(fs::read(at).unwrap())).await;
    cluster.nodes[0].set(Mode::Silent);
    cluster.router.set(Mode::Silent);
    let before = mounted.status().unwrap().reads.waited;
    let path = mounted.path().join("h/r/b/two");
    let mut reader = Command::new("cat")
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::until("the reader waits", || async {
        mounted.status().unwrap().reads.waited > before
    })
    .await;
    reader.kill().unwrap();
    let start = Instant::now();
    blocking(move || reader.wait().unwrap()).await;
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "took {:?}",
        start.elapsed()
    );
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_nobody_holds_any_more_is_stale_and_never_other_bytes() {
    let cluster = cluster_with_files(2).await;
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h/r/a/one", |at| drop(fs::read(at).unwrap())).await;
    for server in cluster.nodes.iter().chain([&cluster.router]) {
        server.set(Mode::Empty);
    }
    let result = on_mount(&mounted, "h/r/b/two", |at| fs::read(at)).await;
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ESTALE));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_router_and_any_copy_the_mount_is_refused() {
    let mut cluster = cluster_with_files(1).await;
    cluster.router.stop().await;
    let error = mount(cluster.config()).await.map(drop).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("--router"), "{error}");
    assert_eq!(fs::read_dir(cluster.config().mount).unwrap().count(), 0);
    // The cache is free again, and the second of two routers will do.
    let lost = cluster.config().routers;
    cluster.restart_router().await;
    let routers = vec!["127.0.0.1:1".to_owned(), lost[0].clone()];
    mount(Config {
        routers,
        ..cluster.config()
    })
    .await
    .unwrap()
    .unmount()
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_router_is_found_again_where_the_mount_left_off() {
    let mut cluster = cluster_with_files(1).await;
    let mounted = cluster.mount().await;
    cluster.applied().await;
    let revision = cluster.revision();
    cluster.router.stop().await;
    crate::until("the loss is noticed", || async {
        !mounted.status().unwrap().router.connected
    })
    .await;
    on_mount(&mounted, "h/r/a/one", |at| {
        assert_eq!(fs::read(at).unwrap(), b"1")
    })
    .await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "new");
    });
    cluster.restart_router().await;
    cluster.publish("h/new", &repo, "main");
    cluster.applied().await;
    on_mount(&mounted, "h/new/f", |at| {
        assert_eq!(fs::read(at).unwrap(), b"new")
    })
    .await;
    let resumed = cluster.hellos().pop().unwrap().resume.unwrap();
    assert_eq!(resumed.revision, revision);
    mounted.unmount().await.unwrap();
}
