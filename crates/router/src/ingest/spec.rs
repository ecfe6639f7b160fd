//! What is to be ingested, and the catalogue entry that it makes.

use monofs_control::clock;
use monofs_model::{
    Consistency, ContentMode, DisplayPath, RefName, Repository, RepositoryState, SourceUrl,
};

/// What is to be ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestSpec {
    pub path: DisplayPath,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub content: ContentMode,
    pub consistency: Consistency,
}

impl IngestSpec {
    /// What brings an entry to the next commit of its source.
    pub(super) fn of_entry(entry: &Repository) -> Self {
        Self {
            path: entry.path.clone(),
            source: entry.source.clone(),
            ref_name: entry.ref_name.clone(),
            content: entry.content,
            consistency: entry.consistency,
        }
    }

    /// The entry of a repository that was never ingested before.
    pub(super) fn new_entry(&self) -> Repository {
        Repository {
            path: self.path.clone(),
            source: self.source.clone(),
            ref_name: self.ref_name.clone(),
            state: RepositoryState::Ingesting,
            snapshot: None,
            generation: 0,
            holders: Vec::new(),
            content: self.content,
            consistency: self.consistency,
            created_at: clock::now(),
            refreshed_at: 0,
            last_error: String::new(),
        }
    }

    /// The entry as it will be when this spec has succeeded.
    pub(super) fn applied_to(&self, entry: &Repository) -> Repository {
        Repository {
            ref_name: self.ref_name.clone(),
            content: self.content,
            consistency: self.consistency,
            refreshed_at: clock::now(),
            last_error: String::new(),
            ..entry.clone()
        }
    }
}
