//! The steps that one repository needs, each with its cause and with what it waits for.

use std::collections::BTreeMap;

use super::plan::{Key, Planner, Repo, Standing};

/// Why something is done: one job each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Copies that were on this node, or should be there and are missing.
    Repair(u32),
    Recover(u32),
    Failover(u32),
    Drain(u32),
    Rebalance,
    /// An operator asked for one repository.
    Asked(Key),
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Missing,
    TooMany,
}

/// What must be otherwise before a step can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// The copies of the same repository.
    Copies,
    /// It does not answer, or cannot take anything.
    Node(u32),
    /// Fewer copies than wanted would be left.
    TooFewNodes,
}

/// A copy or a deletion on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub why: Why,
    pub node: u32,
    pub cause: Cause,
    /// Raw size of what is copied.
    pub bytes: u64,
    pub wait: Option<Wait>,
}

/// What is left to do for one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub copies: u64,
    pub deletes: u64,
    pub bytes: u64,
    /// Steps that can be done now.
    pub runnable: u64,
    pub waits: BTreeMap<Wait, u64>,
}

impl Tally {
    pub fn steps(&self) -> u64 {
        self.copies + self.deletes
    }

    /// Why nothing can be done now; `None` when something can.
    pub fn blocked(&self) -> Option<Wait> {
        let mut waits = self.waits.keys().filter(|wait| **wait != Wait::Copies);
        waits.next().copied().filter(|_| self.runnable == 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps() == 0
    }

    pub(super) fn add(&mut self, step: &Step) {
        match step.why {
            Why::Missing => self.copies += 1,
            Why::TooMany => self.deletes += 1,
        }
        self.bytes += step.bytes;
        match step.wait {
            None => self.runnable += 1,
            Some(wait) => *self.waits.entry(wait).or_default() += 1,
        }
    }

    pub(super) fn remove(&mut self, step: &Step) {
        match step.why {
            Why::Missing => self.copies -= 1,
            Why::TooMany => self.deletes -= 1,
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
pub(super) fn of(planner: &Planner, repo: &Repo) -> Vec<Step> {
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
            Some(Wait::Node(node))
        };
        let cause = cause_of_copy(planner, repo, node, &extra);
        steps.push(Step {
            why: Why::Missing,
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
            Some(Wait::Copies)
        } else if repo.desired.is_empty() || (repo.desired.len() < planner.copies && !forced) {
            Some(Wait::TooFewNodes)
        } else {
            desired()
                .find(|node| !planner.serves(*node))
                .map(Wait::Node)
        };
        let cause = leaving(planner, node).unwrap_or(Cause::Rebalance);
        steps.push(Step {
            why: Why::TooMany,
            node,
            cause,
            bytes: 0,
            wait,
        });
    }
    steps
}

/// The cause if copies are to leave this node.
fn leaving(planner: &Planner, node: u32) -> Option<Cause> {
    match planner.nodes[node as usize]
        .facts
        .as_ref()
        .map(|facts| facts.standing)
    {
        Some(Standing::Draining { .. }) => Some(Cause::Drain(node)),
        Some(Standing::FailedOver { .. }) => Some(Cause::Failover(node)),
        Some(Standing::Gone) | None => Some(Cause::Repair(node)),
        Some(_) => None,
    }
}

fn cause_of_copy(planner: &Planner, repo: &Repo, node: u32, extra: &[u32]) -> Cause {
    if let Some(cause) = extra.iter().find_map(|other| leaving(planner, *other)) {
        return cause;
    }
    let standing = planner.nodes[node as usize]
        .facts
        .as_ref()
        .map(|facts| facts.standing);
    if standing == Some(Standing::Recovering) {
        return Cause::Recover(node);
    }
    let fewer = repo.holders.len() < planner.copies.min(repo.desired.len());
    if fewer {
        Cause::Repair(node)
    } else {
        Cause::Rebalance
    }
}
