//! A full-tree read through a mount with an empty cache, while a server breaks.

use std::sync::Arc;
use std::time::Duration;

use monofs_testkit::random::Rng;
use monofs_testkit::{ExpectedTree, Repo};

use crate::fault::Fault::{self, *};
use crate::reader::{Reader, Seen};
use crate::site::{Plan, RPC_TIMEOUT, Role, Site};

/// Where the repository is shown.
const PATH: &str = "h/tree";
/// The share of the tree after which the fault comes.
pub const FAULT_AT: f64 = 0.2;

/// One row: what breaks, and the longest pause of any single call that a reader may see.
type Row = (Role, Fault, Duration);

const KILLED: Duration = Duration::from_secs(1);
const STOPPED: Duration = Duration::from_secs(2);

/// Files that do not compress, twenty in each directory: 1200 are about 40 MB.
pub fn tree(seed: u64, files: u64) -> Repo {
    let repo = Repo::new();
    let mut rng = Rng::new(seed);
    repo.commit(|changes| {
        for n in 0..files {
            let len = if n % 40 == 0 {
                400_000
            } else {
                1 + rng.below(50_000)
            };
            let bytes: Vec<u8> = (0..len.div_ceil(8))
                .flat_map(|_| rng.bits().to_le_bytes())
                .collect();
            changes.file(format!("d{:02}/f{n:04}", n / 20), bytes);
        }
    });
    repo
}

fn survives(plan: Plan, content: &str, rows: &[Row]) {
    let repo = tree(1, 1200);
    let expected = Arc::new(ExpectedTree::of(&repo, "main"));
    let mut site = Site::start(plan);
    site.ingest(&repo.url(), PATH, content);
    let mut broken = Vec::new();
    for &(role, fault, pause_max) in rows {
        site.remount();
        let at = site.shown(PATH, &expected.commit.to_string());
        let sent = site.sent_bytes(role);
        let reader = Reader::begin(at, expected.clone());
        reader.wait_share(FAULT_AT);
        assert!(
            !reader.is_finished(),
            "the tree is too small: it was read before the fault came"
        );
        let (client, index) = (site.client_host.clone(), site.busiest(role, &sent));
        fault.inflict(site.server(role, index), &client);
        let seen = reader.join();
        let reads = &site.mount_status()["reads"];
        println!(
            "{role:?} {fault:?} during a read: {}; {reads}",
            summary(&seen)
        );
        broken.extend(judge(&seen, pause_max).map(|what| format!("{role:?} {fault:?}: {what}")));
        fault.heal(site.server(role, index), &client);
        site.wait_whole();
        site.wait_replicated(PATH);
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    site.must(&["verify"]);
}

/// One line of figures.
pub fn summary(seen: &Seen) -> String {
    format!(
        "{} calls, {:.1} MB in {:.1} s, longest {} ms ({})",
        seen.calls,
        seen.bytes as f64 / 1e6,
        seen.took.as_secs_f64(),
        seen.longest.as_millis(),
        seen.longest_at
    )
}

/// What a reader must not see.
pub fn judge(seen: &Seen, pause_max: Duration) -> impl Iterator<Item = String> {
    let slow = (seen.longest > pause_max).then(|| {
        format!(
            "a pause of {:?}, more than {pause_max:?}: {}",
            seen.longest, seen.longest_at
        )
    });
    let wrong = seen.wrong.iter().map(|what| format!("wrong: {what}"));
    let failed = seen.failed.iter().map(|what| format!("failed: {what}"));
    slow.into_iter()
        .chain(wrong)
        .chain(failed)
        .collect::<Vec<_>>()
        .into_iter()
}

/// A row of each fault for one role.
fn rows<const N: usize>(role: Role, faults: [Fault; N], pause_max: Duration) -> [Row; N] {
    faults.map(|fault| (role, fault, pause_max))
}

/// Each row on a site of its own: what was read once is on the nodes, and needs no fetcher any more.
fn survives_lazily<const N: usize>(rows: [Row; N]) {
    rows.iter()
        .for_each(|row| survives(Plan::default(), "lazy", &[*row]));
}

#[test]
fn a_read_survives_a_broken_node() {
    let killed = rows(Role::Node, [Kill, FullDisk], KILLED);
    let gone = rows(
        Role::Node,
        [
            Stop,
            Partition,
            PartitionFromClient,
            Deaf,
            Mute,
            SlowLink,
            Lossy,
        ],
        STOPPED,
    );
    survives(Plan::default(), "eager", &[&killed[..], &gone].concat());
}

#[test]
fn a_read_survives_broken_connections() {
    let plan = Plan {
        proxies: true,
        ..Plan::default()
    };
    survives(
        plan,
        "eager",
        &rows(Role::Node, [Reset, HalfOpen, NoAnswers], STOPPED),
    );
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_survives_slow_and_one_way_connections() {
    let plan = Plan {
        proxies: true,
        ..Plan::default()
    };
    survives(plan, "eager", &rows(Role::Node, [NoAsks, Delay], STOPPED));
}

#[test]
fn a_read_does_not_notice_a_broken_router() {
    survives(
        Plan::default(),
        "eager",
        &rows(Role::Router, [Kill, Stop, Partition, FullDisk], KILLED),
    );
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_does_not_notice_a_router_that_is_hard_to_reach() {
    survives(
        Plan::default(),
        "eager",
        &rows(Role::Router, [Deaf, Mute, SlowLink, Lossy], KILLED),
    );
}

/// Contents that no node holds yet: a node that is gone is a place to pull from, too.
#[test]
fn a_read_of_a_lazy_repository_survives_a_broken_node() {
    survives_lazily(rows(Role::Node, [Kill, Stop], STOPPED));
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_of_a_lazy_repository_survives_a_node_that_is_hard_to_reach() {
    survives_lazily(rows(
        Role::Node,
        [Partition, Deaf, Mute, SlowLink, Lossy, FullDisk],
        STOPPED,
    ));
}

/// Where a fetcher breaks, another has to clone first: only the deadline holds.
#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_of_a_lazy_repository_survives_a_broken_fetcher() {
    survives_lazily(rows(Role::Fetcher, [Kill, Stop], RPC_TIMEOUT));
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_of_a_lazy_repository_survives_a_fetcher_that_is_hard_to_reach() {
    survives_lazily(rows(
        Role::Fetcher,
        [Partition, Deaf, Mute, SlowLink, Lossy, FullDisk],
        RPC_TIMEOUT,
    ));
}

#[test]
#[ignore = "together over five minutes: make test-long"]
fn a_read_survives_clocks_that_jump() {
    let of = |role| rows(role, [ClockAhead, ClockBehind], KILLED);
    let rows = [of(Role::Node), of(Role::Router), of(Role::Fetcher)].concat();
    survives(
        Plan {
            clocks: true,
            ..Plan::default()
        },
        "eager",
        &rows,
    );
}
