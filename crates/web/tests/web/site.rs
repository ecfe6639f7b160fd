//! A cluster quick to notice things, and repositories to look at.

use std::path::Path;
use std::time::Duration;

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_testkit::Repo;

use crate::browser::Browser;

/// A cluster, its directory and a browser that looks at it.
pub struct Site {
    pub cluster: Cluster,
    pub browser: Browser,
    _dir: tempfile::TempDir,
}

/// Settings that make a cluster quick to notice things.
pub fn builder(dir: &Path) -> Builder {
    Builder::new(dir).nodes(3).router(|config| {
        config.health_interval = Duration::from_millis(200);
        config.unhealthy_threshold = Duration::from_millis(1500);
        config.worker_interval = Duration::from_millis(200);
        config.recovery_time = Duration::from_millis(500);
        config.refresh_interval = Duration::ZERO;
    })
}

impl Site {
    pub async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub async fn start_with(change: impl FnOnce(Builder) -> Builder) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cluster = change(builder(dir.path())).start().await.unwrap();
        let browser = Browser::open(&cluster.http_address()).await;
        Self {
            cluster,
            browser,
            _dir: dir,
        }
    }

    /// Ingests what is in `repo` and waits until all of it is everywhere.
    pub async fn ingest(&self, repo: &Repo, path: &str) {
        self.cluster
            .ingest(
                Ingest::of(repo.url())
                    .at("main")
                    .shown_as(path)
                    .strong()
                    .hydrated(),
            )
            .await
            .unwrap();
    }

    /// Nothing complained in the browser's console, then everything ends.
    pub async fn end(self) {
        assert_eq!(
            self.browser.complaints().await,
            Vec::<String>::new(),
            "errors in the browser's console"
        );
        self.browser.close().await;
        self.cluster.shutdown().await;
    }
}

/// A small repository as people have them.
pub fn project() -> Repo {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes
            .file(
                "README.md",
                "# Ferry\n\nCarries *messages* over a river.\n\n    ferry --help\n",
            )
            .file("src/main.rs", MAIN)
            .file("src/lib.rs", "//! Boats.\n\npub struct Boat;\n")
            .file(
                "Cargo.toml",
                "[package]\nname = \"ferry\"\nversion = \"0.1.0\"\n",
            )
            .exec("run.sh", "#!/bin/sh\nset -eu\nexec cargo run -- \"$@\"\n")
            .file("logo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice())
            .file("empty", "")
            .symlink("main", "src/main.rs")
            .many("data", 1200);
    });
    repo
}

pub const MAIN: &str = "//! Carries messages.\n\nuse std::io;\n\n/// Reads one message and says it \
 back.\nfn main() -> io::Result<()> \
 {\n    let mut line = String::new();\n    io::stdin().read_line(&mut line)?;\n    println!(\"carried: {}\", line.trim());\n    Ok(())\n}\n";

impl Site {
    /// Looks at files again and again for this long, as people would; returns how often.
    pub async fn browse_for(&self, time: std::time::Duration) -> usize {
        let (address, start) = (self.cluster.http_address(), std::time::Instant::now());
        let mut reads = 0;
        while start.elapsed() < time {
            for page in ["/src/main.rs", "", "/data", "/Cargo.toml"] {
                let path = format!("/browse/github.com/example/ferry{page}");
                assert_eq!(
                    crate::http::page(&address, &path).await.status,
                    200,
                    "{path}"
                );
                reads += 1;
            }
        }
        reads
    }
}
