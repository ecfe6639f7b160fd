//! How many copies there are where readers can reach them, and which entries have too few.

use std::collections::{BTreeSet, HashSet};

use monofs_model::{NodeId, RepositoryState};

use super::Catalog;
use super::index::Key;
use super::memory::Memory;

/// The copies of all ready entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// On nodes that serve.
    pub held: u64,
    /// Those that the entries below the wanted number lack.
    pub missing: u64,
    /// The entries that are below it.
    pub below: Vec<Key>,
    /// Those of them that no node that serves holds.
    pub lost: u64,
}

impl Catalog {
    /// The copies on the nodes that are `serving`, of entries that should have `wanted` each. Costs
    /// what is held by nodes that do not serve, and what has too few holders.
    pub fn copies(&self, wanted: usize, serving: &HashSet<NodeId>) -> Copies {
        self.read(|memory| copies(memory, wanted, serving))
    }

    /// When the ready entry that waits longest for a look at its source was last looked at; seconds
    /// since the epoch. `None` when no entry follows a moving ref.
    pub fn oldest_look(&self) -> Option<i64> {
        self.read(|memory| memory.index().due.first().map(|(looked_at, _)| *looked_at))
    }
}

pub(super) fn copies(memory: &Memory, wanted: usize, serving: &HashSet<NodeId>) -> Copies {
    let index = memory.index();
    let recorded: usize = index
        .by_copies
        .iter()
        .map(|(copies, keys)| copies * keys.len())
        .sum();
    let gone = index
        .by_holder
        .iter()
        .filter(|(node, _)| !serving.contains(*node))
        .map(|(_, keys)| keys);
    let few = index.by_copies.range(..wanted).map(|(_, keys)| keys);
    let suspects: BTreeSet<&Key> = few.chain(gone).flatten().collect();
    let mut found = Copies {
        held: recorded as u64,
        ..Copies::default()
    };
    for key in suspects {
        let Some(entry) = memory.with_keys([key].into_iter()).next() else {
            continue;
        };
        let repository = &entry.repository;
        if repository.state != RepositoryState::Ready {
            continue;
        }
        let live = repository
            .holders
            .iter()
            .filter(|holder| serving.contains(*holder))
            .count();
        found.held -= (repository.holders.len() - live) as u64;
        if live < wanted {
            found.missing += (wanted - live) as u64;
            found.below.push(key.clone());
            found.lost += u64::from(live == 0);
        }
    }
    found
}
