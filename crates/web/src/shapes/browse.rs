//! What is at a path of the tree.

use monofs_model::tree::EntryKind;
use serde::Serialize;
use utoipa::ToSchema;

use super::said;
use monofs_router::browse::{Directory, Found, Inside, Namespace, TreePath, shown};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = EntryKind)]
pub(crate) enum Kind {
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

impl From<EntryKind> for Kind {
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

/// What is at a path.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tree {
    /// The path for people: what is no UTF-8, and control characters, as escapes.
    pub path: String,
    /// The path to ask with, percent-encoded.
    pub path_encoded: String,
    pub kind: Kind,
    /// The repository that it lies in.
    pub repository: Option<Shown>,
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
pub(crate) struct Shown {
    pub path: String,
    #[serde(rename = "ref")]
    pub ref_name: Option<String>,
    pub commit: String,
    pub commit_time: i64,
    pub generation: u64,
}

/// An entry of a directory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TreeEntry {
    /// For people, as in `path`.
    pub name: String,
    /// The path to ask with, percent-encoded.
    pub path_encoded: String,
    pub kind: Kind,
    /// Of a repository: its commit.
    pub oid: Option<String>,
    /// Of a file or symlink; of a repository, the sum of its files.
    pub size: Option<u64>,
}

impl Tree {
    /// `target`: of a symlink.
    pub fn new(path: &TreePath, found: Found, target: Option<&[u8]>) -> Self {
        let mut tree = Self {
            path: path.shown(),
            path_encoded: path.encoded(),
            kind: Kind::Namespace,
            repository: None,
            oid: None,
            size: None,
            target: target.map(shown),
            url: None,
            entries: Vec::new(),
            total: None,
            next_offset: None,
            next_after: None,
        };
        match found {
            Found::Namespace(names) => tree.namespace(path, names),
            Found::Directory(directory) => tree.directory(path, directory),
            Found::Entry(inside) => tree.inside(&inside),
        }
        tree
    }

    fn namespace(&mut self, path: &TreePath, Namespace { names, next }: Namespace) {
        self.next_after = next;
        self.entries = names
            .into_iter()
            .map(|(name, repository)| named(path, &name, repository.as_deref()))
            .collect();
    }

    fn directory(&mut self, path: &TreePath, directory: Directory) {
        self.inside(&directory.inside);
        let end = directory.offset + directory.entries.len();
        self.total = Some(directory.total);
        self.next_offset = (!directory.entries.is_empty() && end < directory.total).then_some(end);
        let entry = |child: monofs_router::browse::Child| TreeEntry {
            name: shown(&child.name),
            path_encoded: path.join(&child.name).encoded(),
            kind: child.kind.into(),
            oid: Some(child.oid.to_string()),
            size: child.kind.is_blob().then_some(child.size),
        };
        self.entries = directory.entries.into_iter().map(entry).collect();
    }

    fn inside(&mut self, inside: &Inside) {
        self.kind = inside.kind.into();
        self.oid = Some(inside.oid.to_string());
        self.size = inside.is_file().then_some(inside.size);
        if inside.kind == EntryKind::Submodule {
            self.url = inside.submodule_url().map(str::to_owned);
        }
        self.repository = Some(Shown {
            path: inside.repository.path.to_string(),
            ref_name: said(inside.repository.ref_name.as_str()),
            commit: inside.snapshot.commit.to_string(),
            commit_time: inside.snapshot.commit_time,
            generation: inside.repository.generation,
        });
    }
}

fn named(path: &TreePath, name: &str, repository: Option<&monofs_model::Repository>) -> TreeEntry {
    let snapshot = repository.and_then(|repository| repository.snapshot.as_ref());
    TreeEntry {
        name: name.to_owned(),
        path_encoded: path.join(name.as_bytes()).encoded(),
        kind: if repository.is_some() {
            Kind::Repository
        } else {
            Kind::Namespace
        },
        oid: snapshot.map(|snapshot| snapshot.commit.to_string()),
        size: snapshot.map(|snapshot| snapshot.bytes),
    }
}
