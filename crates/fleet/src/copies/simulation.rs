//! Membership, placement and plan together, without IO: weeks of joins, losses, drains and outages
//! in minutes, from a seed.
//!
//! The machines are the real ones; only the doing is pretended: a copy takes no time but counts
//! against a budget per tick, and needs a source that really has the data. A tick is ten minutes,
//! and every time of the machines (threshold, delay) is as many ticks as it takes seconds in a
//! cluster, so what is checked are decisions, not durations.
//!
//! Checked at every step: a deletion leaves as many real, reachable copies as are wanted; a
//! repository that has no copy left lost all of them within the time that making a new one takes.
//! At the end: everything is where placement wants it, and the copies made are at most 5 % more
//! than what placement moved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use monofs_model::placement::{Candidate, replicas};
use monofs_model::view::Role;
use monofs_model::{Member, MemberState, NodeId, StorageId};
use monofs_testkit::random::Rng;

use super::{
    CommandOutcome, Departure, NodeFacts, NodePlace, NodeStanding, PlanAction, PlanCause,
    PlanCommand, PlanEvent, Planner, RepositoryFacts, StorageKey,
};
use crate::members::{
    AuditFinding, DepartureIntent, MemberCommand, MemberEvent, MemberMachine, MemberTimes,
    TrackedMember, keeps_copies,
};
use crate::settings::StaticMember;

const TICK: Duration = Duration::from_secs(600);
const THRESHOLD: Duration = Duration::from_secs(30 * 60);
const DELAY: Duration = Duration::from_secs(2 * 3600);
const COPIES: usize = 3;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
struct SimulationSettings {
    nodes: usize,
    repositories: usize,
    days: u64,
    seed: u64,
    /// Commands carried out in a tick.
    commands_per_tick: usize,
}

/// A node as it really is.
struct RealNode {
    id: NodeId,
    weight: f64,
    incarnation: u64,
    /// Until when it is away; `None` = it is there.
    away_until: Option<Duration>,
    /// It will never come back.
    dead: bool,
    /// Copies on its disk.
    disk: HashSet<StorageKey>,
}

#[derive(Default)]
struct SimulationCounts {
    joins: u64,
    outages: u64,
    disks_lost: u64,
    drains: u64,
    dead: u64,
    copies: u64,
    deletes: u64,
    failed: u64,
    lost: u64,
    /// Copies that placement moved.
    optimum: f64,
}

struct SimulatedFleet {
    settings: SimulationSettings,
    rng: Rng,
    base: Instant,
    now: Duration,
    machine: MemberMachine,
    planner: Planner,
    real: Vec<RealNode>,
    by_id: HashMap<NodeId, usize>,
    intents: HashMap<NodeId, Departure>,
    /// The catalogue: holders by number of the real node.
    recorded: HashMap<StorageKey, Vec<usize>>,
    /// The start of each node that was last asked what it holds.
    audited: HashMap<usize, u64>,
    facts: Vec<NodeFacts>,
    /// When copies of repositories that are short of them were lost.
    lost_at: HashMap<StorageKey, Vec<Duration>>,
    counts: SimulationCounts,
}

impl SimulatedFleet {
    fn new(settings: SimulationSettings) -> Self {
        let base = Instant::now();
        let machine_settings = MemberTimes {
            threshold: THRESHOLD,
            recovery_time: Duration::ZERO,
            recovery_shares: Vec::new(),
        };
        let none: [StaticMember; 0] = [];
        let mut world = Self {
            settings,
            rng: Rng::new(settings.seed),
            base,
            now: Duration::ZERO,
            machine: MemberMachine::new(machine_settings, &none, 1, base).expect("no members yet"),
            planner: Planner::default(),
            real: Vec::new(),
            by_id: HashMap::new(),
            intents: HashMap::new(),
            recorded: HashMap::new(),
            audited: HashMap::new(),
            facts: Vec::new(),
            lost_at: HashMap::new(),
            counts: SimulationCounts::default(),
        };
        for _ in 0..settings.nodes {
            world.join();
        }
        world.counts.joins = 0;
        world.look_at_nodes();
        for n in 0..settings.repositories {
            let key = world.key(n);
            let facts = RepositoryFacts {
                key,
                generation: 1,
                bytes: 1,
                holders: &[],
                fresh: false,
            };
            let wanted: Vec<usize> = world
                .planner
                .preview(facts)
                .iter()
                .map(|step| world.by_id[world.planner.node_id(step.node)])
                .collect();
            for node in &wanted {
                world.real[*node].disk.insert(key);
            }
            world.recorded.insert(key, wanted);
            world.tell(key);
        }
        world.counts.optimum = 0.0;
        world
    }

    fn key(&self, n: usize) -> StorageKey {
        // Spread like the digests that they stand for.
        (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }

    fn at(&self) -> Instant {
        self.base + self.now
    }

    fn member(&self, node: usize) -> Member {
        let real = &self.real[node];
        Member {
            id: real.id.clone(),
            role: Role::Node,
            address: format!("{}:9000", real.id),
            external_address: String::new(),
            weight: real.weight,
            zone: String::new(),
            state: MemberState::Joining,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: real.incarnation,
            share_percent: 100,
            failed_over: false,
        }
    }

    fn machine(&mut self, event: MemberEvent) {
        let at = self.at();
        for command in self.machine.step(event, at) {
            if let MemberCommand::NoteReturn(id) = command {
                // What the state store does, and tells all routers.
                self.audited.remove(&self.by_id[&id]);
                let row = AuditFinding {
                    incarnation: None,
                    behind: true,
                };
                let at = self.at();
                self.machine
                    .step(MemberEvent::Audited(id.clone(), Some(row)), at);
                self.machine.step(MemberEvent::ReturnNoted(id), at);
            }
        }
    }

    fn join(&mut self) {
        let number = self.real.len();
        let id = NodeId::new(&format!("node{number}")).expect("valid");
        let weight = [1.0, 1.0, 1.0, 2.0, 4.0][self.rng.below(5) as usize];
        self.by_id.insert(id.clone(), number);
        self.real.push(RealNode {
            id,
            weight,
            incarnation: 1,
            away_until: None,
            dead: false,
            disk: HashSet::new(),
        });
        self.machine(MemberEvent::Announced(self.member(number)));
        self.audited.insert(number, 1);
        let row = AuditFinding {
            incarnation: Some(1),
            behind: false,
        };
        self.machine(MemberEvent::Audited(
            self.real[number].id.clone(),
            Some(row),
        ));
        self.counts.joins += 1;
    }

    fn present(&self, node: usize) -> bool {
        !self.real[node].dead && self.real[node].away_until.is_none()
    }

    /// Nodes that are there and that no operator wants empty.
    fn staying(&self) -> Vec<usize> {
        (0..self.real.len())
            .filter(|node| self.present(*node) && !self.intents.contains_key(&self.real[*node].id))
            .collect()
    }

    fn chance(&mut self, per_day: f64) -> bool {
        self.rng.below(1_000_000) as f64 / 1e6 < per_day * TICK.as_secs_f64() / 86_400.0
    }

    /// What happens to a cluster.
    fn faults(&mut self) {
        let nodes = self.settings.nodes as f64;
        if self.chance(nodes / 500.0) {
            self.join();
        }
        if self.chance(nodes / 20.0) {
            self.outage();
        }
        if self.chance(nodes / 500.0) && self.staying().len() > self.settings.nodes * 9 / 10 {
            self.drain();
        }
        for node in 0..self.real.len() {
            if self.real[node]
                .away_until
                .is_some_and(|until| until <= self.now)
                && !self.real[node].dead
            {
                self.real[node].away_until = None;
                self.real[node].incarnation += 1;
                self.machine(MemberEvent::Announced(self.member(node)));
            }
        }
    }

    fn outage(&mut self) {
        let staying = self.staying();
        if staying.len() < self.settings.nodes * 8 / 10 {
            return;
        }
        let node = staying[self.rng.below(staying.len() as u64) as usize];
        let minutes = [5, 30, 60, 240, 1500, 6000][self.rng.below(6) as usize];
        self.real[node].away_until = Some(self.now + Duration::from_secs(minutes * 60));
        self.counts.outages += 1;
        match self.rng.below(12) {
            0 => {
                self.real[node].dead = true;
                self.counts.dead += 1;
                self.lose_disk(node);
            }
            1 => {
                self.counts.disks_lost += 1;
                self.lose_disk(node);
            }
            _ => {}
        }
    }

    fn lose_disk(&mut self, node: usize) {
        for key in std::mem::take(&mut self.real[node].disk) {
            let times = self.lost_at.entry(key).or_default();
            times.push(self.now);
            let left = self.real.iter().filter(|real| real.disk.contains(&key));
            if times.len() >= COPIES && left.count() == 0 {
                self.counts.lost += 1;
                let span = self.now - times[times.len() - COPIES];
                assert!(
                    span <= THRESHOLD + DELAY + 6 * TICK,
                    "{key:032x}: no copy is left, lost over {span:?} (seed {})",
                    self.settings.seed
                );
            }
        }
    }

    fn drain(&mut self) {
        let staying = self.staying();
        let node = staying[self.rng.below(staying.len() as u64) as usize];
        let id = self.real[node].id.clone();
        self.intents
            .insert(id.clone(), Departure::Drain { force: false });
        self.counts.drains += 1;
        self.machine(MemberEvent::Intent(
            id,
            Some(DepartureIntent::Drain { emptied: false }),
        ));
    }

    /// What the leader does about nodes that came back, have caught up, or are empty.
    fn recover(&mut self) {
        let states: Vec<(NodeId, MemberState, u64)> = self
            .machine
            .members()
            .map(|known| {
                (
                    known.member.id.clone(),
                    known.member.state,
                    known.member.incarnation,
                )
            })
            .collect();
        for (id, state, incarnation) in states {
            let node = self.by_id[&id];
            let answers = matches!(
                state,
                MemberState::Recovering | MemberState::Draining | MemberState::Drained
            );
            if !answers || !self.present(node) {
                continue;
            }
            if self.audited.insert(node, incarnation) != Some(incarnation) {
                self.audit(node);
                let row = AuditFinding {
                    incarnation: Some(incarnation),
                    behind: true,
                };
                self.machine(MemberEvent::Audited(id.clone(), Some(row)));
            } else if state == MemberState::Recovering && self.planner.lacks(&id) == 0 {
                let row = AuditFinding {
                    incarnation: Some(incarnation),
                    behind: false,
                };
                self.machine(MemberEvent::Audited(id.clone(), Some(row)));
            }
            if state == MemberState::Draining && self.planner.holds(&id) == 0 {
                self.remove(node);
            }
        }
        let down: Vec<usize> = self
            .machine
            .members()
            .filter(|k| k.member.state == MemberState::Down)
            .map(|k| self.by_id[&k.member.id])
            .collect();
        for node in down {
            // An operator gives up what is dead when its copies were made elsewhere.
            if self.real[node].dead && !self.short_without(node) {
                self.remove(node);
            }
        }
    }

    fn short_without(&self, node: usize) -> bool {
        self.planner
            .pending()
            .keys()
            .any(|cause| *cause == PlanCause::Repair(self.planner_number(node)))
    }

    fn planner_number(&self, node: usize) -> u32 {
        self.planner
            .known_number(&self.real[node].id)
            .unwrap_or(u32::MAX)
    }

    /// An operator removes a member.
    fn remove(&mut self, node: usize) {
        let id = self.real[node].id.clone();
        self.real[node].dead = true;
        self.intents.remove(&id);
        self.machine(MemberEvent::Intent(id.clone(), None));
        self.machine(MemberEvent::Registered(id, None));
    }

    /// Takes it off the holders of what it does not have.
    fn audit(&mut self, node: usize) {
        let gone: Vec<StorageKey> = self
            .recorded
            .iter()
            .filter(|(key, holders)| holders.contains(&node) && !self.real[node].disk.contains(key))
            .map(|(key, _)| *key)
            .collect();
        // Otherwise it counts as a node that comes.
        let stayed = |facts: &&NodeFacts| {
            facts.candidate.id == self.real[node].id && facts.standing.is_desired()
        };
        if self.facts.iter().any(|facts| stayed(&facts)) {
            self.counts.optimum += gone.len() as f64;
        }
        for key in gone {
            self.recorded
                .get_mut(&key)
                .expect("it is recorded")
                .retain(|holder| *holder != node);
            self.tell(key);
        }
    }

    fn tell(&mut self, key: StorageKey) {
        let holders: Vec<NodeId> = self.recorded[&key]
            .iter()
            .map(|node| self.real[*node].id.clone())
            .collect();
        let facts = RepositoryFacts {
            key,
            generation: 1,
            bytes: 1,
            holders: &holders,
            fresh: false,
        };
        self.planner.step(PlanEvent::Repository(facts), self.now);
    }

    fn look_at_nodes(&mut self) {
        let at = self.at();
        let facts = |known: &TrackedMember| {
            let node = &known.member;
            let gone = known
                .down_since
                .map(|since| at.saturating_duration_since(since));
            let intent = self.intents.get(&node.id).copied();
            let gone = gone.filter(|_| known.heard.is_some());
            let place = if intent.is_none() && keeps_copies(node.state, gone, DELAY) {
                NodePlace::Desired
            } else {
                NodePlace::NotDesired
            };
            NodeFacts {
                candidate: node.into(),
                standing: NodeStanding::of(node.state, intent, place),
                serves: node.state.serves(),
                can_take: node.state.accepts(),
            }
        };
        let nodes: Vec<NodeFacts> = self.machine.members().map(facts).collect();
        if nodes == self.facts {
            return;
        }
        self.count_optimum(&nodes);
        self.planner.step(
            PlanEvent::Nodes {
                nodes: &nodes,
                copies: COPIES,
            },
            self.now,
        );
        self.facts = nodes;
    }

    /// What placement moves: the share of each node that comes, and what is on each one that goes.
    fn count_optimum(&mut self, nodes: &[NodeFacts]) {
        let desired = |all: &[NodeFacts]| -> BTreeMap<NodeId, f64> {
            let desired = all.iter().filter(|facts| facts.standing.is_desired());
            desired
                .map(|facts| (facts.candidate.id.clone(), facts.candidate.weight))
                .collect()
        };
        let (before, after) = (desired(&self.facts), desired(nodes));
        let whole: f64 = after.values().sum();
        let places = (COPIES * self.settings.repositories) as f64;
        for (id, weight) in &after {
            if !before.contains_key(id) {
                // What it still has need not be copied.
                let kept = self.real[self.by_id[id]].disk.len() as f64;
                self.counts.optimum += (places * weight / whole - kept).max(0.0);
            }
        }
        for id in before.keys().filter(|id| !after.contains_key(*id)) {
            self.counts.optimum += self.planner.holds(id) as f64;
        }
    }

    /// Carries out what the plan says, up to the budget; returns whether there was something.
    fn work(&mut self) -> bool {
        let mut worked = false;
        for _ in 0..self.settings.commands_per_tick {
            let Some(command) = self.planner.step(PlanEvent::Room(1), self.now).pop() else {
                break;
            };
            worked = true;
            let outcome = self.perform(&command);
            self.counts.failed += u64::from(outcome == CommandOutcome::Failed);
            self.planner.step(
                PlanEvent::Ended {
                    key: command.key,
                    outcome,
                },
                self.now,
            );
        }
        worked
    }

    fn perform(&mut self, command: &PlanCommand) -> CommandOutcome {
        let key = command.key;
        match &command.action {
            PlanAction::Copy { node, from, .. } => {
                let node = self.by_id[node];
                let has = |id: &NodeId| {
                    self.present(self.by_id[id]) && self.real[self.by_id[id]].disk.contains(&key)
                };
                // Without a peer a fetcher gives it.
                if !self.present(node) || (!from.is_empty() && !from.iter().any(has)) {
                    return CommandOutcome::Failed;
                }
                self.real[node].disk.insert(key);
                self.recorded
                    .get_mut(&key)
                    .expect("it is recorded")
                    .push(node);
                self.counts.copies += 1;
            }
            PlanAction::Delete {
                node,
                keep,
                forgotten,
            } => {
                let node = self.by_id[node];
                let has = |id: &NodeId| {
                    self.present(self.by_id[id]) && self.real[self.by_id[id]].disk.contains(&key)
                };
                if !keep.iter().all(has) || !(*forgotten || self.present(node)) {
                    return CommandOutcome::Failed;
                }
                assert!(
                    keep.len() >= COPIES,
                    "{key:032x}: {} verified copies for a deletion",
                    keep.len()
                );
                assert!(!keep.contains(&self.real[node].id));
                self.real[node].disk.remove(&key);
                self.recorded
                    .get_mut(&key)
                    .expect("it is recorded")
                    .retain(|holder| *holder != node);
                self.counts.deletes += u64::from(!forgotten);
            }
        }
        if self.lost_at.contains_key(&key)
            && self
                .real
                .iter()
                .filter(|real| real.disk.contains(&key))
                .count()
                >= COPIES
        {
            self.lost_at.remove(&key);
        }
        self.tell(key);
        CommandOutcome::Done
    }

    fn tick(&mut self) -> bool {
        self.now += TICK;
        for node in 0..self.real.len() {
            if self.present(node) && self.machine.get(&self.real[node].id).is_some() {
                self.machine(MemberEvent::Answered(self.real[node].id.clone()));
            }
        }
        self.machine(MemberEvent::Tick);
        self.recover();
        self.look_at_nodes();
        self.work()
    }

    /// Days of faults, then peace until nothing is left to do.
    fn run(&mut self) {
        let end = Duration::from_secs(self.settings.days * 86_400);
        while self.now < end {
            self.faults();
            self.tick();
        }
        let mut quiet = 0;
        for _ in 0..20_000 {
            self.faults_end();
            quiet = if self.tick() || !self.planner.pending().is_empty() {
                0
            } else {
                quiet + 1
            };
            if quiet > 20 {
                return;
            }
        }
        panic!(
            "it does not converge: {:?} (seed {})",
            self.planner.pending(),
            self.settings.seed
        );
    }

    /// Every node that is away and alive comes back.
    fn faults_end(&mut self) {
        for node in 0..self.real.len() {
            if !self.real[node].dead && self.real[node].away_until.take().is_some() {
                self.real[node].incarnation += 1;
                self.machine(MemberEvent::Announced(self.member(node)));
            }
        }
    }

    /// Every repository is where placement wants it, in truth and on record.
    fn check_converged(&self) {
        let candidates: Vec<Candidate> = self
            .facts
            .iter()
            .filter(|facts| facts.standing.is_desired())
            .map(|facts| facts.candidate.clone())
            .collect();
        let step = (self.recorded.len() / 2000).max(1);
        for (key, holders) in self.recorded.iter().step_by(step) {
            let mut wanted: Vec<usize> = replicas(&StorageId::of_number(*key), &candidates, COPIES)
                .iter()
                .map(|id| self.by_id[id])
                .collect();
            let mut held = holders.clone();
            wanted.sort_unstable();
            held.sort_unstable();
            assert_eq!(held, wanted, "{key:032x} (seed {})", self.settings.seed);
        }
        for (key, holders) in &self.recorded {
            assert!(
                holders.len() == COPIES
                    && holders
                        .iter()
                        .all(|node| self.real[*node].disk.contains(key))
            );
        }
        let disks: usize = self.real.iter().map(|real| real.disk.len()).sum();
        assert_eq!(
            disks,
            COPIES * self.recorded.len(),
            "nothing is left lying about"
        );
    }

    /// The largest and smallest number of copies on a node, as parts of its share.
    fn balance(&self) -> (f64, f64) {
        let whole: f64 = self.facts.iter().map(|facts| facts.candidate.weight).sum();
        let places = (COPIES * self.recorded.len()) as f64;
        let part = |facts: &NodeFacts| {
            self.real[self.by_id[&facts.candidate.id]].disk.len() as f64
                / (places * facts.candidate.weight / whole)
        };
        let parts: Vec<f64> = self.facts.iter().map(part).collect();
        (
            parts.iter().copied().fold(f64::INFINITY, f64::min),
            parts.iter().copied().fold(0.0, f64::max),
        )
    }

    fn report(&self) -> String {
        let SimulationCounts {
            joins,
            outages,
            disks_lost,
            drains,
            dead,
            copies,
            deletes,
            failed,
            lost,
            optimum,
        } = self.counts;
        let (least, most) = self.balance();
        format!(
            "{} nodes, {} repositories, {COPIES} copies, {} days, seed {}: {joins} joins, \
             {outages} outages \
             ({disks_lost} with the disk lost, {dead} for good), {drains} drains; {copies} copies made, {:.0} moved by \
             placement (ratio {:.3}), {deletes} deleted, {failed} tries failed, {lost} lost with all copies together; \
             at the end {} nodes with {least:.2} to {most:.2} of their share",
            self.settings.nodes,
            self.settings.repositories,
            self.settings.days,
            self.settings.seed,
            optimum,
            copies as f64 / optimum,
            self.facts.len(),
        )
    }
}

fn simulate(settings: SimulationSettings) {
    let mut world = SimulatedFleet::new(settings);
    world.run();
    println!("{}", world.report());
    world.check_converged();
    let ratio = world.counts.copies as f64 / world.counts.optimum;
    assert!(
        ratio <= 1.05,
        "copies are {ratio:.3} of what placement moved (seed {})",
        settings.seed
    );
}

#[test]
fn a_cluster_that_loses_gains_and_drains_nodes_for_weeks_keeps_its_copies_and_moves_what_it_must() {
    for seed in 1..=3 {
        simulate(SimulationSettings {
            nodes: 40,
            repositories: 4000,
            days: 21,
            seed,
            commands_per_tick: 2000,
        });
    }
}

/// `make simulate`; the sizes come from the environment.
#[test]
#[ignore = "takes minutes: make simulate"]
fn full() {
    let given = |name: &str, default: u64| match std::env::var(name) {
        Ok(value) => value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value}: write a number")),
        Err(_) => default,
    };
    let repositories = given("SIMULATE_REPOSITORIES", 1_000_000) as usize;
    let settings = SimulationSettings {
        nodes: given("SIMULATE_NODES", 1000) as usize,
        repositories,
        days: given("SIMULATE_DAYS", 21),
        seed: given("SIMULATE_SEED", 1),
        commands_per_tick: repositories,
    };
    simulate(settings);
}
