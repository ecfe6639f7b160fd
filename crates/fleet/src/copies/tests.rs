//! The plan, event by event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use monofs_model::NodeId;
use monofs_model::placement::Candidate;

use super::{
    CommandOutcome, NodeFacts, NodeStanding, PlanAction, PlanCause, PlanCommand, PlanEvent,
    Planner, RepositoryFacts, StepWait, StorageKey,
};

const KEY: StorageKey = 7;
const T0: Duration = Duration::from_secs(1000);

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

fn node(name: &str, standing: NodeStanding) -> NodeFacts {
    let away = matches!(standing, NodeStanding::Away | NodeStanding::Gone);
    NodeFacts {
        candidate: Candidate {
            id: id(name),
            weight: 1.0,
            zone: String::new(),
        },
        standing,
        serves: !away,
        can_take: matches!(standing, NodeStanding::Member | NodeStanding::Recovering),
    }
}

/// A plan for two copies, and the order in which placement prefers the nodes for [`KEY`].
fn plan(names: &[&str]) -> (Planner, Vec<String>) {
    let mut planner = Planner::default();
    members(&mut planner, names, &[]);
    let facts = RepositoryFacts {
        key: KEY,
        generation: 1,
        bytes: 10,
        holders: &[],
        fresh: false,
    };
    let mut all = Planner::default();
    let nodes: Vec<NodeFacts> = names
        .iter()
        .map(|name| node(name, NodeStanding::Member))
        .collect();
    all.step(
        PlanEvent::Nodes {
            nodes: &nodes,
            copies: names.len(),
        },
        T0,
    );
    let ranked = all
        .preview(facts)
        .iter()
        .map(|step| all.node_id(step.node).to_string())
        .collect();
    (planner, ranked)
}

fn members(planner: &mut Planner, names: &[&str], otherwise: &[(&str, NodeStanding)]) {
    let standing = |name: &str| {
        otherwise
            .iter()
            .find(|(other, _)| *other == name)
            .map_or(NodeStanding::Member, |(_, s)| *s)
    };
    let nodes: Vec<NodeFacts> = names
        .iter()
        .map(|name| node(name, standing(name)))
        .collect();
    planner.step(
        PlanEvent::Nodes {
            nodes: &nodes,
            copies: 2,
        },
        T0,
    );
}

fn held_by(planner: &mut Planner, holders: &[&str]) {
    let holders: Vec<NodeId> = holders.iter().map(|name| id(name)).collect();
    let facts = RepositoryFacts {
        key: KEY,
        generation: 1,
        bytes: 10,
        holders: &holders,
        fresh: false,
    };
    planner.step(PlanEvent::Repository(facts), T0);
}

fn next(planner: &mut Planner) -> Option<PlanCommand> {
    planner.step(PlanEvent::Room(9), T0).pop()
}

fn done(planner: &mut Planner) {
    planner.step(
        PlanEvent::Ended {
            key: KEY,
            outcome: CommandOutcome::Done,
        },
        T0,
    );
}

#[test]
fn a_move_copies_first_and_deletes_only_what_all_desired_copies_cover() {
    let (mut planner, ranked) = plan(&["a", "b", "c"]);
    let [first, second, third] = [0, 1, 2].map(|at: usize| ranked[at].as_str());
    held_by(&mut planner, &[first, third]);
    let command = next(&mut planner).expect("a copy");
    assert_eq!(command.cause, PlanCause::Rebalance);
    let PlanAction::Copy { node, from, urgent } = command.action else {
        panic!("{command:?}")
    };
    assert_eq!(
        (node, from, urgent),
        (id(second), vec![id(first), id(third)], false)
    );
    assert_eq!(
        next(&mut planner),
        None,
        "one command for one repository at a time"
    );
    held_by(&mut planner, &[first, second, third]);
    done(&mut planner);
    let command = next(&mut planner).expect("a deletion");
    let PlanAction::Delete {
        node,
        keep,
        forgotten,
    } = command.action
    else {
        panic!("{command:?}")
    };
    assert_eq!(
        (node, keep, forgotten),
        (id(third), vec![id(first), id(second)], false)
    );
    held_by(&mut planner, &[first, second]);
    done(&mut planner);
    assert!(next(&mut planner).is_none() && planner.pending().is_empty());
}

#[test]
fn a_node_that_is_away_is_waited_for_then_replaced_and_recognised_when_it_returns() {
    let names = ["a", "b", "c"];
    let (mut planner, ranked) = plan(&names);
    let [first, second, third] = [0, 1, 2].map(|at: usize| ranked[at].as_str());
    held_by(&mut planner, &[first, second]);
    members(&mut planner, &names, &[(second, NodeStanding::Away)]);
    assert_eq!(next(&mut planner), None);
    members(&mut planner, &names, &[(second, NodeStanding::Gone)]);
    let command = next(&mut planner).expect("a copy elsewhere");
    let number = planner.known_number(&id(second)).expect("known");
    assert_eq!(command.cause, PlanCause::Repair(number));
    assert!(
        matches!(&command.action, PlanAction::Copy { node, urgent: true, .. } if *node == id(third)),
        "{command:?}"
    );
    held_by(&mut planner, &[first, second, third]);
    done(&mut planner);
    assert_eq!(
        next(&mut planner),
        None,
        "what does not answer is not deleted"
    );
    assert!(planner.pending().is_empty());
    members(&mut planner, &names, &[]);
    let command = next(&mut planner).expect("one copy too many");
    assert!(
        matches!(&command.action, PlanAction::Delete { node, .. } if *node == id(third)),
        "{command:?}"
    );
}

#[test]
fn a_drain_that_would_leave_too_few_copies_waits_unless_it_is_forced() {
    let names = ["a", "b"];
    let (mut planner, _) = plan(&names);
    held_by(&mut planner, &names);
    members(
        &mut planner,
        &names,
        &[("b", NodeStanding::Draining { force: false })],
    );
    assert_eq!(next(&mut planner), None);
    let (cause, tally) = planner.pending().first_key_value().expect("it waits");
    assert_eq!(
        (*cause, tally.blocked()),
        (
            PlanCause::Drain(planner.known_number(&id("b")).expect("known")),
            Some(StepWait::TooFewNodes)
        )
    );
    members(
        &mut planner,
        &names,
        &[("b", NodeStanding::Draining { force: true })],
    );
    let command = next(&mut planner).expect("forced");
    assert!(
        matches!(&command.action, PlanAction::Delete { keep, .. } if *keep == [id("a")]),
        "{command:?}"
    );
    members(
        &mut planner,
        &names,
        &[
            ("a", NodeStanding::Draining { force: true }),
            ("b", NodeStanding::Draining { force: true }),
        ],
    );
    done(&mut planner);
    assert_eq!(next(&mut planner), None, "the last copy is never deleted");
}

#[test]
fn nothing_is_deleted_while_a_copy_that_stays_does_not_answer() {
    let names = ["a", "b", "c"];
    let (mut planner, ranked) = plan(&names);
    held_by(&mut planner, &names);
    members(&mut planner, &names, &[(&ranked[0], NodeStanding::Away)]);
    assert_eq!(next(&mut planner), None);
    members(&mut planner, &names, &[]);
    assert!(next(&mut planner).is_some());
}

#[test]
fn what_was_cancelled_is_held_back_and_a_failure_is_tried_again_later() {
    let names = ["a", "b", "c"];
    let (mut planner, ranked) = plan(&names);
    held_by(&mut planner, &[&ranked[0], &ranked[2]]);
    let held_back = BTreeSet::from([PlanCause::Rebalance]);
    planner.step(
        PlanEvent::Asked {
            held_back,
            asked: BTreeMap::new(),
        },
        T0,
    );
    assert_eq!(next(&mut planner), None);
    assert_eq!(
        planner.pending()[&PlanCause::Rebalance].steps(),
        2,
        "it is still to be done"
    );
    let asked = BTreeMap::from([(KEY, PlanCause::Asked(KEY))]);
    planner.step(
        PlanEvent::Asked {
            held_back: BTreeSet::from([PlanCause::Rebalance]),
            asked,
        },
        T0,
    );
    assert_eq!(
        next(&mut planner).map(|command| command.cause),
        Some(PlanCause::Asked(KEY)),
        "an operator asked for this one"
    );
    planner.step(
        PlanEvent::Ended {
            key: KEY,
            outcome: CommandOutcome::Failed,
        },
        T0,
    );
    assert_eq!(next(&mut planner), None);
    assert_eq!(
        planner
            .step(PlanEvent::Room(1), T0 + Duration::from_secs(1))
            .len(),
        1
    );
}

#[test]
fn what_was_just_published_is_left_to_those_who_publish_it_and_counts_follow_every_change() {
    let names = ["a", "b", "c"];
    let (mut planner, ranked) = plan(&names);
    let first = [id(&ranked[0])];
    let facts = RepositoryFacts {
        key: KEY,
        generation: 2,
        bytes: 10,
        holders: &first,
        fresh: true,
    };
    planner.step(PlanEvent::Repository(facts), T0);
    assert_eq!(next(&mut planner), None);
    assert_eq!(
        (planner.holds(&first[0]), planner.lacks(&id(&ranked[1]))),
        (1, 1)
    );
    assert_eq!(
        planner
            .step(PlanEvent::Room(1), T0 + Duration::from_secs(2))
            .len(),
        1
    );
    planner.step(PlanEvent::Removed(KEY), T0);
    assert_eq!(
        (planner.holds(&first[0]), planner.lacks(&id(&ranked[1]))),
        (0, 0)
    );
    assert!(planner.pending().is_empty() && next(&mut planner).is_none());
}
