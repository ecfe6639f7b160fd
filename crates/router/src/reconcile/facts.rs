//! What the plan is made of: members, intents and entries as [`super::plan`] sees them.

use std::collections::HashSet;

use monofs_model::{MemberState, NodeId, Repository};
use monofs_proto::v1;
use monofs_proto::v1::node_intent::Kind;

use super::plan::{NodeFacts, RepositoryFacts, Standing};
use crate::{RouterState, membership};

/// All nodes, and how many copies are wanted.
pub(super) fn nodes(state: &RouterState) -> (Vec<NodeFacts>, usize) {
    let view = state.members.view();
    let desired: HashSet<NodeId> = state
        .members
        .placement_nodes()
        .into_iter()
        .map(|candidate| candidate.id)
        .collect();
    let facts = view.nodes().map(|node| {
        let intent = state.tables.intents.get(node.id.as_str());
        NodeFacts {
            candidate: node.into(),
            standing: standing(node.state, intent.as_ref(), desired.contains(&node.id)),
            serves: node.state.serves(),
            can_take: membership::can_take(node),
        }
    });
    (facts.collect(), view.replication_factor.max(1) as usize)
}

pub(super) fn standing(
    state: MemberState,
    intent: Option<&v1::NodeIntent>,
    desired: bool,
) -> Standing {
    match intent.map(|intent| (intent.kind(), intent.force)) {
        Some((Kind::Drain, force)) => Standing::Draining { force },
        Some((Kind::Failover, force)) => Standing::FailedOver { force },
        _ => match state {
            MemberState::Recovering => Standing::Recovering,
            MemberState::Down if desired => Standing::Away,
            _ if desired => Standing::Member,
            _ => Standing::Gone,
        },
    }
}

/// An entry that readers see; `None` for others.
pub(super) fn repository(entry: &Repository, fresh: bool) -> Option<RepositoryFacts<'_>> {
    let snapshot = entry.snapshot.as_ref()?;
    Some(RepositoryFacts {
        key: entry.storage_id().number(),
        generation: entry.generation,
        bytes: snapshot.bytes,
        holders: &entry.holders,
        fresh,
    })
}
