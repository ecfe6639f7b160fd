//! Works out the generations of a new snapshot from those of the one before and the difference of
//! the two trees.
//!
//! Only directories that differ are looked at. What is not at hand is named, so that a caller that
//! cannot wait in the middle gets it and asks again.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::{GenerationNode, GenerationRef};
use crate::error::Result;
use crate::oid::Oid;
use crate::tree::{Entry, EntryKind, TreeRecord};

/// What the generations are worked out from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GenerationBase {
    /// The root tree of the snapshot before.
    pub root: Oid,
    pub generations: GenerationRef,
}

/// Where records and nodes are read. `None`: it is not at hand.
pub trait GenerationParts {
    /// The directory record of a tree. Errors: the store's.
    fn record(&self, tree: &Oid) -> Result<Option<TreeRecord>>;
    /// The generation node with this id. Errors: the store's.
    fn node(&self, id: &Oid) -> Result<Option<GenerationNode>>;
}

/// The generations of a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationUpdate {
    pub root: GenerationRef,
    /// Nodes that were made, by id; those of directories that did not change are the old ones.
    pub nodes: Vec<(Oid, Bytes)>,
}

/// What came of [`update`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateOutcome {
    Made(GenerationUpdate),
    /// These are not at hand; more may be missing below them.
    Missing {
        records: Vec<Oid>,
        nodes: Vec<Oid>,
    },
}

/// A directory that is not the same in both snapshots.
type ChangedDirectory = (GenerationBase, Oid);

/// What is known of an entry of a changed directory.
enum EntryGenerations {
    Known(GenerationRef),
    /// Those of another changed directory, by its place.
    Changed(usize),
}

/// A changed directory that was compared.
struct ComparedDirectory {
    own: u64,
    entries: Vec<EntryGenerations>,
}

/// The comparison of two trees.
struct Comparison {
    /// The generation of what changed.
    generation: u64,
    /// Parents first, each once.
    directories: Vec<ChangedDirectory>,
    places: HashMap<ChangedDirectory, usize>,
    missing_records: BTreeSet<Oid>,
    missing_nodes: BTreeSet<Oid>,
}

/// The generations of the tree `root`, shown in `generation` after `base`. Errors: those of
/// `parts`; `Corrupt` for a node that is not that of its directory.
pub fn update(
    base: GenerationBase,
    root: Oid,
    generation: u64,
    parts: &impl GenerationParts,
) -> Result<UpdateOutcome> {
    let mut comparison = Comparison {
        generation,
        directories: Vec::new(),
        places: HashMap::new(),
        missing_records: BTreeSet::new(),
        missing_nodes: BTreeSet::new(),
    };
    let top = comparison.directory(base, root);

    // Down: every pair of directories that differ.
    let mut compared = Vec::new();
    while let Some((before, after)) = comparison.directories.get(compared.len()).copied() {
        compared.push(comparison.compare(before, &after, parts)?);
    }
    if !comparison.missing_records.is_empty() || !comparison.missing_nodes.is_empty() {
        return Ok(UpdateOutcome::Missing {
            records: comparison.missing_records.into_iter().collect(),
            nodes: comparison.missing_nodes.into_iter().collect(),
        });
    }

    // Up: a directory that was compared comes before those in it.
    let mut made: Vec<Option<GenerationRef>> = vec![None; compared.len()];
    let mut nodes = Vec::new();
    for (place, directory) in compared.iter().enumerate().rev() {
        let resolved = directory.entries.iter().map(|entry| resolve(entry, &made));
        let entries: Vec<GenerationRef> = resolved.collect();
        made[place] = Some(join(directory.own, &entries, &mut nodes));
    }
    nodes.sort_by(|(one, _), (other, _)| one.as_bytes().cmp(other.as_bytes()));
    nodes.dedup();
    Ok(UpdateOutcome::Made(GenerationUpdate {
        root: resolve(&top, &made),
        nodes,
    }))
}

impl Comparison {
    /// The generations of a directory that was shown as `before` and is `after` now.
    fn directory(&mut self, before: GenerationBase, after: Oid) -> EntryGenerations {
        if before.root == after {
            return EntryGenerations::Known(before.generations);
        }
        let pair = (before, after);
        let next = self.directories.len();
        let place = *self.places.entry(pair).or_insert(next);
        if place == next {
            self.directories.push(pair);
        }
        EntryGenerations::Changed(place)
    }

    /// Compares one directory before and after. What is missing is noted.
    fn compare(
        &mut self,
        before: GenerationBase,
        after: &Oid,
        parts: &impl GenerationParts,
    ) -> Result<ComparedDirectory> {
        let was = self.record(&before.root, parts)?;
        let is = self.record(after, parts)?;
        let mut compared = ComparedDirectory {
            own: before.generations.own(),
            entries: Vec::new(),
        };
        let node = match before.generations.node() {
            None => None,
            Some(id) => {
                let node = parts.node(&id)?;
                if node.is_none() {
                    self.missing_nodes.insert(id);
                    return Ok(compared);
                }
                node
            }
        };
        let (Some(was), Some(is)) = (was, is) else {
            return Ok(compared);
        };
        if let Some(node) = &node {
            node.check_fits(&was)?;
        }

        // A name that is kept has the generations that it had; every other one changes now.
        let mut kept = 0;
        for entry in is.iter() {
            let place = was.position(entry.name);
            let old = place.and_then(|place| Some((place, was.get(place)?)));
            let generations = match old {
                Some((place, old)) if old.kind == entry.kind => {
                    kept += 1;
                    let had = node
                        .as_ref()
                        .map_or(before.generations, |node| node.get(place));
                    self.entry(&old, &entry, had, &mut compared.own)
                }
                _ => EntryGenerations::Known(GenerationRef::Constant(self.generation)),
            };
            compared.entries.push(generations);
        }
        if kept != is.len() || kept != was.len() {
            compared.own = self.generation;
        }
        Ok(compared)
    }

    /// The generations of a name of the same kind before and after, which had the generations
    /// `had`; `own` is that of the directory it is in.
    fn entry(
        &mut self,
        old: &Entry<'_>,
        new: &Entry<'_>,
        had: GenerationRef,
        own: &mut u64,
    ) -> EntryGenerations {
        if new.kind == EntryKind::Directory {
            let before = GenerationBase {
                root: old.oid,
                generations: had,
            };
            return self.directory(before, new.oid);
        }
        if old.oid == new.oid {
            return EntryGenerations::Known(GenerationRef::Constant(had.own()));
        }
        *own = self.generation;
        EntryGenerations::Known(GenerationRef::Constant(self.generation))
    }

    fn record(&mut self, tree: &Oid, parts: &impl GenerationParts) -> Result<Option<TreeRecord>> {
        let record = parts.record(tree)?;
        if record.is_none() {
            self.missing_records.insert(*tree);
        }
        Ok(record)
    }
}

fn resolve(entry: &EntryGenerations, made: &[Option<GenerationRef>]) -> GenerationRef {
    match entry {
        EntryGenerations::Known(known) => *known,
        EntryGenerations::Changed(place) => {
            made[*place].expect("directories are made after those that are in them")
        }
    }
}

/// The reference to a directory with these entries; its node is added to `nodes` if it has one.
fn join(own: u64, entries: &[GenerationRef], nodes: &mut Vec<(Oid, Bytes)>) -> GenerationRef {
    let same = GenerationRef::Constant(own);
    if entries.iter().all(|entry| *entry == same) {
        return same;
    }
    let encoded = GenerationNode::new(entries).encode();
    let id = GenerationNode::id_of(&encoded);
    nodes.push((id, encoded));
    GenerationRef::Node { own, id }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{ObjectFormat, ObjectKind};

    /// A file's content and whether it is executable, by path.
    type Files = BTreeMap<String, (u8, bool)>;
    /// When each path last changed.
    type Changes = BTreeMap<String, u64>;

    /// Records and nodes in memory.
    #[derive(Default)]
    struct Parts {
        records: HashMap<Oid, TreeRecord>,
        nodes: HashMap<Oid, Bytes>,
    }

    impl GenerationParts for Parts {
        fn record(&self, tree: &Oid) -> Result<Option<TreeRecord>> {
            Ok(self.records.get(tree).cloned())
        }

        fn node(&self, id: &Oid) -> Result<Option<GenerationNode>> {
            self.nodes
                .get(id)
                .map(|bytes| GenerationNode::decode_verified(bytes, id))
                .transpose()
        }
    }

    impl Parts {
        /// Puts in the tree of these files.
        fn put(&mut self, files: &Files) -> Oid {
            let mut children: BTreeMap<&str, Files> = BTreeMap::new();
            let mut raw: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for (path, content) in files {
                match path.split_once('/') {
                    Some((name, rest)) => {
                        let below = children.entry(name).or_default();
                        below.insert(rest.to_owned(), *content);
                    }
                    None => {
                        let mode = if content.1 { "100755" } else { "100644" };
                        let mut row = format!("{mode} {path}\0").into_bytes();
                        row.extend_from_slice(&[content.0; 20]);
                        raw.insert(path.clone(), row);
                    }
                }
            }
            for (name, below) in children {
                let oid = self.put(&below);
                let mut row = format!("40000 {name}\0").into_bytes();
                row.extend_from_slice(oid.as_bytes());
                raw.insert(format!("{name}/"), row);
            }
            let raw: Vec<u8> = raw.into_values().flatten().collect();
            let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Tree, &raw);
            let record = TreeRecord::encode(&raw, ObjectFormat::Sha1, |_, _, _| Ok(0)).unwrap();
            self.records.insert(oid, record);
            oid
        }

        /// When each path below a directory last changed, as the nodes say.
        fn changes(&self, path: &str, tree: &Oid, generations: GenerationRef) -> Changes {
            let record = &self.records[tree];
            let node = generations
                .node()
                .map(|id| self.node(&id).unwrap().unwrap());
            let mut changes = Changes::new();
            for (place, entry) in record.iter().enumerate() {
                let of = node.as_ref().map_or(generations, |node| node.get(place));
                let name = std::str::from_utf8(entry.name).unwrap();
                let below = format!("{path}/{name}");
                changes.insert(below.clone(), of.own());
                if entry.kind == EntryKind::Directory {
                    changes.append(&mut self.changes(&below, &entry.oid, of));
                }
            }
            changes
        }
    }

    /// The paths of directories, and of each the names that are its own.
    fn own_names(files: &Files) -> BTreeMap<String, BTreeMap<String, (u8, bool)>> {
        let mut own = BTreeMap::from([(String::new(), BTreeMap::new())]);
        for (path, content) in files {
            let mut at = String::new();
            let mut names = path.split('/').peekable();
            while let Some(name) = names.next() {
                let is_last = names.peek().is_none();
                let shown = if is_last { *content } else { (0, false) };
                let key = if is_last {
                    name.to_owned()
                } else {
                    format!("{name}/")
                };
                own.entry(at.clone()).or_default().insert(key, shown);
                at = format!("{at}/{name}");
                if !is_last {
                    own.entry(at.clone()).or_default();
                }
            }
        }
        own
    }

    /// The naive map: what differs from before changed in `generation`.
    fn advance(changes: &Changes, was: &Files, is: &Files, generation: u64) -> Changes {
        let before = own_names(was);
        let mut now = Changes::new();
        for (path, names) in own_names(is) {
            let old = before.get(&path);
            let kept = old == Some(&names);
            now.insert(path.clone(), if kept { changes[&path] } else { generation });
            for (name, content) in names.iter().filter(|(name, _)| !name.ends_with('/')) {
                let at = format!("{path}/{name}");
                let same = old.is_some_and(|old| old.get(name) == Some(content));
                now.insert(at.clone(), if same { changes[&at] } else { generation });
            }
        }
        now
    }

    fn files() -> impl Strategy<Value = Files> {
        let path = "[ab](/[ab]){0,3}";
        prop::collection::btree_map(path, (0u8..3, any::<bool>()), 0..12).prop_map(|mut files| {
            // A name is a file or a directory.
            let paths: Vec<String> = files.keys().cloned().collect();
            files.retain(|path, _| !paths.iter().any(|p| p.starts_with(&format!("{path}/"))));
            files
        })
    }

    proptest! {
        #[test]
        fn histories_give_what_a_map_by_path_gives(history in prop::collection::vec(files(), 1..8)) {
            let mut parts = Parts::default();
            let mut shown = Files::new();
            let mut changes = Changes::new();
            let mut base: Option<GenerationBase> = None;
            for (number, files) in history.iter().enumerate() {
                let generation = number as u64 + 1;
                let root = parts.put(files);
                let generations = match base {
                    None => GenerationRef::Constant(generation),
                    Some(base) => match update(base, root, generation, &parts).unwrap() {
                        UpdateOutcome::Made(made) => {
                            parts.nodes.extend(made.nodes);
                            made.root
                        }
                        missing => panic!("{missing:?}"),
                    },
                };
                changes = match base {
                    None => {
                        let mut all = parts.changes("", &root, generations);
                        all.insert(String::new(), generation);
                        all
                    }
                    Some(_) => advance(&changes, &shown, files, generation),
                };
                let mut made = parts.changes("", &root, generations);
                made.insert(String::new(), generations.own());
                prop_assert_eq!(&made, &changes);
                shown = files.clone();
                base = Some(GenerationBase { root, generations });
            }
        }
    }

    fn tree_of(parts: &mut Parts, rows: &[(&str, u8)]) -> Oid {
        let files = rows
            .iter()
            .map(|(path, content)| ((*path).to_owned(), (*content, false)));
        parts.put(&files.collect())
    }

    #[test]
    fn an_update_makes_the_nodes_of_the_changed_path_alone() {
        let mut parts = Parts::default();
        let old = tree_of(&mut parts, &[("a/b/x", 1), ("a/c/y", 1), ("d/z", 1)]);
        let new = tree_of(&mut parts, &[("a/b/x", 2), ("a/c/y", 1), ("d/z", 1)]);
        let base = GenerationBase {
            root: old,
            generations: GenerationRef::Constant(1),
        };
        let UpdateOutcome::Made(made) = update(base, new, 2, &parts).unwrap() else {
            panic!("all is at hand");
        };
        // `a/b` is of one generation again.
        assert_eq!(made.nodes.len(), 2);
        assert_eq!(made.root.own(), 1);
    }

    #[test]
    fn what_is_not_at_hand_is_named() {
        let mut parts = Parts::default();
        let old = tree_of(&mut parts, &[("a/x", 1), ("b", 1)]);
        let new = tree_of(&mut parts, &[("a/x", 2), ("b", 1)]);
        let id = Oid::from_bytes(&[7; 32]).unwrap();
        let base = GenerationBase {
            root: old,
            generations: GenerationRef::Node { own: 1, id },
        };
        let missing = update(base, new, 2, &parts).unwrap();
        let nodes = vec![id];
        assert_eq!(
            missing,
            UpdateOutcome::Missing {
                records: vec![],
                nodes
            }
        );
        parts.records.remove(&new);
        let base = GenerationBase {
            generations: GenerationRef::Constant(1),
            ..base
        };
        let missing = update(base, new, 2, &parts).unwrap();
        let records = vec![new];
        assert_eq!(
            missing,
            UpdateOutcome::Missing {
                records,
                nodes: vec![]
            }
        );
    }

    #[test]
    fn the_same_tree_keeps_its_generations() {
        let mut parts = Parts::default();
        let root = tree_of(&mut parts, &[("a", 1)]);
        let id = Oid::from_bytes(&[7; 32]).unwrap();
        let generations = GenerationRef::Node { own: 3, id };
        let base = GenerationBase { root, generations };
        let same = update(base, root, 9, &Parts::default()).unwrap();
        let nodes = vec![];
        assert_eq!(
            same,
            UpdateOutcome::Made(GenerationUpdate {
                root: generations,
                nodes
            })
        );
    }
}
