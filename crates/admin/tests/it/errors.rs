//! Failures as a new user meets them: what happened, where, and what to try.

use std::net::TcpListener;

use monofs_cluster::{Builder, Cluster};
use monofs_testkit::free_port;
use monofs_testkit::repo::Repo;

use crate::fake::{Fake, REPO};
use crate::{Ran, run};

impl Ran {
    /// The hint line.
    fn hint(&self) -> String {
        self.err
            .lines()
            .find_map(|line| line.strip_prefix("hint: "))
            .unwrap_or_default()
            .to_owned()
    }
}

/// A cluster of real roles in this process.
struct Real {
    cluster: Option<Cluster>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Real {
    fn start(build: impl FnOnce(Builder) -> Builder) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cluster = runtime
            .block_on(build(Builder::new(dir.path())).start())
            .unwrap();
        Self {
            cluster: Some(cluster),
            runtime,
            _dir: dir,
        }
    }

    fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    fn admin(&self, args: &[&str]) -> Ran {
        run(&[
            args,
            &[&format!("--router={}", self.cluster().router_address())],
        ]
        .concat())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            self.runtime.block_on(cluster.shutdown());
        }
    }
}

#[test]
fn a_path_that_is_nearly_right_is_suggested() {
    let fake = Fake::start();
    let wrong = [
        "github.com/org/rpeo",
        "github.com/org/repo.git",
        "/mnt/monofs/github.com/org/repo",
        "org/repo",
    ];
    for path in wrong {
        for args in [
            &["repo", path][..],
            &["refresh", path],
            &["delete", path, "--yes"],
        ] {
            let ran = fake.admin(args);
            ran.failed(1, "no repository at");
            assert!(
                ran.hint().starts_with("did you mean github.com/org/repo? "),
                "{args:?}: {}",
                ran.hint()
            );
        }
    }
    assert!(
        fake.admin(&["repo", "nothing/like/it"])
            .hint()
            .starts_with("`monofs-admin repos` lists")
    );
}

#[test]
fn a_url_where_a_path_is_wanted_is_told_apart() {
    let fake = Fake::start();
    for url in [
        "https://github.com/org/repo.git",
        "git@github.com:org/repo.git",
    ] {
        for verb in ["repo", "refresh", "delete", "repos", "ls", "cat", "stat"] {
            let ran = fake.admin(&[verb, url]);
            ran.failed(2, "is a URL; a path in the tree is wanted");
            assert!(
                ran.hint().contains("it is at github.com/org/repo;"),
                "{verb} {url}: {}",
                ran.hint()
            );
        }
    }
    let ran = run(&["ingest", "--source=github.com/org/repo"]);
    assert!(
        ran.code == 2 && ran.err.contains("write https://HOST/PATH"),
        "{}",
        ran.err
    );
}

#[test]
fn an_unknown_member_is_answered_with_those_that_are_there() {
    let fake = Fake::start();
    for args in [
        &["drain", "--node=noed1", "--reason=x"][..],
        &["undrain", "--node=noed1"],
        &["trigger-failover", "--node-id=noed1"],
        &["clear-failover", "--node-id=noed1"],
        &["remove-member", "--member=noed1"],
    ] {
        let ran = fake.admin(args);
        ran.failed(1, "noed1");
        assert!(
            ran.hint().starts_with("did you mean node1? "),
            "{args:?}: {}",
            ran.hint()
        );
    }
    let ran = fake.admin(&["drain", "--node=something", "--reason=x"]);
    assert!(
        ran.hint()
            .starts_with("the members are node1, node2, fetcher1, fetcher2; "),
        "{}",
        ran.hint()
    );
}

#[test]
fn another_port_of_the_cluster_is_named_for_what_it_is() {
    let real = Real::start(|builder| builder);
    let http = real.cluster().http_address();
    let ran = run(&["status", &format!("--router={http}")]);
    ran.failed(
        3,
        &format!("{http}: it answers HTTP, not gRPC; is that the HTTP port of a router?"),
    );
    assert!(
        ran.hint().contains("gRPC port of a router") && ran.hint().contains("9090"),
        "{}",
        ran.hint()
    );
    let nodes = real.admin(&["nodes", "--format=json"]).done().json();
    let node = nodes["nodes"][0]["address"].as_str().unwrap().to_owned();
    run(&["repos", &format!("--router={node}")]).failed(3, "that is node node1, not a router");
    let fetchers = real.admin(&["fetchers", "--format=json"]).done().json();
    let fetcher = fetchers["fetchers"][0]["address"]
        .as_str()
        .unwrap()
        .to_owned();
    run(&["repos", &format!("--router={fetcher}")]).failed(3, "not a router");
    // Whoever comes next is asked all the same.
    let routers = format!("--router={http},{node},{}", real.cluster().router_address());
    run(&["repos", &routers]).done();
}

#[test]
fn a_cluster_that_lacks_something_says_what_and_how_to_get_it() {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes.file("a", "b");
    });
    let source = format!("--source={}", repo.url());
    let real = Real::start(|builder| builder.nodes(0));
    let status = real.admin(&["status"]).done().text();
    assert!(
        status.starts_with("unhealthy: ") && status.contains("no node is active"),
        "{status}"
    );
    let ran = real.admin(&["ingest", &source]);
    assert!(
        ran.code != 0 && ran.err.contains("node") && ran.hint().contains("monofs-"),
        "{}",
        ran.err
    );
}

#[test]
fn a_source_that_cannot_be_had_says_which_part_is_wrong() {
    let repo = Repo::new();
    repo.commit(|changes| {
        changes.file("a", "b");
    });
    let real = Real::start(|builder| builder);
    let source = format!("--source={}", repo.url());
    let ran = real.admin(&["ingest", &source, "--ref=no-such-branch"]);
    ran.failed(1, "no-such-branch");
    let nowhere = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let ran = real.admin(&["ingest", &format!("--source=git://{nowhere}/x.git")]);
    ran.failed(1, &nowhere.to_string());
    assert!(ran.hint().contains("check the source"), "{}", ran.hint());
    let ran = real.admin(&["ingest", "--source=file:///no/such/repository.git"]);
    assert!(
        ran.code != 0 && ran.err.contains("/no/such/repository"),
        "{}",
        ran.err
    );
    let ran = run(&["repos", &format!("--router=127.0.0.1:{}", free_port())]);
    ran.failed(3, "no router could be reached");
    assert!(ran.hint().contains("`monofs-router`"), "{}", ran.hint());
    let fake = Fake::start();
    let ran = fake.admin(&["repo", REPO, "--fromat=json"]);
    assert!(
        ran.code == 2 && ran.err.contains("--format"),
        "clap knows what was meant: {}",
        ran.err
    );
}
