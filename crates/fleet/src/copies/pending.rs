//! The repositories of the plan, and everything that is counted over them: steps by cause, copies
//! by node, and who is next.
//!
//! Invariant: the counts are those of the repositories that are in, as they and the inputs are. So
//! one is changed in [`PendingWork::update`] or between [`PendingWork::take`] and
//! [`PendingWork::put`] alone, and inputs that decide about more than one repository only with a
//! [`PendingWork::recount`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::facts::StorageKey;
use super::inputs::PlanInputs;
use super::repository::{PlannedRepository, QueuePlace};
use super::steps::PlanCause;
use super::tally::StepTally;

#[derive(Default)]
pub(super) struct PendingWork {
    repositories: HashMap<StorageKey, PlannedRepository>,
    tallies: BTreeMap<PlanCause, StepTally>,
    /// By number of the node; one that is not in has none.
    copies: Vec<NodeCopies>,
    /// Repositories with a step that can be done, by cause and priority.
    ready: BTreeMap<PlanCause, BTreeSet<(u8, StorageKey)>>,
    /// Those whose time has not come.
    delayed: BTreeSet<(Duration, StorageKey)>,
}

/// Repositories that a node is recorded to hold, and those that it should hold and does not.
#[derive(Default, Clone, Copy)]
struct NodeCopies {
    held: usize,
    lacking: usize,
}

impl PendingWork {
    /// What is left to do, by cause.
    pub fn tallies(&self) -> &BTreeMap<PlanCause, StepTally> {
        &self.tallies
    }

    /// Number of repositories that this node is recorded to hold.
    pub fn held_by(&self, node: u32) -> usize {
        self.copies
            .get(node as usize)
            .map_or(0, |copies| copies.held)
    }

    /// Number of repositories that this node should hold and does not.
    pub fn lacking_on(&self, node: u32) -> usize {
        self.copies
            .get(node as usize)
            .map_or(0, |copies| copies.lacking)
    }

    /// Takes a repository out, with all that is counted of it.
    pub fn take(&mut self, key: StorageKey, inputs: &PlanInputs) -> Option<PlannedRepository> {
        let mut repository = self.repositories.remove(&key)?;
        self.uncount(key, &mut repository, inputs);
        Some(repository)
    }

    /// Puts one in that is not in, and counts it.
    pub fn put(&mut self, key: StorageKey, mut repository: PlannedRepository, inputs: &PlanInputs) {
        self.count(key, &mut repository, inputs);
        self.repositories.insert(key, repository);
    }

    /// Changes one, if it is in, and what is counted of it.
    pub fn update<T>(
        &mut self,
        key: StorageKey,
        inputs: &PlanInputs,
        change: impl FnOnce(&mut PlannedRepository) -> T,
    ) -> Option<T> {
        let mut repository = self.take(key, inputs)?;
        let changed = change(&mut repository);
        self.put(key, repository, inputs);
        Some(changed)
    }

    /// Counts everything anew, each repository after `change`.
    pub fn recount(
        &mut self,
        inputs: &PlanInputs,
        change: impl Fn(StorageKey, &mut PlannedRepository),
    ) {
        let mut repositories = std::mem::take(&mut self.repositories);
        *self = Self::default();
        for (key, repository) in &mut repositories {
            change(*key, repository);
            repository.queued = None;
            self.count(*key, repository, inputs);
        }
        self.repositories = repositories;
    }

    /// The next repository that a command can be given for.
    pub fn first_ready(&self, inputs: &PlanInputs) -> Option<StorageKey> {
        let worked_on = self
            .ready
            .iter()
            .filter(|(cause, _)| !inputs.held_back.contains(cause));
        worked_on
            .filter_map(|(_, keys)| keys.first())
            .min()
            .map(|(_, key)| *key)
    }

    /// A repository whose pause is over at `now`.
    pub fn first_due(&self, now: Duration) -> Option<StorageKey> {
        let (due, key) = self.delayed.first()?;
        (*due <= now).then_some(*key)
    }

    fn count(&mut self, key: StorageKey, repository: &mut PlannedRepository, inputs: &PlanInputs) {
        for holder in &repository.holders {
            self.copies_of(*holder).held += 1;
        }
        // Most of the time that is all there is to say of a repository.
        if repository.is_settled() {
            return;
        }
        for node in repository.missing() {
            self.copies_of(node).lacking += 1;
        }
        let steps = inputs.steps(key, repository);
        for step in &steps {
            self.tallies.entry(step.cause).or_default().add(step);
        }
        // Its place in line.
        let Some(step) = inputs.first_runnable(&steps).filter(|_| !repository.busy) else {
            return;
        };
        let place = if repository.not_before > Duration::ZERO {
            self.delayed.insert((repository.not_before, key));
            QueuePlace::Delayed(repository.not_before)
        } else {
            let priority = inputs.priority(repository, step);
            self.ready
                .entry(step.cause)
                .or_default()
                .insert((priority, key));
            QueuePlace::Ready(step.cause, priority)
        };
        repository.queued = Some(Box::new(place));
    }

    /// Undoes [`PendingWork::count`].
    fn uncount(
        &mut self,
        key: StorageKey,
        repository: &mut PlannedRepository,
        inputs: &PlanInputs,
    ) {
        for holder in &repository.holders {
            self.copies_of(*holder).held -= 1;
        }
        if repository.is_settled() {
            return;
        }
        for node in repository.missing() {
            self.copies_of(node).lacking -= 1;
        }
        for step in inputs.steps(key, repository) {
            if let Some(tally) = self.tallies.get_mut(&step.cause) {
                tally.remove(&step);
                if tally.is_empty() {
                    self.tallies.remove(&step.cause);
                }
            }
        }
        if let Some(place) = repository.queued.take() {
            self.leave(key, &place);
        }
    }

    /// Takes a repository out of its line.
    fn leave(&mut self, key: StorageKey, place: &QueuePlace) {
        match place {
            QueuePlace::Delayed(due) => {
                self.delayed.remove(&(*due, key));
            }
            QueuePlace::Ready(cause, priority) => {
                if let Some(keys) = self.ready.get_mut(cause) {
                    keys.remove(&(*priority, key));
                    if keys.is_empty() {
                        self.ready.remove(cause);
                    }
                }
            }
        }
    }

    fn copies_of(&mut self, node: u32) -> &mut NodeCopies {
        let at = node as usize;
        if at >= self.copies.len() {
            self.copies.resize(at + 1, NodeCopies::default());
        }
        &mut self.copies[at]
    }
}
