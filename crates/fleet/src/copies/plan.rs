//! What is to be done so that copies are where placement wants them: `step(event, now) ->
//! commands`, without IO.
//!
//! ```text
//! a desired node is no holder --Copy--> it is a holder
//! all desired nodes are holders --Delete--> a holder that is not desired is none any more
//! ```
//!
//! Invariants:
//! - copies first: nothing is deleted while a desired copy is missing;
//! - a deletion names the copies that stay: as many as are wanted, unless the operator forced it,
//!   and never none;
//! - a holder that does not answer is never deleted: it is recognised when it comes back, and then
//!   one copy is too many;
//! - one command for one repository at a time, as long as it is not removed meanwhile;
//! - an event costs what it changes: a node that comes or goes costs a look at each repository's
//!   last rank, and placement anew only where that changes it.
//!
//! Callers: the leader's loop, every router for a plan that is only shown
//! ([`Planner::preview`]), the simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use monofs_model::NodeId;

use super::event::{CommandOutcome, PlanCommand, PlanEvent};
use super::facts::{NodeFacts, NodeStanding, RepositoryFacts, StorageKey};
use super::inputs::PlanInputs;
use super::pending::PendingWork;
use super::repository::PlannedRepository;
use super::steps::{CopyStep, PlanCause, StepWait};
use super::tally::StepTally;

/// How long the ingest that published a commit is given to copy it everywhere itself.
const SETTLE: Duration = Duration::from_secs(2);
/// Pauses of a repository whose step failed: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Default)]
pub struct Planner {
    inputs: PlanInputs,
    pending: PendingWork,
}

impl Planner {
    /// Takes in what happened at `now` (since any fixed moment) and says what to do.
    pub fn step(&mut self, event: PlanEvent<'_>, now: Duration) -> Vec<PlanCommand> {
        match event {
            PlanEvent::Nodes { nodes, copies } => self.nodes(nodes, copies.max(1)),
            PlanEvent::Repository(facts) => self.repository(facts, now),
            PlanEvent::Removed(key) => drop(self.pending.take(key, &self.inputs)),
            PlanEvent::Asked { held_back, asked } => {
                if held_back != self.inputs.held_back || asked != self.inputs.asked {
                    self.inputs.held_back = held_back;
                    self.inputs.asked = asked;
                    self.pending.recount(&self.inputs, |_, _| {});
                }
            }
            PlanEvent::Ended { key, outcome } => self.ended(key, outcome, now),
            PlanEvent::Room(room) => return self.commands(room, now),
        }
        Vec::new()
    }

    /// What is left to do, by cause.
    pub fn pending(&self) -> &BTreeMap<PlanCause, StepTally> {
        self.pending.tallies()
    }

    /// Number of repositories that `node` should hold and does not.
    pub fn lacks(&self, node: &NodeId) -> usize {
        self.known_number(node)
            .map_or(0, |number| self.pending.lacking_on(number))
    }

    /// Number of repositories that `node` is recorded to hold.
    pub fn holds(&self, node: &NodeId) -> usize {
        self.known_number(node)
            .map_or(0, |number| self.pending.held_by(number))
    }

    /// The node with this number, as causes and waits name it.
    pub fn node_id(&self, number: u32) -> &NodeId {
        self.inputs.nodes.id(number)
    }

    /// The number of this node, if it was ever named.
    pub fn known_number(&self, id: &NodeId) -> Option<u32> {
        self.inputs.nodes.known_number(id)
    }

    /// The number by which causes name this node.
    pub fn number(&mut self, id: &NodeId) -> u32 {
        self.inputs.nodes.number(id)
    }

    /// Those of `holders` that answer.
    pub fn serving<'a>(&self, holders: &'a [NodeId]) -> impl Iterator<Item = &'a NodeId> {
        let nodes = &self.inputs.nodes;
        holders.iter().filter(|id| {
            nodes
                .known_number(id)
                .is_some_and(|number| nodes.serves(number))
        })
    }

    /// Whether the node with this number is one of the last [`PlanEvent::Nodes`].
    pub fn is_member(&self, number: u32) -> bool {
        self.inputs.nodes.facts(number).is_some()
    }

    /// Whether repositories are recorded on nodes that are no members.
    pub fn has_strangers(&self) -> bool {
        self.inputs
            .nodes
            .numbers()
            .any(|number| !self.is_member(number) && self.pending.held_by(number) > 0)
    }

    /// What a step waits for, in words.
    pub fn waiting_for(&self, wait: StepWait) -> String {
        match wait {
            StepWait::Copies => "copies come first".to_owned(),
            StepWait::Node(number) => format!("node {} cannot be used now", self.node_id(number)),
            StepWait::TooFewNodes => format!(
                "{} copies are wanted, and there are not enough nodes for them",
                self.inputs.nodes.copies()
            ),
        }
    }

    /// The steps of a repository that is not taken in, in the order in which they would be done.
    pub fn preview(&mut self, facts: RepositoryFacts<'_>) -> Vec<CopyStep> {
        let holders = facts.holders.iter().map(|id| self.number(id)).collect();
        let repository = PlannedRepository {
            bytes: facts.bytes,
            holders,
            ..PlannedRepository::new(self.inputs.nodes.replicas(facts.key))
        };
        self.inputs.steps(facts.key, &repository)
    }

    fn nodes(&mut self, nodes: &[NodeFacts], copies: usize) {
        self.inputs.nodes.replace(nodes, copies);
        let change = self.inputs.nodes.last_change();
        self.pending.recount(&self.inputs, |key, repository| {
            change.place(key, &mut repository.desired);
        });
    }

    fn repository(&mut self, facts: RepositoryFacts<'_>, now: Duration) {
        let holders = facts.holders.iter().map(|id| self.number(id)).collect();
        let known = self.pending.take(facts.key, &self.inputs);
        let published = known
            .as_ref()
            .is_none_or(|known| known.generation != facts.generation);
        let mut repository =
            known.unwrap_or_else(|| PlannedRepository::new(self.inputs.nodes.replicas(facts.key)));
        if published {
            repository.failures = 0;
            repository.not_before = if facts.fresh && !self.has_recovering(&repository) {
                now + SETTLE
            } else {
                Duration::ZERO
            };
        }
        repository.generation = facts.generation;
        repository.bytes = facts.bytes;
        repository.holders = holders;
        self.pending.put(facts.key, repository, &self.inputs);
    }

    /// Whether one of its nodes recovers: an ingest does not copy to such a node.
    fn has_recovering(&self, repository: &PlannedRepository) -> bool {
        repository
            .desired_nodes()
            .any(|node| self.inputs.nodes.standing(node) == Some(NodeStanding::Recovering))
    }

    fn ended(&mut self, key: StorageKey, outcome: CommandOutcome, now: Duration) {
        self.pending.update(key, &self.inputs, |repository| {
            repository.busy = false;
            match outcome {
                CommandOutcome::Done => {
                    repository.failures = 0;
                    repository.not_before = Duration::ZERO;
                }
                CommandOutcome::Later(pause) => repository.not_before = now + pause,
                CommandOutcome::Failed => {
                    let pause = PAUSE_FIRST * (1 << repository.failures.min(16));
                    repository.not_before = now + pause.min(PAUSE_LAST);
                    repository.failures = repository.failures.saturating_add(1);
                }
            }
        });
    }

    fn commands(&mut self, room: usize, now: Duration) -> Vec<PlanCommand> {
        // Whatever had to wait until now stands in line again.
        while let Some(key) = self.pending.first_due(now) {
            self.pending.update(key, &self.inputs, |repository| {
                repository.not_before = Duration::ZERO;
            });
        }
        let mut commands = Vec::new();
        while commands.len() < room {
            let Some(key) = self.pending.first_ready(&self.inputs) else {
                break;
            };
            let inputs = &self.inputs;
            let command = self.pending.update(key, inputs, |repository| {
                let steps = inputs.steps(key, repository);
                let step = inputs.first_runnable(&steps);
                repository.busy = step.is_some();
                step.map(|step| inputs.command(key, repository, step))
            });
            commands.extend(command.flatten());
        }
        commands
    }
}
