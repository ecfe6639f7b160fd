//! Separate processes, killed without warning.

use std::path::Path;
use std::time::Duration;

use monofs_testkit::model::{Checks, differences};
use monofs_testkit::remotes::GitDaemon;
use monofs_testkit::{ExpectedTree, Process, Repo, assert_matches, free_port, wait_until};

use crate::system::{SOON, can_mount};

struct Processes {
    dir: tempfile::TempDir,
    router: Process,
    nodes: Vec<Process>,
    fetcher: Process,
    address: String,
}

impl Processes {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (grpc, http) = (free_port(), free_port());
        let address = format!("127.0.0.1:{grpc}");
        let quick = ["--health-interval=200ms", "--unhealthy-threshold=1500ms", "--refresh-interval=0s"];
        let mut args: Vec<String> = quick.map(str::to_owned).into();
        args.extend(["--listen=127.0.0.1".into(), format!("--port={grpc}"), format!("--http-port={http}")]);
        args.push(format!("--state-dir={}", at("router")));
        let router = Process::spawn("monofs-router", args);
        let node = |n: u8| {
            let (id, db) = (format!("--node-id=node{n}"), format!("--db-path={}", at(&format!("node{n}"))));
            let addr = format!("--addr=127.0.0.1:{}", free_port());
            Process::spawn("monofs-node", [id, db, addr, format!("--router={address}")])
        };
        let nodes = vec![node(1), node(2)];
        let addr = format!("--addr=127.0.0.1:{}", free_port());
        let cache = format!("--cache-dir={}", at("fetcher"));
        let fetcher = Process::spawn("monofs-fetcher", [addr, cache, format!("--router={address}")]);
        let processes = Self { router, nodes, fetcher, address, dir };
        processes.wait_active(3);
        processes
    }

    fn admin(&self, args: &[&str]) -> std::process::Output {
        let program = monofs_testkit::process::binary("monofs-admin");
        std::process::Command::new(program).args(["--router", &self.address]).args(args).output().unwrap()
    }

    fn wait_active(&self, members: usize) {
        wait_until("members are active", SOON, || {
            let status = self.admin(&["status", "--format=json"]);
            String::from_utf8_lossy(&status.stdout).matches("\"active\"").count() >= members
        });
    }

    fn mount(&self, at: &Path) -> Process {
        std::fs::create_dir_all(at).unwrap();
        let mut args = vec![format!("--mount={}", at.display()), format!("--router={}", self.address)];
        args.push(format!("--cache={}", self.dir.path().join("client").display()));
        args.push("--rpc-timeout=5s".into());
        Process::spawn("monofs-client", args)
    }
}

/// Waits for the commit and compares; an earlier commit's times will do.
fn wait_follows(at: &Path, expected: &ExpectedTree) {
    wait_until("the mount shows the commit", SOON, || {
        monofs_testkit::model::xattr(at, "user.monofs.commit")
            .is_ok_and(|shown| shown == expected.commit.to_string().as_bytes())
    });
    // The commit is named before the kernel was told about every name.
    let checks = Checks { mount: true, contents: true, exact_times: false };
    wait_until("the mount shows all of the commit", SOON, || differences(at, expected, checks).is_empty());
}

#[test]
fn every_role_can_be_killed_and_comes_back() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.one_of_everything();
    });
    let daemon = GitDaemon::serve(repo.parent());
    let source = daemon.url(repo.path().file_name().unwrap().to_str().unwrap());
    let mut processes = Processes::start();
    let ingest = processes.admin(&[
        "ingest",
        "--source",
        &source,
        "--ref",
        "main",
        "--path",
        "h/r",
        "--consistency=strong",
        "--wait",
    ]);
    assert!(ingest.status.success(), "{}", String::from_utf8_lossy(&ingest.stderr));
    let mount = processes.dir.path().join("mount");
    let at = mount.join("h/r");
    let mut client = processes.mount(&mount);
    let expected = ExpectedTree::of(&repo, "main");
    wait_follows(&at, &expected);

    for number in 0..2 {
        processes.nodes[number].kill();
        assert_matches(&at, &expected);
        processes.nodes[number].restart();
        processes.wait_active(3);
    }
    processes.fetcher.kill();
    processes.fetcher.restart();
    processes.router.kill();
    assert_matches(&at, &expected);
    processes.router.restart();
    processes.wait_active(3);

    // A killed client leaves a dead mount; the next one cleans it up.
    client.kill();
    wait_until("the mount of the killed client is dead", SOON, || {
        std::fs::metadata(mount.join("never-asked-before")).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    client.restart();
    wait_follows(&at, &expected);

    repo.commit(|c| {
        c.file("after-all-that", "still works");
    });
    let refresh = processes.admin(&["refresh", "h/r"]);
    assert!(refresh.status.success(), "{}", String::from_utf8_lossy(&refresh.stderr));
    wait_follows(&at, &ExpectedTree::of(&repo, "main"));
    let verify = processes.admin(&["verify"]);
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
    assert!(client.terminate(Duration::from_secs(10)).success());
    assert!(std::fs::read_dir(&mount).unwrap().next().is_none(), "the mount is still there");
}

#[test]
fn an_ingest_whose_node_router_or_fetcher_dies_half_way_ends_whole_or_not_at_all() {
    let repo = Repo::new();
    monofs_testkit::random::populate(&repo, &mut monofs_testkit::random::Rng::new(9), 2000);
    for victim in ["router", "node", "fetcher"] {
        let mut processes = Processes::start();
        let (url, address) = (repo.url(), processes.address.clone());
        let program = monofs_testkit::process::binary("monofs-admin");
        let mut ingest = std::process::Command::new(program)
            .args(["--router", &address, "ingest", "--source", &url, "--ref", "main", "--path", "h/r"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the ingest is recorded", SOON, || processes.admin(&["repo", "h/r"]).status.success());
        match victim {
            "router" => processes.router.kill(),
            "node" => processes.nodes.iter_mut().for_each(Process::kill),
            _ => processes.fetcher.kill(),
        }
        match victim {
            "router" => processes.router.restart(),
            "node" => processes.nodes.iter_mut().for_each(Process::restart),
            _ => processes.fetcher.restart(),
        }
        ingest.wait().unwrap();
        processes.wait_active(3);
        // What was interrupted either goes on by itself or is started again by the operator; in the end it is whole.
        wait_until("the repository is published", 2 * SOON, || {
            let state = processes.admin(&["repo", "h/r", "--format=json"]);
            if String::from_utf8_lossy(&state.stdout).contains("\"failed\"") {
                processes.admin(&["ingest", "--source", &url, "--ref", "main", "--path", "h/r"]);
            }
            String::from_utf8_lossy(&state.stdout).contains("\"ready\"")
        });
        let verify = processes.admin(&["verify", "--path", "h/r"]);
        assert!(verify.status.success(), "{victim}: {}", String::from_utf8_lossy(&verify.stdout));
    }
}
