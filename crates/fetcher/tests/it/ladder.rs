//! Servers that do not simply hand out a commit: it is there at the end, or the message says what
//! was tried and why it failed.

use monofs_fetcher::credentials::HostCredentials;
use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::remotes::{GitDaemon, HttpOptions, HttpRemote, OldDaemon, SshRemote};

use crate::rig::{Rig, assert_same, error_of, noisy};

/// A repository of `count` commits more, the first of which is returned too.
fn history(count: usize) -> (Repo, monofs_model::Oid) {
    let repo = Repo::new();
    only_tips(&repo);
    let first = repo.commit(|c| {
        c.file("first", "1").file("changes", "0");
    });
    for number in 1..=count {
        repo.commit(|c| {
            c.file("changes", format!("{number}"));
        });
    }
    (repo, first)
}

/// As servers are unless they are told otherwise: with protocol version 0, what no ref names is not
/// handed out.
fn only_tips(repo: &Repo) {
    repo.git(["config", "uploadpack.allowAnySHA1InWant", "false"]);
}

async fn brings(rig: &Rig, repo: &Repo, url: &str, commit: &monofs_model::Oid) {
    let fetched = rig.ingest(url, &commit.to_string()).await.unwrap();
    assert_eq!(fetched.snapshot.commit, *commit);
    assert_same(rig, &fetched, repo, &commit.to_string()).await;
}

async fn over_ssh(remote: &SshRemote) -> Rig {
    let entry = HostCredentials {
        ssh_key: Some(remote.key()),
        known_hosts: Some(remote.known_hosts()),
        ..HostCredentials::default()
    };
    Rig::with(move |config| config.credentials.insert("127.0.0.1", entry)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_no_tip_over_an_old_sshd() {
    // Within the newest commits of the ref, and far behind them.
    for commits in [3, 70] {
        let (repo, first) = history(commits);
        let remote = SshRemote::serve_old(repo.parent());
        let rig = over_ssh(&remote).await;
        brings(&rig, &repo, &remote.url("repo.git"), &first).await;
        // And after the tip is in the cache, with only its own commit of the history.
        let rig = over_ssh(&remote).await;
        let url = remote.url("repo.git");
        rig.ingest(&url, "main").await.unwrap();
        brings(&rig, &repo, &url, &first).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_another_branch_comes_with_all_refs() {
    let (repo, _) = history(2);
    let side = repo.commit_on("side", |c| {
        c.file("side", "1");
    });
    repo.commit_on("side", |c| {
        c.file("side", "2");
    });
    let remote = SshRemote::serve_old(repo.parent());
    let rig = over_ssh(&remote).await;
    brings(&rig, &repo, &remote.url("repo.git"), &side).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_nothing_of_shallow_answers() {
    let (repo, first) = history(3);
    let remote =
        OldDaemon::serve_without(repo.parent(), &["shallow", "deepen-since", "deepen-not"]);
    let rig = Rig::new().await;
    let url = remote.url("repo.git");
    let fetched = rig.ingest(&url, "main").await.unwrap();
    assert_same(&rig, &fetched, &repo, "main").await;
    brings(&rig, &repo, &url, &first).await;
    let next = repo.commit(|c| {
        c.file("changes", "next");
    });
    let fetched = rig.ingest(&url, "main").await.unwrap();
    assert_eq!(fetched.snapshot.commit, next);
    assert_same(&rig, &fetched, &repo, "main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_of_plain_files() {
    let (repo, first) = history(3);
    let options = HttpOptions {
        plain_files: true,
        ..HttpOptions::default()
    };
    // Packed and loose, both.
    for packed in [false, true] {
        if packed {
            repo.repack();
        }
        repo.git(["update-server-info"]);
        let remote = HttpRemote::serve(repo.parent(), &options);
        let rig = Rig::new().await;
        let url = remote.url("repo.git");
        let fetched = rig.ingest(&url, "main").await.unwrap();
        assert_same(&rig, &fetched, &repo, "main").await;
        assert_eq!(
            rig.resolve(&url, "").await.unwrap().commit,
            fetched.origin.commit
        );
        brings(&rig, &repo, &url, &first).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_nowhere_is_told_with_every_rung() {
    let (repo, _) = history(2);
    let gone = repo.commit(|c| {
        c.file("changes", "gone");
    });
    repo.git(["update-ref", "refs/heads/main", "main~1"]);
    repo.git(["reflog", "expire", "--expire=now", "--all"]);
    repo.git(["gc", "--quiet", "--prune=now"]);
    let remote = SshRemote::serve_old(repo.parent());
    let rig = over_ssh(&remote).await;
    let commit = bytes::Bytes::copy_from_slice(gone.as_bytes());
    let result = rig
        .fetch(&remote.url("repo.git"), "main", commit.clone())
        .await;
    let error = error_of(result);
    assert_eq!(error.kind, ErrorKind::NotFound);
    for rung in [
        "shallow by id:",
        "shallow by ref:",
        "the whole ref:",
        "all refs:",
    ] {
        assert!(error.message.contains(rung), "{rung} {error}");
    }
    // A server of today hands out all that it has, so nothing more is asked of it.
    let daemon = GitDaemon::serve(repo.parent());
    let error = error_of(rig.fetch(&daemon.url("repo.git"), "main", commit).await);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(!error.message.contains("all refs"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_more_than_the_bound_is_not_fetched_in_full() {
    let repo = noisy(3, 300_000);
    only_tips(&repo);
    let first = repo.rev("main");
    for seed in 0..60_u8 {
        repo.commit(|c| {
            c.file("more", noise(seed, 100_000));
        });
    }
    let remote = SshRemote::serve_old(repo.parent());
    let entry = HostCredentials {
        ssh_key: Some(remote.key()),
        known_hosts: Some(remote.known_hosts()),
        ..HostCredentials::default()
    };
    let rig = Rig::with(move |config| {
        config.credentials.insert("127.0.0.1", entry);
        config.cache_bytes_max = 1 << 20;
    })
    .await;
    let error = error_of(
        rig.ingest(&remote.url("repo.git"), &first.to_string())
            .await,
    );
    assert_eq!(error.kind, ErrorKind::Full, "{error}");
    assert!(error.message.contains("--max-cache-gb"), "{error}");
}

fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut rng = monofs_testkit::random::Rng::new(u64::from(seed) + 100);
    (0..bytes).map(|_| rng.bits() as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_a_source_as_it_is_for_git_clone() {
    let (repo, first) = history(2);
    let tag = repo.tag("v1", &first);
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("repo.bundle");
    let path = bundle.display().to_string();
    repo.git(["bundle", "create", "--quiet", &path, "HEAD", "main", "v1"]);
    let rig = Rig::new().await;
    for ref_name in ["", "main", "v1"] {
        let fetched = rig.ingest(&path, ref_name).await.unwrap();
        let wanted = if ref_name == "v1" {
            "v1^{commit}"
        } else {
            "main"
        };
        assert_eq!(
            fetched.snapshot.commit,
            repo.rev(wanted),
            "{ref_name} {tag}"
        );
        assert_same(&rig, &fetched, &repo, wanted).await;
    }
    brings(&rig, &repo, &path, &first).await;
    // One that lacks what it builds on says so, and a remote one says what to do.
    let part = dir.path().join("part.bundle").display().to_string();
    repo.git(["bundle", "create", "--quiet", &part, "main~1..main"]);
    let error = error_of(rig.ingest(&part, "main").await);
    assert!(error.message.contains("prerequisite"), "{error}");
    let http = HttpRemote::serve(repo.parent(), &HttpOptions::default());
    let error = error_of(rig.ingest(&http.url("none.bundle"), "main").await);
    assert!(error.message.contains("give its path"), "{error}");
}
