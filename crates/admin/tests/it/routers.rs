//! Several routers, of which some cannot answer.

use std::io::Write;
use std::net::TcpListener;

use monofs_testkit::free_port;

use crate::fake::{Fake, REPO};
use crate::run;

#[test]
fn a_cluster_that_cannot_be_reached_is_code_three() {
    let nobody = format!("--router=127.0.0.1:{}", free_port());
    for args in [
        &["status"][..],
        &["repos"],
        &["ls"],
        &["ingest", "--source=https://h/x"],
        &["verify"],
    ] {
        run(&[args, &[&nobody]].concat()).failed(3, "no router could be reached: 127.0.0.1:");
    }
    // Something listens there, but it speaks another language.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in stranger.incoming().flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    run(&["repos", &format!("--router={address}")]).failed(3, "no router could be reached");
}

#[test]
fn a_router_that_never_answers_is_passed_over_in_time() {
    let fake = Fake::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let routers = format!(
        "--router={},127.0.0.1:{},{}",
        silent.local_addr().unwrap(),
        free_port(),
        fake.address()
    );
    let json = run(&["repos", &routers, "--rpc-timeout=200ms", "--format=json"])
        .done()
        .json();
    assert_eq!(json["repositories"].as_array().unwrap().len(), 3);
}

/// Every verb that changes something, as a command line that works once on a new router.
const CHANGES: [&[&str]; 9] = [
    &["drain", "--reason=work"],
    &["undrain"],
    &["drain", "--node=node2", "--reason=disks"],
    &["undrain", "--node=node2"],
    &["trigger-failover", "--node-id=node2"],
    &["clear-failover", "--node-id=node2"],
    &["rebalance", "--wait"],
    &["remove-member", "--member=node2"],
    &["delete", REPO, "--yes"],
];

#[test]
fn a_router_that_is_down_or_unable_is_passed_over_by_every_verb() {
    let unable = Fake::start_unable();
    let good = Fake::start();
    let routers = format!(
        "--router=127.0.0.1:{},{},{}",
        free_port(),
        unable.address(),
        good.address()
    );
    assert_eq!(
        run(&["cat", &format!("{REPO}/README.md"), &routers])
            .done()
            .out,
        b"# hello\n"
    );
    let status = run(&["status", "--format=json", &routers]).done().json();
    assert_eq!(
        status["routers_known"][1]["id"], "router2",
        "the answer that knows more counts"
    );
    let reads: [&[&str]; 4] = [
        &["failover"],
        &["jobs"],
        &["jobs", "--all"],
        &["rebalance", "--dry-run"],
    ];
    for &args in reads.iter().chain(&CHANGES) {
        run(&[args, &[routers.as_str()][..]].concat()).done();
    }
    let ingest = run(&["ingest", "--source=https://example.com/x.git", &routers]).done();
    assert!(
        ingest.text().starts_with("example.com/x is at"),
        "{}",
        ingest.text()
    );
    assert!(unable.world().ingests.lock().is_empty());
}

#[test]
fn a_cluster_that_has_lost_its_state_says_so_with_code_three() {
    let unable = Fake::start_unable();
    for args in CHANGES {
        unable
            .admin(args)
            .failed(3, "error: the state store cannot be reached");
    }
    let routers = format!("--router={},127.0.0.1:{}", unable.address(), free_port());
    run(&["drain", "--reason=x", &routers]).failed(
        3,
        "cannot be reached; the other routers did not do better (127.0.0.1:",
    );
    let good = Fake::start();
    let routers = format!("--router={},{}", unable.address(), good.address());
    run(&["drain", "--node=node1", "--reason=x", &routers]).failed(4, "fewer than 2 copies");
}

#[test]
fn a_router_that_may_have_done_the_work_is_named_when_the_next_one_refuses() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = Fake::start();
    let routers = format!(
        "--router={},{}",
        silent.local_addr().unwrap(),
        good.address()
    );
    let ran = run(&[
        "delete",
        "no/such",
        "--yes",
        "--rpc-timeout=200ms",
        &routers,
    ]);
    ran.failed(
        1,
        "no repository at no/such; asked before, without knowing how it went: 127.0.0.1:",
    );
}
