//! A cluster with a mount, for the tests of this crate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use monofs_cluster::client::Mounted;
use monofs_cluster::{Builder, Cluster};
use monofs_testkit::model::{Checks, assert_matches_with};
use monofs_testkit::{ExpectedTree, Repo};

/// How long a change may take to be seen.
pub const SOON: Duration = Duration::from_secs(20);

/// Whether this machine can mount. Without /dev/fuse the test is reported as skipped; in CI that is
/// a failure.
pub fn can_mount() -> bool {
    if Path::new("/dev/fuse").exists() {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(
        !ci,
        "CI must have /dev/fuse: run it with --device /dev/fuse --cap-add SYS_ADMIN"
    );
    eprintln!("skipped: no /dev/fuse on this machine");
    false
}

/// A cluster that notices things soon.
pub fn builder(dir: &Path) -> Builder {
    Builder::quick(dir)
}

/// A cluster, a mount of it, and the directory of both.
pub struct System {
    pub cluster: Cluster,
    pub mounted: Option<Mounted>,
    pub root: PathBuf,
    pub dir: tempfile::TempDir,
}

impl System {
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub async fn start_with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = change(builder(&dir.path().join("cluster")))
            .start()
            .await
            .unwrap();
        let root = dir.path().join("mount");
        std::fs::create_dir(&root).unwrap();
        let mut system = Self {
            cluster,
            mounted: None,
            root,
            dir,
        };
        system.mount().await;
        system
    }

    pub async fn mount(&mut self) {
        let mut config = self.cluster.client_config("client-cache");
        config.mount.clone_from(&self.root);
        config.rpc_timeout = Duration::from_secs(3);
        self.mounted = Some(monofs_cluster::client::mount(config).await.unwrap());
    }

    pub async fn unmount(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount().await.unwrap();
        }
    }

    /// The mounted directory of a display path.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Waits until the mount shows the tip of `main` and compares everything.
    pub async fn assert_shows(&self, path: &str, repo: &Repo) {
        self.compare(path, repo, true).await;
    }

    /// The same after an update: what did not change keeps the time that it was shown with.
    pub async fn assert_follows(&self, path: &str, repo: &Repo) {
        self.compare(path, repo, false).await;
    }

    async fn compare(&self, path: &str, repo: &Repo, exact_times: bool) {
        let expected = ExpectedTree::of(repo, "main");
        self.wait_commit(path, &expected.commit.to_string()).await;
        let at = self.at(path);
        let checks = Checks {
            mount: true,
            contents: true,
            exact_times,
        };
        off_thread(move || assert_matches_with(&at, &expected, checks)).await;
    }

    /// Waits until the mount shows this commit and the kernel was told so: nothing stale may be
    /// seen from then on.
    pub async fn wait_commit(&self, path: &str, commit: &str) {
        self.wait_shown(path, commit).await;
        if let Ok(status) = self.cluster.status().await {
            let newest = status.position.unwrap().revision;
            let applied = || async {
                let catalog = self.mounted.as_ref().unwrap().status().unwrap().catalog;
                catalog.applied_revision.is_some_and(|applied| {
                    applied >= newest || Some(applied) == catalog.received_revision
                })
            };
            monofs_testkit::wait::wait_until_async(
                "the mount applied what the router said",
                SOON,
                applied,
            )
            .await;
        }
    }

    async fn wait_shown(&self, path: &str, commit: &str) {
        let (at, commit) = (self.at(path), commit.to_owned());
        off_thread(move || {
            monofs_testkit::wait_until("the mount shows the commit", SOON, || {
                monofs_testkit::model::xattr(&at, "user.monofs.commit")
                    .is_ok_and(|shown| shown == commit.as_bytes())
            });
        })
        .await;
    }

    pub async fn stop(mut self) {
        self.unmount().await;
        self.cluster.shutdown().await;
    }
}

/// Looks at a mount from a thread that may wait for this process's own FUSE threads.
pub async fn off_thread<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(look).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
