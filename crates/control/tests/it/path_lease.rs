//! Leases on paths, between two routers.

use futures::FutureExt;
use monofs_control::Control;
use monofs_control::path_lease::{LeaseOutcome, PathLease, PathWork, take};
use monofs_control::state::StateStore;
use monofs_model::{ErrorKind, RefName, SourceUrl};
use monofs_proto::v1;
use monofs_proto::v1::path_claim::Purpose;
use monofs_testkit::wait::wait_until_async;
use tokio_util::sync::CancellationToken;

use crate::rig::{LEASE, SOON, SharedStore, TestRouter, path, status};

const PATH: &str = "host/team/x";
const KEY: &str = "ingest/host/team/x";

async fn ingest(router: &TestRouter) -> LeaseOutcome {
    let source = SourceUrl::new("https://forge.example/x.git").unwrap();
    let ref_name = RefName::new("main").unwrap();
    let work = PathWork::Ingest {
        source: &source,
        ref_name: &ref_name,
    };
    take(&router.control, &path(PATH), work).await.unwrap()
}

async fn clean_up(router: &TestRouter) -> LeaseOutcome {
    take(&router.control, &path(PATH), PathWork::CleanUp)
        .await
        .unwrap()
}

fn mine(outcome: LeaseOutcome) -> PathLease {
    match outcome {
        LeaseOutcome::Mine(lease) => lease,
        LeaseOutcome::Theirs(claim) => panic!("another has it: {claim:?}"),
    }
}

fn theirs(outcome: LeaseOutcome) -> v1::PathClaim {
    match outcome {
        LeaseOutcome::Theirs(claim) => claim,
        LeaseOutcome::Mine(_) => panic!("two have it"),
    }
}

#[tokio::test]
async fn one_of_two_routers_has_the_lease_and_the_other_learns_what_for() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    let lease = mine(ingest(&first).await);
    let claim = theirs(clean_up(&second).await);
    assert_eq!(
        (claim.router_id.as_str(), claim.purpose()),
        ("first", Purpose::Ingest)
    );
    assert_eq!(
        (claim.source.as_str(), claim.ref_name.as_str()),
        ("https://forge.example/x.git", "main")
    );
    lease.release().await;
    let lease = mine(clean_up(&second).await);
    assert_eq!(theirs(ingest(&first).await).purpose(), Purpose::Collect);
    lease.release().await;
}

#[tokio::test]
async fn leases_on_other_paths_are_free() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    let _lease = mine(clean_up(&first).await);
    for other in ["host/team/y", "host/team", "host/team/x/below"] {
        let taken = take(&second.control, &path(other), PathWork::CleanUp).await;
        mine(taken.unwrap()).release().await;
    }
}

#[tokio::test]
async fn a_lease_that_is_lost_in_the_middle_of_the_work_says_so() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    let lease = mine(ingest(&first).await);
    assert!(lease.lost().now_or_never().is_none());
    first.faults.lose(KEY).await;
    tokio::time::timeout(SOON, lease.lost())
        .await
        .expect("its holder is told");
    mine(ingest(&second).await).release().await;
}

#[tokio::test]
async fn a_lease_that_is_dropped_is_free_in_a_moment() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    drop(mine(ingest(&first).await));
    second.catches_up(&store).await;
    wait_until_async("it is free", SOON, || async {
        matches!(clean_up(&second).await, LeaseOutcome::Mine(_))
    })
    .await;
}

#[tokio::test]
async fn a_row_of_an_earlier_life_of_the_router_is_waited_for() {
    let store = SharedStore::open().await;
    let router = store.router("again").await;
    let held = store.raw.hold(KEY, earlier(&router.control), LEASE);
    let held = held.await.unwrap().expect("it is free");
    let (outcome, ()) = tokio::join!(ingest(&router), async {
        let claims = &router.control.tables.claims;
        wait_until_async("it is known to be held", SOON, || async {
            claims.get(PATH).is_some()
        })
        .await;
        held.release(SOON).await;
    });
    mine(outcome).release().await;
}

#[tokio::test]
async fn a_row_of_an_earlier_life_that_stays_is_refused_after_two_leases() {
    let store = SharedStore::open().await;
    let router = store.router("again").await;
    let held = store.raw.hold(KEY, earlier(&router.control), LEASE);
    let _held = held.await.unwrap().expect("it is free");
    let refused = take(&router.control, &path(PATH), PathWork::CleanUp).await;
    let Err(error) = refused else {
        panic!("it is held")
    };
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.message.contains("try again in a moment"), "{error}");
}

/// The row of a lease of this router.
fn earlier(control: &Control) -> Vec<u8> {
    control.tables.claims.value(&v1::PathClaim {
        path: PATH.to_owned(),
        router_id: control.own.router_id.clone(),
        ..v1::PathClaim::default()
    })
}

#[tokio::test]
async fn no_lease_is_given_while_the_state_store_is_away() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    router.faults.set_away(true);
    let refused = take(&router.control, &path(PATH), PathWork::CleanUp).await;
    let Err(error) = refused else {
        panic!("it cannot be held")
    };
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("reads go on"), "{error}");
    router.faults.set_away(false);
    mine(clean_up(&router).await).release().await;
}

#[tokio::test]
async fn a_state_of_one_router_needs_no_rows() {
    let store = SharedStore::open().await;
    let stop = CancellationToken::new();
    let control = Control::start(store.raw.clone(), status("only"), LEASE, &stop).await;
    let control = control.unwrap();
    let taken = take(&control, &path(PATH), PathWork::CleanUp).await;
    let lease = mine(taken.unwrap());
    assert_eq!(store.raw.scan("").await.unwrap().rows, []);
    assert!(lease.lost().now_or_never().is_none());
    lease.release().await;
}
