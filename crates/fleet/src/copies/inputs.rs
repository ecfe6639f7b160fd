//! All that the steps of a repository follow from, beside the repository itself: the nodes, how
//! many copies are wanted, and what operators asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{PlanAction, PlanCommand};
use super::facts::StorageKey;
use super::nodes::PlannedNodes;
use super::repository::PlannedRepository;
use super::steps::{CopyFault, CopyStep, PlanCause, steps_of};

#[derive(Default)]
pub(super) struct PlanInputs {
    pub nodes: PlannedNodes,
    /// Causes that are not worked on now.
    pub held_back: BTreeSet<PlanCause>,
    /// Repositories that an operator asked for.
    pub asked: BTreeMap<StorageKey, PlanCause>,
}

impl PlanInputs {
    /// All steps of a repository, with an operator's cause if there is one.
    pub fn steps(&self, key: StorageKey, repository: &PlannedRepository) -> Vec<CopyStep> {
        let mut steps = steps_of(&self.nodes, repository);
        if let Some(cause) = self.asked.get(&key) {
            steps.iter_mut().for_each(|step| step.cause = *cause);
        }
        steps
    }

    /// The first of `steps` that can be done now.
    pub fn first_runnable<'a>(&self, steps: &'a [CopyStep]) -> Option<&'a CopyStep> {
        steps
            .iter()
            .find(|step| step.wait.is_none() && !self.held_back.contains(&step.cause))
    }

    /// The lowest goes first: few copies that answer, then what ends a move, then what begins one.
    pub fn priority(&self, repository: &PlannedRepository, step: &CopyStep) -> u8 {
        let serving = self.serving_holders(repository).count();
        match step.fault {
            CopyFault::Missing if serving < self.nodes.copies() => serving.min(100) as u8,
            CopyFault::TooMany => 150,
            CopyFault::Missing => 200,
        }
    }

    /// The command that carries out a step.
    pub fn command(
        &self,
        key: StorageKey,
        repository: &PlannedRepository,
        step: &CopyStep,
    ) -> PlanCommand {
        let node = self.nodes.id(step.node).clone();
        let action = match step.fault {
            CopyFault::Missing => {
                // A source that stays is preferred to one that is about to go.
                let mut from: Vec<u32> = self.serving_holders(repository).collect();
                from.sort_by_key(|holder| !repository.is_desired(*holder));
                PlanAction::Copy {
                    node,
                    urgent: from.len() < self.nodes.copies(),
                    from: from
                        .into_iter()
                        .map(|number| self.nodes.id(number).clone())
                        .collect(),
                }
            }
            CopyFault::TooMany => PlanAction::Delete {
                node,
                keep: repository
                    .desired_nodes()
                    .map(|number| self.nodes.id(number).clone())
                    .collect(),
                forgotten: self.nodes.facts(step.node).is_none(),
            },
        };
        PlanCommand {
            key,
            generation: repository.generation,
            cause: step.cause,
            action,
        }
    }

    /// Holders that answer.
    fn serving_holders<'a>(
        &'a self,
        repository: &'a PlannedRepository,
    ) -> impl Iterator<Item = u32> + 'a {
        repository
            .holders
            .iter()
            .copied()
            .filter(|holder| self.nodes.serves(*holder))
    }
}
