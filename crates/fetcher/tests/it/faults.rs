//! Remotes that cannot be reached, hang up, fall silent or send wrong bytes: a clean error in time,
//! and nothing kept.

use std::time::{Duration, Instant};

use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::proxy::{Fault, Proxy};
use monofs_testkit::remotes::{GitDaemon, HttpOptions, HttpRemote};
use monofs_testkit::wait::{free_port, wait_until_async};

use crate::rig::{Rig, assert_same, error_of, noisy};

fn sample() -> Repo {
    noisy(7, 400_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_reached_is_named() {
    let rig = Rig::new().await;
    let port = free_port();
    for (url, named) in [
        (
            "git://no-such-host.invalid/x.git".to_owned(),
            "no-such-host.invalid",
        ),
        (
            "https://no-such-host.invalid/x.git".to_owned(),
            "no-such-host.invalid",
        ),
        (
            "ssh://git@no-such-host.invalid/x.git".to_owned(),
            "no-such-host.invalid",
        ),
        (format!("git://127.0.0.1:{port}/x.git"), "127.0.0.1"),
        (format!("http://127.0.0.1:{port}/x.git"), "127.0.0.1"),
        (format!("ssh://git@127.0.0.1:{port}/x.git"), "127.0.0.1"),
    ] {
        let error = error_of(rig.ingest(&url, "main").await);
        assert_eq!(error.kind, ErrorKind::Unavailable, "{url}: {error}");
        assert!(error.message.contains(named), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_repository_over_http() {
    let repo = sample();
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let rig = Rig::new().await;
    assert_eq!(
        error_of(rig.ingest(&http.url("none.git"), "main").await).kind,
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_cut_short_is_an_error_and_leaves_nothing() {
    let repo = sample();
    let daemon = GitDaemon::serve(repo.parent());
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let rig = Rig::new().await;
    for (port, scheme) in [(daemon.port(), "git"), (http.port(), "http")] {
        for cut in [10, 5_000, 100_000] {
            let proxy = Proxy::to(port, Fault::CutAfter(cut));
            let url = format!("{scheme}://localhost:{}/repo.git", proxy.port());
            let error = error_of(rig.ingest(&url, "main").await);
            assert_eq!(
                error.kind,
                ErrorKind::Unavailable,
                "{scheme} cut after {cut}: {error}"
            );
        }
    }
    assert_eq!(rig.stat().await.cached_repositories, 0);
    assert_eq!(
        std::fs::read_dir(rig.cache.path().join("tmp"))
            .unwrap()
            .count(),
        0
    );
    let fetched = rig.ingest(&daemon.url("repo.git"), "main").await.unwrap();
    assert_same(&rig, &fetched, &repo, "main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_on_the_way_never_arrive() {
    let repo = sample();
    let daemon = GitDaemon::serve(repo.parent());
    let rig = Rig::new().await;
    for at in [20_000, 60_000, 100_001] {
        let proxy = Proxy::to(daemon.port(), Fault::FlipAt(at));
        let result = rig
            .ingest(
                &format!("git://localhost:{}/repo.git", proxy.port()),
                "main",
            )
            .await;
        let error = error_of(result);
        assert!(
            matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Unavailable),
            "{error}"
        );
    }
    assert_eq!(rig.stat().await.cached_repositories, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_falls_silent_is_given_up() {
    let repo = sample();
    let daemon = GitDaemon::serve(repo.parent());
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let rig = Rig::with(|config| config.idle_timeout = Duration::from_secs(1)).await;
    for (port, scheme) in [(daemon.port(), "git"), (http.port(), "http")] {
        for stall in [0, 50_000] {
            let proxy = Proxy::to(port, Fault::StallAfter(stall));
            let began = Instant::now();
            let result = rig
                .ingest(
                    &format!("{scheme}://localhost:{}/repo.git", proxy.port()),
                    "main",
                )
                .await;
            let error = error_of(result);
            assert_eq!(
                error.kind,
                ErrorKind::Unavailable,
                "{scheme} stalled after {stall}: {error}"
            );
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "{:?}",
                began.elapsed()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_nobody_waits_for_is_stopped() {
    let repo = sample();
    let daemon = GitDaemon::serve(repo.parent());
    let rig = Rig::new().await;
    let proxy = Proxy::to(daemon.port(), Fault::StallAfter(50_000));
    let url = format!("git://localhost:{}/repo.git", proxy.port());
    let commit = bytes::Bytes::copy_from_slice(repo.rev("main").as_bytes());
    let fetch = rig.fetch(&url, "main", commit);
    let waiting = async {
        wait_until_async("the fetch runs", Duration::from_secs(20), || async {
            rig.fetcher.fetches_running() == 1
        })
        .await;
        wait_until_async("it receives", Duration::from_secs(20), || async {
            proxy.answered() >= 50_000
        })
        .await;
    };
    tokio::select! {
        _ = fetch => panic!("it cannot end"),
        () = waiting => {}
    }
    wait_until_async("the fetch stops", Duration::from_secs(20), || async {
        rig.fetcher.fetches_running() == 0
    })
    .await;
}
