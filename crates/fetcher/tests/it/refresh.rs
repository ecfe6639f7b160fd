//! Looking upstream again: only what changed travels, and old commits stay readable.

use monofs_testkit::Repo;
use monofs_testkit::proxy::{Fault, Proxy};
use monofs_testkit::remotes::{GitDaemon, HttpOptions, HttpRemote};
use monofs_testkit::repo::pattern;

use crate::rig::{Rig, assert_same, error_of};

/// A repository whose first commit has 2 MB that do not compress.
fn large() -> Repo {
    let repo = Repo::new();
    repo.commit(|c| {
        for i in 0..20 {
            let noise: Vec<u8> = pattern(100_000)
                .iter()
                .enumerate()
                .map(|(at, b)| b.wrapping_mul(31).wrapping_add(((at * (i + 7)) >> 3) as u8))
                .collect();
            c.file(format!("dir{i}/data"), noise);
        }
        c.file("small", "1");
    });
    repo
}

async fn only_changes_travel(url: &str, proxy: &Proxy, repo: &Repo) {
    let rig = Rig::new().await;
    let first = rig.ingest(url, "main").await.unwrap();
    let whole = proxy.answered();
    assert!(whole > 200_000, "the first fetch is {whole} bytes");
    repo.commit(|c| {
        c.file("small", "2").delete("dir3").file("dir4/new", "n");
    });
    let second = rig.ingest(url, "main").await.unwrap();
    let more = proxy.answered() - whole;
    assert!(more < 8_000, "a small change took {more} bytes");
    assert_ne!(first.snapshot.commit, second.snapshot.commit);
    assert_same(&rig, &second, repo, "main").await;
    assert_same(&rig, &first, repo, "main~1").await;
    assert_eq!(rig.stat().await.cached_repositories, 1);

    // An unmoved ref costs no fetch.
    let before = rig.stat().await.fetches_done;
    rig.ingest(url, "main").await.unwrap();
    assert_eq!(rig.stat().await.fetches_done, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_travel_over_git() {
    let repo = large();
    let daemon = GitDaemon::serve(repo.parent());
    let proxy = Proxy::to(daemon.port(), Fault::None);
    only_changes_travel(
        &format!("git://127.0.0.1:{}/repo.git", proxy.port()),
        &proxy,
        &repo,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_changes_travel_over_http() {
    let repo = large();
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let proxy = Proxy::to(http.port(), Fault::None);
    only_changes_travel(
        &format!("http://localhost:{}/repo.git", proxy.port()),
        &proxy,
        &repo,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_refreshes_and_a_rewritten_history() {
    let repo = Repo::new();
    let rig = Rig::new().await;
    for i in 0..60 {
        repo.commit(|c| {
            c.file("f", format!("{i}"))
                .file(format!("d{}/f", i % 7), format!("{i}"));
        });
        let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
        assert_eq!(fetched.snapshot.commit, repo.rev("main"));
    }
    let last = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_same(&rig, &last, &repo, "main").await;
    // A force push to something unrelated.
    let other = repo.commit_on("other", |c| {
        c.file("only", "this");
    });
    repo.point("refs/heads/main", &other);
    let forced = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_same(&rig, &forced, &repo, "main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_under_the_same_id_replaces_the_first() {
    let (one, two) = (Repo::new(), Repo::new());
    one.commit(|c| {
        c.file("one", "1");
    });
    two.commit(|c| {
        c.file("two", "2");
    });
    let rig = Rig::new().await;
    let id = crate::rig::id_of("shared");
    for repo in [&one, &two, &one] {
        let fetched = rig
            .fetch_as(&id, &repo.url(), "main", repo.rev("main"))
            .await
            .unwrap();
        assert_same(&rig, &fetched, repo, "main").await;
    }
    let error = error_of(rig.fetch_as(&id, &two.url(), "main", one.rev("main")).await);
    assert_eq!(error.kind, monofs_model::ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_ingests_share_one_fetch_and_do_not_mix() {
    let repos: Vec<Repo> = (0..6)
        .map(|i| {
            let repo = Repo::new();
            repo.commit(|c| {
                c.many("many", 300).file("which", format!("{i}"));
            });
            repo
        })
        .collect();
    let rig = Rig::with(|config| config.fetch_workers = 3).await;
    let all = repos.iter().flat_map(|repo| {
        let rig = &rig;
        (0..4).map(move |_| async move {
            let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
            assert_eq!(fetched.snapshot.commit, repo.rev("main"));
            fetched
        })
    });
    let fetched = futures::future::join_all(all).await;
    assert_eq!(rig.stat().await.fetches_done, 6);
    for (at, repo) in repos.iter().enumerate() {
        assert_same(&rig, &fetched[at * 4], repo, "main").await;
    }
}
