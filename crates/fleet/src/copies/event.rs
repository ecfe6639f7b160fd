//! What the planner hears, and the commands that it answers with.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use monofs_model::NodeId;

use super::facts::{NodeFacts, RepositoryFacts, StorageKey};
use super::steps::PlanCause;

/// What happened.
pub enum PlanEvent<'a> {
    /// These are all nodes, and this many copies are wanted.
    Nodes {
        nodes: &'a [NodeFacts],
        copies: usize,
    },
    /// This repository is there, or changed.
    Repository(RepositoryFacts<'a>),
    Removed(StorageKey),
    /// Which causes are not worked on now, and for which repositories an operator asked.
    Asked {
        held_back: BTreeSet<PlanCause>,
        asked: BTreeMap<StorageKey, PlanCause>,
    },
    /// The command for this repository ended.
    Ended {
        key: StorageKey,
        outcome: CommandOutcome,
    },
    /// So many more commands can be carried out.
    Room(usize),
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
        /// It is no member any more: it can be neither asked nor told.
        forgotten: bool,
    },
}
