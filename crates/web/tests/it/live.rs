//! Server-sent events of one router: who listens hears what is so now and what changes.

use monofs_proto::v1;
use serde_json::json;

use crate::site::{TestSite, actor};
use crate::web::{Events, post};

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_told_at_once_and_again_when_it_changes() {
    let site = TestSite::start().await;
    let mut events = Events::of(&site.at, "/api/v1/events").await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &first["health"]),
        ("overview", &json!("unhealthy"))
    );
    assert_eq!(first["maintenance"], json!(null));
    let maintenance = v1::Maintenance {
        reason: "new switch".into(),
        since: 1,
    };
    let table = &site.parts.control.tables.maintenance;
    let set = table.update(actor(), "", |_| Ok(Some(maintenance.clone())));
    set.await.unwrap();
    let told = events.find("the maintenance", |_, overview| {
        overview["maintenance"]["reason"] == "new switch"
    });
    told.await;
    // Who comes later hears of it first.
    let mut later = Events::of(&site.at, "/api/v1/events").await;
    let (_, now) = later.next().await.unwrap();
    assert_eq!(now["maintenance"]["reason"], "new switch");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_told_until_it_has_ended() {
    let site = TestSite::start().await;
    let mut job = v1::Job {
        id: "rebalance-1".into(),
        started_at: 1,
        ..Default::default()
    };
    job.set_kind(v1::job::Kind::Rebalance);
    job.set_state(v1::job::State::Waiting);
    job.subject = "a/b".into();
    site.job(job).await;
    assert_eq!(site.get("/api/v1/jobs/none/events").await.status, 404);
    let mut events = Events::of(&site.at, "/api/v1/jobs/rebalance-1/events").await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &first["id"]),
        ("job", &json!("rebalance-1"))
    );
    let cancelled = post(&site.at, "/api/v1/jobs/rebalance-1/cancel", &json!({})).await;
    assert_eq!(cancelled.json()["state"], "cancelled");
    let last = events.find("its end", |_, job| job["state"] == "cancelled");
    last.await;
    assert!(events.next().await.is_none(), "nothing follows the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_listeners_than_there_are_places_for_are_refused_until_one_leaves() {
    let site = TestSite::start().await;
    let mut listeners = Vec::new();
    for _ in 0..256 {
        listeners.push(Events::of(&site.at, "/api/v1/events").await);
    }
    let full = site.get("/api/v1/events").await;
    assert_eq!((full.status, full.header("retry-after")), (503, Some("2")));
    assert_eq!(full.json()["error"]["kind"], "full");
    listeners.clear();
    monofs_testkit::wait::wait_until_async("a place is free", crate::SOON, || async {
        // A stream that is let in does not end by itself, so only its head is read.
        crate::web::status_of(&site.at, "/api/v1/events").await == 200
    })
    .await;
}
