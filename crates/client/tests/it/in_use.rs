//! What a client says of replaced snapshots that the kernel still holds, and how it reads them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use monofs_model::Oid;
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1::SnapshotInUse;
use monofs_testkit::Repo;
use monofs_testkit::repo::pattern;

use crate::fake::{FakeCluster, Mode};
use crate::{on_mount, until};

const LARGE: usize = 4 << 20;

/// Shows a file of some chunks and a directory; returns the commit.
fn first_commit(repo: &Repo) -> Oid {
    repo.commit(|c| {
        c.file("large", pattern(LARGE))
            .file("gone/deep/f", "deep")
            .file("gone/g", "g")
            .file("stays", "s");
    })
}

fn content(repo: &Repo, commit: Oid, path: &str) -> Oid {
    let named = repo.git(["rev-parse", &format!("{commit}:{path}")]);
    String::from_utf8(named).unwrap().trim().parse().unwrap()
}

/// The snapshot of `commit` that is in use, if there is one.
fn of(in_use: &[SnapshotInUse], commit: Oid) -> Option<&SnapshotInUse> {
    in_use.iter().find(|used| used.commit == oid_bytes(&commit))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_of_a_replaced_commit_is_named_before_the_position_and_until_it_is_closed() {
    let cluster = FakeCluster::start_with_exceptions(1).await;
    let repo = Repo::new();
    let first = first_commit(&repo);
    let large = content(&repo, first, "large");
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let open = on_mount(&mounted, "h/r", |at| {
        fs::read(at.join("stays")).unwrap();
        File::open(at.join("large")).unwrap()
    })
    .await;
    repo.commit(|c| {
        c.file("large", "small now").file("stays", "changed");
    });
    cluster.publish("h/r", &repo, "main");
    let revision = cluster.revision();
    cluster.applied().await;

    // With the position, and what no process holds is not named any more soon.
    let told = cluster.in_use_when_acknowledged();
    let acked: Vec<_> = told.iter().filter(|(at, _)| *at == revision).collect();
    assert!(!acked.is_empty());
    for (_, in_use) in acked {
        let used = of(in_use, first).expect("named before the position");
        assert!(used.oids.contains(&oid_bytes(&large)) && used.path == "h/r");
        assert!(!used.whole, "no directory of it is held");
    }
    until("only the open file is in use", async || {
        of(&cluster.in_use(), first).is_some_and(|used| used.oids == [oid_bytes(&large)])
    })
    .await;
    drop(open);
    until("nothing is in use", async || cluster.in_use().is_empty()).await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_file_is_read_as_of_the_commit_that_it_belongs_to() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    let first = first_commit(&repo);
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let open = on_mount(&mounted, "h/r/large", |at| File::open(at).unwrap()).await;
    let second = repo.commit(|c| {
        c.file("large", pattern(LARGE / 2)).file("new", "n");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    let asked = cluster.commits_asked().len();
    on_mount(&mounted, "h/r", move |at| {
        let mut end = vec![0; 1000];
        open.read_exact_at(&mut end, (LARGE - 1000) as u64).unwrap();
        assert!(end == pattern(LARGE)[LARGE - 1000..]);
        fs::read(at.join("new")).unwrap();
    })
    .await;
    let commits = cluster.commits_asked().split_off(asked);
    assert_eq!(commits.first(), Some(&first));
    assert_eq!(commits.last(), Some(&second));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_keeps_its_snapshot_whole_and_names_what_is_held_below_it() {
    let cluster = FakeCluster::start_with_exceptions(1).await;
    let repo = Repo::new();
    let first = first_commit(&repo);
    let deep = content(&repo, first, "gone/deep/f");
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let (directory, open) = on_mount(&mounted, "h/r/gone", |at| {
        let open = File::open(at.join("deep/f")).unwrap();
        (File::open(at).unwrap(), open)
    })
    .await;
    repo.commit(|c| {
        c.delete("gone");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    until("the open file is named", async || {
        of(&cluster.in_use(), first)
            .is_some_and(|used| used.whole && used.oids == [oid_bytes(&deep)])
    })
    .await;

    // What is looked up in it from now on counts too.
    let held = on_mount(&mounted, "h/r", move |_| {
        let g = rustix::fs::openat(
            &directory,
            "g",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        );
        (directory, File::from(g.unwrap()))
    })
    .await;
    until("what was looked up later is named", async || {
        of(&cluster.in_use(), first).is_some_and(|used| used.oids.len() == 2)
    })
    .await;
    drop((held, open));
    until("nothing is in use", async || cluster.in_use().is_empty()).await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_removed_repository_are_named() {
    let cluster = FakeCluster::start_with_exceptions(1).await;
    let repo = Repo::new();
    let first = first_commit(&repo);
    let large = content(&repo, first, "large");
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let open = on_mount(&mounted, "h/r/large", |at| File::open(at).unwrap()).await;
    cluster.remove("h/r");
    cluster.applied().await;
    until("the open file is named", async || {
        of(&cluster.in_use(), first).is_some_and(|used| used.oids == [oid_bytes(&large)])
    })
    .await;
    drop(open);
    until("nothing is in use", async || cluster.in_use().is_empty()).await;
    mounted.unmount().await.unwrap();
}

/// Makes every server of contents do so.
fn answer(cluster: &FakeCluster, mode: Mode) {
    cluster.nodes.iter().for_each(|node| node.set(mode));
    cluster.router.set(mode);
}

/// A repository that cannot be switched to its new commit, and one that can.
async fn with_a_lagging_repository(
    cluster: &FakeCluster,
    repo: &Repo,
) -> (monofs_client::Mounted, Oid) {
    let first = first_commit(repo);
    cluster.publish("h/lags", repo, "main");
    cluster.publish("h/other", repo, "main");
    let mounted = cluster.mount().await;
    on_mount(&mounted, "h", |at| {
        fs::read(at.join("lags/stays")).unwrap();
        fs::read(at.join("other/stays")).unwrap();
    })
    .await;
    repo.commit(|c| {
        c.file("stays", "not seen yet");
    });
    answer(cluster, Mode::Empty);
    cluster.publish("h/lags", repo, "main");
    until("the repository lags", async || {
        let status = mounted.status().unwrap();
        status.catalog.lagging.contains_key("h/lags")
    })
    .await;
    (mounted, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_switched_is_named_and_the_position_acknowledged() {
    let cluster = FakeCluster::start_with_exceptions(1).await;
    let repo = Repo::new();
    let (mounted, first) = with_a_lagging_repository(&cluster, &repo).await;
    cluster.applied().await;
    let told = cluster.in_use_when_acknowledged();
    let (revision, in_use) = told.last().unwrap();
    let used = of(in_use, first).expect("an exception");
    assert_eq!(*revision, cluster.revision());
    assert_eq!((used.path.as_str(), used.whole), ("h/lags", true));
    // Once it can be switched it is not named any more.
    answer(&cluster, Mode::Serve);
    until("nothing is in use", async || cluster.in_use().is_empty()).await;
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_of_before_hears_a_position_only_when_all_up_to_it_is_shown() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    let (mounted, _) = with_a_lagging_repository(&cluster, &repo).await;
    let lags_since = cluster.revision();
    cluster.remove("h/other");
    let gone = mounted.path().join("h/other");
    until("what can be shown is", async || {
        let gone = gone.clone();
        crate::blocking(move || !gone.exists()).await
    })
    .await;
    let told = cluster.in_use_when_acknowledged();
    assert!(told.iter().all(|(revision, _)| *revision < lags_since));
    answer(&cluster, Mode::Serve);
    cluster.applied().await;
    assert!(cluster.in_use().is_empty(), "it would not understand");
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_says_what_it_applied_and_what_is_in_use() {
    let mut cluster = FakeCluster::start_with_exceptions(1).await;
    let repo = Repo::new();
    let first = first_commit(&repo);
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let open = on_mount(&mounted, "h/r/large", |at| File::open(at).unwrap()).await;
    repo.commit(|c| {
        c.delete("large");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.applied().await;
    let greetings = cluster.hellos().len();
    cluster.router.stop().await;
    cluster.restart_router().await;
    until("it greets again", async || {
        cluster.hellos().len() > greetings
    })
    .await;
    let hello = cluster.hellos().pop().unwrap();
    let applied = hello.applied.expect("what it applied");
    assert_eq!(applied.revision, cluster.revision());
    assert!(of(&hello.in_use, first).is_some());
    drop(open);
    mounted.unmount().await.unwrap();
}
