//! The directories of a snapshot, as far as their records are at hand.

use std::collections::HashSet;

use monofs_content::cache::Cache;
use monofs_model::tree::Entry;
use monofs_model::{EntryKind, Oid};

use super::order::DirectoryOrders;

/// Directories of one repository that a walk knows; of a larger one, those that come first.
const DIRECTORIES_MAX: usize = 1 << 17;

/// A step of the depth-first listing.
enum ListingStep {
    Visit(Oid),
    /// Everything below the directory at this place of the list is in the list.
    End(usize),
}

/// The directories below and with `root` whose records are at hand, depth first in the order of
/// listings. One that occurs again is left out: its contents are the same.
pub(super) fn list(cache: &Cache, root: Oid) -> DirectoryOrders {
    let mut list: Vec<Oid> = Vec::new();
    let mut below: Vec<u32> = Vec::new();
    let mut seen = HashSet::new();
    let mut pending = vec![ListingStep::Visit(root)];
    while let Some(step) = pending.pop() {
        let tree = match step {
            ListingStep::Visit(tree) if list.len() < DIRECTORIES_MAX => tree,
            ListingStep::Visit(_) => continue,
            ListingStep::End(node) => {
                below[node] = (list.len() - node - 1) as u32;
                continue;
            }
        };
        let Some(record) = cache.record(&tree) else {
            continue;
        };
        // The end of this directory comes after its children, which are visited in order.
        pending.push(ListingStep::End(list.len()));
        list.push(tree);
        below.push(0);
        let first_child = pending.len();
        let children = record.iter().filter(is_directory).map(|entry| entry.oid);
        pending.extend(
            children
                .filter(|tree| seen.insert(*tree))
                .map(ListingStep::Visit),
        );
        pending[first_child..].reverse();
    }
    DirectoryOrders::new(list, &below)
}

fn is_directory(entry: &Entry<'_>) -> bool {
    entry.kind == EntryKind::Directory
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use monofs_model::{ObjectFormat, ObjectKind, TreeRecord};

    use super::*;

    /// Puts in a directory with these directories and returns its tree.
    fn directory(cache: &Cache, children: &[(&str, Oid)]) -> Oid {
        let mut raw = Vec::new();
        for (name, tree) in children {
            raw.extend_from_slice(format!("40000 {name}\0").as_bytes());
            raw.extend_from_slice(tree.as_bytes());
        }
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &raw);
        let record = TreeRecord::encode(&raw, ObjectFormat::Sha1, |_, _, _| Ok(0)).unwrap();
        cache.put_record(oid, record);
        oid
    }

    #[test]
    fn each_tree_at_hand_is_listed_once_before_what_is_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 64 << 20, Arc::default()).unwrap();
        let absent = Oid::from_bytes(&[9; 20]).unwrap();
        let leaf = directory(&cache, &[("not-here", absent)]);
        let middle = directory(&cache, &[("leaf", leaf)]);
        let root = directory(
            &cache,
            &[("a", middle), ("b", leaf), ("c", middle), ("d", absent)],
        );

        let orders = list(&cache, root);
        let place = |tree| orders.find(&tree);
        assert_eq!(place(root), Some(0));
        assert_eq!(place(absent), None, "its record is not at hand");
        // `leaf` is a child of the root too, and listed there.
        let places = [place(middle).unwrap(), place(leaf).unwrap()];
        assert!(places.iter().all(|place| (1..=2).contains(place)));
        assert_ne!(places[0], places[1]);
    }
}
