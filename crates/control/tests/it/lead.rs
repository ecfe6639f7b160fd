//! Which router leads: over one state store, with leases that are lost, expire or are released.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use monofs_control::lead::while_leading;
use monofs_proto::v1;
use monofs_testkit::wait::wait_until_async;
use tokio_util::sync::CancellationToken;

use crate::rig::{SOON, SharedStore, actor};

/// The key that the leader holds.
const LEADER: &str = "leader/";

fn names(routers: &[v1::RouterStatus]) -> Vec<(&str, bool)> {
    routers
        .iter()
        .map(|router| (router.router_id.as_str(), router.leader))
        .collect()
}

#[tokio::test]
async fn one_of_two_routers_leads_and_the_other_follows_it_at_once_when_it_stops() {
    let store = SharedStore::open().await;
    let mut first = store.router("first").await;
    first.take_part();
    first.leads(true).await;
    let mut second = store.router("second").await;
    second.take_part();
    wait_until_async("both are seen by both", SOON, || async {
        [&first, &second]
            .iter()
            .all(|router| router.control.routers().len() == 2)
    })
    .await;
    for router in [&first, &second] {
        assert_eq!(
            names(&router.control.routers()),
            [("first", true), ("second", false)]
        );
    }
    assert!(first.control.is_leading() && !second.control.is_leading());
    first.stop().await;
    second.leads(true).await;
    wait_until_async("the one that stopped is gone", SOON, || async {
        names(&second.control.routers()) == [("second", true)]
    })
    .await;
    second.stop().await;
    let left = monofs_control::state::StateStore::scan(&*store.raw, "").await;
    assert_eq!(left.unwrap().rows, [], "both released what they held");
}

#[tokio::test]
async fn a_leader_whose_lease_is_lost_says_so_before_another_leads() {
    let store = SharedStore::open().await;
    let mut first = store.router("first").await;
    first.take_part();
    first.leads(true).await;
    let mut second = store.router("second").await;
    second.take_part();
    let mut leading = first.control.leading.clone();
    leading.mark_unchanged();
    first.faults.lose(LEADER).await;
    leading.changed().await.unwrap();
    wait_until_async("one leads again", SOON, || async {
        first.control.is_leading() || second.control.is_leading()
    })
    .await;
    wait_until_async("and no more than one", SOON, || async {
        first.control.is_leading() != second.control.is_leading()
    })
    .await;
}

#[tokio::test]
async fn work_of_the_leader_is_broken_off_with_its_lease_and_begun_again_with_the_next() {
    let store = SharedStore::open().await;
    let mut router = store.router("only").await;
    router.take_part();
    let running = Arc::new(AtomicUsize::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let leading = router.control.leading.clone();
    let counts = (running.clone(), begun.clone());
    let work = tokio::spawn(while_leading(leading, stop.clone(), move |_| {
        let (running, begun) = counts.clone();
        async move {
            let _counted = Counted::new(&running);
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        }
    }));
    wait_until_async("it works", SOON, || async {
        begun.load(Ordering::SeqCst) == 1
    })
    .await;
    router.faults.lose(LEADER).await;
    wait_until_async("it works again", SOON, || async {
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    assert_eq!(running.load(Ordering::SeqCst), 1, "the first was dropped");
    router.stop().await;
    wait_until_async("it works no more", SOON, || async {
        running.load(Ordering::SeqCst) == 0
    })
    .await;
    stop.cancel();
    tokio::time::timeout(SOON, work).await.unwrap().unwrap();
}

/// Counts while it is there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(running.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn work_that_is_done_is_not_begun_again_in_the_same_term() {
    let store = SharedStore::open().await;
    let mut router = store.router("only").await;
    let begun = Arc::new(AtomicUsize::new(0));
    let counts = begun.clone();
    let stop = CancellationToken::new();
    let leading = router.control.leading.clone();
    let work = tokio::spawn(while_leading(leading, stop.clone(), move |_| {
        counts.fetch_add(1, Ordering::SeqCst);
        std::future::ready(())
    }));
    router.take_part();
    router.leads(true).await;
    wait_until_async("it was begun", SOON, || async {
        begun.load(Ordering::SeqCst) == 1
    })
    .await;
    // What only goes on later than that.
    router
        .control
        .tables
        .maintenance
        .update(actor(), "", |_| Ok(Some(v1::Maintenance::default())))
        .await
        .unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    stop.cancel();
    tokio::time::timeout(SOON, work).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_suspended_leader_cannot_undo_what_its_successor_wrote() {
    let store = SharedStore::open().await;
    let mut first = store.router("first").await;
    first.take_part();
    first.leads(true).await;
    // It hears of nothing any more, and its lease ends.
    first.faults.hold_watches_up(true);
    first.faults.expire(LEADER).await;
    let mut second = store.router("second").await;
    second.take_part();
    second.leads(true).await;
    assert!(first.control.is_leading(), "as far as it knows");
    let jobs = &second.control.tables.jobs;
    jobs.update(actor(), "job", |_| Ok(Some(job("of the second", 1))))
        .await
        .unwrap();
    // It goes on and adds to a row that is not there in its memory.
    let tries = AtomicUsize::new(0);
    let late = first.control.tables.jobs.update(actor(), "job", |row| {
        tries.fetch_add(1, Ordering::SeqCst);
        let steps = row.map_or(0, |row| row.steps_done);
        Ok(Some(job("of the first", steps + 1)))
    });
    let resumed = async {
        wait_until_async("its first try was refused", SOON, || async {
            tries.load(Ordering::SeqCst) > 1
        })
        .await;
        first.faults.hold_watches_up(false);
    };
    let (late, ()) = tokio::join!(late, resumed);
    assert_eq!(
        late.unwrap().unwrap().steps_done,
        2,
        "it was asked again, with what the successor wrote"
    );
}

fn job(reason: &str, steps_done: u64) -> v1::Job {
    v1::Job {
        reason: reason.to_owned(),
        steps_done,
        ..v1::Job::default()
    }
}

#[tokio::test]
async fn a_router_without_the_state_store_names_no_routers() {
    let store = SharedStore::open().await;
    let mut router = store.router("only").await;
    router.take_part();
    router.leads(true).await;
    wait_until_async("it is seen", SOON, || async {
        !router.control.routers().is_empty()
    })
    .await;
    router.faults.set_away(true);
    let refused = router
        .control
        .tables
        .jobs
        .update(actor(), "job", |_| Ok(Some(job("", 1))))
        .await
        .unwrap_err();
    assert!(refused.message.contains("reads go on"), "{refused}");
    assert_eq!(
        router.control.routers(),
        [],
        "who runs is not known any more"
    );
}
