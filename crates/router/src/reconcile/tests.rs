//! The leader's loop over nodes that speak the protocol.

use std::sync::Arc;

use monofs_control::Control;
use monofs_fleet::copies::{PlanAction, PlanCause, PlanCommand};
use monofs_model::{NodeId, Repository};
use monofs_proto::v1;
use monofs_testkit::wait::wait_until;

use super::{jobs, work};
use crate::fixture::peers::FakeNode;
use crate::fixture::{SOON, TestRouter, actor, node_id, snapshot};
use crate::verbs::members;

/// A router and three nodes, of which the first two hold `a/b`.
async fn rig() -> (TestRouter, [FakeNode; 3]) {
    let router = TestRouter::start().await;
    let nodes = [
        FakeNode::start("n1").await,
        FakeNode::start("n2").await,
        FakeNode::start("n3").await,
    ];
    nodes[..2]
        .iter()
        .for_each(|node| node.put("a/b", &snapshot(1)));
    router.repository("a/b", &["n1", "n2"], 1).await;
    for (number, node) in nodes.iter().enumerate() {
        let id = format!("n{}", number + 1);
        router.node_at(&id, &node.address).await;
    }
    (router, nodes)
}

fn is_done(control: &Control, id: &str) -> bool {
    let job = control.tables.jobs.get(id);
    job.is_some_and(|job| job.state() == v1::job::State::Done)
}

fn drain(node: &str) -> v1::DrainRequest {
    v1::DrainRequest {
        node_id: node.into(),
        reason: "new disk".into(),
        force: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_empty_in_the_end_and_its_job_done() {
    let (router, nodes) = rig().await;
    let parts = router.parts();
    let (control, fleet) = (&parts.control, &parts.fleet);
    // Wherever placement wants the copies: those of one holder move to the node that has none.
    wait_until("two nodes hold it", SOON, || {
        router.holders("a/b").len() == 2
    });
    let leaving = router.holders("a/b")[0].clone();
    let asked = members::drain(actor(), control, fleet, drain(&leaving)).await;
    let job = asked.expect("drained").job_id;
    wait_until("the node is empty and its job done", SOON, || {
        let intent = control.tables.intents.get(&leaving);
        let holders = router.holders("a/b");
        intent.is_some_and(|intent| intent.emptied)
            && holders.len() == 2
            && !holders.contains(&leaving)
            && is_done(control, &job)
    });
    for (number, node) in nodes.iter().enumerate() {
        let is_holder = router.holders("a/b").contains(&format!("n{}", number + 1));
        assert_eq!(
            node.commits("a/b").len(),
            usize::from(is_holder),
            "n{}",
            number + 1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_made_is_told_in_its_job_and_tried_again() {
    let router = TestRouter::start().await;
    let first = router.fake_node("n1").await;
    first.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1"], 1).await;
    let second = FakeNode::start("n2").await;
    second.refuse(Some(monofs_model::Error::full("no room")));
    router.node_at("n2", &second.address).await;
    let control = &router.parts().control;
    wait_until("the failure is told", SOON, || {
        let jobs = control.tables.jobs.list();
        jobs.iter().any(|job| job.last_error.contains("no room"))
    });
    second.refuse(None);
    wait_until("the copy is made", SOON, || {
        router.holders("a/b") == ["n1", "n2"]
    });
    wait_until("its job is done", SOON, || {
        control.tables.jobs.list().iter().all(jobs::has_ended)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_while_the_cluster_is_drained() {
    let router = TestRouter::start().await;
    let (control, fleet) = (&router.parts().control, &router.parts().fleet);
    let drained = members::drain(actor(), control, fleet, drain("")).await;
    drained.expect("the cluster is drained");
    let first = router.fake_node("n1").await;
    first.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1"], 1).await;
    let second = router.fake_node("n2").await;
    let rebalance = v1::RebalanceRequest {
        dry_run: true,
        ..Default::default()
    };
    let plan = crate::verbs::jobs::rebalance(actor(), router.parts(), rebalance.clone()).await;
    let plan = plan.expect("what it would do is told all the same");
    assert_eq!((plan.copies_total, plan.deletes_total), (1, 0));
    assert_eq!(plan.moves[0].node_id, "n2");
    assert_eq!(plan.moves[0].from, ["n1"]);
    let asked = v1::RebalanceRequest {
        dry_run: false,
        ..rebalance
    };
    let refused = crate::verbs::jobs::rebalance(actor(), router.parts(), asked).await;
    let refused = refused.expect_err("nothing moves");
    assert!(refused.message.contains("undrain"), "{refused}");
    assert!(second.adopted().is_empty());
    let back = members::undrain(actor(), control, fleet, v1::UndrainRequest::default()).await;
    back.expect("over");
    wait_until("the copy is made", SOON, || {
        router.holders("a/b") == ["n1", "n2"]
    });
}

fn broken_off(entry: &Repository, node: &NodeId) -> PlanCommand {
    PlanCommand {
        key: entry.storage_id().number(),
        generation: entry.generation,
        cause: PlanCause::Rebalance,
        action: PlanAction::Copy {
            node: node.clone(),
            from: Vec::new(),
            urgent: false,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broken_off_copy_left_goes_unless_it_is_in_use() {
    // Maintenance, so that the loop itself leaves the copies where they are.
    let router = TestRouter::start().await;
    let (control, fleet) = (&router.parts().control, &router.parts().fleet);
    let drained = members::drain(actor(), control, fleet, drain("")).await;
    drained.expect("the cluster is drained");
    let nodes = [router.fake_node("n1").await, router.fake_node("n2").await];
    nodes[0].put("a/b", &snapshot(1));
    let entry: Arc<Repository> = router.repository("a/b", &["n1"], 1).await;
    nodes[1].put("a/b", &snapshot(1));
    let parts = router.parts();
    let of_holder = broken_off(&entry, &node_id("n1"));
    work::undo(parts, &of_holder)
        .await
        .expect("nothing to undo");
    assert_eq!(
        nodes[0].commits("a/b"),
        [snapshot(1).commit],
        "it is a holder"
    );
    let left = broken_off(&entry, &node_id("n2"));
    work::undo(parts, &left).await.expect("undone");
    assert!(nodes[1].commits("a/b").is_empty());
    let id = entry.storage_id().to_string();
    assert_eq!(nodes[1].dropped(), [(id, vec![snapshot(1).commit])]);
}
