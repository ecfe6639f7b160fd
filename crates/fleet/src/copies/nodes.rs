//! The nodes that the plan knows, by number, and placement over those that should hold copies.
//!
//! Invariants: a number stays a node's for ever, also when it is no member any more; placement is
//! over exactly the nodes whose standing is desired. Of one change of the nodes each node remembers
//! how its place changed, so that a repository is placed anew only where that can matter.

use std::collections::HashMap;

use monofs_model::NodeId;
use monofs_model::placement::{Candidate, Placed, PlacementKey, Placer, Ranked};

use super::facts::{NodeFacts, NodeStanding, StorageKey};

/// All nodes that were ever named, and how many copies are wanted.
pub(super) struct PlannedNodes {
    copies: usize,
    known: Vec<KnownNode>,
    numbers: HashMap<NodeId, u32>,
    placer: Placer,
    /// The last change was one of the number of copies, too.
    copies_changed: bool,
}

struct KnownNode {
    id: NodeId,
    /// `None` = it is no member.
    facts: Option<NodeFacts>,
    /// As placement knows it; `None` = copies should not be there.
    place: Option<Candidate>,
    /// What the last change of the nodes did to its place.
    change: PlaceChange,
}

/// A node that is altered leaves as it was and enters as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceChange {
    Unchanged,
    Entered,
    Left,
    Altered,
}

impl Default for PlannedNodes {
    fn default() -> Self {
        Self {
            copies: 1,
            known: Vec::new(),
            numbers: HashMap::new(),
            placer: Placer::new([]),
            copies_changed: false,
        }
    }
}

impl PlannedNodes {
    /// How many copies of each repository are wanted, at least 1.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The number of this node, a new one if it was never named.
    pub fn number(&mut self, id: &NodeId) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let number = self.known.len() as u32;
        self.numbers.insert(id.clone(), number);
        self.known.push(KnownNode {
            id: id.clone(),
            facts: None,
            place: None,
            change: PlaceChange::Unchanged,
        });
        number
    }

    /// The number of this node, if it was ever named.
    pub fn known_number(&self, id: &NodeId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub fn id(&self, number: u32) -> &NodeId {
        &self.known[number as usize].id
    }

    /// All numbers that were given.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        0..self.known.len() as u32
    }

    /// `None` when it is no member.
    pub fn facts(&self, number: u32) -> Option<&NodeFacts> {
        self.known[number as usize].facts.as_ref()
    }

    /// `None` when it is no member.
    pub fn standing(&self, number: u32) -> Option<NodeStanding> {
        self.facts(number).map(|facts| facts.standing)
    }

    /// Whether it is a member that answers.
    pub fn serves(&self, number: u32) -> bool {
        self.facts(number).is_some_and(|facts| facts.serves)
    }

    /// Where the copies of a repository should be, most preferred first.
    pub fn replicas(&self, key: StorageKey) -> Box<[Ranked]> {
        self.placer
            .replicas(&PlacementKey::of_number(key), self.copies)
            .into()
    }

    /// From now on these are all nodes, and so many copies are wanted.
    pub fn replace(&mut self, nodes: &[NodeFacts], copies: usize) {
        // Which nodes are members now.
        for known in &mut self.known {
            known.facts = None;
        }
        for node in nodes {
            let number = self.number(&node.candidate.id);
            self.known[number as usize].facts = Some(node.clone());
        }
        // What that changes for placement.
        self.copies_changed = self.copies != copies;
        self.copies = copies;
        let mut changed = false;
        for known in &mut self.known {
            known.find_place();
            changed |= known.change != PlaceChange::Unchanged;
        }
        if changed {
            let places = self.known.iter().zip(0..);
            self.placer = Placer::new(
                places.filter_map(|(known, number)| Some((number, known.place.as_ref()?))),
            );
        }
    }

    /// The last [`PlannedNodes::replace`], as it concerns single repositories.
    pub fn last_change(&self) -> PlacementChange<'_> {
        let entered = self.numbers().filter(|number| {
            matches!(
                self.known[*number as usize].change,
                PlaceChange::Entered | PlaceChange::Altered
            )
        });
        PlacementChange {
            nodes: self,
            entered: entered
                .filter_map(|number| self.placer.candidate(number))
                .collect(),
        }
    }

    fn has_left(&self, number: u32) -> bool {
        matches!(
            self.known[number as usize].change,
            PlaceChange::Left | PlaceChange::Altered
        )
    }
}

impl KnownNode {
    /// Brings its place up to what the facts say, and notes the difference.
    fn find_place(&mut self) {
        let after = self
            .facts
            .as_ref()
            .filter(|facts| facts.standing.is_desired())
            .map(|facts| facts.candidate.clone());
        self.change = match (&self.place, &after) {
            (before, after) if before == after => PlaceChange::Unchanged,
            (None, _) => PlaceChange::Entered,
            (_, None) => PlaceChange::Left,
            (Some(_), Some(_)) => PlaceChange::Altered,
        };
        self.place = after;
    }
}

/// A change of the nodes. For each repository it costs a look at its last rank, and a new ranking
/// only where the change can matter.
pub(super) struct PlacementChange<'a> {
    nodes: &'a PlannedNodes,
    entered: Vec<Placed<'a>>,
}

impl PlacementChange<'_> {
    /// Brings `desired`, which is as placement was before the change, up to it.
    pub fn place(&self, key: StorageKey, desired: &mut Box<[Ranked]>) {
        let placement_key = PlacementKey::of_number(key);
        let matters = self.nodes.copies_changed
            || desired.iter().any(|ranked| self.nodes.has_left(ranked.tag))
            || self
                .entered
                .iter()
                .any(|placed| placed.may_enter(&placement_key, desired, self.nodes.copies));
        if matters {
            *desired = self.nodes.replicas(key);
        }
    }
}
