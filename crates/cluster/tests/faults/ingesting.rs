//! An ingest while a server breaks: it ends whole or not at all, in time, and says why; then it can
//! be made again.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use monofs_testkit::model::{Checks, differences};
use monofs_testkit::wait::wait_for;
use monofs_testkit::{ExpectedTree, Repo, wait_until};

use crate::fault::Fault::{self, *};
use crate::reading::tree;
use crate::site::{Plan, Role, SOON, Site, said};

/// How long the operator's command may go on with a broken server: what a call to it may take,
/// twice.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// And with a node or fetcher that has gone silently: the router asks whether it is there, and does
/// not wait for its connection to notice, which takes ten seconds for each call.
const ENDS_WITHOUT_A_SILENT_ONE_WITHIN: Duration = Duration::from_secs(7);

fn survives(plan: Plan, rows: &[(Role, Fault)]) {
    let repo = tree(2, 400);
    let mut site = Site::start(plan);
    site.remount();
    // A client without a catalogue needs a router to start.
    site.mount_status();
    for &(role, fault) in rows {
        let path = format!("h/{role:?}-{fault:?}").to_lowercase();
        let row = format!("{role:?} {fault:?} during an ingest");
        let command = site.admin.command(&[
            "ingest",
            "--source",
            &repo.url(),
            "--ref",
            "main",
            "--path",
            &path,
        ]);
        let disks: Vec<u64> = site
            .fetchers
            .iter()
            .map(|fetcher| fetcher.disk.used_bytes())
            .collect();
        let began = Instant::now();
        let ingest = Running::start(command);
        let under_way = || site.repository(&path).is_some();
        wait_until("the ingest is recorded", SOON, || {
            under_way() || ingest.is_finished()
        });
        assert!(
            !ingest.is_finished(),
            "{row}: it was over before the fault came"
        );
        let client = site.client_host.clone();
        let index = match role {
            // The one that the router chose.
            Role::Fetcher => wait_for("a fetcher fetches", SOON, || {
                site.fetchers
                    .iter()
                    .zip(&disks)
                    .position(|(fetcher, before)| fetcher.disk.used_bytes() > *before)
            }),
            _ => 0,
        };
        fault.inflict(site.server(role, index), &client);
        let limit = match (role, fault) {
            (Role::Node | Role::Fetcher, Stop) => ENDS_WITHOUT_A_SILENT_ONE_WITHIN,
            _ => ENDS_WITHIN,
        };
        wait_until(&format!("{row}: the command ends"), limit, || {
            ingest.is_finished()
        });
        let out = ingest.join();
        println!(
            "{row}: {:.1} s, {}",
            began.elapsed().as_secs_f64(),
            said(&out).replace('\n', " ")
        );
        assert!(
            out.status
                .code()
                .is_some_and(|code| [0, 1, 3, 4].contains(&code)),
            "{row}: {}",
            said(&out)
        );
        if out.status.success() && role != Role::Router {
            // What the command says is there is there, whatever is broken.
            assert_shows(&site, &path, &repo);
        }
        fault.heal(site.server(role, index), &client);
        site.wait_whole();
        assert_ends_whole(&site, &path, &repo);
        site.must(&["delete", &path, "--yes"]);
    }
}

/// What was interrupted goes on by itself or is started again by the operator; in the end it is
/// whole, everywhere.
pub fn assert_ends_whole(site: &Site, path: &str, repo: &Repo) {
    wait_until("the repository is published", SOON, || {
        let state = site
            .repository(path)
            .map(|entry| entry["state"].as_str().unwrap_or_default().to_owned());
        if state.is_none() || state.as_deref() == Some("failed") {
            site.admin(&[
                "ingest",
                "--source",
                &repo.url(),
                "--ref",
                "main",
                "--path",
                path,
                "--wait",
            ]);
        }
        state.as_deref() == Some("ready")
    });
    site.wait_replicated(path);
    assert_shows(site, path, repo);
    wait_until("every replica passes verification", SOON, || {
        site.admin(&["verify", "--path", path]).status.success()
    });
}

pub fn assert_shows(site: &Site, path: &str, repo: &Repo) {
    let expected = ExpectedTree::of(repo, "main");
    let at = site.shown(path, &expected.commit.to_string());
    let found = differences(
        &at,
        &expected,
        Checks {
            mount: true,
            contents: true,
            exact_times: true,
        },
    );
    assert!(found.is_empty(), "{path} differs: {}", found.join("\n"));
}

/// A command that runs beside the test.
pub struct Running(std::thread::JoinHandle<Output>);

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self(std::thread::spawn(move || command.output().unwrap()))
    }

    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    pub fn join(self) -> Output {
        self.0.join().unwrap()
    }
}

/// Both nodes are replicas of everything.
fn two_nodes() -> Plan {
    Plan {
        nodes: 2,
        ..Plan::default()
    }
}

const QUICK: [Fault; 3] = [Kill, Stop, FullDisk];
const REST: [Fault; 5] = [Partition, Deaf, Mute, SlowLink, Lossy];

#[test]
fn an_ingest_survives_a_broken_node() {
    survives(two_nodes(), &QUICK.map(|fault| (Role::Node, fault)));
}

#[test]
fn an_ingest_survives_a_broken_router() {
    survives(two_nodes(), &QUICK.map(|fault| (Role::Router, fault)));
}

#[test]
fn an_ingest_survives_a_broken_fetcher() {
    survives(two_nodes(), &QUICK.map(|fault| (Role::Fetcher, fault)));
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn an_ingest_survives_servers_that_are_hard_to_reach() {
    for role in [Role::Node, Role::Router, Role::Fetcher] {
        survives(two_nodes(), &REST.map(|fault| (role, fault)));
    }
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn an_ingest_survives_clocks_that_jump() {
    for role in [Role::Node, Role::Router, Role::Fetcher] {
        survives(
            Plan {
                clocks: true,
                ..two_nodes()
            },
            &[(role, ClockAhead), (role, ClockBehind)],
        );
    }
}
