//! Nodes that go and come back, and what is remembered of them.

use std::time::{Duration, Instant};

use monofs_cluster::{Builder, Cluster, Ingest};
use monofs_proto::v1;
use monofs_proto::v1::MemberState;
use monofs_testkit::Repo;
use monofs_testkit::wait::{wait_for_async, wait_until_async};

use crate::SOON;

async fn node(cluster: &Cluster, id: &str) -> Option<v1::Member> {
    let nodes = cluster.status().await.ok()?.nodes;
    nodes
        .into_iter()
        .filter_map(|node| node.member)
        .find(|member| member.id == id)
}

async fn wait_state(cluster: &Cluster, id: &str, state: MemberState) {
    let there = || async {
        node(cluster, id)
            .await
            .is_some_and(|member| member.state() == state)
    };
    wait_until_async(&format!("{id} is {}", state.as_str_name()), SOON, there).await;
}

fn three_nodes(dir: &std::path::Path) -> Builder {
    monofs_cluster::Builder::quick(dir).nodes(3)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_recovers_and_its_reads_return_in_steps() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r"))
        .await
        .unwrap();
    let both = || async {
        cluster
            .repository("h/r")
            .await
            .is_ok_and(|entry| entry.holders.len() == 2)
    };
    wait_until_async("both nodes hold the first commit", SOON, both).await;
    cluster.stop_node(0).await;
    wait_state(&cluster, "node1", MemberState::Down).await;
    repo.commit(|c| {
        c.file("f", "2");
    });
    cluster.refresh("h/r").await.unwrap();
    // What it missed is worked on at the worker's pace, so none of its states is too short to be
    // seen.
    cluster.start_node(0).await.unwrap();
    let mut seen: Vec<(MemberState, u32)> = Vec::new();
    let end = Instant::now() + SOON;
    while seen.last() != Some(&(MemberState::Active, 100)) {
        assert!(
            Instant::now() < end,
            "waited {SOON:?} in vain until all reads returned: {seen:?}"
        );
        if let Some(member) = node(&cluster, "node1").await {
            seen.push((member.state(), member.share_percent));
            seen.dedup();
        }
    }
    let holders = cluster.repository("h/r").await.unwrap().holders.len();
    assert_eq!(
        holders, 2,
        "it was active before it had caught up: {seen:?}"
    );
    assert!(
        seen.iter()
            .any(|(state, _)| *state == MemberState::Recovering),
        "{seen:?}"
    );
    let shares: Vec<u32> = seen
        .iter()
        .filter(|(s, _)| *s == MemberState::Active)
        .map(|(_, share)| *share)
        .collect();
    assert!(
        shares.is_sorted() && shares[0] < 100 && shares.len() > 2,
        "{seen:?}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_and_a_registration_survive_a_restart_of_the_router() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = three_nodes(dir.path()).start().await.unwrap();
    let drain = v1::DrainRequest {
        node_id: "node2".into(),
        reason: "disk".into(),
        force: false,
    };
    cluster.admin().unwrap().drain(drain).await.unwrap();
    wait_state(&cluster, "node2", MemberState::Drained).await;
    cluster.stop_router(0).await;
    cluster.stop_node(2).await;
    cluster.start_router(0).await.unwrap();
    assert!(
        node(&cluster, "node3").await.is_some(),
        "it registered with the router of before"
    );
    wait_state(&cluster, "node2", MemberState::Drained).await;
    wait_state(&cluster, "node1", MemberState::Active).await;
    wait_state(&cluster, "node3", MemberState::Down).await;
    cluster.start_node(2).await.unwrap();
    wait_state(&cluster, "node3", MemberState::Active).await;
    let undrain = v1::UndrainRequest {
        node_id: "node2".into(),
    };
    cluster.admin().unwrap().undrain(undrain).await.unwrap();
    wait_state(&cluster, "node2", MemberState::Active).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn during_maintenance_nobody_goes_down_and_a_restarted_node_is_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = monofs_cluster::Builder::quick(dir.path())
        .start()
        .await
        .unwrap();
    let repo = Repo::new();
    repo.commit(|c| {
        c.file("f", "1");
    });
    cluster
        .ingest(Ingest::of(repo.url()).at("main").shown_as("h/r").strong())
        .await
        .unwrap();
    cluster
        .admin()
        .unwrap()
        .drain(v1::DrainRequest {
            reason: "kernel".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    cluster.stop_node(0).await;
    wait_state(&cluster, "node1", MemberState::Suspect).await;
    // Longer than it takes to be down otherwise.
    let longer = Instant::now() + Duration::from_secs(3);
    let calm = || async {
        assert_eq!(
            node(&cluster, "node1").await.unwrap().state(),
            MemberState::Suspect
        );
        (Instant::now() > longer).then_some(())
    };
    wait_for_async("the threshold has passed twice", SOON, calm).await;
    cluster.start_node(0).await.unwrap();
    wait_state(&cluster, "node1", MemberState::Active).await;
    assert_eq!(cluster.repository("h/r").await.unwrap().holders.len(), 2);
    cluster
        .admin()
        .unwrap()
        .undrain(v1::UndrainRequest::default())
        .await
        .unwrap();
    cluster.shutdown().await;
}
