//! The names in a repository's directory, each with the generations in which it and what is below it
//! last changed.

use std::sync::Arc;

use monofs_model::{GenerationNode, GenerationRef, TreeRecord};

use crate::cache::Cache;
use crate::repo::Repo;
use crate::shown::{NamedEntry, ShownTree};

/// All names in a directory.
#[derive(Debug, Clone)]
pub struct DirectoryNames {
    pub record: TreeRecord,
    /// Of all names, unless there is a node.
    all: GenerationRef,
    node: Option<Arc<GenerationNode>>,
}

impl DirectoryNames {
    /// The names that the directory `shown` has, if what tells them is at hand. A node that is not
    /// that of the record is damage.
    pub fn at_hand(cache: &Cache, shown: &ShownTree) -> Option<Self> {
        let record = cache.record(&shown.tree)?;
        let node = match shown.generations.node() {
            None => None,
            Some(id) => Some(cache.generations(&id)?),
        };
        Some(Self {
            record,
            all: shown.generations,
            node,
        })
    }

    /// The name at a position.
    pub fn get(&self, position: usize) -> Option<NamedEntry<'_>> {
        let entry = self.record.get(position)?;
        let generations = self
            .node
            .as_ref()
            .map_or(self.all, |node| node.get(position));
        Some(NamedEntry { entry, generations })
    }

    /// The entry called `name`.
    pub fn find(&self, name: &[u8]) -> Option<NamedEntry<'_>> {
        self.get(self.record.position(name)?)
    }

    /// All names in plain byte order.
    pub fn iter(&self) -> impl Iterator<Item = NamedEntry<'_>> {
        (0..self.record.len()).filter_map(|position| self.get(position))
    }

    /// All generations of its names whose times are not known here.
    pub fn untimed(&self, repo: &Repo) -> Vec<u64> {
        let all = self.node.is_none().then(|| self.all.own());
        let node = self.node.iter().flat_map(|node| node.generations());
        let unknown = all.into_iter().chain(node);
        let mut unknown: Vec<u64> = unknown
            .filter(|generation| repo.time_of(*generation).is_none())
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }
}
