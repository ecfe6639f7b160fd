//! Two replicas: a slow one is hedged and then avoided, and hedges stay within their budget.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use monofs_client::{Config, Mounted, mount};
use monofs_testkit::Repo;

use crate::fake::{FakeCluster, Mode};
use crate::on_mount;

/// Reads after which the client has an opinion about delays.
const WARM_UP: usize = 100;
/// What hedges may be above a tenth of the requests.
const BURST: u64 = 10;

/// Two nodes that hold so many files, and a mount where each read is one request.
async fn files(count: usize) -> (FakeCluster, Mounted) {
    let cluster = FakeCluster::start(2).await;
    let repo = Repo::new();
    repo.commit(|c| {
        for file in 0..count {
            c.file(format!("f{file}"), format!("content {file}"));
        }
    });
    cluster.publish("h/r", &repo, "main");
    let mounted = mount(Config {
        prefetch: false,
        ..cluster.config()
    })
    .await
    .unwrap();
    (cluster, mounted)
}

/// Reads a file, checks it and says how long that took.
async fn read(mounted: &Mounted, file: usize) -> Duration {
    on_mount(mounted, &format!("h/r/f{file}"), move |at| {
        let start = Instant::now();
        assert_eq!(fs::read_to_string(at).unwrap(), format!("content {file}"));
        start.elapsed()
    })
    .await
}

fn asked(cluster: &FakeCluster, node: usize) -> u64 {
    cluster.nodes[node].asked.blobs.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_becomes_slow_is_hedged_and_then_avoided() {
    // Less than the delay of hedges before anything was observed.
    let slow = Duration::from_millis(250);
    let (cluster, mounted) = files(3 * WARM_UP + 100).await;
    let mut file = 0;
    // Both are tried, whichever is nearer.
    while file < WARM_UP || asked(&cluster, 0) == 0 || asked(&cluster, 1) == 0 {
        read(&mounted, file).await;
        file += 1;
    }
    let before = mounted.status().unwrap().reads;
    let preferred = {
        let counts = [asked(&cluster, 0), asked(&cluster, 1)];
        read(&mounted, file).await;
        file += 1;
        if asked(&cluster, 0) > counts[0] { 0 } else { 1 }
    };
    cluster.nodes[preferred].set(Mode::Slow(slow));
    let begun = asked(&cluster, preferred);
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        slowest = slowest.max(read(&mounted, file).await);
        file += 1;
    }
    let status = mounted.status().unwrap().reads;
    assert!(
        slowest < slow,
        "the slowest read took {slowest:?}, {} hedges",
        status.hedges
    );
    assert!(
        status.hedges_won > before.hedges_won,
        "{} of {} hedges won",
        status.hedges_won,
        status.hedges
    );
    // Requests are counted by the fake when it has waited, and those given up are not counted at
    // all.
    let slow_ones = asked(&cluster, preferred) - begun + status.hedges - before.hedges;
    assert!(
        slow_ones < 25,
        "{slow_ones} of 100 requests went to the slow one"
    );
    assert_eq!((status.failed, status.calls_failed), (0, 0));
    mounted.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_replicas_are_slow_hedges_stay_within_their_budget() {
    let (cluster, mounted) = files(2 * WARM_UP).await;
    for file in 0..WARM_UP {
        read(&mounted, file).await;
    }
    for node in &cluster.nodes {
        node.set(Mode::Slow(Duration::from_millis(50)));
    }
    let before = mounted.status().unwrap().reads;
    for batch in 0..WARM_UP / 4 {
        let first = WARM_UP + batch * 4;
        let (a, b, c, d) = (first, first + 1, first + 2, first + 3);
        tokio::join!(
            read(&mounted, a),
            read(&mounted, b),
            read(&mounted, c),
            read(&mounted, d)
        );
    }
    let status = mounted.status().unwrap().reads;
    let (hedges, calls) = (status.hedges - before.hedges, status.calls - before.calls);
    let requests = calls - hedges;
    assert!(
        hedges <= BURST + requests / 10,
        "{hedges} hedges of {requests} requests"
    );
    assert_eq!(requests, WARM_UP as u64, "and nothing else is asked twice");
    assert_eq!((status.failed, status.calls_failed), (0, 0));
    mounted.unmount().await.unwrap();
}
