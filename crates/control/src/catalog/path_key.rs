//! Paths as they are ordered: component by component, so that everything below a directory is one
//! run of keys.

use std::sync::Arc;

/// The key of an entry, made by [`path_key`]; shared by all that names the entry in memory.
pub type PathKey = Arc<str>;

/// The key that puts `path` behind everything that sorts before it component by component. Slashes
/// become the lowest character, which no path has; one that is asked for nevertheless becomes
/// another that no path has.
pub(super) fn path_key(path: &str) -> String {
    let mut key = path.trim_matches('/').to_owned();
    if key.contains('\0') {
        key = key.replace('\0', "\u{1}");
    }
    key.replace('/', "\0")
}

/// The path of a key.
pub(super) fn path_of(key: &str) -> String {
    key.replace('\0', "/")
}

/// The first key behind everything in the directory `key`.
pub(super) fn behind(key: &str) -> String {
    format!("{key}\u{1}")
}

/// The keys of the directories that `key` lies in, the outermost first.
pub(super) fn ancestors(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('\0').map(|(end, _)| &key[..end])
}
