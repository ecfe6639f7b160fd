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
            generation_time: None,
            root_time: None,
            holders: Vec::new(),
            content: self.content,
            consistency: self.consistency,
            created_at: clock::now(),
            refreshed_at: 0,
            last_error: String::new(),
            shadowed_by: None,
        }
    }

    /// The entry as it will be when this spec has succeeded.
    pub(super) fn applied_to(&self, entry: &Repository) -> Repository {
        Repository {
            source: self.source.clone(),
            ref_name: self.ref_name.clone(),
            content: self.content,
            consistency: self.consistency,
            refreshed_at: clock::now(),
            last_error: String::new(),
            ..entry.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{entry, node_id, snapshot};

    #[test]
    fn what_a_spec_says_otherwise_comes_with_the_flip_and_the_rest_stays() {
        let shown = Repository {
            snapshot: Some(snapshot(1)),
            state: RepositoryState::Ready,
            generation: 7,
            holders: vec![node_id("n1")],
            last_error: "the remote was away".into(),
            ..entry("a/b")
        };
        let spec = IngestSpec {
            ref_name: RefName::new("next").expect("a ref"),
            content: ContentMode::Lazy,
            ..IngestSpec::of_entry(&shown)
        };
        let applied = spec.applied_to(&shown);
        assert_eq!(applied.ref_name.as_str(), "next");
        assert_eq!(applied.content, ContentMode::Lazy);
        assert_eq!(applied.last_error, "");
        assert!(applied.refreshed_at > 0);
        let kept = (applied.generation, applied.holders, applied.snapshot);
        assert_eq!(kept, (7, shown.holders, shown.snapshot));
    }

    #[test]
    fn a_new_entry_has_no_readers() {
        let new = IngestSpec::of_entry(&entry("a/b")).new_entry();
        assert_eq!(new.state, RepositoryState::Ingesting);
        assert_eq!((new.generation, new.holders.len()), (0, 0));
        assert!(new.snapshot.is_none() && new.created_at > 0);
    }
}
