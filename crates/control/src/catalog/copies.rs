//! How many copies there are where readers can reach them, and which entries have too few.

use std::collections::{BTreeSet, HashSet};

use monofs_model::{NodeId, RepositoryState};

use super::memory::CatalogMemory;
use super::path_key::PathKey;

/// The copies of all ready entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CopyCounts {
    /// On nodes that serve.
    pub held: u64,
    /// Those that the entries below the wanted number lack.
    pub missing: u64,
    /// The entries that are below it.
    pub below: Vec<PathKey>,
    /// Those of them that no node that serves holds.
    pub lost: u64,
}

/// See [`super::Catalog::copies`].
pub(super) fn copies(
    memory: &CatalogMemory,
    wanted: usize,
    serving: &HashSet<NodeId>,
) -> CopyCounts {
    // Every recorded copy counts, but for those of entries that are looked at one by one.
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
    let suspects: BTreeSet<&PathKey> = few.chain(gone).flatten().collect();
    let mut found = CopyCounts {
        held: recorded as u64,
        ..CopyCounts::default()
    };
    // Of those, the copies that can be reached.
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
