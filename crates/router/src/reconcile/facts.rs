//! What the plan is made of: members, intents and entries as [`monofs_fleet::copies`] sees them.

use std::collections::HashSet;

use monofs_fleet::copies::{Departure, NodeFacts, NodePlace, NodeStanding, RepositoryFacts};
use monofs_model::{NodeId, Repository};
use monofs_proto::v1;
use monofs_proto::v1::node_intent::Kind;

use monofs_control::Control;
use monofs_members::fleet::Fleet;
use monofs_members::membership;

/// All nodes, and how many copies are wanted.
pub(super) fn nodes(control: &Control, fleet: &Fleet) -> (Vec<NodeFacts>, usize) {
    let view = fleet.members.view();
    let desired: HashSet<NodeId> = fleet
        .members
        .placement_nodes()
        .into_iter()
        .map(|candidate| candidate.id)
        .collect();
    let facts = view.nodes().map(|node| {
        let intent = control.tables.intents.get(node.id.as_str());
        let departure = intent.as_ref().and_then(departure);
        let place = if desired.contains(&node.id) {
            NodePlace::Desired
        } else {
            NodePlace::NotDesired
        };
        NodeFacts {
            candidate: node.into(),
            standing: NodeStanding::of(node.state, departure, place),
            serves: node.state.serves(),
            can_take: membership::can_take(node),
        }
    });
    (facts.collect(), view.replication_factor.max(1) as usize)
}

/// What an operator asked for that takes copies off a node, as the plan sees it.
fn departure(intent: &v1::NodeIntent) -> Option<Departure> {
    let force = intent.force;
    match intent.kind() {
        Kind::Drain => Some(Departure::Drain { force }),
        Kind::Failover => Some(Departure::Failover { force }),
        Kind::Unspecified => None,
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
