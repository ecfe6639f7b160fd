//! Hosts that say "not now", and refs that are rewritten: through router, fetcher and node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use monofs_cluster::Ingest;
use monofs_proto::v1;
use monofs_testkit::Repo;
use monofs_testkit::remotes::{HttpOptions, HttpRemote, WebAnswer, WebHost};
use monofs_testkit::wait::wait_for_async;

use crate::system::{SOON, builder};

fn sample() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "1");
    });
    repo
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_repositories_of_a_host_that_says_not_now_are_asked_once_and_shown() {
    const REPOSITORIES: usize = 12;
    let repo = sample();
    let real = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let shut = Arc::new(AtomicBool::new(false));
    let is_shut = shut.clone();
    let host = WebHost::serve(real.port(), move |request| {
        if is_shut.load(Ordering::Relaxed) {
            return Some(WebAnswer::new(
                "429 Too Many Requests",
                &["Retry-After: 3600"],
            ));
        }
        // All are the same repository behind.
        let (_, rest) = request.target.split_once(".git")?;
        let is_own = request.target.starts_with("/repo.git");
        (!is_own).then(|| WebAnswer::new("302 Found", &[&format!("Location: /repo.git{rest}")]))
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path())
        .nodes(1)
        .fetchers(2)
        .router(|config| {
            config.worker_interval = Duration::from_millis(200);
            config.refresh_interval = Duration::from_secs(1);
        })
        .start()
        .await
        .unwrap();
    for number in 0..REPOSITORIES {
        let what = Ingest::of(host.url(&format!("r{number}.git"))).at("main");
        cluster
            .ingest(what.shown_as(format!("h/r{number}")))
            .await
            .unwrap();
    }
    shut.store(true, Ordering::Relaxed);
    let before = host.asked().len();
    // The status names the host, what it said, and when it is asked again.
    let name = format!("localhost:{}", host.port());
    let status = wait_for_async("the host is shown as paused", SOON, || async {
        let status = cluster.status().await.ok()?;
        (!status.hosts_paused.is_empty()).then_some(status)
    })
    .await;
    let paused = &status.hosts_paused[0];
    assert_eq!(paused.host, name);
    assert!(paused.cause.contains("HTTP 429"), "{paused:?}");
    let left = paused.next_try_at - now();
    assert!((3500..3700).contains(&left), "{left}");
    let line = status.problems.iter().find(|line| line.contains(&name));
    let line = line.expect("it is a problem");
    assert!(line.contains("says not now (HTTP 429"), "{line}");
    assert_eq!(
        status
            .problems
            .iter()
            .filter(|line| line.contains("says not now"))
            .count(),
        1
    );
    // Every repository has several turns in this time; at most those under way together asked.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let asked = host.asked().len() - before;
    assert!(asked <= REPOSITORIES, "{asked} questions");
    cluster.shutdown().await;
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs() as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_waits_for_the_host_shows_why_and_succeeds() {
    let repo = sample();
    let real = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let refused = AtomicUsize::new(0);
    let host = WebHost::serve(real.port(), move |_| {
        let first = refused.fetch_add(1, Ordering::Relaxed) < 2;
        first.then(|| WebAnswer::new("503 Service Unavailable", &["Retry-After: 1"]))
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(1).start().await.unwrap();
    let request = v1::IngestRequest {
        source: host.url("repo.git"),
        ref_name: "main".into(),
        path: "h/r".into(),
        ..Default::default()
    };
    let mut admin = cluster.admin().unwrap();
    let mut messages = admin.ingest(request).await.unwrap().into_inner();
    let mut waited_for = Vec::new();
    let mut last = None;
    while let Some(message) = messages.message().await.unwrap() {
        waited_for.extend(message.waiting_for.clone());
        last = Some(message);
    }
    let first = waited_for.first().expect("it showed what it waited for");
    assert_eq!(first.host, format!("localhost:{}", host.port()));
    assert!(first.cause.contains("HTTP 503"), "{first:?}");
    assert!(first.next_try_at >= now() - 60, "{first:?}");
    let last = last.unwrap();
    assert_eq!(last.phase(), v1::ingest_progress::Phase::Done);
    assert!(last.waiting_for.is_none(), "it does not wait any more");
    assert!(cluster.status().await.unwrap().hosts_paused.is_empty());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_wants_more_time_than_an_ingest_has_ends_it_at_once() {
    let host = WebHost::serve(0, |_| {
        Some(WebAnswer::new(
            "429 Too Many Requests",
            &["Retry-After: 7200"],
        ))
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(1).start().await.unwrap();
    let what = Ingest::of(host.url("repo.git")).at("main").shown_as("h/r");
    let error = cluster.ingest(what).await.expect_err("too long");
    assert!(error.message.contains("--host-wait"), "{error}");
    assert!(error.message.contains("HTTP 429"), "{error}");
    assert_eq!(host.asked().len(), 1);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_is_rewritten_between_look_and_fetch_is_looked_up_again() {
    let repo = Arc::new(sample());
    let real = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let lists = AtomicUsize::new(0);
    let behind = repo.clone();
    // The second list of refs belongs to the fetch: by then the branch is another one, and what it
    // was is gone for good.
    let host = WebHost::serve(real.port(), move |request| {
        if request.method == "GET" && lists.fetch_add(1, Ordering::Relaxed) == 1 {
            behind.git(["update-ref", "-d", "refs/heads/main"]);
            behind.commit(|c| {
                c.file("a", "rewritten");
            });
            behind.git(["reflog", "expire", "--expire=now", "--all"]);
            behind.git(["gc", "--quiet", "--prune=now"]);
        }
        None
    });
    let before = repo.rev("main");
    let dir = tempfile::tempdir().unwrap();
    let cluster = builder(dir.path()).nodes(1).start().await.unwrap();
    let what = Ingest::of(host.url("repo.git")).at("main").shown_as("h/r");
    let shown = cluster.ingest(what).await.unwrap();
    let after = repo.rev("main");
    assert_ne!(before, after);
    let snapshot = shown.snapshot.expect("it is shown");
    assert_eq!(snapshot.commit, after);
    cluster.shutdown().await;
}
