//! What is the case with all entries, in numbers, from the index alone.

use monofs_model::DisplayPath;

use super::entry::CatalogEntry;
use super::memory::CatalogMemory;
use super::path_key::PathKey;

/// Entries that operators must hear about: how many, and the first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TroubledEntries {
    pub count: usize,
    pub first: Option<DisplayPath>,
}

/// What is the case with all entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CatalogSummary {
    pub ingesting: usize,
    pub ready: usize,
    pub failed: TroubledEntries,
    /// Ready, with fewer copies than asked about.
    pub few: TroubledEntries,
    /// Ready, and the last refresh failed.
    pub stale: TroubledEntries,
    /// Not shown, as a repository around them has their name.
    pub shadowed: TroubledEntries,
}

/// What is the case with all entries, of which ready ones should have `copies` holders.
pub(super) fn summary(memory: &CatalogMemory, copies: usize) -> CatalogSummary {
    let index = memory.index();
    let (few, first_few) = index.below(copies);
    CatalogSummary {
        ingesting: index.ingesting.len(),
        ready: index.ready(),
        failed: troubled(memory, index.failed.len(), index.failed.first()),
        few: troubled(memory, few, first_few),
        stale: troubled(memory, index.stale.len(), index.stale.first()),
        shadowed: shadowed(memory),
    }
}

fn shadowed(memory: &CatalogMemory) -> TroubledEntries {
    let is_shadowed = |entry: &&CatalogEntry| entry.repository.shadowed_by.is_some();
    let mut entries = memory.nested().filter(is_shadowed);
    let first = entries.next().map(|entry| entry.repository.path.clone());
    TroubledEntries {
        count: usize::from(first.is_some()) + entries.count(),
        first,
    }
}

fn troubled(memory: &CatalogMemory, count: usize, first: Option<&PathKey>) -> TroubledEntries {
    let first = memory.with_keys(first.into_iter()).next();
    TroubledEntries {
        count,
        first: first.map(|entry| entry.repository.path.clone()),
    }
}
