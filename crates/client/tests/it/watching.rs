//! What those who watch a mount are told, through a real mount.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use monofs_client::changes::reader::MountWatch;
use monofs_client::changes::{ChangeKind, PathChange};
use monofs_client::{Mounted, mount};
use monofs_model::ErrorKind;
use monofs_testkit::Repo;

use crate::fake::FakeCluster;
use crate::{blocking, on_mount};

/// Begins to watch `path` of a mount.
async fn begin(mounted: &Mounted, path: &str) -> MountWatch {
    on_mount(mounted, path, |at| MountWatch::begin(at).unwrap()).await
}

/// Asks until something was told, and then until nothing more comes.
async fn told(mut watch: MountWatch) -> (MountWatch, Vec<PathChange>) {
    blocking(move || {
        let mut changes = Vec::new();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = watch.poll().unwrap();
            changes.extend(answer.changes);
            if !answer.has_more && !changes.is_empty() {
                return (watch, changes);
            }
            assert!(Instant::now() < end, "nothing was told; so far {changes:?}");
        }
    })
    .await
}

/// The lines as `change path`, below the mount.
fn lines(mounted: &Mounted, changes: &[PathChange]) -> BTreeSet<String> {
    let below = |change: &PathChange| {
        let path = change.to_path();
        let path = path.strip_prefix(mounted.path()).unwrap().to_owned();
        format!("{} {}", change.change.as_str(), path.display())
    };
    changes.iter().map(below).collect()
}

fn set<const N: usize>(lines: [&str; N]) -> BTreeSet<String> {
    lines.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_path_is_told_once_whether_or_not_the_kernel_knew_it() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("changes", "old")
            .file("goes", "g")
            .file("deep/a/b/changes", "old")
            .file("deep/stays", "s")
            .file("old-dir/x/y", "y")
            .file("turns", "file");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let watch = begin(&mounted, "").await;
    let commit = repo.commit(|c| {
        c.file("changes", "new")
            .delete("goes")
            .file("deep/a/b/changes", "new")
            .file("deep/a/b/new/f", "f")
            .delete("old-dir/x/y")
            .delete("turns")
            .file("turns/into/dir", "d");
    });
    cluster.publish("h/r", &repo, "main");
    let (watch, changes) = told(watch).await;
    assert_eq!(
        lines(&mounted, &changes),
        set([
            "modified h/r/changes",
            "removed h/r/goes",
            "modified h/r/deep/a/b/changes",
            "added h/r/deep/a/b/new",
            "added h/r/deep/a/b/new/f",
            "removed h/r/old-dir",
            "removed h/r/old-dir/x",
            "removed h/r/old-dir/x/y",
            "modified h/r/turns",
            "added h/r/turns/into",
            "added h/r/turns/into/dir",
        ])
    );
    assert_eq!(changes.len(), 11, "each path once");
    assert!(
        changes
            .iter()
            .all(|change| change.commit.as_ref() == Some(&commit.to_string()))
    );
    // What a line names is what a reader gets.
    on_mount(&mounted, "h/r/changes", |at| {
        assert_eq!(fs::read(at).unwrap(), b"new");
    })
    .await;

    // Repositories are one line each.
    cluster.publish("h/second", &repo, "main");
    let (watch, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["added h/second"]));
    cluster.remove("h/second");
    let (_, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["removed h/second"]));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_below_the_watched_path_or_holds_it_is_told() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("src/a", "a").file("docs/b", "b");
    });
    cluster.publish("h/r", &repo, "main");
    cluster.publish("h/other", &repo, "main");
    let mounted = cluster.mount().await;
    let watch = begin(&mounted, "h/r/src").await;
    let absent = begin(&mounted, "h/r/not/yet").await;
    repo.commit(|c| {
        c.file("src/a", "new")
            .file("docs/b", "new")
            .file("not/yet", "y");
    });
    cluster.publish("h/other", &repo, "main");
    cluster.publish("h/r", &repo, "main");
    let (watch, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["modified h/r/src/a"]));
    let (_, changes) = told(absent).await;
    assert_eq!(
        lines(&mounted, &changes),
        set(["added h/r/not", "added h/r/not/yet"])
    );
    cluster.remove("h/r");
    let (_, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["removed h/r"]));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_cannot_be_told_everything_is_told_to_look_again() {
    let cluster = FakeCluster::start(1).await;
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("few", "f");
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = cluster.mount().await;
    let watch = begin(&mounted, "h/r").await;
    // More than one flip may tell.
    repo.commit(|c| {
        c.many("many", 70_000);
    });
    cluster.publish("h/r", &repo, "main");
    let (watch, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["reset h/r"]));

    // Another mount at the same place knows nothing of what the first one told.
    let config = cluster.config();
    mounted.unmount().await.unwrap();
    let mounted = mount(config).await.unwrap();
    let (_, changes) = told(watch).await;
    assert_eq!(lines(&mounted, &changes), set(["reset h/r"]));
    assert_eq!(changes[0].change, ChangeKind::Reset);
    mounted.unmount().await.unwrap();
}

#[test]
fn a_path_outside_of_every_mount_is_refused() {
    let error = MountWatch::begin(Path::new("/proc/self")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("/proc"), "{error}");
    let absent: PathBuf = "/no/such/place".into();
    assert!(MountWatch::begin(&absent).is_err());
}
