//! The steps that one repository needs, each with its cause and with what it waits for.

use std::collections::BTreeMap;

use monofs_model::MemberState;

use super::plan::{NodeStanding, PlannedRepository, Planner, StorageKey};

/// CopyFault something is done: one job each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PlanCause {
    /// Copies that were on this node, or should be there and are missing.
    Repair(u32),
    Recover(u32),
    Failover(u32),
    Drain(u32),
    Rebalance,
    /// An operator asked for one repository.
    Asked(StorageKey),
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFault {
    Missing,
    TooMany,
}

/// What must be otherwise before a step can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepWait {
    /// The copies of the same repository.
    Copies,
    /// It does not answer, or cannot take anything.
    Node(u32),
    /// Fewer copies than wanted would be left.
    TooFewNodes,
}

/// A copy or a deletion on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyStep {
    pub why: CopyFault,
    pub node: u32,
    pub cause: PlanCause,
    /// Raw size of what is copied.
    pub bytes: u64,
    pub wait: Option<StepWait>,
}

/// What an operator asked for that takes copies off a node; `force`: although fewer copies than
/// wanted will be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    Drain { force: bool },
    Failover { force: bool },
}

impl NodeStanding {
    /// How a node takes part. `desired`: placement counts on it, or its copies still count although
    /// it is away.
    pub fn of(state: MemberState, departure: Option<Departure>, desired: bool) -> Self {
        match departure {
            Some(Departure::Drain { force }) => Self::Draining { force },
            Some(Departure::Failover { force }) => Self::FailedOver { force },
            None => match state {
                MemberState::Recovering => Self::Recovering,
                MemberState::Down if desired => Self::Away,
                _ if desired => Self::Member,
                _ => Self::Gone,
            },
        }
    }
}

/// What is left to do for one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepTally {
    pub copies: u64,
    pub deletes: u64,
    pub bytes: u64,
    /// Steps that can be done now.
    pub runnable: u64,
    pub waits: BTreeMap<StepWait, u64>,
}

impl StepTally {
    pub fn steps(&self) -> u64 {
        self.copies + self.deletes
    }

    /// CopyFault nothing can be done now; `None` when something can.
    pub fn blocked(&self) -> Option<StepWait> {
        let mut waits = self.waits.keys().filter(|wait| **wait != StepWait::Copies);
        waits.next().copied().filter(|_| self.runnable == 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps() == 0
    }

    pub(super) fn add(&mut self, step: &CopyStep) {
        match step.why {
            CopyFault::Missing => self.copies += 1,
            CopyFault::TooMany => self.deletes += 1,
        }
        self.bytes += step.bytes;
        match step.wait {
            None => self.runnable += 1,
            Some(wait) => *self.waits.entry(wait).or_default() += 1,
        }
    }

    pub(super) fn remove(&mut self, step: &CopyStep) {
        match step.why {
            CopyFault::Missing => self.copies -= 1,
            CopyFault::TooMany => self.deletes -= 1,
        }
        self.bytes -= step.bytes;
        match step.wait {
            None => self.runnable -= 1,
            Some(wait) => {
                if let Some(count) = self.waits.get_mut(&wait) {
                    *count -= 1;
                    if *count == 0 {
                        self.waits.remove(&wait);
                    }
                }
            }
        }
    }
}

/// The copies that are missing, then the ones that are too many.
pub(super) fn of(planner: &Planner, repo: &PlannedRepository) -> Vec<CopyStep> {
    let desired = || repo.desired.iter().map(|ranked| ranked.tag);
    let extra: Vec<u32> = repo
        .holders
        .iter()
        .copied()
        .filter(|holder| !desired().any(|node| node == *holder))
        .collect();
    let mut steps = Vec::new();
    for node in desired().filter(|node| !repo.holders.contains(node)) {
        let facts = planner.nodes[node as usize].facts.as_ref();
        let wait = if facts.is_some_and(|facts| facts.can_take) {
            None
        } else {
            Some(StepWait::Node(node))
        };
        let cause = cause_of_copy(planner, repo, node, &extra);
        steps.push(CopyStep {
            why: CopyFault::Missing,
            node,
            cause,
            bytes: repo.bytes,
            wait,
        });
    }
    let complete = steps.is_empty();
    for node in extra {
        let facts = planner.nodes[node as usize].facts.as_ref();
        // It cannot be asked: what it holds stays counted until it is back, or forgotten.
        if facts.is_some_and(|facts| !facts.serves) {
            continue;
        }
        let forced = facts.is_some_and(|facts| facts.standing.is_forced());
        let wait = if !complete {
            Some(StepWait::Copies)
        } else if repo.desired.is_empty() || (repo.desired.len() < planner.copies && !forced) {
            Some(StepWait::TooFewNodes)
        } else {
            desired()
                .find(|node| !planner.serves(*node))
                .map(StepWait::Node)
        };
        let cause = leaving(planner, node).unwrap_or(PlanCause::Rebalance);
        steps.push(CopyStep {
            why: CopyFault::TooMany,
            node,
            cause,
            bytes: 0,
            wait,
        });
    }
    steps
}

/// The cause if copies are to leave this node.
fn leaving(planner: &Planner, node: u32) -> Option<PlanCause> {
    match planner.nodes[node as usize]
        .facts
        .as_ref()
        .map(|facts| facts.standing)
    {
        Some(NodeStanding::Draining { .. }) => Some(PlanCause::Drain(node)),
        Some(NodeStanding::FailedOver { .. }) => Some(PlanCause::Failover(node)),
        Some(NodeStanding::Gone) | None => Some(PlanCause::Repair(node)),
        Some(_) => None,
    }
}

fn cause_of_copy(
    planner: &Planner,
    repo: &PlannedRepository,
    node: u32,
    extra: &[u32],
) -> PlanCause {
    if let Some(cause) = extra.iter().find_map(|other| leaving(planner, *other)) {
        return cause;
    }
    let standing = planner.nodes[node as usize]
        .facts
        .as_ref()
        .map(|facts| facts.standing);
    if standing == Some(NodeStanding::Recovering) {
        return PlanCause::Recover(node);
    }
    let fewer = repo.holders.len() < planner.copies.min(repo.desired.len());
    if fewer {
        PlanCause::Repair(node)
    } else {
        PlanCause::Rebalance
    }
}
