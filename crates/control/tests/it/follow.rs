//! How a router's memory follows the state store through watches that end, come late or bring what
//! cannot be understood.

use monofs_control::Control;
use monofs_model::ErrorKind;
use monofs_proto::v1;
use monofs_testkit::wait::wait_until_async;
use tokio_util::sync::CancellationToken;

use crate::faulty::FaultyState;
use crate::rig::{LEASE, SOON, SharedStore, TestRouter, actor, entry, path, status};

async fn add_job(router: &TestRouter, name: &str) -> monofs_model::Result<Option<v1::Job>> {
    let row = v1::Job {
        id: name.to_owned(),
        ..v1::Job::default()
    };
    let jobs = &router.control.tables.jobs;
    jobs.update(actor(), name, |_| Ok(Some(row.clone()))).await
}

async fn reachable(router: &TestRouter, reachable: bool) {
    let mut now = router.control.shared.reachable();
    tokio::time::timeout(SOON, now.wait_for(|now| *now == reachable))
        .await
        .expect("it is noticed")
        .unwrap();
}

#[tokio::test]
async fn a_watch_that_breaks_is_made_again_where_it_ended() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    second.faults.hold_watches_up(true);
    add_job(&first, "missed").await.unwrap();
    let scans = second.faults.scans();
    second.faults.end_watch(ErrorKind::Unavailable).await;
    reachable(&second, false).await;
    second.faults.hold_watches_up(false);
    add_job(&first, "later").await.unwrap();
    reachable(&second, true).await;
    second.catches_up(&store).await;
    assert_eq!(second.control.tables.jobs.list().len(), 2);
    assert_eq!(second.faults.scans(), scans, "nothing was read again");
}

#[tokio::test]
async fn after_a_forgotten_history_everything_is_read_again_and_clients_go_on() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    for name in ["h/stays", "h/goes"] {
        first
            .control
            .entries
            .create(actor(), entry(name))
            .await
            .unwrap();
        publish(&first, name, 1).await;
    }
    second.catches_up(&store).await;
    let position = second.control.catalog.position();
    second.faults.hold_watches_up(true);
    first
        .control
        .entries
        .remove(actor(), &path("h/goes"))
        .await
        .unwrap();
    first
        .control
        .entries
        .create(actor(), entry("h/new"))
        .await
        .unwrap();
    publish(&first, "h/new", 1).await;
    add_job(&first, "job").await.unwrap();
    let scans = second.faults.scans();
    second.faults.end_watch(ErrorKind::NotHeld).await;
    second.catches_up(&store).await;
    assert_eq!(second.faults.scans(), scans + 1);
    second.faults.hold_watches_up(false);
    assert!(second.control.tables.jobs.get("job").is_some());
    let changes = second.control.catalog.changes_since(&position);
    let changes = changes.expect("the position is known still");
    let upserts: Vec<&str> = changes.upserts.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        (upserts, changes.removed),
        (vec!["h/new"], vec!["h/goes".to_owned()])
    );
    publish(&first, "h/stays", 2).await;
    second.catches_up(&store).await;
    let stays = second.control.catalog.require("h/stays").unwrap();
    assert_eq!(stays.generation, 2, "and the watch goes on");
}

async fn publish(router: &TestRouter, name: &str, number: u64) {
    let entry = router.control.catalog.require(name).unwrap();
    let holder = crate::rig::node("n");
    router
        .control
        .entries
        .flip(actor(), &entry, &crate::rig::snapshot(number), &holder)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_understood_stays_as_it_was_and_the_others_go_on() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    add_job(&router, "known").await.unwrap();
    router
        .control
        .entries
        .create(actor(), entry("h/x"))
        .await
        .unwrap();
    let intent = router
        .control
        .tables
        .intents
        .value(&v1::NodeIntent::default());
    let rows: [(&str, &[u8]); 4] = [
        ("job/known", b"\xffof a later version"),
        ("repo/h/x", b"\x01\xff\xff"),
        ("intent/node", &intent),
        ("retained/x/y", b""),
    ];
    let revision = store.put(&rows).await;
    router.sees(revision).await;
    let tables = &router.control.tables;
    assert_eq!(tables.jobs.get("known").unwrap().id, "known");
    assert!(tables.intents.get("node").is_some());
    assert_eq!(
        *router.control.catalog.require("h/x").unwrap(),
        entry("h/x")
    );
    add_job(&router, "next").await.unwrap();
    assert_eq!(tables.jobs.list().len(), 2);
}

#[tokio::test]
async fn a_router_does_not_start_on_rows_of_a_later_version() {
    let store = SharedStore::open().await;
    store.put(&[("job/known", b"\x07of a later version")]).await;
    let faults = FaultyState::new(store.raw.clone());
    let stop = CancellationToken::new();
    let Err(error) = Control::start(faults, status("old"), LEASE, &stop).await else {
        panic!("it cannot know what it would overwrite")
    };
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(
        error.message.contains("job/known") && error.message.contains("newer monofs-router"),
        "{error}"
    );
}

#[tokio::test]
async fn a_change_whose_echo_does_not_come_says_that_it_was_written() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    router.faults.hold_watches_up(true);
    let error = add_job(&router, "job").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.starts_with("written, but"), "{error}");
    router.faults.hold_watches_up(false);
    router.catches_up(&store).await;
    assert!(router.control.tables.jobs.get("job").is_some());
}

#[tokio::test]
async fn while_the_store_is_away_changes_are_refused_and_reads_go_on() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    router
        .control
        .entries
        .create(actor(), entry("h/x"))
        .await
        .unwrap();
    router.faults.set_away(true);
    let error = router
        .control
        .entries
        .create(actor(), entry("h/y"))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("reads go on"), "{error}");
    reachable(&router, false).await;
    assert!(router.control.catalog.require("h/x").is_ok());
    router.faults.set_away(false);
    // A watch that is made again is the proof that it can be reached.
    router.faults.end_watch(ErrorKind::Unavailable).await;
    wait_until_async("it is tried again", SOON, || async {
        router
            .control
            .entries
            .create(actor(), entry("h/y"))
            .await
            .is_ok()
    })
    .await;
    reachable(&router, true).await;
}

#[tokio::test]
async fn one_that_always_loses_gives_way_after_a_bounded_number_of_tries() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    // Memory hears of nothing, so every try compares with what was.
    router.faults.hold_watches_up(true);
    store
        .put(&[(
            "job/job",
            &router.control.tables.jobs.value(&v1::Job::default()),
        )])
        .await;
    let mut tries = 0;
    let jobs = &router.control.tables.jobs;
    let refused = jobs.update(actor(), "job", |_| {
        tries += 1;
        Ok(Some(v1::Job::default()))
    });
    let error = refused.await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert_eq!(tries, 16);
}
