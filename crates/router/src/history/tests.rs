//! What the sampler makes of members that answer and of those that do not.

use super::sampler::take;
use crate::fixture::{TestRouter, actor, node_id, snapshot};
use crate::history::{HistoryRange, HistorySeries};
use monofs_proto::v1;

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_has_what_each_member_said_and_a_gap_for_those_that_are_silent() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    node.says(|stat| stat.disk_used_bytes = 500);
    router.node("n2").await;
    let _fetcher = router.fake_fetcher(snapshot(1)).await;
    router.repository("a/b", &["n1"], 1).await;
    let parts = router.parts();
    let job = v1::Job {
        id: "repair-1".into(),
        state: v1::job::State::Running.into(),
        ..Default::default()
    };
    let jobs = &parts.control.tables.jobs;
    let set = jobs
        .update(actor(), "repair-1", |_| Ok(Some(job.clone())))
        .await;
    set.expect("written");
    let sample = take(parts).await;
    let disk = |id: &str| {
        let stat = sample.nodes[&node_id(id)].as_ref();
        stat.map(|stat| stat.disk_used_bytes)
    };
    assert_eq!((disk("n1"), disk("n2")), (Some(500), None));
    assert!(sample.fetchers[&node_id("f1")].is_some());
    assert_eq!((sample.repositories, sample.nodes_serving), (1, 2));
    assert!(sample.jobs_running >= 1);
    // The history goes on from it.
    let history = &parts.work.history;
    let now = monofs_control::clock::now();
    history.add(now + 100, sample);
    let latest = history.latest().expect("a step");
    assert_eq!(latest.value(HistorySeries::MembersSilent), Some(1.0));
    assert_eq!(latest.value(HistorySeries::DiskUsed), Some(500.0));
    assert!(history.node(&node_id("n1"), HistoryRange::Hour).is_some());
    assert!(history.node(&node_id("n9"), HistoryRange::Hour).is_none());
}
