//! What is at a path of the tree, as its document.

use monofs_api::Time;
use monofs_api::browse::{PathKind, ShownCommit, TreeDocument, TreeEntry};
use monofs_api::repos::ref_word;
use monofs_model::tree::EntryKind;
use monofs_router::browse::{Child, Directory, Found, Inside, Namespace, TreePath, shown};

/// What was found at a path. `target`: of a symlink.
pub(crate) fn tree_document(path: &TreePath, found: Found, target: Option<&[u8]>) -> TreeDocument {
    let mut tree = TreeDocument {
        path: path.shown(),
        path_encoded: path.encoded(),
        kind: PathKind::Namespace,
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
        Found::Namespace(Namespace { names, next }) => {
            tree.next_after = next;
            tree.entries = names
                .into_iter()
                .map(|(name, repository)| named(path, &name, repository.as_deref()))
                .collect();
        }
        Found::Directory(directory) => take_directory(&mut tree, path, directory),
        Found::Entry(inside) => take_entry(&mut tree, &inside),
    }
    tree
}

fn take_directory(tree: &mut TreeDocument, path: &TreePath, directory: Directory) {
    take_entry(tree, &directory.inside);
    let end = directory.offset + directory.entries.len();
    tree.total = Some(directory.total);
    tree.next_offset = (!directory.entries.is_empty() && end < directory.total).then_some(end);
    let entries = directory.entries.iter();
    tree.entries = entries.map(|child| entry(path, child)).collect();
}

fn entry(path: &TreePath, child: &Child) -> TreeEntry {
    TreeEntry {
        name: shown(&child.name),
        path_encoded: path.join(&child.name).encoded(),
        kind: child.kind.into(),
        oid: Some(child.oid.to_string()),
        size: child.kind.is_blob().then_some(child.size),
        state: None,
        name_hex: None,
    }
}

fn take_entry(tree: &mut TreeDocument, inside: &Inside) {
    tree.kind = inside.kind.into();
    tree.oid = Some(inside.oid.to_string());
    tree.size = inside.is_file().then_some(inside.size);
    if inside.kind == EntryKind::Submodule {
        tree.url = inside.submodule_url().map(str::to_owned);
    }
    tree.repository = Some(ShownCommit {
        path: inside.repository.path.to_string(),
        ref_name: ref_word(inside.repository.ref_name.as_str()),
        commit: inside.snapshot.commit.to_string(),
        commit_time: Time::new(inside.snapshot.commit_time),
        generation: inside.repository.generation,
    });
}

fn named(path: &TreePath, name: &str, repository: Option<&monofs_model::Repository>) -> TreeEntry {
    let snapshot = repository.and_then(|repository| repository.snapshot.as_ref());
    TreeEntry {
        name: name.to_owned(),
        path_encoded: path.join(name.as_bytes()).encoded(),
        kind: if repository.is_some() {
            PathKind::Repository
        } else {
            PathKind::Namespace
        },
        oid: snapshot.map(|snapshot| snapshot.commit.to_string()),
        size: snapshot.map(|snapshot| snapshot.bytes),
        state: repository.map(|repository| repository.state.into()),
        name_hex: None,
    }
}
