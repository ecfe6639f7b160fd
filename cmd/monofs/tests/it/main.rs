//! `monofs up` as a process: what it prints and where it shows what it ingests.

use std::time::Duration;

use monofs_testkit::{Process, Repo};

/// Within this a cluster has started and ingested a repository of one file.
const SOON: Duration = Duration::from_secs(60);

/// A repository of one file.
struct Demo {
    repo: Repo,
}

impl Demo {
    fn new() -> Self {
        let repo = Repo::new();
        repo.commit(|changes| {
            changes.file("README.md", "hello\n");
        });
        Self { repo }
    }

    fn with_origin(self, url: &str) -> Self {
        self.repo.git(["remote", "add", "origin", url]);
        self
    }

    /// The line that says where it is shown by `monofs up` with `suffix` after its path.
    #[track_caller]
    fn shown(&self, suffix: &str) -> String {
        let argument = format!("{}{suffix}", self.repo.path().display());
        let args = [
            "up",
            "--temporary",
            "--no-mount",
            "--nodes=1",
            "--repo",
            &argument,
        ];
        let mut process = Process::spawn("monofs", args);
        let announced = process.wait_line("ingesting ", SOON);
        // The catalogue agrees with what was announced.
        let path = announced.split(" as ").nth(1).expect("a path is named");
        let path = path.split(',').next().expect("a path ends");
        process.wait_line(&format!("  {path} at "), SOON);
        process.wait_line("Ctrl-C ends it.", SOON);
        assert!(process.terminate(SOON).success());
        announced
    }
}

#[test]
fn a_checkout_is_shown_where_its_origin_says() {
    let line = Demo::new()
        .with_origin("git@host.example:org/repo.git")
        .shown("");
    assert!(
        line.contains("as host.example/org/repo, the path of its origin"),
        "{line}"
    );
}

#[test]
fn a_repository_without_a_url_as_origin_is_shown_below_local() {
    let line = Demo::new().with_origin("/srv/upstream.git").shown("");
    assert!(
        line.contains("as local/repo, as no URL is its origin"),
        "{line}"
    );
}

#[test]
fn a_path_that_the_user_names_wins() {
    let line = Demo::new()
        .with_origin("https://host.example/org/repo.git")
        .shown("=team/tool");
    assert!(line.ends_with(" as team/tool"), "{line}");
}
