//! Repositories made to do harm: refused as a whole, by a line that names the place, and nothing of
//! them stays.

use monofs_model::ErrorKind;
use monofs_testkit::Repo;
use monofs_testkit::hostile::{RawEntry, long_symlink, mismatched_blob, refused_trees};
use monofs_testkit::remotes::GitDaemon;

use crate::rig::{NO_LIMIT, Rig, assert_same, error_of};

#[tokio::test(flavor = "multi_thread")]
async fn trees_that_may_not_be_mounted_are_refused() {
    let rig = Rig::new().await;
    for hostile in refused_trees() {
        let error = error_of(rig.ingest(&hostile.repo.url(), "main").await);
        assert!(
            matches!(error.kind, ErrorKind::Invalid | ErrorKind::Corrupt),
            "{}: {error}",
            hostile.what
        );
        if hostile.what.contains("deep below") {
            assert!(error.message.contains("'d/d/d'"), "{error}");
        }
    }
    assert_eq!(rig.stat().await.cached_repositories, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_commit_leaves_the_one_before_as_it_was() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("a", "1");
    });
    let rig = Rig::new().await;
    let good = rig.ingest(&repo.url(), "main").await.unwrap();
    let root = repo.raw_tree(&[RawEntry::file(b".git", repo.blob(b"evil"))]);
    repo.commit_raw_tree(&root);
    assert_eq!(
        error_of(rig.ingest(&repo.url(), "main").await).kind,
        ErrorKind::Invalid
    );
    assert_same(&rig, &good, &repo, &good.snapshot.commit.to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn symlinks_up_to_the_kernels_limit() {
    let rig = Rig::new().await;
    let fits = long_symlink(4095);
    rig.ingest(&fits.repo.url(), "main").await.unwrap();
    for len in [4096, 1 << 20] {
        let error = error_of(rig.ingest(&long_symlink(len).repo.url(), "main").await);
        assert_eq!(error.kind, ErrorKind::Invalid);
        assert!(error.message.contains("'link'"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_do_not_match_their_ids_are_noticed() {
    let (hostile, _) = mismatched_blob();
    let daemon = GitDaemon::serve(hostile.repo.parent());
    let rig = Rig::new().await;
    for url in [hostile.repo.url(), daemon.url("repo.git")] {
        let error = error_of(rig.ingest(&url, "main").await);
        assert!(
            matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Unavailable),
            "{error}"
        );
    }
    assert_eq!(rig.stat().await.cached_repositories, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_packs_at_the_remote_are_noticed() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("big", monofs_testkit::repo::pattern(300_000))
            .file("small", "x");
    });
    repo.damage_pack(|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
    });
    let rig = Rig::new().await;
    let error = error_of(rig.ingest(&repo.url(), "main").await);
    assert!(
        matches!(error.kind, ErrorKind::Corrupt | ErrorKind::Unavailable),
        "{error}"
    );
    assert_eq!(rig.stat().await.cached_repositories, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_directories_and_deep_trees_are_fine() {
    let repo = Repo::new();
    repo.commit(|c| {
        c.many("many", 100_000).deep("deep", 1000);
    });
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_eq!(fetched.snapshot.trees, 1 + 1 + 1 + 1000);
    let (trees, missing) = rig
        .trees(&fetched.id, &[fetched.snapshot.root], NO_LIMIT, 0, None)
        .await
        .unwrap();
    assert!(missing.is_empty());
    assert!(trees.iter().any(|(_, record)| record.len() == 100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn trees_deeper_than_the_limit_are_refused() {
    let repo = Repo::new();
    let mut tree = repo.raw_tree(&[RawEntry::file(b"f", repo.blob(b"x"))]);
    for _ in 0..13 {
        // Each level holds the one below twice: 2^13 paths, 13 trees.
        let twice = [b"a", b"b"].map(|name| RawEntry {
            mode: "40000",
            name,
            oid: tree,
        });
        tree = repo.raw_tree(&twice);
    }
    repo.commit_raw_tree(&tree);
    let rig = Rig::new().await;
    let fetched = rig.ingest(&repo.url(), "main").await.unwrap();
    assert_eq!(
        (fetched.snapshot.trees, fetched.snapshot.blobs),
        (14, 1),
        "what repeats is walked once"
    );

    let deep = Repo::new();
    // Else the remote itself refuses.
    deep.git(["config", "core.maxTreeDepth", "10000"]);
    deep.commit(|c| {
        c.deep("deep", 4200);
    });
    let error = error_of(rig.ingest(&deep.url(), "main").await);
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("nested more than"), "{error}");
}
