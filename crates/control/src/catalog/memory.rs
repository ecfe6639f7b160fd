//! The copy of the catalogue that requests are answered from, and the log of changes that watches
//! resume from.
//!
//! Invariant: entries are ordered by the components of their paths ([`key`]), so everything below a
//! directory is one run, and the names of a directory come in order: a listing seeks from name to
//! name and passes over what is below them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use monofs_model::{DisplayPath, Repository, StorageId};

use super::index::{Index, Key};

/// Changes remembered for clients that reconnect; a client further behind reloads everything.
const LOG_MAX: usize = 65_536;

/// A place in the history of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub epoch: String,
    pub revision: u64,
}

/// What a reader must learn to get from one position to another.
pub struct Changes {
    pub upserts: Vec<Arc<Repository>>,
    pub removed: Vec<String>,
    pub position: Position,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub repository: Arc<Repository>,
    /// Of its key in the state store.
    pub revision: u64,
    /// When the source was last looked at, with success or without; seconds since the epoch.
    pub looked_at: i64,
}

pub(super) struct Memory {
    entries: BTreeMap<Key, Entry>,
    by_id: HashMap<u128, Key>,
    index: Index,
    pub position: Position,
    /// Of the key that every creation and removal writes.
    pub names_revision: u64,
    log: VecDeque<(u64, Key)>,
    /// Changes up to here are no longer in the log.
    log_floor: u64,
}

/// The key that puts `path` behind everything that sorts before it component by component. Slashes
/// become the lowest character, which no path has; one that is asked for nevertheless becomes
/// another that no path has.
pub(super) fn key(path: &str) -> String {
    let mut key = path.trim_matches('/').to_owned();
    if key.contains('\0') {
        key = key.replace('\0', "\u{1}");
    }
    key.replace('/', "\0")
}

fn path_of(key: &str) -> String {
    key.replace('\0', "/")
}

/// The first key behind everything in the directory `key`.
fn behind(key: &str) -> String {
    format!("{key}\u{1}")
}

impl Memory {
    pub fn new(position: Position) -> Self {
        let log_floor = position.revision;
        let (entries, by_id, index, log) = Default::default();
        Self {
            entries,
            by_id,
            index,
            position,
            names_revision: 0,
            log,
            log_floor,
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(key(path).as_str())
    }

    pub fn by_id(&self, id: &StorageId) -> Option<&Entry> {
        self.entries.get(self.by_id.get(&id.number())?)
    }

    /// The entry that `path` lies in, and the rest of the path.
    pub fn resolve(&self, path: &str) -> Option<(&Entry, String)> {
        let key = key(path);
        let mut ends = key.match_indices('\0').map(|(at, _)| at).chain([key.len()]);
        ends.find_map(|end| {
            Some((
                self.entries.get(&key[..end])?,
                path_of(key[end..].trim_start_matches('\0')),
            ))
        })
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The entries with these keys.
    pub fn with_keys<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a Key>,
    ) -> impl Iterator<Item = &'a Entry> {
        keys.filter_map(|key| self.entries.get(key))
    }

    /// Takes an entry as it was at the start.
    pub fn load(&mut self, repository: Repository, revision: u64) {
        let key: Key = key(repository.path.as_str()).into();
        let before = self.entries.get(&key);
        let looked_at = before
            .map_or(i64::MIN, |before| before.looked_at)
            .max(repository.refreshed_at);
        match before {
            Some(before) => self.index.remove(&key, before),
            None => drop(
                self.by_id
                    .insert(repository.storage_id().number(), key.clone()),
            ),
        }
        let entry = Entry {
            repository: Arc::new(repository),
            revision,
            looked_at,
        };
        self.index.add(&key, &entry);
        self.entries.insert(key, entry);
    }

    /// Notes that the source was looked at, or that this was tried. Not kept over a restart.
    pub fn looked(&mut self, path: &DisplayPath, now: i64) {
        let Some((key, entry)) = self.entries.get_key_value(key(path.as_str()).as_str()) else {
            return;
        };
        let (key, mut entry) = (key.clone(), entry.clone());
        self.index.remove(&key, &entry);
        entry.looked_at = now;
        self.index.add(&key, &entry);
        self.entries.insert(key, entry);
    }

    /// Takes an entry that was written at `revision` and is heard of at `now`. True: readers must
    /// hear about it.
    pub fn put(&mut self, repository: Repository, revision: u64, now: u64) -> bool {
        let key: Key = key(repository.path.as_str()).into();
        let visible = visible_change(
            self.entries.get(&key).map(|entry| &*entry.repository),
            &repository,
        );
        self.load(repository, revision);
        self.record(key, now, visible)
    }

    /// True: readers must hear about it.
    pub fn remove(&mut self, path: &DisplayPath, revision: u64) -> bool {
        let key: Key = key(path.as_str()).into();
        self.by_id.remove(&path.storage_id().number());
        let removed = self.entries.remove(&key);
        removed
            .iter()
            .for_each(|entry| self.index.remove(&key, entry));
        let visible = removed.is_some_and(|entry| entry.repository.snapshot.is_some());
        self.record(key, revision, visible)
    }

    fn record(&mut self, key: Key, revision: u64, visible: bool) -> bool {
        self.position.revision = self.position.revision.max(revision);
        if visible {
            self.log.push_back((revision, key));
            if self.log.len() > LOG_MAX
                && let Some((revision, _)) = self.log.pop_front()
            {
                self.log_floor = revision;
            }
        }
        visible
    }

    /// Entries whose path is `path`, encloses it, or lies inside it.
    pub fn overlapping(&self, path: &DisplayPath) -> Vec<&Entry> {
        let key = key(path.as_str());
        let ends = key.match_indices('\0').map(|(at, _)| at);
        let outer = ends.filter_map(|end| self.entries.get(&key[..end]));
        outer.chain(self.below(path.as_str(), "")).collect()
    }

    /// Entries at or below `prefix` (whole components), after the path `after`.
    pub fn below(&self, prefix: &str, after: &str) -> impl Iterator<Item = &Entry> + use<'_> {
        let (prefix, after) = (key(prefix), key(after));
        let end = if prefix.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(behind(&prefix))
        };
        // The prefix may be the path of an entry, and then the one that a page ended with.
        let goes_on = !after.is_empty() && after >= prefix;
        let start = if goes_on {
            Bound::Excluded(after)
        } else {
            Bound::Included(prefix)
        };
        let empty = matches!((&start, &end), (Bound::Excluded(after), Bound::Excluded(end)) if after >= end);
        let range = (!empty).then(|| self.entries.range::<str, _>((as_str(&start), as_str(&end))));
        range.into_iter().flatten().map(|(_, entry)| entry)
    }

    /// Names directly below `prefix` that lead to published repositories, after the name `after`.
    pub fn names(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Vec<(String, Option<Arc<Repository>>)> {
        let mut inside = key(prefix);
        if !inside.is_empty() {
            inside.push('\0');
        }
        let mut names = Vec::new();
        let mut from = match after {
            "" => inside.clone(),
            after => behind(&format!("{inside}{}", key(after))),
        };
        while names.len() < limit
            && let Some((key, entry)) = self
                .entries
                .range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded))
                .next()
            && let Some(rest) = key.strip_prefix(inside.as_str())
        {
            if entry.repository.snapshot.is_none() {
                from = format!("{key}\0");
                continue;
            }
            let name = rest.split('\0').next().unwrap_or(rest);
            names.push((
                name.to_owned(),
                (name == rest).then(|| entry.repository.clone()),
            ));
            from = behind(&format!("{inside}{name}"));
        }
        names
    }

    /// The entries that readers see.
    pub fn published(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.entries
            .values()
            .map(|entry| &entry.repository)
            .filter(|repository| repository.snapshot.is_some())
    }

    /// How many changes came after `position`; `None` when the log does not reach back that far.
    pub fn age(&self, position: &Position) -> Option<usize> {
        let now = &self.position;
        let known = position.epoch == now.epoch
            && (self.log_floor..=now.revision).contains(&position.revision);
        known.then(|| {
            self.log.len()
                - self
                    .log
                    .partition_point(|(revision, _)| *revision <= position.revision)
        })
    }

    /// What came after `from`; `None` when the log does not reach back that far.
    pub fn changes_since(&self, from: &Position) -> Option<Changes> {
        let newer = self.log.iter().rev().take(self.age(from)?);
        let keys: BTreeSet<&Key> = newer.map(|(_, key)| key).collect();
        let mut changes = Changes {
            upserts: Vec::new(),
            removed: Vec::new(),
            position: self.position.clone(),
        };
        for key in keys {
            match self
                .entries
                .get(key)
                .filter(|entry| entry.repository.snapshot.is_some())
            {
                Some(entry) => changes.upserts.push(entry.repository.clone()),
                None => changes.removed.push(path_of(key)),
            }
        }
        Some(changes)
    }
}

fn as_str(bound: &Bound<String>) -> Bound<&str> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// Whether readers must hear about it: when and with what error it was last looked at is for
/// operators only.
fn visible_change(before: Option<&Repository>, after: &Repository) -> bool {
    let Some(before) = before else {
        return after.snapshot.is_some();
    };
    before.generation != after.generation
        || before.snapshot != after.snapshot
        || before.holders != after.holders
        || before.source != after.source
}
