//! What of the catalogue is asked for by something else than a path: by state, by copies, by
//! holder, by when it is due.
//!
//! Owned by [`super::memory::CatalogMemory`], which tells it about every change of an entry.
//! Invariant: it is a function of the entries alone, so that it always equals the one made by
//! looking at all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use monofs_model::{NodeId, Repository, RepositoryState};

use super::entry::CatalogEntry;
use super::path_key::PathKey;

/// Entries by what they are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CatalogIndex {
    pub ingesting: BTreeSet<PathKey>,
    pub failed: BTreeSet<PathKey>,
    /// Ready ones whose last refresh failed.
    pub stale: BTreeSet<PathKey>,
    /// Ready ones by their number of holders.
    pub by_copies: BTreeMap<usize, BTreeSet<PathKey>>,
    pub by_holder: HashMap<NodeId, BTreeSet<PathKey>>,
    /// Ready ones that follow a moving ref, by when they were last looked at.
    pub due: BTreeSet<(i64, PathKey)>,
}

impl CatalogIndex {
    /// An entry is there now.
    pub fn add(&mut self, key: &PathKey, entry: &CatalogEntry) {
        let repository = &*entry.repository;
        // By state; of ready ones also what only they are asked for.
        match repository.state {
            RepositoryState::Ingesting => drop(self.ingesting.insert(key.clone())),
            RepositoryState::Failed => drop(self.failed.insert(key.clone())),
            RepositoryState::Ready => {
                self.by_copies
                    .entry(repository.holders.len())
                    .or_default()
                    .insert(key.clone());
                if !repository.last_error.is_empty() {
                    self.stale.insert(key.clone());
                }
                if !is_pinned(repository) {
                    self.due.insert((entry.looked_at, key.clone()));
                }
            }
        }
        // Whatever its state, nodes may hold it.
        for holder in &repository.holders {
            self.by_holder
                .entry(holder.clone())
                .or_default()
                .insert(key.clone());
        }
    }

    /// An entry that was added is not there any more.
    pub fn remove(&mut self, key: &PathKey, entry: &CatalogEntry) {
        let repository = &*entry.repository;
        // Every place that `add` put it in; a set that becomes empty goes.
        match repository.state {
            RepositoryState::Ingesting => drop(self.ingesting.remove(key)),
            RepositoryState::Failed => drop(self.failed.remove(key)),
            RepositoryState::Ready => {
                let copies = repository.holders.len();
                if let Some(keys) = self.by_copies.get_mut(&copies)
                    && keys.remove(key)
                    && keys.is_empty()
                {
                    self.by_copies.remove(&copies);
                }
                self.stale.remove(key);
                self.due.remove(&(entry.looked_at, key.clone()));
            }
        }
        for holder in &repository.holders {
            if let Some(keys) = self.by_holder.get_mut(holder)
                && keys.remove(key)
                && keys.is_empty()
            {
                self.by_holder.remove(holder);
            }
        }
    }

    /// Number of ready entries.
    pub fn ready(&self) -> usize {
        self.by_copies.values().map(BTreeSet::len).sum()
    }

    /// The ready entries with fewer than `copies` holders: how many, and the first by path.
    pub fn below(&self, copies: usize) -> (usize, Option<&PathKey>) {
        let few = self.by_copies.range(..copies).map(|(_, keys)| keys);
        (
            few.clone().map(BTreeSet::len).sum(),
            few.filter_map(BTreeSet::first).min(),
        )
    }
}

/// A repository that follows a full commit id never moves.
fn is_pinned(entry: &Repository) -> bool {
    matches!(entry.ref_name.as_str().len(), 40 | 64) && entry.ref_name.may_be_commit()
}
