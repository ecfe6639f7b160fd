//! Bad input: one clear line, nothing changed.

use monofs_cluster::Ingest;
use monofs_model::ErrorKind;
use monofs_testkit::{Repo, hostile};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_repositories_are_refused_and_readers_keep_what_they_had() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let good = Repo::new();
    good.commit(|c| {
        c.file("f", "good");
    });
    let before = cluster
        .ingest(Ingest::of(good.url()).at("main").shown_as("h/good"))
        .await
        .unwrap();
    for bad in hostile::refused_trees()
        .into_iter()
        .chain([hostile::long_symlink(1 << 20)])
    {
        let what = bad.what;
        let error = cluster
            .ingest(Ingest::of(bad.repo.url()).at("main").shown_as("h/bad"))
            .await
            .expect_err(what);
        assert!(
            matches!(error.kind, ErrorKind::Invalid | ErrorKind::Corrupt),
            "{what}: {error:?}"
        );
        assert!(
            !error.message.contains('\n'),
            "{what}: more than one line: {error}"
        );
        let entry = cluster.repository("h/bad").await.unwrap();
        assert!(entry.snapshot.is_none(), "{what}: readers see it");
    }
    assert_eq!(
        cluster.repository("h/good").await.unwrap().snapshot,
        before.snapshot
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_sources_refs_and_paths_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let repo = Repo::new();
    let commit = repo.commit(|c| {
        c.file("dir/f", "1");
    });
    let (tree, blob) = (repo.rev("main^{tree}"), repo.blob(b"1"));
    repo.point("refs/tags/a-tree", &tree);
    repo.point("refs/tags/a-blob", &blob);
    let empty = Repo::new();
    let url = repo.url();
    let here = |source: &str, at: &str, path: &str| Ingest::of(source).at(at).shown_as(path);
    let missing = format!("{url}-is-not-here");
    let cases = [
        (
            here("https://host.invalid/x.git", "main", "h/x"),
            ErrorKind::Unavailable,
        ),
        (
            here("git://127.0.0.1:1/x.git", "main", "h/x"),
            ErrorKind::Unavailable,
        ),
        (here(&missing, "main", "h/x"), ErrorKind::NotFound),
        (here(&empty.url(), "main", "h/x"), ErrorKind::NotFound),
        (here(&url, "no-such-branch", "h/x"), ErrorKind::NotFound),
        (here(&url, "a-tree", "h/x"), ErrorKind::Invalid),
        (here(&url, "a-blob", "h/x"), ErrorKind::Invalid),
        (
            here("https://host/a/../b.git", "main", "h/x"),
            ErrorKind::Invalid,
        ),
        (
            here("--upload-pack=touch", "main", "h/x"),
            ErrorKind::Invalid,
        ),
        (here("ext::sh -c id", "main", "h/x"), ErrorKind::Invalid),
        (here(&url, "--upload-pack=touch", "h/x"), ErrorKind::Invalid),
        (here(&url, "main", "h/../x"), ErrorKind::Invalid),
        (here(&url, "main", "h/.git/x"), ErrorKind::Invalid),
    ];
    for (ingest, kind) in cases {
        let shown = format!("{ingest:?}");
        let error = cluster.ingest(ingest).await.expect_err(&shown);
        assert_eq!(error.kind, kind, "{shown}: {error}");
        assert!(
            !error.message.is_empty() && !error.message.contains('\n'),
            "{shown}: {error}"
        );
    }
    cluster
        .ingest(here(&url, "main", "h/org/repo"))
        .await
        .unwrap();
    // Names that it has itself.
    for path in ["h/org/repo/dir", "h/org/repo/dir/f", "h/org/repo"] {
        let other = empty.url();
        let error = cluster
            .ingest(here(&other, "main", path))
            .await
            .expect_err(path);
        assert_eq!(error.kind, ErrorKind::Refused, "{path}: {error}");
    }
    let held = cluster.repository("h/org/repo").await.unwrap();
    assert_eq!(held.snapshot.unwrap().commit, commit);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_ingest_of_another_ref_leaves_the_entry_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    let error = cluster
        .ingest(Ingest::of(repo.url()).at("mistyped").shown_as("h/r").lazy())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
    let entry = cluster.repository("h/r").await.unwrap();
    assert_eq!(
        (entry.ref_name.as_str(), entry.content),
        ("main", monofs_model::ContentMode::Eager)
    );
    let next = repo.commit(|c| {
        c.file("f", "2");
    });
    assert_eq!(
        cluster
            .refresh("h/r")
            .await
            .unwrap()
            .snapshot
            .unwrap()
            .commit,
        next
    );
    cluster.shutdown().await;
}
