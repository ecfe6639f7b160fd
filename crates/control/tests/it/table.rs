//! Small tables: changes of one row by several routers.

use monofs_model::{Error, ErrorKind};
use monofs_proto::v1;

use crate::rig::{SharedStore, actor};

fn steps(row: Option<&v1::Job>) -> u64 {
    row.map_or(0, |row| row.steps_done)
}

fn with_steps(steps_done: u64) -> v1::Job {
    v1::Job {
        steps_done,
        ..v1::Job::default()
    }
}

#[tokio::test]
async fn no_change_is_lost_when_routers_change_one_row_at_the_same_time() {
    const EACH: u64 = 25;
    let store = SharedStore::open().await;
    let routers = [store.router("first").await, store.router("second").await];
    let counting = routers.iter().map(|router| async {
        let mut counted = 0;
        for _ in 0..EACH {
            let jobs = &router.control.tables.jobs;
            let change = jobs.update(actor(), "job", |row| Ok(Some(with_steps(steps(row) + 1))));
            match change.await {
                Ok(_) => counted += 1,
                // The other one was faster again and again.
                Err(error) => assert_eq!(error.kind, ErrorKind::Refused, "{error}"),
            }
        }
        counted
    });
    let counted: u64 = futures::future::join_all(counting).await.iter().sum();
    assert!(counted >= EACH, "one of them always gets on");
    for router in &routers {
        router.catches_up(&store).await;
        let row = router.control.tables.jobs.get("job");
        assert_eq!(steps(row.as_ref()), counted);
    }
}

#[tokio::test]
async fn what_is_equal_already_is_not_written() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let jobs = &router.control.tables.jobs;
    let wanted = with_steps(3);
    jobs.update(actor(), "job", |_| Ok(Some(wanted.clone())))
        .await
        .unwrap();
    let before = *router.control.shared.applied().borrow();
    let same = jobs
        .update(actor(), "job", |row| Ok(row.cloned()))
        .await
        .unwrap();
    assert_eq!(same, Some(wanted));
    let none = jobs
        .update(actor(), "nothing there", |_| Ok(None))
        .await
        .unwrap();
    assert_eq!(none, None);
    router.catches_up(&store).await;
    assert_eq!(*router.control.shared.applied().borrow(), before);
}

#[tokio::test]
async fn a_change_that_is_refused_changes_nothing() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let jobs = &router.control.tables.jobs;
    let refused = jobs
        .update(actor(), "job", |_| Err(Error::refused("not now")))
        .await;
    assert_eq!(refused.unwrap_err(), Error::refused("not now"));
    assert_eq!(jobs.list(), []);
}

#[tokio::test]
async fn rows_are_listed_by_name_and_waiters_wake_at_every_change() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    let mut changed = second.control.tables.jobs.changed();
    for (name, steps) in [("b", 2), ("a", 1), ("c", 3)] {
        changed.mark_unchanged();
        let jobs = &first.control.tables.jobs;
        let row = with_steps(steps);
        jobs.update(actor(), name, |_| Ok(Some(row.clone())))
            .await
            .unwrap();
        changed.changed().await.unwrap();
    }
    let jobs = &second.control.tables.jobs;
    second.catches_up(&store).await;
    let listed: Vec<u64> = jobs.list().iter().map(|row| row.steps_done).collect();
    assert_eq!(listed, [1, 2, 3]);
    first
        .control
        .tables
        .jobs
        .update(actor(), "b", |_| Ok(None))
        .await
        .unwrap();
    second.catches_up(&store).await;
    assert_eq!((jobs.get("b"), jobs.list().len()), (None, 2));
}

#[tokio::test]
async fn a_row_that_was_read_from_the_store_is_in_memory_too() {
    let store = SharedStore::open().await;
    let first = store.router("first").await;
    let second = store.router("second").await;
    first
        .control
        .tables
        .jobs
        .update(actor(), "job", |_| Ok(Some(with_steps(1))))
        .await
        .unwrap();
    let jobs = &second.control.tables.jobs;
    let stored = jobs.stored("job").await.unwrap();
    assert_eq!(stored, Some(with_steps(1)));
    assert_eq!(jobs.get("job"), stored);
    assert_eq!(jobs.stored("jo").await.unwrap(), None, "a name is whole");
}

#[tokio::test]
async fn tables_do_not_see_rows_of_each_other() {
    let store = SharedStore::open().await;
    let router = store.router("only").await;
    let tables = &router.control.tables;
    tables
        .jobs
        .update(actor(), "x", |_| Ok(Some(with_steps(1))))
        .await
        .unwrap();
    tables
        .maintenance
        .update(actor(), "", |_| Ok(Some(v1::Maintenance::default())))
        .await
        .unwrap();
    assert!(tables.maintenance.get("").is_some() && tables.jobs.get("").is_none());
    assert_eq!(tables.intents.list(), []);
    assert_eq!(
        (tables.jobs.list().len(), tables.audits.list().len()),
        (1, 0)
    );
}
