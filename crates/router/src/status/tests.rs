//! What the status says of members that answer, and of those that do not.

use monofs_rpc::metrics::exposition;

use super::*;
use crate::fixture::{TestRouter, actor, path, snapshot};

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_asked_is_an_error_beside_the_member_and_never_a_zero() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    node.says(|stat| {
        stat.disk_used_bytes = 500;
        stat.disk_free_bytes = 1;
    });
    router.node("n2").await;
    let _fetcher = router.fake_fetcher(snapshot(1)).await;
    let told = status(router.parts()).await;
    let of = |id: &str| {
        let mut nodes = told.nodes.iter();
        let found = nodes.find(|node| node.member.as_ref().is_some_and(|m| m.id == id));
        found.expect("it is told").clone()
    };
    assert_eq!(of("n1").stat.map(|stat| stat.disk_used_bytes), Some(500));
    assert!(of("n2").stat.is_none() && !of("n2").error.is_empty());
    assert_eq!(
        told.fetchers[0].stat.as_ref().map(|stat| stat.cache_hits),
        Some(3)
    );
    let full = "n1 has 1 bytes of disk left";
    assert!(
        told.problems.iter().any(|line| line.starts_with(full)),
        "{:?}",
        told.problems
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_does_not_answer_is_told_with_its_clients_missing() {
    let router = TestRouter::start().await;
    let other = v1::RouterStatus {
        router_id: "router2".into(),
        address: "127.0.0.1:9".into(),
        ..Default::default()
    };
    let routers = &router.parts().control.tables.routers;
    let set = routers
        .update(actor(), "router2", |_| Ok(Some(other.clone())))
        .await;
    set.expect("written");
    let clients = clients(router.parts()).await;
    assert!(clients.clients.is_empty());
    assert_eq!(clients.missing.len(), 1);
    assert_eq!(clients.missing[0].0, "router2");
    let told = status(router.parts()).await;
    let silent = "router router2 does not answer";
    assert!(
        told.problems.iter().any(|line| line.starts_with(silent)),
        "{:?}",
        told.problems
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_those_that_hold_and_those_that_should() {
    let router = TestRouter::start().await;
    let holder = router.fake_node("n1").await;
    holder.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1", "n2"], 1).await;
    router.node("n2").await;
    router.node("n3").await;
    let fleet = &router.parts().fleet;
    let entry = router
        .parts()
        .control
        .catalog
        .get(&path("a/b"))
        .expect("there");
    let told = replicas(fleet, &entry).await;
    let ids: Vec<_> = told
        .iter()
        .map(|replica| replica.node_id.as_str())
        .collect();
    // The third one neither holds it nor answers, which says nothing about this repository.
    assert_eq!(ids, ["n1", "n2"]);
    assert!(told[0].held.is_some() && told[0].error.is_empty());
    assert!(told[1].held.is_none() && told[1].holder && !told[1].error.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_told_what_the_catalogue_and_the_members_are() {
    let router = TestRouter::start().await;
    let _node = router.fake_node("n1").await;
    router.repository("a/b", &["n1"], 1).await;
    let parts = router.parts().clone();
    let told = move || exposition("router", |out| metrics(&parts, out));
    let text = tokio::task::spawn_blocking(told).await.expect("gathered");
    for line in [
        "monofs_router_members{role=\"node\",state=\"active\"} 1",
        "monofs_router_members{role=\"fetcher\",state=\"active\"} 0",
        "monofs_router_repositories{state=\"ready\"} 1",
        "monofs_router_replication_factor 2",
        "monofs_router_ingests_running 0",
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
}
