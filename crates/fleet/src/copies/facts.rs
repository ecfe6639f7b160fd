//! What the plan is told: nodes, how each takes part, and repositories with their holders.
//!
//! Data without behaviour of its own, below every other file of `copies`. Callers: the leader's
//! loop, which makes these facts from members, intents and catalogue entries.

use monofs_model::placement::Candidate;
use monofs_model::{MemberState, NodeId};

/// The value of a storage id.
pub type StorageKey = u128;

/// How a node takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStanding {
    /// As placement says.
    Member,
    /// It came back and is given what it missed.
    Recovering,
    /// For so short a time that its return is waited for.
    Away,
    /// For so long that its copies are made elsewhere.
    Gone,
    Draining {
        /// Although fewer copies than wanted will be left.
        force: bool,
    },
    FailedOver {
        /// Although fewer copies than wanted will be left.
        force: bool,
    },
}

/// What an operator asked for that takes copies off a node; `force`: although fewer copies than
/// wanted will be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    Drain { force: bool },
    Failover { force: bool },
}

/// Whether placement wants copies on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePlace {
    /// Placement counts on it, or its copies still count although it is away.
    Desired,
    NotDesired,
}

impl NodeStanding {
    /// How a node takes part.
    pub fn of(state: MemberState, departure: Option<Departure>, place: NodePlace) -> Self {
        let desired = place == NodePlace::Desired;
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

    /// Whether copies should be there.
    pub fn is_desired(self) -> bool {
        matches!(self, Self::Member | Self::Recovering | Self::Away)
    }

    /// Whether its copies may go although fewer than wanted are left.
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
    /// The ingest that published this generation may still be copying it.
    pub fresh: bool,
}
