//! HAProxy before two routers that share an etcd: the active one is killed during an ingest, admin
//! calls and a read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_testkit::{ExpectedTree, wait_until};

use crate::ingesting::{Running, assert_ends_whole, assert_shows};
use crate::reader::Reader;
use crate::reading::{FAULT_AT, judge, summary, tree};
use crate::site::{Plan, RPC_TIMEOUT, SOON, Site, said};

const PAUSE_MAX: Duration = Duration::from_secs(1);

#[test]
fn the_second_router_takes_over_when_the_active_one_is_killed() {
    let (read, added) = (tree(4, 1200), tree(5, 400));
    let mut site = Site::start(Plan {
        balanced: true,
        ..Plan::default()
    });
    site.ingest(&read.url(), "h/read", "eager");
    let before = site.repository("h/read").unwrap();
    site.remount();
    let expected = Arc::new(ExpectedTree::of(&read, "main"));
    let reader = Reader::begin(
        site.shown("h/read", &expected.commit.to_string()),
        expected.clone(),
    );
    reader.wait_share(FAULT_AT);
    let url = added.url();
    let ingest = Running::start(site.admin.command(&[
        "ingest", "--source", &url, "--ref", "main", "--path", "h/added",
    ]));
    wait_until("the ingest is recorded", SOON, || {
        site.repository("h/added").is_some() || ingest.is_finished()
    });

    // HAProxy prefers the first one that is ready.
    site.routers[0].process.kill();
    let killed = Instant::now();
    let status = || {
        let from = Instant::now();
        let answered = site.admin(&["status"]).status.success();
        assert!(
            from.elapsed() < 2 * RPC_TIMEOUT,
            "a call took {:?}, past its deadline",
            from.elapsed()
        );
        answered
    };
    wait_until("the operator is answered again", SOON, status);
    println!(
        "the operator is answered {:?} after the kill",
        killed.elapsed()
    );
    wait_until("the ingest command ends", SOON, || ingest.is_finished());
    println!(
        "the interrupted ingest: {}",
        said(&ingest.join()).replace('\n', " ")
    );
    let seen = reader.join();
    println!("a read meanwhile: {}", summary(&seen));
    assert_eq!(judge(&seen, PAUSE_MAX).collect::<Vec<_>>(), [""; 0]);
    assert_ends_whole(&site, "h/added", &added);
    assert_eq!(
        site.repository("h/read").unwrap()["commit"],
        before["commit"],
        "state was lost"
    );

    // The mount hears of commits through the second router.
    read.commit(|changes| {
        changes.file("d00/new", "made while one router was away");
    });
    site.must(&["refresh", "h/read"]);
    let followed = Instant::now();
    site.shown(
        "h/read",
        &ExpectedTree::of(&read, "main").commit.to_string(),
    );
    println!(
        "the mount shows a new commit {:?} after the refresh",
        followed.elapsed()
    );
    site.routers[0].process.restart();
    site.wait_whole();
    assert_shows(&site, "h/added", &added);
    wait_until("every copy passes verification", SOON, || {
        site.admin(&["verify"]).status.success()
    });
}
