//! Work of the cluster: listed, followed to its end, cancelled.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::json;

use crate::command;
use crate::fake::Fake;

#[test]
fn jobs_are_listed_with_their_progress() {
    let fake = Fake::start();
    assert!(
        fake.admin(&["jobs"])
            .done()
            .text()
            .starts_with("no job runs; ")
    );
    let started = fake.admin(&["rebalance"]).done().text();
    assert!(
        started.ends_with("next: monofs-admin jobs watch rebalance-all\n"),
        "{started}"
    );
    let json = fake.admin(&["jobs", "--format=json"]).done().json();
    let job = json!({
        "id": "rebalance-all", "kind": "rebalance", "state": "running", "subject": null, "reason": "asked for",
        "steps_done": 1, "steps_total": 4, "bytes_done": 1024, "bytes_total": 4096,
        "started_at": "2023-11-14T22:15:00Z", "ended_at": null, "message": "copies github.com/org/repo to node1",
        "last_error": null, "router_id": "router1", "held_back": false,
    });
    let list = json!({"jobs": [job], "total": 1, "offset": 0, "limit": 1, "next_offset": null});
    assert_eq!(json, list);
    let table = fake.admin(&["jobs"]).done().text();
    assert!(
        table.starts_with("JOB") && table.contains("everything"),
        "{table}"
    );
    assert!(table.contains("1/4  1.0 KiB of 4.0 KiB"), "{table}");
    let all = fake
        .admin(&["jobs", "--all", "--format=json"])
        .done()
        .json();
    assert_eq!(
        (
            all["jobs"][1]["state"].as_str(),
            all["jobs"][1]["subject"].as_str()
        ),
        (Some("done"), Some("node3"))
    );
}

#[test]
fn a_rebalance_is_followed_to_its_end() {
    let fake = Fake::start();
    let ran = fake.admin(&["rebalance", "--wait"]).done();
    assert!(
        ran.text()
            .ends_with("\nrebalance rebalance-all is done: 4 steps, 4.0 KiB\n"),
        "{}",
        ran.text()
    );
    let progress = "rebalance-all: running: 1/4 steps, 1.0 KiB of 4.0 KiB, copies \
     github.com/org/repo to node1\n\
                    rebalance-all: waiting: 1/4 steps, 1.0 KiB of 4.0 KiB, waits for node2\n";
    assert_eq!(ran.err, progress);
    let json = fake
        .admin(&["rebalance", "--wait", "--format=json"])
        .done()
        .json();
    assert_eq!(
        (json["job_id"].as_str(), json["job"]["state"].as_str()),
        (Some("rebalance-all"), Some("done"))
    );
    assert_eq!(json["job"]["ended_at"], "2023-11-14T22:16:00Z");
}

#[test]
fn how_a_job_ends_decides_the_code() {
    let fake = Fake::start();
    for name in ["good", "bad", "stopped"] {
        fake.admin(&["rebalance", &format!("--path=x/{name}")])
            .done();
    }
    let watch = |name: &str| {
        fake.admin(&[
            "jobs",
            "watch",
            &format!("rebalance-{name}"),
            "--format=json",
        ])
    };
    assert_eq!(watch("good").done().json()["job"]["steps_done"], 4);
    watch("bad").failed(
        1,
        "job rebalance-bad failed; 1/4 steps were done: node1: disk full",
    );
    assert_eq!(watch("bad").json()["job"]["last_error"], "node1: disk full");
    watch("stopped").failed(1, "was cancelled");
    fake.admin(&["rebalance", "--path=x/bad", "--wait"])
        .failed(1, "disk full");
    watch("unknown").failed(1, "no job is called rebalance-unknown");
}

#[test]
fn a_watch_that_breaks_off_is_taken_up_again() {
    let fake = Fake::start();
    let ran = fake.admin(&["rebalance", "--path=x/cut", "--wait"]).done();
    assert!(
        ran.text().contains("rebalance-cut is done"),
        "{}",
        ran.text()
    );
}

#[test]
fn a_watch_outlives_its_router_only_for_a_while() {
    let fake = Fake::start();
    fake.admin(&["rebalance", "--path=x/mute"]).done();
    let mut child = command(&[
        "jobs",
        "watch",
        "rebalance-mute",
        &format!("--router={}", fake.address()),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("rebalance-mute: running: ")
    );
    drop(fake);
    assert_eq!(
        lines.next().unwrap(),
        "error: the routers tell nothing more about job rebalance-mute"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .contains("`monofs-admin jobs watch rebalance-mute` asks again")
    );
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn an_interrupted_watch_leaves_the_job_alone() {
    let fake = Fake::start();
    fake.admin(&["rebalance", "--path=x/mute"]).done();
    let mut child = command(&[
        "jobs",
        "watch",
        "rebalance-mute",
        &format!("--router={}", fake.address()),
    ])
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("rebalance-mute: running: ")
    );
    let sent = std::process::Command::new("kill")
        .args(["-s", "INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(
        lines.next().unwrap(),
        "error: interrupted; the cluster goes on with the job"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .contains("`monofs-admin jobs cancel rebalance-mute` stops it")
    );
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(
        fake.admin(&["jobs", "--format=json"]).done().json()["jobs"][0]["state"],
        "running"
    );
}

#[test]
fn a_job_is_cancelled_once() {
    let fake = Fake::start();
    fake.admin(&["rebalance"]).done();
    let text = fake
        .admin(&["jobs", "cancel", "rebalance-all"])
        .done()
        .text();
    assert!(
        text.starts_with("job rebalance-all is cancelled; 1/4 steps were done and stay so\n"),
        "{text}"
    );
    fake.admin(&["jobs", "cancel", "rebalance-all"])
        .failed(4, "has ended already");
    fake.admin(&["jobs", "cancel", "no-such"])
        .failed(1, "no job is called no-such");
    fake.admin(&["rebalance"]).done();
}
