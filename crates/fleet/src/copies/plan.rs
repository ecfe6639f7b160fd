//! What is to be done so that copies are where placement wants them: `step(event, now) ->
//! commands`, without IO.
//!
//! ```text
//! a desired node is no holder --Copy--> it is one --(all desired ones are)--> Delete of a holder that is not desired
//! ```
//!
//! Invariants:
//! - copies first: nothing is deleted while a desired copy is missing;
//! - a deletion names the copies that stay: as many as are wanted, unless the operator forced it,
//!   and never none;
//! - a holder that does not answer is never deleted: it is recognised when it comes back, and then
//!   one copy is too many;
//! - one command for one repository at a time;
//! - an event costs what it changes: a node that comes or goes costs a look at each repository's
//!   last rank, and placement anew only where that changes it.
//!
//! Callers: the leader's loop (`run`), every router for a plan that is only shown
//! (`Planner::preview`), the simulation.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use monofs_model::NodeId;
use monofs_model::placement::{Candidate, PlacementKey, Placer, Ranked};

use super::steps::{CopyFault, CopyStep, PlanCause, StepTally, StepWait};

/// The value of a storage id.
pub type StorageKey = u128;

/// How long whoever published a commit is given to copy it everywhere itself.
const SETTLE: Duration = Duration::from_secs(2);
/// Pauses of a repository whose step failed: doubled from the first to the last.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(300);

/// How a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStanding {
    /// As placement says.
    Member,
    /// It came back and takes what it missed.
    Recovering,
    /// For so short a time that it is waited for.
    Away,
    /// For so long that its copies are made elsewhere.
    Gone,
    Draining {
        /// Although fewer copies than wanted will be left.
        force: bool,
    },
    FailedOver {
        force: bool,
    },
}

impl NodeStanding {
    /// Whether copies should be there.
    pub fn is_desired(self) -> bool {
        matches!(self, Self::Member | Self::Recovering | Self::Away)
    }

    pub(super) fn is_forced(self) -> bool {
        matches!(
            self,
            Self::Draining { force: true } | Self::FailedOver { force: true }
        )
    }
}

/// A node, as the plan sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    pub candidate: Candidate,
    pub standing: NodeStanding,
    /// It answers: it can be copied from, asked, and told to delete.
    pub serves: bool,
    /// It can be copied to now.
    pub can_take: bool,
}

/// A repository that readers see.
#[derive(Debug, Clone, Copy)]
pub struct RepositoryFacts<'a> {
    pub key: StorageKey,
    pub generation: u64,
    /// Raw size of the snapshot.
    pub bytes: u64,
    pub holders: &'a [NodeId],
    /// Whoever published this generation may still be copying it.
    pub fresh: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    Done,
    /// To be tried again, after a pause that grows.
    Failed,
    /// Cannot be done now; to be tried again after this time.
    Later(Duration),
}

/// What happened.
pub enum PlanEvent<'a> {
    /// These are all nodes, and this many copies are wanted.
    Nodes {
        nodes: &'a [NodeFacts],
        copies: usize,
    },
    /// It is there, or changed.
    Repository(RepositoryFacts<'a>),
    Removed(StorageKey),
    /// What is not done now, and for which repositories an operator asked.
    Asked {
        held_back: BTreeSet<PlanCause>,
        asked: BTreeMap<StorageKey, PlanCause>,
    },
    Ended {
        key: StorageKey,
        outcome: CommandOutcome,
    },
    /// So many more commands can be carried out.
    Room(usize),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanCommand {
    pub key: StorageKey,
    /// Of the commit that it is about.
    pub generation: u64,
    pub cause: PlanCause,
    pub action: PlanAction,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanAction {
    /// Make a copy on `node`, verify it, and publish it.
    Copy {
        node: NodeId,
        /// Holders that answer; empty = a fetcher has to give it.
        from: Vec<NodeId>,
        /// Fewer copies than wanted answer: readers need it as soon as it has the records.
        urgent: bool,
    },
    /// When each of `keep` has confirmed that it holds what `node` holds: take `node` off the
    /// holders, then drop its data.
    Delete {
        node: NodeId,
        keep: Vec<NodeId>,
        /// It is no member any more: there is nobody to ask or to tell.
        forgotten: bool,
    },
}

/// A node by its number in [`Planner`]; unknown ones have facts of `None`.
pub(super) struct KnownNode {
    pub id: NodeId,
    pub facts: Option<NodeFacts>,
    /// Repositories that it is recorded to hold, and those that it should hold and does not.
    holds: usize,
    lacks: usize,
}

#[derive(Default)]
pub(super) struct PlannedRepository {
    generation: u64,
    pub bytes: u64,
    pub holders: Box<[u32]>,
    pub desired: Box<[Ranked]>,
    busy: bool,
    failures: u8,
    not_before: Duration,
    queued: Option<Box<QueuePlace>>,
}

enum QueuePlace {
    Ready(PlanCause, u8),
    Delayed(Duration),
}

/// See the module.
pub struct Planner {
    pub(super) copies: usize,
    pub(super) nodes: Vec<KnownNode>,
    numbers: HashMap<NodeId, u32>,
    placer: Placer,
    repos: HashMap<StorageKey, PlannedRepository>,
    tallies: BTreeMap<PlanCause, StepTally>,
    ready: BTreeMap<PlanCause, BTreeSet<(u8, StorageKey)>>,
    delayed: BTreeSet<(Duration, StorageKey)>,
    held_back: BTreeSet<PlanCause>,
    asked: BTreeMap<StorageKey, PlanCause>,
}

impl Default for Planner {
    fn default() -> Self {
        Self {
            copies: 1,
            nodes: Vec::new(),
            numbers: HashMap::new(),
            placer: Placer::new([]),
            repos: HashMap::new(),
            tallies: BTreeMap::new(),
            ready: BTreeMap::new(),
            delayed: BTreeSet::new(),
            held_back: BTreeSet::new(),
            asked: BTreeMap::new(),
        }
    }
}

impl Planner {
    /// Takes in what happened at `now` (since any fixed moment) and says what to do.
    pub fn step(&mut self, event: PlanEvent<'_>, now: Duration) -> Vec<PlanCommand> {
        match event {
            PlanEvent::Nodes { nodes, copies } => self.nodes(nodes, copies.max(1)),
            PlanEvent::Repository(facts) => self.repository(facts, now),
            PlanEvent::Removed(key) => {
                if let Some(repo) = self.repos.remove(&key) {
                    self.uncount(key, &repo);
                }
            }
            PlanEvent::Asked { held_back, asked } => {
                if held_back != self.held_back || asked != self.asked {
                    (self.held_back, self.asked) = (held_back, asked);
                    self.recount(|_, _| {});
                }
            }
            PlanEvent::Ended { key, outcome } => self.ended(key, outcome, now),
            PlanEvent::Room(room) => return self.commands(room, now),
        }
        Vec::new()
    }

    /// What is left to do, by cause.
    pub fn pending(&self) -> &BTreeMap<PlanCause, StepTally> {
        &self.tallies
    }

    /// Number of repositories that `node` should hold and does not.
    pub fn lacks(&self, node: &NodeId) -> usize {
        self.numbers
            .get(node)
            .map_or(0, |number| self.nodes[*number as usize].lacks)
    }

    /// Number of repositories that `node` is recorded to hold.
    pub fn holds(&self, node: &NodeId) -> usize {
        self.numbers
            .get(node)
            .map_or(0, |number| self.nodes[*number as usize].holds)
    }

    /// The node with this number, as causes and waits name it.
    pub fn node_id(&self, number: u32) -> &NodeId {
        &self.nodes[number as usize].id
    }

    /// The number of this node, if it was ever seen.
    #[cfg(test)]
    pub fn known_number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The number by which causes name this node.
    pub fn number(&mut self, id: &NodeId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.nodes.len() as u32;
        self.numbers.insert(id.clone(), number);
        self.nodes.push(KnownNode {
            id: id.clone(),
            facts: None,
            holds: 0,
            lacks: 0,
        });
        number
    }

    /// Those of `holders` that answer.
    pub fn serving<'a>(&self, holders: &'a [NodeId]) -> impl Iterator<Item = &'a NodeId> {
        let serving = |id: &&NodeId| {
            self.numbers
                .get(*id)
                .is_some_and(|number| self.serves(*number))
        };
        holders.iter().filter(serving)
    }

    /// Whether the node with this number is one of the last [`PlanEvent::Nodes`].
    pub fn is_member(&self, number: u32) -> bool {
        self.nodes[number as usize].facts.is_some()
    }

    /// Whether repositories are recorded on nodes that are no members.
    pub fn has_strangers(&self) -> bool {
        self.nodes
            .iter()
            .any(|known| known.facts.is_none() && known.holds > 0)
    }

    /// The steps of a repository that is not taken in, in the order in which they would be done.
    pub fn preview(&mut self, facts: RepositoryFacts<'_>) -> Vec<CopyStep> {
        let holders = facts.holders.iter().map(|id| self.number(id)).collect();
        let desired = self
            .placer
            .replicas(&PlacementKey::of_number(facts.key), self.copies)
            .into();
        let repo = PlannedRepository {
            bytes: facts.bytes,
            holders,
            desired,
            ..PlannedRepository::default()
        };
        self.steps(facts.key, &repo)
    }

    fn nodes(&mut self, nodes: &[NodeFacts], copies: usize) {
        let places = |facts: &Option<NodeFacts>| {
            facts
                .as_ref()
                .filter(|facts| facts.standing.is_desired())
                .map(|facts| facts.candidate.clone())
        };
        let mut before: Vec<Option<Candidate>> = Vec::new();
        for node in nodes {
            self.number(&node.candidate.id);
        }
        for known in &mut self.nodes {
            before.push(places(&known.facts));
            known.facts = None;
        }
        for node in nodes {
            let number = self.number(&node.candidate.id);
            self.nodes[number as usize].facts = Some(node.clone());
        }
        let after: Vec<Option<Candidate>> = self
            .nodes
            .iter()
            .map(|known| places(&known.facts))
            .collect();
        let changed = |number: &usize| before[*number] != after[*number];
        let left: Vec<bool> = (0..after.len())
            .map(|number| changed(&number) && before[number].is_some())
            .collect();
        let entered: Vec<usize> = (0..after.len())
            .filter(changed)
            .filter(|number| after[*number].is_some())
            .collect();
        let all = std::mem::replace(&mut self.copies, copies) != copies;
        if all || !entered.is_empty() || left.contains(&true) {
            let desired = after
                .iter()
                .enumerate()
                .filter_map(|(n, facts)| Some((n as u32, facts.as_ref()?)));
            self.placer = Placer::new(desired);
        }
        let placer = std::mem::replace(&mut self.placer, Placer::new([]));
        let entered: Vec<_> = entered
            .iter()
            .filter_map(|number| placer.candidate(*number as u32))
            .collect();
        self.recount(|key, repo| {
            let key = PlacementKey::of_number(key);
            if all
                || repo.desired.iter().any(|ranked| left[ranked.tag as usize])
                || entered
                    .iter()
                    .any(|candidate| candidate.may_enter(&key, &repo.desired, copies))
            {
                repo.desired = placer.replicas(&key, copies).into();
            }
        });
        drop(entered);
        self.placer = placer;
    }

    /// Looks at every repository again, after `change`.
    fn recount(&mut self, change: impl Fn(StorageKey, &mut PlannedRepository)) {
        (self.tallies, self.ready, self.delayed) = Default::default();
        for known in &mut self.nodes {
            (known.holds, known.lacks) = (0, 0);
        }
        let mut repos = std::mem::take(&mut self.repos);
        for (key, repo) in &mut repos {
            change(*key, repo);
            repo.queued = None;
            self.count(*key, repo);
        }
        self.repos = repos;
    }

    fn repository(&mut self, facts: RepositoryFacts<'_>, now: Duration) {
        let holders = facts.holders.iter().map(|id| self.number(id)).collect();
        let (mut repo, known) = match self.repos.remove(&facts.key) {
            Some(repo) => {
                self.uncount(facts.key, &repo);
                (repo, true)
            }
            None => (PlannedRepository::default(), false),
        };
        if !known {
            repo.desired = self
                .placer
                .replicas(&PlacementKey::of_number(facts.key), self.copies)
                .into();
        }
        if !known || repo.generation != facts.generation {
            repo.failures = 0;
            // A node that recovers is not copied to by those who publish.
            let theirs = !repo.desired.iter().any(|ranked| {
                let standing = self.nodes[ranked.tag as usize]
                    .facts
                    .as_ref()
                    .map(|facts| facts.standing);
                standing == Some(NodeStanding::Recovering)
            });
            repo.not_before = if facts.fresh && theirs {
                now + SETTLE
            } else {
                Duration::ZERO
            };
        }
        (repo.generation, repo.bytes, repo.holders, repo.queued) =
            (facts.generation, facts.bytes, holders, None);
        self.count(facts.key, &mut repo);
        self.repos.insert(facts.key, repo);
    }

    fn ended(&mut self, key: StorageKey, outcome: CommandOutcome, now: Duration) {
        let Some(mut repo) = self.repos.remove(&key) else {
            return;
        };
        self.uncount(key, &repo);
        (repo.busy, repo.queued) = (false, None);
        match outcome {
            CommandOutcome::Done => (repo.failures, repo.not_before) = (0, Duration::ZERO),
            CommandOutcome::Later(pause) => repo.not_before = now + pause,
            CommandOutcome::Failed => {
                let pause = PAUSE_FIRST * (1 << repo.failures.min(16));
                repo.not_before = now + pause.min(PAUSE_LAST);
                repo.failures = repo.failures.saturating_add(1);
            }
        }
        self.count(key, &mut repo);
        self.repos.insert(key, repo);
    }

    fn commands(&mut self, room: usize, now: Duration) -> Vec<PlanCommand> {
        while let Some((at, key)) = self.delayed.first().copied()
            && at <= now
        {
            self.delayed.pop_first();
            if let Some(mut repo) = self.repos.remove(&key) {
                self.uncount(key, &repo);
                (repo.not_before, repo.queued) = (Duration::ZERO, None);
                self.count(key, &mut repo);
                self.repos.insert(key, repo);
            }
        }
        let mut commands = Vec::new();
        while commands.len() < room {
            let first = |(cause, keys): (&PlanCause, &BTreeSet<(u8, StorageKey)>)| {
                keys.first()
                    .filter(|_| !self.held_back.contains(cause))
                    .map(|(priority, key)| (*priority, *key))
            };
            let Some((_, key)) = self.ready.iter().filter_map(first).min() else {
                break;
            };
            let Some(mut repo) = self.repos.remove(&key) else {
                break;
            };
            self.uncount(key, &repo);
            let step = self.next(key, &repo);
            (repo.busy, repo.queued) = (step.is_some(), None);
            commands.extend(step.map(|step| self.command(key, &repo, &step)));
            self.count(key, &mut repo);
            self.repos.insert(key, repo);
        }
        commands
    }

    fn command(&self, key: StorageKey, repo: &PlannedRepository, step: &CopyStep) -> PlanCommand {
        let id = |number: &u32| self.nodes[*number as usize].id.clone();
        let desired = repo.desired.iter().map(|ranked| ranked.tag);
        let action = match step.why {
            CopyFault::Missing => {
                let mut from: Vec<u32> = repo
                    .holders
                    .iter()
                    .copied()
                    .filter(|holder| self.serves(*holder))
                    .collect();
                from.sort_by_key(|holder| !repo.desired.iter().any(|ranked| ranked.tag == *holder));
                let urgent = from.len() < self.copies;
                PlanAction::Copy {
                    node: id(&step.node),
                    from: from.iter().map(id).collect(),
                    urgent,
                }
            }
            CopyFault::TooMany => PlanAction::Delete {
                node: id(&step.node),
                keep: desired.map(|number| id(&number)).collect(),
                forgotten: self.nodes[step.node as usize].facts.is_none(),
            },
        };
        PlanCommand {
            key,
            generation: repo.generation,
            cause: step.cause,
            action,
        }
    }

    pub(super) fn serves(&self, number: u32) -> bool {
        self.nodes[number as usize]
            .facts
            .as_ref()
            .is_some_and(|facts| facts.serves)
    }

    /// The first step that can be done now.
    fn next(&self, key: StorageKey, repo: &PlannedRepository) -> Option<CopyStep> {
        let mut steps = self.steps(key, repo).into_iter();
        steps.find(|step| step.wait.is_none() && !self.held_back.contains(&step.cause))
    }

    /// All steps of a repository, with an operator's cause if there is one.
    fn steps(&self, key: StorageKey, repo: &PlannedRepository) -> Vec<CopyStep> {
        let mut steps = super::steps::of(self, repo);
        if let Some(cause) = self.asked.get(&key) {
            steps.iter_mut().for_each(|step| step.cause = *cause);
        }
        steps
    }

    fn count(&mut self, key: StorageKey, repo: &mut PlannedRepository) {
        for holder in &repo.holders {
            self.nodes[*holder as usize].holds += 1;
        }
        if is_settled(repo) {
            return;
        }
        for ranked in repo
            .desired
            .iter()
            .filter(|ranked| !repo.holders.contains(&ranked.tag))
        {
            self.nodes[ranked.tag as usize].lacks += 1;
        }
        let steps = self.steps(key, repo);
        for step in &steps {
            self.tallies.entry(step.cause).or_default().add(step);
        }
        let next = steps
            .iter()
            .find(|step| step.wait.is_none() && !self.held_back.contains(&step.cause));
        let Some(step) = next.filter(|_| !repo.busy) else {
            return;
        };
        // Its time has not come; [`Planner::commands`] takes it from there when it has.
        let delayed = repo.not_before > Duration::ZERO;
        repo.queued = Some(Box::new(if delayed {
            self.delayed.insert((repo.not_before, key));
            QueuePlace::Delayed(repo.not_before)
        } else {
            let priority = self.priority(repo, step);
            self.ready
                .entry(step.cause)
                .or_default()
                .insert((priority, key));
            QueuePlace::Ready(step.cause, priority)
        }));
    }

    /// Undoes [`Planner::count`].
    fn uncount(&mut self, key: StorageKey, repo: &PlannedRepository) {
        for holder in &repo.holders {
            self.nodes[*holder as usize].holds -= 1;
        }
        if is_settled(repo) {
            return;
        }
        for ranked in repo
            .desired
            .iter()
            .filter(|ranked| !repo.holders.contains(&ranked.tag))
        {
            self.nodes[ranked.tag as usize].lacks -= 1;
        }
        for step in self.steps(key, repo) {
            if let Some(tally) = self.tallies.get_mut(&step.cause) {
                tally.remove(&step);
                if tally.is_empty() {
                    self.tallies.remove(&step.cause);
                }
            }
        }
        match repo.queued.as_deref() {
            Some(QueuePlace::Delayed(at)) => drop(self.delayed.remove(&(*at, key))),
            Some(QueuePlace::Ready(cause, priority)) => {
                if let Some(keys) = self.ready.get_mut(cause) {
                    keys.remove(&(*priority, key));
                    if keys.is_empty() {
                        self.ready.remove(cause);
                    }
                }
            }
            None => {}
        }
    }

    /// The lowest goes first: few copies that answer, then what ends a move, then what begins one.
    fn priority(&self, repo: &PlannedRepository, step: &CopyStep) -> u8 {
        let serving = repo
            .holders
            .iter()
            .filter(|holder| self.serves(**holder))
            .count();
        match step.why {
            CopyFault::Missing if serving < self.copies => serving.min(100) as u8,
            CopyFault::TooMany => 150,
            CopyFault::Missing => 200,
        }
    }
}

fn is_settled(repo: &PlannedRepository) -> bool {
    repo.holders.len() == repo.desired.len()
        && repo
            .desired
            .iter()
            .all(|ranked| repo.holders.contains(&ranked.tag))
}

/// What somebody waits for, in words.
pub fn waiting_for(planner: &Planner, wait: StepWait) -> String {
    match wait {
        StepWait::Copies => "copies come first".to_owned(),
        StepWait::Node(number) => format!("node {} cannot be used now", planner.node_id(number)),
        StepWait::TooFewNodes => {
            format!(
                "{} copies are wanted, and there are not enough nodes for them",
                planner.copies
            )
        }
    }
}
