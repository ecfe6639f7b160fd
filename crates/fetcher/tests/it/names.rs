//! What a ref name may be, and what is said about one that leads nowhere.

use monofs_model::{ErrorKind, Oid};
use monofs_testkit::Repo;
use monofs_testkit::remotes::GitDaemon;

use crate::rig::{Rig, assert_same, error_of, object};

fn oid(bytes: &[u8]) -> Oid {
    Oid::from_bytes(bytes).unwrap()
}

struct History {
    repo: Repo,
    daemon: GitDaemon,
    first: Oid,
    second: Oid,
    third: Oid,
}

fn history() -> History {
    let repo = Repo::new();
    let first = repo.commit(|c| {
        c.file("a", "1");
    });
    let second = repo.commit(|c| {
        c.file("a", "2").file("dir/b", "b");
    });
    let third = repo.commit(|c| {
        c.file("a", "3");
    });
    repo.point("refs/heads/old", &first);
    repo.point("refs/tags/light", &second);
    repo.tag("heavy", &second);
    let daemon = GitDaemon::serve(repo.parent());
    History {
        repo,
        daemon,
        first,
        second,
        third,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_and_full_refs_lead_to_their_commits() {
    let h = history();
    let rig = Rig::new().await;
    let url = h.daemon.url("repo.git");
    for (name, commit, full) in [
        ("", h.third, "refs/heads/main"),
        ("main", h.third, "refs/heads/main"),
        ("old", h.first, "refs/heads/old"),
        ("light", h.second, "refs/tags/light"),
        ("heavy", h.second, "refs/tags/heavy"),
        ("refs/tags/heavy", h.second, "refs/tags/heavy"),
        ("heads/old", h.first, "refs/heads/old"),
    ] {
        let resolved = rig.resolve(&url, name).await.unwrap();
        assert_eq!(
            (oid(&resolved.commit), resolved.full_ref.as_str()),
            (commit, full),
            "{name}"
        );
        let fetched = rig.ingest(&url, name).await.unwrap();
        assert_same(&rig, &fetched, &h.repo, &commit.to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_short_commit_ids() {
    let h = history();
    let rig = Rig::new().await;
    let url = h.daemon.url("repo.git");
    // `second` is the tip of a tag, so it is advertised; a full id needs no advertisement.
    let short = &h.second.to_string()[..7];
    assert_eq!(
        oid(&rig.resolve(&url, short).await.unwrap().commit),
        h.second
    );
    let hidden = h.repo.commit(|c| {
        c.file("a", "4");
    });
    h.repo.commit(|c| {
        c.file("a", "5");
    });
    let fetched = rig.ingest(&url, &hidden.to_string()).await.unwrap();
    assert_same(&rig, &fetched, &h.repo, &hidden.to_string()).await;

    // Not advertised, and this server lists no commits without their trees: said so.
    let short = &hidden.to_string()[..10];
    h.repo.git(["config", "uploadpack.allowFilter", "false"]);
    let error = error_of(rig.resolve(&url, short).await);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("full commit id"), "{error}");
    h.repo.git(["config", "uploadpack.allowFilter", "true"]);
    assert_eq!(oid(&rig.resolve(&url, short).await.unwrap().commit), hidden);
    assert_eq!(
        error_of(rig.resolve(&url, "0123456").await).kind,
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_lead_nowhere_are_named() {
    let h = history();
    let rig = Rig::new().await;
    let url = h.daemon.url("repo.git");
    let error = error_of(rig.ingest(&url, "no-such-branch").await);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(
        error.message.contains("no-such-branch") && error.message.contains(&url),
        "{error}"
    );
    let nobody = "0123456789012345678901234567890123456789";
    let error = error_of(rig.ingest(&url, nobody).await);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains(nobody), "{error}");
    assert_eq!(
        error_of(rig.ingest(&h.daemon.url("missing.git"), "main").await).kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        error_of(rig.ingest("file:///no/such/repo.git", "main").await).kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        error_of(rig.ingest("file:///tmp", "main").await).kind,
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_not_found() {
    let repo = Repo::new();
    let daemon = GitDaemon::serve(repo.parent());
    let rig = Rig::new().await;
    for url in [daemon.url("repo.git"), repo.url()] {
        let error = error_of(rig.ingest(&url, "").await);
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("empty"), "{error}");
        assert_eq!(
            error_of(rig.ingest(&url, "main").await).kind,
            ErrorKind::NotFound
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_blobs_and_tag_objects_are_no_commits() {
    let h = history();
    let rig = Rig::new().await;
    let url = h.daemon.url("repo.git");
    h.repo
        .point("refs/tags/a-tree", &object(&h.repo, "main^{tree}"));
    h.repo.point("refs/tags/a-blob", &object(&h.repo, "main:a"));
    h.repo.tag("tagged-tree", &object(&h.repo, "main^{tree}"));
    for (name, word) in [
        ("a-tree", "tree"),
        ("a-blob", "blob"),
        ("tagged-tree", "tree"),
    ] {
        let error = error_of(rig.ingest(&url, name).await);
        assert_eq!(error.kind, ErrorKind::Invalid, "{name}");
        assert!(
            error
                .message
                .contains(&format!("is a {word}, not a commit")),
            "{error}"
        );
    }
    let tag = object(&h.repo, "refs/tags/heavy");
    let error = error_of(rig.ingest(&url, &tag.to_string()).await);
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains(&h.second.to_string()), "{error}");
    // None of it stays.
    assert_eq!(rig.stat().await.cached_repositories, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_could_be_options_never_reach_git() {
    let rig = Rig::new().await;
    let marker = rig.cache.path().join("marker");
    let touch = format!("touch {}", marker.display());
    for source in [
        format!("--upload-pack={touch}"),
        format!("ext::sh -c {touch}"),
        "ssh://-oProxyCommand=x/y".to_owned(),
        "git://127.0.0.1/a/../../b".to_owned(),
        "https://user:secret@127.0.0.1/x".to_owned(),
        "ftp://127.0.0.1/x".to_owned(),
    ] {
        let error = error_of(rig.resolve(&source, "main").await);
        assert_eq!(error.kind, ErrorKind::Invalid, "{source}");
        assert!(!error.message.contains("secret"), "{error}");
    }
    let repo = Repo::new();
    for ref_name in ["--upload-pack=x", "-x", "a..b", "main^{tree}", "a b"] {
        assert_eq!(
            error_of(rig.resolve(&repo.url(), ref_name).await).kind,
            ErrorKind::Invalid,
            "{ref_name}"
        );
    }
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_can_be_forbidden() {
    let h = history();
    let rig = Rig::with(|config| config.allow_file = false).await;
    assert_eq!(
        error_of(rig.ingest(&h.repo.url(), "main").await).kind,
        ErrorKind::Refused
    );
}
