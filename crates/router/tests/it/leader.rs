//! Routers as processes of their own: the leader is killed without warning while it ingests.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use monofs_testkit::{Etcd, Process, Repo, free_port, wait_until};
use rustix::process::Signal;

use crate::SOON;

/// After that long somebody else leads: the lease (5 s), and a moment to notice.
const REPLACED: Duration = Duration::from_secs(9);

struct Routers {
    addresses: Vec<String>,
    routers: Vec<Process>,
    fetcher: Process,
    _node: Process,
    _dir: tempfile::TempDir,
}

impl Routers {
    fn start(etcd: &Etcd) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mut addresses = Vec::new();
        let mut router = |number: usize| {
            let (grpc, http) = (free_port(), free_port());
            addresses.push(format!("127.0.0.1:{grpc}"));
            let args = [
                "--listen=127.0.0.1".to_owned(),
                format!("--port={grpc}"),
                format!("--http-port={http}"),
                format!("--state=etcd://{}/test", etcd.endpoint()),
                format!("--router-id=router{number}"),
                "--health-interval=200ms".to_owned(),
                "--unhealthy-threshold=3s".to_owned(),
                "--refresh-interval=0s".to_owned(),
            ];
            Process::spawn("monofs-router", args)
        };
        let routers = vec![router(1), router(2)];
        let all = format!("--router={}", addresses.join(","));
        let node = [
            "--node-id=node1".to_owned(),
            format!("--addr=127.0.0.1:{}", free_port()),
        ];
        let node = Process::spawn(
            "monofs-node",
            node.into_iter()
                .chain([format!("--db-path={}", at("node")), all.clone()]),
        );
        let fetcher = [
            format!("--addr=127.0.0.1:{}", free_port()),
            format!("--cache-dir={}", at("fetcher")),
            all,
        ];
        let fetcher = Process::spawn("monofs-fetcher", fetcher);
        let started = Self {
            addresses,
            routers,
            fetcher,
            _node: node,
            _dir: dir,
        };
        for router in 0..2 {
            wait_until("members are active everywhere", SOON, || {
                started.status(router).matches("\"active\"").count() >= 2
            });
        }
        started
    }

    fn admin(&self, router: usize, args: &[&str]) -> Output {
        let program = monofs_testkit::process::binary("monofs-admin");
        std::process::Command::new(program)
            .args(["--router", &self.addresses[router]])
            .args(args)
            .output()
            .unwrap()
    }

    fn status(&self, router: usize) -> String {
        String::from_utf8_lossy(&self.admin(router, &["status", "--format=json"]).stdout)
            .into_owned()
    }

    fn leads(&self, router: usize) -> bool {
        self.routers[router]
            .log()
            .iter()
            .rev()
            .find(|line| line.contains("leadership"))
            .is_some_and(|line| {
                let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
                line.contains("leading=true")
            })
    }
}

#[test]
fn a_killed_leader_is_replaced_within_seconds_and_its_ingest_goes_on() {
    let (etcd, repo) = (Etcd::start(), Repo::new());
    repo.commit(|c| {
        c.file("f", "1");
    });
    let mut system = Routers::start(&etcd);
    wait_until("one router leads", SOON, || {
        system.leads(0) != system.leads(1)
    });
    let first = usize::from(system.leads(1));
    let second = 1 - first;
    // The fetcher stands still, so the ingest does, too.
    system.fetcher.signal(Signal::STOP);
    let mut ingest = std::process::Command::new(monofs_testkit::process::binary("monofs-admin"))
        .args([
            "--router",
            &system.addresses[first],
            "ingest",
            "--ref",
            "main",
            "--path",
            "h/r",
            "--source",
            &repo.url(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let recorded = |router: usize, word: &str| {
        String::from_utf8_lossy(
            &system
                .admin(router, &["repo", "h/r", "--format=json"])
                .stdout,
        )
        .contains(word)
    };
    wait_until("the other router knows of the ingest", SOON, || {
        recorded(second, "\"ingesting\"")
    });
    system.routers[first].kill();
    let killed = Instant::now();
    wait_until("the other router leads", REPLACED, || system.leads(second));
    println!("replaced after {:?}", killed.elapsed());
    system.fetcher.signal(Signal::CONT);
    let recorded = |word: &str| {
        String::from_utf8_lossy(
            &system
                .admin(second, &["repo", "h/r", "--format=json"])
                .stdout,
        )
        .contains(word)
    };
    wait_until("the ingest went on", 2 * SOON, || recorded("\"ready\""));
    ingest.wait().unwrap();
    system.routers[first].clear_log();
    system.routers[first].restart();
    wait_until("the killed router is back", SOON, || {
        system.status(first).contains("\"active\"")
    });
    let shown = system.admin(first, &["repo", "h/r", "--format=json"]);
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains("\"ready\""),
        "the one that was killed shows it, too"
    );
    assert!(
        !system.leads(first) && system.leads(second),
        "there is one leader"
    );
}
