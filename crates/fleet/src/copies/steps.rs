//! The steps that one repository needs, each with its cause and with what it waits for.

use super::facts::{NodeStanding, StorageKey};
use super::nodes::PlannedNodes;
use super::repository::PlannedRepository;

/// Why something is done: one job each. Nodes are named by number.
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
    pub fault: CopyFault,
    pub node: u32,
    pub cause: PlanCause,
    /// Raw size of what is copied.
    pub bytes: u64,
    pub wait: Option<StepWait>,
}

/// The copies that are missing, then the ones that are too many.
pub(super) fn steps_of(nodes: &PlannedNodes, repository: &PlannedRepository) -> Vec<CopyStep> {
    let mut steps: Vec<CopyStep> = repository
        .missing()
        .map(|node| copy(nodes, repository, node))
        .collect();
    // Copies come first: a deletion is only prepared while one is missing.
    let deletion_wait = if steps.is_empty() {
        DeletionWait::OfNodes
    } else {
        DeletionWait::OfCopies
    };
    for node in repository.extra() {
        // One that does not answer stays counted until it is back, or forgotten.
        let unreachable = nodes.facts(node).is_some_and(|facts| !facts.serves);
        if !unreachable {
            steps.push(deletion(nodes, repository, node, deletion_wait));
        }
    }
    steps
}

/// What deletions of a repository wait for first.
#[derive(Clone, Copy)]
enum DeletionWait {
    OfCopies,
    OfNodes,
}

fn copy(nodes: &PlannedNodes, repository: &PlannedRepository, node: u32) -> CopyStep {
    let can_take = nodes.facts(node).is_some_and(|facts| facts.can_take);
    CopyStep {
        fault: CopyFault::Missing,
        node,
        cause: cause_of_copy(nodes, repository, node),
        bytes: repository.bytes,
        wait: (!can_take).then_some(StepWait::Node(node)),
    }
}

fn deletion(
    nodes: &PlannedNodes,
    repository: &PlannedRepository,
    node: u32,
    wait: DeletionWait,
) -> CopyStep {
    let forced = nodes
        .standing(node)
        .is_some_and(|standing| standing.is_forced());
    let left = repository.desired.len();
    let wait = match wait {
        DeletionWait::OfCopies => Some(StepWait::Copies),
        // The last copy never goes, and one of too few only if the operator insists.
        DeletionWait::OfNodes if left == 0 || (left < nodes.copies() && !forced) => {
            Some(StepWait::TooFewNodes)
        }
        // Each copy that stays will be asked to confirm.
        DeletionWait::OfNodes => repository
            .desired_nodes()
            .find(|node| !nodes.serves(*node))
            .map(StepWait::Node),
    };
    CopyStep {
        fault: CopyFault::TooMany,
        node,
        cause: cause_of_leaving(nodes, node).unwrap_or(PlanCause::Rebalance),
        bytes: 0,
        wait,
    }
}

/// The cause if copies are to leave this node.
fn cause_of_leaving(nodes: &PlannedNodes, node: u32) -> Option<PlanCause> {
    match nodes.standing(node) {
        Some(NodeStanding::Draining { .. }) => Some(PlanCause::Drain(node)),
        Some(NodeStanding::FailedOver { .. }) => Some(PlanCause::Failover(node)),
        Some(NodeStanding::Gone) | None => Some(PlanCause::Repair(node)),
        Some(_) => None,
    }
}

/// The cause of a copy to `node`: a node that it replaces, the return of `node`, too few copies, or
/// placement alone.
fn cause_of_copy(nodes: &PlannedNodes, repository: &PlannedRepository, node: u32) -> PlanCause {
    let replaced = repository
        .extra()
        .find_map(|other| cause_of_leaving(nodes, other));
    if let Some(cause) = replaced {
        return cause;
    }
    if nodes.standing(node) == Some(NodeStanding::Recovering) {
        return PlanCause::Recover(node);
    }
    let wanted = nodes.copies().min(repository.desired.len());
    if repository.holders.len() < wanted {
        PlanCause::Repair(node)
    } else {
        PlanCause::Rebalance
    }
}
