//! Separate processes, killed without warning.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use monofs_testkit::model::{Checks, differences};
use monofs_testkit::process::binary;
use monofs_testkit::remotes::GitDaemon;
use monofs_testkit::{ExpectedTree, Process, Repo, assert_matches, free_port, wait_until};

use crate::system::{SOON, can_mount};

/// Variables of every process.
type Envs = Vec<(OsString, OsString)>;

pub struct Processes {
    envs: Envs,
    pub dir: tempfile::TempDir,
    router: Process,
    nodes: Vec<Process>,
    fetcher: Process,
    address: String,
}

impl Processes {
    pub fn start() -> Self {
        Self::start_with(Vec::new())
    }

    fn start_with(envs: Envs) -> Self {
        let spawn =
            |name: &str, args: Vec<String>| Process::spawn_with(binary(name), args, envs.clone());
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (grpc, http) = (free_port(), free_port());
        let address = format!("127.0.0.1:{grpc}");
        let quick = [
            "--health-interval=200ms",
            "--unhealthy-threshold=1500ms",
            "--refresh-interval=0s",
        ];
        let mut args: Vec<String> = quick.map(str::to_owned).into();
        args.extend([
            "--listen=127.0.0.1".into(),
            format!("--port={grpc}"),
            format!("--http-port={http}"),
        ]);
        args.push(format!("--state-dir={}", at("router")));
        let router = spawn("monofs-router", args);
        let node = |n: u8| {
            let (id, db) = (
                format!("--node-id=node{n}"),
                format!("--db-path={}", at(&format!("node{n}"))),
            );
            let addr = format!("--addr=127.0.0.1:{}", free_port());
            spawn(
                "monofs-node",
                vec![id, db, addr, format!("--router={address}")],
            )
        };
        let nodes = vec![node(1), node(2)];
        let addr = format!("--addr=127.0.0.1:{}", free_port());
        let cache = format!("--cache-dir={}", at("fetcher"));
        let fetcher = spawn(
            "monofs-fetcher",
            vec![addr, cache, format!("--router={address}")],
        );
        let processes = Self {
            envs,
            router,
            nodes,
            fetcher,
            address,
            dir,
        };
        processes.wait_active(3);
        processes
    }

    pub fn admin(&self, args: &[&str]) -> std::process::Output {
        let program = binary("monofs-admin");
        std::process::Command::new(program)
            .args(["--router", &self.address])
            .args(args)
            .output()
            .unwrap()
    }

    fn wait_active(&self, members: usize) {
        wait_until("members are active", SOON, || {
            let status = self.admin(&["status", "--format=json"]);
            String::from_utf8_lossy(&status.stdout)
                .matches("\"active\"")
                .count()
                >= members
        });
    }

    pub fn mount(&self, at: &Path) -> Process {
        std::fs::create_dir_all(at).unwrap();
        let mut args = vec![
            format!("--mount={}", at.display()),
            format!("--router={}", self.address),
        ];
        args.push(format!(
            "--cache={}",
            self.dir.path().join("client").display()
        ));
        args.push("--rpc-timeout=5s".into());
        Process::spawn_with(binary("monofs-client"), args, self.envs.clone()).mounting_at(at)
    }
}

/// Waits for the commit and compares; an earlier commit's times will do.
fn wait_follows(at: &Path, expected: &ExpectedTree) {
    wait_until("the mount shows the commit", SOON, || {
        monofs_testkit::model::xattr(at, "user.monofs.commit")
            .is_ok_and(|shown| shown == expected.commit.to_string().as_bytes())
    });
    // The commit is named before the kernel was told about every name.
    let checks = Checks {
        mount: true,
        contents: true,
        exact_times: false,
    };
    wait_until("the mount shows all of the commit", SOON, || {
        differences(at, expected, checks).is_empty()
    });
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
    assert!(
        ingest.status.success(),
        "{}",
        String::from_utf8_lossy(&ingest.stderr)
    );
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
        std::fs::metadata(mount.join("never-asked-before"))
            .is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
    });
    client.restart();
    wait_follows(&at, &expected);

    repo.commit(|c| {
        c.file("after-all-that", "still works");
    });
    let refresh = processes.admin(&["refresh", "h/r"]);
    assert!(
        refresh.status.success(),
        "{}",
        String::from_utf8_lossy(&refresh.stderr)
    );
    wait_follows(&at, &ExpectedTree::of(&repo, "main"));
    let verify = processes.admin(&["verify"]);
    assert!(
        verify.status.success(),
        "{}",
        String::from_utf8_lossy(&verify.stdout)
    );
    assert!(client.terminate(Duration::from_secs(10)).success());
    assert!(
        std::fs::read_dir(&mount).unwrap().next().is_none(),
        "the mount is still there"
    );
}

#[test]
fn an_ingest_whose_node_router_or_fetcher_dies_half_way_ends_whole_or_not_at_all() {
    let repo = Repo::new();
    monofs_testkit::random::populate(&repo, &mut monofs_testkit::random::Rng::new(9), 2000);
    for victim in ["router", "node", "fetcher"] {
        let mut processes = Processes::start();
        let (url, address) = (repo.url(), processes.address.clone());
        let program = binary("monofs-admin");
        let mut ingest = std::process::Command::new(program)
            .args([
                "--router", &address, "ingest", "--source", &url, "--ref", "main", "--path", "h/r",
            ])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the ingest is recorded", SOON, || {
            processes.admin(&["repo", "h/r"]).status.success()
        });
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
        // What was interrupted either goes on by itself or is started again by the operator; in the
        // end it is whole.
        wait_until("the repository is published", 2 * SOON, || {
            let state = processes.admin(&["repo", "h/r", "--format=json"]);
            if String::from_utf8_lossy(&state.stdout).contains("\"failed\"") {
                processes.admin(&["ingest", "--source", &url, "--ref", "main", "--path", "h/r"]);
            }
            String::from_utf8_lossy(&state.stdout).contains("\"ready\"")
        });
        let verify = processes.admin(&["verify", "--path", "h/r"]);
        assert!(
            verify.status.success(),
            "{victim}: {}",
            String::from_utf8_lossy(&verify.stdout)
        );
    }
}

/// The id in the first line that has all of these words.
fn request_id(process: &mut Process, words: &[&str]) -> String {
    monofs_testkit::wait::wait_for("a request is logged", SOON, || {
        let line = process
            .log()
            .into_iter()
            .find(|line| words.iter().all(|word| line.contains(word)))?;
        Some(
            line.split_once("request=\"")?
                .1
                .split_once('"')?
                .0
                .to_owned(),
        )
    })
}

/// Waits until a line of one of the processes has all of these words.
fn wait_logged(processes: &[&Process], words: &[&str]) {
    wait_until(&format!("{words:?} are logged"), SOON, || {
        let has = |line: &String| words.iter().all(|word| line.contains(word));
        processes
            .iter()
            .any(|process| process.log().iter().any(has))
    });
}

#[test]
fn one_request_id_is_in_the_log_of_every_role_that_works_for_it() {
    if !can_mount() {
        return;
    }
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("dir/file", "read on demand");
    });
    let mut processes = Processes::start_with(vec![(
        "RUST_LOG".into(),
        "debug,h2=info,hyper=info,tower=info".into(),
    )]);
    let source = repo.url();
    let ingest = processes.admin(&[
        "ingest",
        "--source",
        &source,
        "--ref",
        "main",
        "--path",
        "h/r",
        "--content=lazy",
    ]);
    assert!(
        ingest.status.success(),
        "{}",
        String::from_utf8_lossy(&ingest.stderr)
    );
    let id = request_id(&mut processes.router, &["Admin/Ingest", "begins"]);
    wait_logged(&[&processes.fetcher], &["Fetcher/Fetch", &id, "fetched"]);
    wait_logged(
        &[&processes.nodes[0], &processes.nodes[1]],
        &["Node/Adopt", &id, "adopted"],
    );
    wait_logged(&[&processes.router], &["Admin/Ingest", &id, "ended"]);

    let mount = processes.dir.path().join("mount");
    let mut client = processes.mount(&mount);
    let file = mount.join("h/r/dir/file");
    wait_until("the file is shown", SOON, || file.exists());
    assert_eq!(std::fs::read(&file).unwrap(), b"read on demand");
    let id = request_id(&mut client, &["doing=\"read\"", "begins"]);
    wait_logged(&[&client], &["doing=\"read\"", &id, "ended"]);
    for word in ["begins", "ended"] {
        wait_logged(
            &[&processes.nodes[0], &processes.nodes[1]],
            &["Content/GetBlobs", &id, word],
        );
        wait_logged(&[&processes.fetcher], &["Content/GetBlobs", &id, word]);
    }
}
