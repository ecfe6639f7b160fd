//! The names in a repository's directory, each with the generations in which it and what is below it
//! last changed.

use std::sync::Arc;

use monofs_model::{GenerationNode, GenerationRef, TreeRecord};

use super::Fs;
use super::identity::Ino;
use crate::cache::Cache;
use crate::errno::Errno;
use crate::repo::Repo;
use crate::shown::{NamedEntry, ShownTree};
use crate::want::{Miss, Outcome, TimesWant, TreeWant};

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
    fn untimed(&self, repo: &Repo) -> Vec<u64> {
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

impl Fs {
    /// The names in the directory that shows `shown`, or the miss of what tells them.
    pub(crate) fn names(
        &self,
        repo: &Arc<Repo>,
        shown: &ShownTree,
        directory: Ino,
    ) -> Outcome<DirectoryNames> {
        DirectoryNames::at_hand(&self.cache, shown).ok_or_else(|| {
            Miss::Tree(TreeWant {
                repo: repo.clone(),
                key: shown.key(),
                directory,
            })
        })
    }

    /// Whether the times of all names are known here; the miss of those that are not. A listing asks
    /// before it takes references to any of them.
    pub(super) fn check_times(&self, repo: &Arc<Repo>, names: &DirectoryNames) -> Outcome<()> {
        let generations = names.untimed(repo);
        match generations.is_empty() {
            true => Ok(()),
            false => Err(Miss::Times(TimesWant {
                repo: repo.clone(),
                generations,
            })),
        }
    }

    /// When a name of `names` last changed, in seconds since the epoch, or the miss of the times of
    /// all of them: their listing needs them, too.
    pub(super) fn time_of(
        &self,
        repo: &Arc<Repo>,
        named: &NamedEntry<'_>,
        names: &DirectoryNames,
    ) -> Outcome<i64> {
        let generation = named.generations.own();
        if let Some(time) = repo.time_of(generation) {
            return Ok(time);
        }
        self.check_times(repo, names)?;
        // They became known in between.
        repo.time_of(generation).ok_or_else(|| Errno::IO.into())
    }
}
