//! What is at a path of the tree.

use monofs_model::tree::EntryKind;
use serde::Serialize;
use utoipa::ToSchema;

use crate::repos::RepositoryCondition;
use crate::tongue::{Time, not_command_line};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EntryKind)]
pub enum PathKind {
    /// A directory above repositories.
    Namespace,
    /// The root of a repository: in listings of the namespace.
    Repository,
    Directory,
    File,
    Executable,
    Symlink,
    Submodule,
}

impl From<EntryKind> for PathKind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::File => Self::File,
            EntryKind::Executable => Self::Executable,
            EntryKind::Symlink => Self::Symlink,
            EntryKind::Directory => Self::Directory,
            EntryKind::Submodule => Self::Submodule,
        }
    }
}

impl PathKind {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Repository => "repository",
            Self::Directory => "directory",
            Self::File => "file",
            Self::Executable => "executable",
            Self::Symlink => "symlink",
            Self::Submodule => "submodule",
        }
    }
}

/// What is at a path.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tree)]
pub struct TreeDocument {
    /// The path for people: what is no UTF-8, and control characters, as escapes.
    pub path: String,
    /// The path to ask with, percent-encoded.
    pub path_encoded: String,
    pub kind: PathKind,
    /// The repository that it lies in.
    pub repository: Option<ShownCommit>,
    /// Of the directory, file, symlink or (a commit of another repository) submodule.
    pub oid: Option<String>,
    /// Of a file or symlink.
    pub size: Option<u64>,
    /// Of a symlink: where it points. It is never followed here.
    pub target: Option<String>,
    /// Of a submodule: where it comes from.
    pub url: Option<String>,
    /// Of a directory.
    pub entries: Vec<TreeEntry>,
    /// Entries of the whole directory of a repository.
    pub total: Option<usize>,
    /// The `offset` of the entries that follow; `null` = there are no more, or it is the namespace.
    pub next_offset: Option<usize>,
    /// Of the namespace: the `after` of the names that follow; `null` = there are no more.
    pub next_after: Option<String>,
}

/// The commit that is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Shown)]
pub struct ShownCommit {
    pub path: String,
    /// `HEAD` = the remote's.
    #[serde(rename = "ref")]
    pub ref_name: String,
    pub commit: String,
    pub commit_time: Time,
    pub generation: u64,
}

/// An entry of a directory.
#[derive(Debug, Serialize, ToSchema)]
pub struct TreeEntry {
    /// For people, as in `path`.
    pub name: String,
    /// The path to ask with, percent-encoded.
    pub path_encoded: String,
    pub kind: PathKind,
    /// Of a repository: its commit.
    pub oid: Option<String>,
    /// Of a file or symlink; of a repository, the sum of its files.
    pub size: Option<u64>,
    /// Of a repository: whether it can be read.
    pub state: Option<RepositoryCondition>,
    /// The name's bytes where they are no UTF-8. Replaced by `path_encoded`.
    #[serde(skip_serializing_if = "not_command_line")]
    #[schema(ignore)]
    pub name_hex: Option<String>,
}

/// Everything about one path, as `monofs-admin stat` tells it.
#[derive(Debug, Serialize)]
pub struct PathDocument {
    /// The path for people: what is no UTF-8, and control characters, as escapes.
    pub path: String,
    /// The path to ask with, percent-encoded.
    pub path_encoded: String,
    pub kind: PathKind,
    /// Entries of a directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<usize>,
    /// Replaced by `total`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<usize>,
    /// Of a file or symlink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oid: Option<String>,
    /// Of a symlink: where it points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of a submodule: where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of a submodule: `url@oid`. Replaced by the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submodule: Option<String>,
    /// The path of the repository that it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<String>>,
}
