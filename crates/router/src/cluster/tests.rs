//! What a router makes of what its nodes hold, and of what they say of themselves.

use monofs_control::Control;
use monofs_fleet::members::MemberEvent;
use monofs_members::membership::can_take;
use monofs_members::membership::facts::TableChanges;
use monofs_model::view::Role;
use monofs_model::{ErrorKind, Member, MemberState};
use monofs_proto::v1;
use monofs_proto::v1::cluster_client::ClusterClient;
use monofs_testkit::wait::wait_until;

use crate::fixture::peers::FakeNode;
use crate::fixture::{SOON, TestRouter, actor, member, node_id, snapshot};

fn audit(control: &Control, node: &str) -> v1::NodeAudit {
    control.tables.audits.get(node).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_copy_is_no_holder_and_is_given_it_again() {
    let router = TestRouter::start().await;
    let first = router.fake_node("n1").await;
    first.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1", "n2"], 1).await;
    // It comes back with an empty disk.
    let second = router.fake_node("n2").await;
    wait_until("it is given the copy again", SOON, || {
        !second.adopted().is_empty() && router.holders("a/b") == ["n1", "n2"]
    });
    assert_eq!(second.commits("a/b"), [snapshot(1).commit]);
    let from = &second.adopted()[0];
    assert_eq!(
        from.peers,
        [first.address.as_str()],
        "from the one that has it"
    );
    assert!(first.dropped().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_what_readers_see_becomes_a_holder() {
    let router = TestRouter::start().await;
    let first = router.fake_node("n1").await;
    first.put("a/b", &snapshot(1));
    router.repository("a/b", &["n1"], 1).await;
    let second = FakeNode::start("n2").await;
    second.put("a/b", &snapshot(1));
    router.node_at("n2", &second.address).await;
    wait_until("the second copy is recorded", SOON, || {
        router.holders("a/b") == ["n1", "n2"]
    });
    assert!(second.dropped().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_nothing_names_are_counted_and_stay_until_something_does() {
    let quick = |config: &mut crate::Config| config.worker_interval = SOON / 400;
    let router = TestRouter::start_with(quick).await;
    let control = &router.parts().control;
    let node = FakeNode::start("n1").await;
    node.put("x/unknown", &snapshot(9));
    router.node_at("n1", &node.address).await;
    wait_until("the copy is counted", SOON, || {
        audit(control, "n1").orphans == 1
    });
    let row = audit(control, "n1");
    assert_eq!(row.orphan_paths, ["x/unknown"]);
    assert_eq!(row.orphan_bytes, 4096);
    assert!(row.at > 0 && row.incarnation == 1);
    assert!(node.dropped().is_empty());
    // It is ingested again: the copy is one that counts.
    router.repository("x/unknown", &["n1"], 9).await;
    wait_until("nothing is unnamed", SOON, || {
        audit(control, "n1").orphans == 0
    });
    assert_eq!(node.commits("x/unknown"), [snapshot(9).commit]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_announce_themselves_and_learn_the_view_and_the_pace() {
    let router = TestRouter::start().await;
    let (channel, _serving) = router.serve().await;
    let mut cluster = ClusterClient::new(channel);
    let node = member("n1", Role::Node, "127.0.0.1:9");
    let beat = |member: Option<&Member>| v1::HeartbeatRequest {
        member: member.map(v1::Member::from),
    };
    let answer = cluster.heartbeat(beat(Some(&node))).await;
    let answer = answer.expect("admitted").into_inner();
    assert_eq!(answer.interval_ms, 3_600_000);
    let view = answer.view.expect("the view");
    assert!(view.members.iter().any(|member| member.id == "n1"));
    // Nobody, and somebody whom nobody may be.
    let nobody = cluster.heartbeat(beat(None)).await.expect_err("no member");
    assert_eq!(nobody.code(), tonic::Code::InvalidArgument);
    let invalid = v1::HeartbeatRequest {
        member: Some(v1::Member::default()),
    };
    cluster.heartbeat(invalid).await.expect_err("no id");
    // No client is connected; those of before had no time yet to come back.
    let acknowledged = cluster.acknowledged(v1::AcknowledgedRequest {}).await;
    let acknowledged = acknowledged.expect("answered").into_inner();
    assert!(acknowledged.settling);
    assert_eq!(acknowledged.in_use, []);
    let report = |id: &str| v1::ReportFailureRequest {
        member_id: id.into(),
        ..Default::default()
    };
    cluster.report_failure(report("")).await.expect_err("no id");
    cluster.report_failure(report("n9")).await.expect("noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_reported_is_probed_at_once() {
    let router = TestRouter::start().await;
    router.node("n1").await;
    let members = &router.parts().fleet.members;
    // Nothing listens there: the probe fails, which is the first thing that is heard of it.
    members.reported(&node_id("n1"));
    wait_until("the probe failed", SOON, || {
        members.heard(&node_id("n1")).failure.is_some()
    });
    let states = members.states(&node_id("n1"));
    assert!(!states.is_empty());
    let unknown = members.heard(&node_id("n9"));
    assert!(unknown.ago.is_none() && unknown.failure.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_cannot_take_the_id_of_a_member() {
    let router = TestRouter::start().await;
    let node = router.fake_node("n1").await;
    let members = &router.parts().fleet.members;
    let thief = Member {
        incarnation: 2,
        ..member("n1", Role::Node, "127.0.0.1:9")
    };
    let refused = members.announced(thief).await;
    let refused = refused.expect_err("the first one was heard of just now");
    assert_eq!(refused.kind, ErrorKind::Refused);
    assert!(refused.message.contains(&node.address), "{refused}");
    let view = members.view();
    let known = view.nodes().find(|known| known.id == node_id("n1"));
    assert!(known.is_some_and(|known| known.address == node.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_tables_are_told_once_and_what_was_found_before_what_is_wanted() {
    let router = TestRouter::start().await;
    let tables = &router.parts().control.tables;
    let mut changes = TableChanges::new(tables);
    assert!(changes.loaded().is_empty(), "nothing is recorded yet");
    let intent = v1::NodeIntent {
        node_id: "n1".into(),
        kind: v1::node_intent::Kind::Drain.into(),
        ..Default::default()
    };
    let found = v1::NodeAudit {
        node_id: "n1".into(),
        behind: true,
        ..Default::default()
    };
    let wanted = |_: Option<&v1::NodeIntent>| Ok(Some(intent.clone()));
    let set = tables.intents.update(actor(), "n1", wanted).await;
    set.expect("written");
    let noted = |_: Option<&v1::NodeAudit>| Ok(Some(found.clone()));
    let set = tables.audits.update(actor(), "n1", noted).await;
    set.expect("written");
    let events = changes.changes();
    assert!(
        matches!(
            &events[..],
            [
                MemberEvent::Audited(_, Some(_)),
                MemberEvent::Intent(_, Some(_))
            ]
        ),
        "{events:?}"
    );
    assert!(changes.changes().is_empty(), "told already");
    let set = tables.intents.update(actor(), "n1", |_| Ok(None)).await;
    set.expect("removed");
    let events = changes.changes();
    assert!(
        matches!(&events[..], [MemberEvent::Intent(_, None)]),
        "{events:?}"
    );
}

#[test]
fn only_nodes_that_accept_and_are_not_failed_over_take_copies() {
    let in_state = |state| Member {
        state,
        ..member("n1", Role::Node, "127.0.0.1:9")
    };
    assert!(can_take(&in_state(MemberState::Active)));
    for state in [
        MemberState::Down,
        MemberState::Draining,
        MemberState::Drained,
        MemberState::Joining,
    ] {
        assert!(!can_take(&in_state(state)), "{state:?}");
    }
    let failed_over = Member {
        failed_over: true,
        ..in_state(MemberState::Active)
    };
    assert!(!can_take(&failed_over));
}
