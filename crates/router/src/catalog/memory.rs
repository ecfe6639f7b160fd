//! The copy of the catalogue that requests are answered from, and the log of changes that watches resume from.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use monofs_model::{DisplayPath, Repository, StorageId};

/// Changes remembered for clients that reconnect; a client further behind reloads everything.
const LOG_MAX: usize = 65_536;

/// A place in the history of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub epoch: String,
    pub revision: u64,
}

/// What a reader must learn to get from one position to another.
pub(crate) struct Changes {
    /// Forget everything first.
    pub reset: bool,
    pub upserts: Vec<Arc<Repository>>,
    pub removed: Vec<String>,
    pub position: Position,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub repository: Arc<Repository>,
    /// Of its key in the state store.
    pub revision: u64,
}

pub(super) struct Memory {
    pub entries: BTreeMap<String, Entry>,
    pub by_id: HashMap<StorageId, DisplayPath>,
    pub position: Position,
    /// Of the key that every creation and removal writes.
    pub names_revision: u64,
    log: VecDeque<(u64, String)>,
    /// Changes up to here are no longer in the log.
    log_floor: u64,
}

impl Memory {
    pub fn new(position: Position) -> Self {
        let log_floor = position.revision;
        Self {
            entries: BTreeMap::new(),
            by_id: HashMap::new(),
            position,
            names_revision: 0,
            log: VecDeque::new(),
            log_floor,
        }
    }

    /// Takes an entry as it was at the start.
    pub fn load(&mut self, repository: Repository, revision: u64) {
        self.by_id.insert(repository.storage_id(), repository.path.clone());
        self.entries.insert(repository.path.to_string(), Entry { repository: Arc::new(repository), revision });
    }

    pub fn put(&mut self, repository: Repository, revision: u64) {
        let path = repository.path.to_string();
        let visible = visible_change(self.entries.get(&path).map(|entry| &*entry.repository), &repository);
        self.load(repository, revision);
        self.record(path, revision, visible);
    }

    pub fn remove(&mut self, path: &DisplayPath, revision: u64) {
        self.by_id.remove(&path.storage_id());
        let visible = self.entries.remove(path.as_str()).is_some_and(|entry| entry.repository.snapshot.is_some());
        self.record(path.to_string(), revision, visible);
    }

    fn record(&mut self, path: String, revision: u64, visible: bool) {
        self.position.revision = self.position.revision.max(revision);
        if !visible {
            return;
        }
        self.log.push_back((revision, path));
        if self.log.len() > LOG_MAX
            && let Some((revision, _)) = self.log.pop_front()
        {
            self.log_floor = revision;
        }
    }

    /// Entries whose path is `path`, encloses it, or lies inside it.
    pub fn overlapping(&self, path: &DisplayPath) -> Vec<&Entry> {
        let ends = path.as_str().match_indices('/').map(|(at, _)| at);
        let outer = ends.filter_map(|end| self.entries.get(&path.as_str()[..end]));
        outer.chain(self.below(path.as_str(), "")).collect()
    }

    /// Entries at or below `prefix` (whole components), after the path `after`.
    pub fn below(&self, prefix: &str, after: &str) -> impl Iterator<Item = &Entry> {
        let prefix = prefix.trim_matches('/').to_owned();
        let start =
            if after > prefix.as_str() { Bound::Excluded(after.to_owned()) } else { Bound::Included(prefix.clone()) };
        let inside = prefix.clone();
        self.entries
            .range((start, Bound::Unbounded))
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter(move |(path, _)| is_inside(path, &inside))
            .map(|(_, entry)| entry)
    }

    pub fn names(&self, prefix: &str, after: &str, limit: usize) -> Vec<(String, Option<Arc<Repository>>)> {
        let prefix = prefix.trim_matches('/');
        let skip = if prefix.is_empty() { 0 } else { prefix.len() + 1 };
        let mut names: Vec<(String, Option<Arc<Repository>>)> = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in self.below(prefix, "") {
            let Some(rest) = entry.repository.path.as_str().get(skip..).filter(|rest| !rest.is_empty()) else {
                continue;
            };
            if entry.repository.snapshot.is_none() {
                continue;
            }
            let name = rest.split('/').next().unwrap_or(rest);
            if name > after && seen.insert(name.to_owned()) {
                names.push((name.to_owned(), (name == rest).then(|| entry.repository.clone())));
            }
        }
        names.sort_by(|a, b| a.0.cmp(&b.0));
        names.truncate(limit);
        names
    }

    pub fn changes_since(&self, from: Option<&Position>) -> Changes {
        let position = self.position.clone();
        let known = from.filter(|from| {
            from.epoch == position.epoch && from.revision >= self.log_floor && from.revision <= position.revision
        });
        let Some(from) = known else {
            let upserts =
                self.entries.values().map(|entry| entry.repository.clone()).filter(|r| r.snapshot.is_some()).collect();
            return Changes { reset: true, upserts, removed: Vec::new(), position };
        };
        let newer = self.log.iter().rev().take_while(|(revision, _)| *revision > from.revision);
        let paths: BTreeSet<&String> = newer.map(|(_, path)| path).collect();
        let mut changes = Changes { reset: false, upserts: Vec::new(), removed: Vec::new(), position };
        for path in paths {
            match self.entries.get(path).filter(|entry| entry.repository.snapshot.is_some()) {
                Some(entry) => changes.upserts.push(entry.repository.clone()),
                None => changes.removed.push(path.clone()),
            }
        }
        changes
    }
}

/// Whether readers must hear about it: when and with what error it was last looked at is for operators only.
fn visible_change(before: Option<&Repository>, after: &Repository) -> bool {
    let Some(before) = before else { return after.snapshot.is_some() };
    before.generation != after.generation
        || before.snapshot != after.snapshot
        || before.holders != after.holders
        || before.source != after.source
}

fn is_inside(path: &str, prefix: &str) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
