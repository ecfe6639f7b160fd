//! What holds for the planner after any history: its counts are those of a planner that is told
//! everything at once, no command endangers a copy, and in the end every copy is in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use monofs_model::placement::{Candidate, replicas};
use monofs_model::{NodeId, StorageId};
use proptest::prelude::*;

use super::{
    CommandOutcome, NodeFacts, NodeStanding, PlanAction, PlanCause, PlanCommand, PlanEvent,
    Planner, RepositoryFacts, StepTally, StepWait, StorageKey,
};

const NODES: [&str; 5] = ["a", "b", "c", "d", "e"];
const REPOSITORIES: u128 = 6;

/// What can happen; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Happening {
    Stand(usize, NodeStanding),
    Joins(usize),
    Leaves(usize),
    Copies(usize),
    Published(u128, u64),
    Removed(u128),
    Lost(u128, usize),
    HeldBack(bool),
    Begin(usize),
    End(usize, bool),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let node = 0..NODES.len();
    let standing = prop_oneof![
        4 => Just(NodeStanding::Member),
        1 => Just(NodeStanding::Recovering),
        2 => Just(NodeStanding::Away),
        2 => Just(NodeStanding::Gone),
        2 => any::<bool>().prop_map(|force| NodeStanding::Draining { force }),
        1 => any::<bool>().prop_map(|force| NodeStanding::FailedOver { force }),
    ];
    let key = 0..REPOSITORIES;
    prop_oneof![
        4 => (node.clone(), standing).prop_map(|(node, standing)| Happening::Stand(node, standing)),
        1 => node.clone().prop_map(Happening::Joins),
        1 => node.clone().prop_map(Happening::Leaves),
        1 => (1usize..4).prop_map(Happening::Copies),
        3 => (key.clone(), 1u64..50).prop_map(|(key, bytes)| Happening::Published(key, bytes)),
        1 => key.clone().prop_map(Happening::Removed),
        1 => (key, node).prop_map(|(key, node)| Happening::Lost(key, node)),
        1 => any::<bool>().prop_map(Happening::HeldBack),
        4 => (1usize..4).prop_map(Happening::Begin),
        4 => (0usize..4, any::<bool>()).prop_map(|(at, done)| Happening::End(at, done)),
        2 => (0u64..400).prop_map(Happening::Pass),
    ]
}

#[derive(Debug, Clone)]
struct RecordedRepository {
    generation: u64,
    bytes: u64,
    holders: Vec<NodeId>,
}

/// A planner, what it was told, and the commands that run.
struct PlanRig {
    planner: Planner,
    nodes: BTreeMap<NodeId, NodeFacts>,
    copies: usize,
    recorded: BTreeMap<StorageKey, RecordedRepository>,
    held_back: BTreeSet<PlanCause>,
    /// Of the last commit that was published.
    generation: u64,
    /// Repositories that were removed, and may be there again.
    made_again: BTreeSet<StorageKey>,
    running: Vec<PlanCommand>,
    now: Duration,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

/// Spread over the numbers like the digests that they stand for.
fn key(number: u128) -> StorageKey {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}

fn facts(name: &str, standing: NodeStanding) -> NodeFacts {
    let away = matches!(standing, NodeStanding::Away | NodeStanding::Gone);
    NodeFacts {
        candidate: Candidate {
            id: id(name),
            weight: if name == "e" { 3.0 } else { 1.0 },
            zone: String::new(),
        },
        standing,
        serves: !away,
        can_take: matches!(standing, NodeStanding::Member | NodeStanding::Recovering),
    }
}

impl PlanRig {
    fn new() -> Self {
        let mut rig = Self {
            planner: Planner::default(),
            nodes: BTreeMap::new(),
            copies: 2,
            recorded: BTreeMap::new(),
            held_back: BTreeSet::new(),
            generation: 0,
            made_again: BTreeSet::new(),
            running: Vec::new(),
            now: Duration::ZERO,
        };
        for name in &NODES[..3] {
            rig.nodes
                .insert(id(name), facts(name, NodeStanding::Member));
        }
        rig.tell_nodes();
        rig
    }

    fn tell_nodes(&mut self) {
        let nodes: Vec<NodeFacts> = self.nodes.values().cloned().collect();
        let event = PlanEvent::Nodes {
            nodes: &nodes,
            copies: self.copies,
        };
        self.planner.step(event, self.now);
    }

    fn tell(&mut self, key: StorageKey) {
        let recorded = self.recorded[&key].clone();
        let event = PlanEvent::Repository(repository(key, &recorded));
        self.planner.step(event, self.now);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Stand(node, standing) => {
                if let Some(node) = self.nodes.get_mut(&id(NODES[node])) {
                    *node = facts(node.candidate.id.as_str(), standing);
                }
                self.tell_nodes();
            }
            Happening::Joins(node) => {
                let name = NODES[node];
                let joined = facts(name, NodeStanding::Member);
                self.nodes.entry(id(name)).or_insert(joined);
                self.tell_nodes();
            }
            Happening::Leaves(node) => {
                self.nodes.remove(&id(NODES[node]));
                self.tell_nodes();
            }
            Happening::Copies(copies) => {
                self.copies = copies;
                self.tell_nodes();
            }
            Happening::Published(number, bytes) => self.publish(key(number), bytes),
            Happening::Removed(number) => {
                self.recorded.remove(&key(number));
                self.made_again.insert(key(number));
                self.planner.step(PlanEvent::Removed(key(number)), self.now);
            }
            Happening::Lost(number, node) => {
                if let Some(recorded) = self.recorded.get_mut(&key(number)) {
                    recorded.holders.retain(|holder| *holder != id(NODES[node]));
                    self.tell(key(number));
                }
            }
            Happening::HeldBack(held_back) => {
                self.held_back = BTreeSet::from_iter(held_back.then_some(PlanCause::Rebalance));
                let event = PlanEvent::Asked {
                    held_back: self.held_back.clone(),
                    asked: BTreeMap::new(),
                };
                self.planner.step(event, self.now);
            }
            Happening::Begin(room) => self.begin(room),
            Happening::End(at, done) => self.end(at, done),
            Happening::Pass(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    /// Another commit, held by the first node that serves.
    fn publish(&mut self, key: StorageKey, bytes: u64) {
        let holder = self.nodes.values().find(|node| node.serves);
        let holders: Vec<NodeId> = holder
            .map(|node| node.candidate.id.clone())
            .into_iter()
            .collect();
        self.generation += 1;
        let recorded = RecordedRepository {
            generation: self.generation,
            bytes,
            holders,
        };
        self.recorded.insert(key, recorded);
        self.tell(key);
    }

    fn begin(&mut self, room: usize) {
        for command in self.planner.step(PlanEvent::Room(room), self.now) {
            let key = command.key;
            // Of an entry that was removed and made again, an earlier command may still run.
            if self.running.iter().any(|other| other.key == key) {
                assert!(self.made_again.contains(&key), "two at a time: {command:?}");
                let outcome = CommandOutcome::Later(Duration::from_secs(1));
                let event = PlanEvent::Ended { key, outcome };
                self.planner.step(event, self.now);
                continue;
            }
            self.check(&command);
            self.running.push(command);
        }
    }

    /// A command is one that endangers no copy.
    fn check(&self, command: &PlanCommand) {
        assert!(!self.held_back.contains(&command.cause), "{command:?}");
        let recorded = &self.recorded[&command.key];
        assert_eq!(command.generation, recorded.generation);
        match &command.action {
            PlanAction::Copy { node, from, .. } => {
                assert!(self.nodes[node].can_take, "{command:?}");
                assert!(self.nodes[node].standing.is_desired(), "{command:?}");
                assert!(!recorded.holders.contains(node), "{command:?}");
                let serving = self.planner.serving(&recorded.holders);
                let serving: BTreeSet<&NodeId> = serving.collect();
                assert_eq!(BTreeSet::from_iter(from), serving, "{command:?}");
            }
            PlanAction::Delete {
                node,
                keep,
                forgotten,
            } => {
                assert!(recorded.holders.contains(node), "{command:?}");
                assert!(!keep.contains(node) && !keep.is_empty(), "{command:?}");
                let gone = self.nodes.get(node);
                assert_eq!(gone.is_none(), *forgotten, "{command:?}");
                assert!(gone.is_none_or(|gone| gone.serves), "{command:?}");
                let forced = gone.is_some_and(|gone| gone.standing.is_forced());
                assert!(keep.len() >= self.copies || forced, "{command:?}");
                for keeper in keep {
                    assert!(recorded.holders.contains(keeper), "{command:?}");
                    assert!(self.nodes[keeper].serves, "{command:?}");
                }
            }
        }
    }

    fn end(&mut self, at: usize, done: bool) {
        if at >= self.running.len() {
            return;
        }
        let command = self.running.remove(at);
        let outcome = if done && self.perform(&command) {
            CommandOutcome::Done
        } else {
            CommandOutcome::Failed
        };
        let key = command.key;
        self.planner
            .step(PlanEvent::Ended { key, outcome }, self.now);
    }

    /// What a command does, if the entry is still the one that it was given for.
    fn perform(&mut self, command: &PlanCommand) -> bool {
        let Some(recorded) = self.recorded.get_mut(&command.key) else {
            return false;
        };
        if recorded.generation != command.generation {
            return false;
        }
        match &command.action {
            PlanAction::Copy { node, .. } if !recorded.holders.contains(node) => {
                recorded.holders.push(node.clone());
            }
            PlanAction::Copy { .. } => {}
            PlanAction::Delete { node, keep, .. } => {
                if !keep.iter().all(|keeper| recorded.holders.contains(keeper)) {
                    return false;
                }
                recorded.holders.retain(|holder| holder != node);
            }
        }
        self.tell(command.key);
        true
    }

    /// The counts are those of a planner that is told everything at once.
    fn check_counts(&self) {
        let mut fresh = Planner::default();
        let nodes: Vec<NodeFacts> = self.nodes.values().cloned().collect();
        let event = PlanEvent::Nodes {
            nodes: &nodes,
            copies: self.copies,
        };
        fresh.step(event, self.now);
        let event = PlanEvent::Asked {
            held_back: self.held_back.clone(),
            asked: BTreeMap::new(),
        };
        fresh.step(event, self.now);
        for (key, recorded) in &self.recorded {
            let event = PlanEvent::Repository(repository(*key, recorded));
            fresh.step(event, self.now);
        }
        assert_eq!(by_name(&self.planner), by_name(&fresh));
        for name in NODES {
            let node = id(name);
            assert_eq!(
                (self.planner.holds(&node), self.planner.lacks(&node)),
                (fresh.holds(&node), fresh.lacks(&node)),
                "{name}"
            );
        }
        assert_eq!(self.planner.has_strangers(), fresh.has_strangers());
    }

    /// All nodes stay, and what runs ends.
    fn settle(&mut self) {
        self.copies = 2;
        self.nodes = NODES
            .iter()
            .map(|name| (id(name), facts(name, NodeStanding::Member)))
            .collect();
        self.tell_nodes();
        self.happen(Happening::HeldBack(false));
        for _ in 0..200 {
            while !self.running.is_empty() {
                self.end(0, true);
            }
            self.now += Duration::from_secs(400);
            self.begin(3);
        }
        assert!(self.running.is_empty() && self.planner.pending().is_empty());
        let candidates: Vec<Candidate> = self
            .nodes
            .values()
            .map(|node| node.candidate.clone())
            .collect();
        for (key, recorded) in &self.recorded {
            let mut wanted = replicas(&StorageId::of_number(*key), &candidates, self.copies);
            let mut held = recorded.holders.clone();
            wanted.sort();
            held.sort();
            assert_eq!(held, wanted);
        }
    }
}

fn repository(key: StorageKey, recorded: &RecordedRepository) -> RepositoryFacts<'_> {
    RepositoryFacts {
        key,
        generation: recorded.generation,
        bytes: recorded.bytes,
        holders: &recorded.holders,
        fresh: false,
    }
}

/// What is pending, with nodes by name: two planners number them differently.
fn by_name(planner: &Planner) -> BTreeMap<String, (StepTally, Vec<(String, u64)>)> {
    let named = |cause: &PlanCause| match cause {
        PlanCause::Repair(node) => format!("repair {}", planner.node_id(*node)),
        PlanCause::Recover(node) => format!("recover {}", planner.node_id(*node)),
        PlanCause::Failover(node) => format!("failover {}", planner.node_id(*node)),
        PlanCause::Drain(node) => format!("drain {}", planner.node_id(*node)),
        PlanCause::Rebalance | PlanCause::Asked(_) => format!("{cause:?}"),
    };
    let waits = |tally: &StepTally| {
        let waits = tally.waits.iter().map(|(wait, count)| match wait {
            StepWait::Node(node) => (planner.node_id(*node).to_string(), *count),
            StepWait::Copies | StepWait::TooFewNodes => (format!("{wait:?}"), *count),
        });
        let mut waits: Vec<_> = waits.collect();
        waits.sort();
        waits
    };
    let pending = planner.pending().iter().map(|(cause, tally)| {
        let counts = StepTally {
            waits: BTreeMap::new(),
            ..tally.clone()
        };
        (named(cause), (counts, waits(tally)))
    });
    pending.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn after_any_history_counts_are_true_commands_are_safe_and_copies_find_their_places(
        history in prop::collection::vec(happening(), 1..80)
    ) {
        let mut rig = PlanRig::new();
        for happening in history {
            rig.happen(happening);
            rig.check_counts();
        }
        rig.settle();
    }
}

#[test]
fn a_node_that_flaps_within_the_delay_moves_nothing() {
    let mut rig = PlanRig::new();
    for number in 0..REPOSITORIES {
        rig.publish(key(number), 1);
    }
    for _ in 0..20 {
        rig.begin(9);
        while !rig.running.is_empty() {
            rig.end(0, true);
        }
    }
    assert!(rig.planner.pending().is_empty());
    for _ in 0..50 {
        for standing in [NodeStanding::Away, NodeStanding::Member] {
            rig.happen(Happening::Stand(1, standing));
            rig.begin(9);
            assert!(rig.running.is_empty(), "{:?}", rig.running);
        }
    }
}

#[test]
fn a_node_that_is_failed_over_is_emptied_as_failover_and_never_copied_to() {
    let mut rig = PlanRig::new();
    for number in 0..REPOSITORIES {
        rig.publish(key(number), 1);
    }
    rig.settle();
    let failed_over = NodeStanding::FailedOver { force: false };
    rig.happen(Happening::Stand(0, failed_over));
    let number = rig.planner.known_number(&id("a")).expect("known");
    let causes: Vec<&PlanCause> = rig.planner.pending().keys().collect();
    assert_eq!(causes, [&PlanCause::Failover(number)]);
    for _ in 0..100 {
        rig.begin(9);
        while !rig.running.is_empty() {
            rig.end(0, true);
        }
    }
    assert_eq!(
        (rig.planner.holds(&id("a")), rig.planner.lacks(&id("a"))),
        (0, 0)
    );
    assert!(rig.planner.pending().is_empty());
}

#[test]
fn the_repository_with_the_fewest_copies_that_answer_goes_first() {
    let mut rig = PlanRig::new();
    for number in 0..3 {
        rig.publish(key(number), 1);
    }
    let first = key(1);
    rig.recorded
        .get_mut(&first)
        .expect("published")
        .holders
        .clear();
    rig.tell(first);
    rig.begin(1);
    assert_eq!(rig.running[0].key, first);
    let PlanAction::Copy { from, urgent, .. } = &rig.running[0].action else {
        panic!("{:?}", rig.running)
    };
    assert!(from.is_empty() && *urgent, "a fetcher has to give it");
}

#[test]
fn a_node_that_recovers_is_given_what_it_lacks_at_once_and_as_recovery() {
    let mut rig = PlanRig::new();
    rig.publish(key(0), 1);
    rig.settle();
    let holder = rig.recorded[&key(0)].holders[0].clone();
    let node = NODES.iter().position(|name| *name == holder.as_str());
    let node = node.expect("one of them");
    rig.happen(Happening::Stand(node, NodeStanding::Recovering));
    rig.happen(Happening::Lost(0, node));
    // Of a commit that was just published, too: who publishes passes such a node over.
    let recorded = rig.recorded.get_mut(&key(0)).expect("published");
    recorded.generation += 1;
    let event = PlanEvent::Repository(RepositoryFacts {
        fresh: true,
        ..repository(key(0), &rig.recorded[&key(0)])
    });
    rig.planner.step(event, rig.now);
    rig.begin(1);
    let number = rig.planner.known_number(&holder).expect("known");
    assert_eq!(rig.running[0].cause, PlanCause::Recover(number));
}

#[test]
fn a_repository_that_keeps_failing_is_tried_less_and_less_often() {
    let mut rig = PlanRig::new();
    rig.publish(key(0), 1);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        rig.begin(1);
        rig.end(0, false);
        let failed = rig.now;
        while rig.running.is_empty() {
            rig.now += Duration::from_secs(1);
            rig.begin(1);
        }
        pauses.push((rig.now - failed).as_secs());
        rig.end(0, false);
        rig.now += Duration::from_secs(300);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!((pauses[0], pauses[11]), (1, 300));
}
