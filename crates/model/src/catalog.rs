//! Catalogue entries: which repository is at which path and commit.
//!
//! Invariant: everything below a [`Snapshot`] is immutable; the entry is the one mutable thing in
//! the system, and its `generation` grows by one at every flip.

use serde::{Deserialize, Serialize};

use crate::generations::GenerationRef;
use crate::oid::Oid;
use crate::path::{DisplayPath, StorageId};
use crate::placement::NodeId;
use crate::source::{RefName, SourceUrl};

/// Whether contents are copied to the nodes at once or on first read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentMode {
    #[default]
    Eager,
    Lazy,
}

/// How many replicas must hold a commit before readers see it: the first, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    #[default]
    Eventual,
    Strong,
}

/// Where a catalogue entry is in its life.
///
/// ```text
///              first flip            refresh fails or succeeds: stays ready
/// ingesting ----------------> ready ---------------------------------------
///     | fails                   | delete
///     v                         v
///   failed ----ingest again--> (gone)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepositoryState {
    Ingesting,
    Ready,
    Failed,
}

/// A submodule of a snapshot: where it is, and the URL that `.gitmodules` gives for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Submodule {
    /// Raw path bytes below the repository's root.
    pub path: Vec<u8>,
    pub url: String,
}

/// One commit, as readers see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    pub commit: Oid,
    /// The root tree.
    pub root: Oid,
    /// Committer time, seconds since the epoch.
    pub commit_time: i64,
    /// Directories, distinct by oid.
    pub trees: u64,
    /// Files and symlinks, distinct by oid.
    pub blobs: u64,
    /// Raw bytes of those.
    pub bytes: u64,
    pub submodules: Vec<Submodule>,
    /// When its names last changed; `None` = all of them in the generation that shows it, at the
    /// commit's time.
    pub generations: Option<GenerationRef>,
}

/// A catalogue entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub path: DisplayPath,
    pub source: SourceUrl,
    pub ref_name: RefName,
    pub state: RepositoryState,
    /// `None` until the first ingest succeeds.
    pub snapshot: Option<Snapshot>,
    /// Grows by one at every flip, and never restarts at a path, even when the entry is deleted.
    pub generation: u64,
    /// The time of that generation, seconds since the epoch; `None` = the commit's time.
    pub generation_time: Option<i64>,
    /// When the names in the root directory last changed, seconds since the epoch; `None` = at the
    /// commit's time.
    pub root_time: Option<i64>,
    /// Nodes that acknowledged, after verification, that they hold this commit's directory records.
    pub holders: Vec<NodeId>,
    pub content: ContentMode,
    pub consistency: Consistency,
    /// Seconds since the epoch.
    pub created_at: i64,
    /// When the source was last looked at with success, seconds since the epoch.
    pub refreshed_at: i64,
    /// One line, empty when the last ingest or refresh succeeded.
    pub last_error: String,
    /// The repository around this one that has the name itself: then this one is kept and not
    /// shown.
    pub shadowed_by: Option<DisplayPath>,
}

impl Repository {
    /// Whether readers see it.
    pub fn is_shown(&self) -> bool {
        self.snapshot.is_some() && self.shadowed_by.is_none()
    }

    /// The id under which every role stores this repository.
    pub fn storage_id(&self) -> StorageId {
        self.path.storage_id()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn is_stored_as<'de, T: Deserialize<'de> + PartialEq>(word: &'static str, value: T) -> bool {
        let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            serde::de::IntoDeserializer::into_deserializer(word);
        T::deserialize(word).unwrap() == value
    }

    #[test]
    fn the_words_of_stored_values_never_change() {
        assert!(is_stored_as("eager", ContentMode::Eager));
        assert!(is_stored_as("lazy", ContentMode::Lazy));
        assert!(is_stored_as("eventual", Consistency::Eventual));
        assert!(is_stored_as("strong", Consistency::Strong));
        assert!(is_stored_as("ingesting", RepositoryState::Ingesting));
        assert!(is_stored_as("ready", RepositoryState::Ready));
        assert!(is_stored_as("failed", RepositoryState::Failed));
        assert!(is_stored_as("recovering", crate::MemberState::Recovering));
        assert!(is_stored_as("fetcher", crate::view::Role::Fetcher));
    }
}
