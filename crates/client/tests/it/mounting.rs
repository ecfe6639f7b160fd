//! From mount to unmount.

use std::fs;

use monofs_testkit::{ExpectedTree, Repo, assert_matches};

use crate::fake::FakeCluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_listed_and_read_through_the_mount() {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("README", "hello\n").exec("bin/run", "#!/bin/sh\n").symlink("link", "README").file("empty", "");
        c.file("src/deep/er/file.txt", "deep");
    });
    cluster.publish("example.org/org/repo", &repo, "main");
    let mounted = cluster.mount().await;
    let at = mounted.path().join("example.org/org/repo");
    let expected = ExpectedTree::of(&repo, "main");
    tokio::task::spawn_blocking(move || {
        assert_eq!(fs::read_to_string(at.join("README")).unwrap(), "hello\n");
        assert_matches(&at, &expected);
    })
    .await
    .unwrap();
    mounted.unmount().await.unwrap();
}
