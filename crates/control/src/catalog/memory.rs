//! The copy of the catalogue that requests are answered from, and the log of changes that watches
//! resume from.
//!
//! Invariant: entries are ordered by the components of their paths ([`path_key`]), so everything
//! below a directory is one run, and the names of a directory come in order: a listing seeks from
//! name to name and passes over what is below them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use monofs_model::{DisplayPath, Repository, StorageId};

use super::entry::CatalogEntry;
use super::index::CatalogIndex;
use super::path_key::{PathKey, ancestors, behind, path_key, path_of};

/// Changes remembered for clients that reconnect; a client further behind reloads everything.
const LOG_MAX: usize = 65_536;

/// A place in the history of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogPosition {
    pub epoch: String,
    pub revision: u64,
}

/// What a reader must learn to get from one position to another.
pub struct CatalogChanges {
    pub upserts: Vec<Arc<Repository>>,
    pub removed: Vec<String>,
    pub position: CatalogPosition,
}

/// All entries, and what is asked of them.
pub(super) struct CatalogMemory {
    entries: BTreeMap<PathKey, CatalogEntry>,
    by_id: HashMap<u128, PathKey>,
    /// Of entries that lie inside others.
    nested: BTreeSet<PathKey>,
    index: CatalogIndex,
    pub position: CatalogPosition,
    /// Of the key that creations of routers of before `below/` write.
    pub names_revision: u64,
    /// Of the keys `below/<path>`, by path; a key that is absent is not here.
    below_revisions: HashMap<Box<str>, u64>,
    log: VecDeque<(u64, PathKey)>,
    /// Changes up to here are no longer in the log.
    log_floor: u64,
}

impl CatalogMemory {
    pub fn new(position: CatalogPosition) -> Self {
        let log_floor = position.revision;
        Self {
            entries: BTreeMap::new(),
            by_id: HashMap::new(),
            nested: BTreeSet::new(),
            index: CatalogIndex::default(),
            position,
            names_revision: 0,
            below_revisions: HashMap::new(),
            log: VecDeque::new(),
            log_floor,
        }
    }

    /// The revision of the key that every creation below `path` writes; 0 = it is absent.
    pub fn below_revision(&self, path: &str) -> u64 {
        self.below_revisions.get(path).copied().unwrap_or(0)
    }

    /// Takes the revision of that key; 0 = it is absent.
    pub fn set_below_revision(&mut self, path: &str, revision: u64) {
        match revision {
            0 => drop(self.below_revisions.remove(path)),
            revision => drop(self.below_revisions.insert(path.into(), revision)),
        }
    }

    /// The paths for which there is such a key.
    pub fn with_below(&self) -> impl Iterator<Item = &str> {
        self.below_revisions.keys().map(|path| &**path)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, path: &str) -> Option<&CatalogEntry> {
        self.entries.get(path_key(path).as_str())
    }

    pub fn by_id(&self, id: &StorageId) -> Option<&CatalogEntry> {
        self.entries.get(self.by_id.get(&id.number())?)
    }

    /// The entry that `path` lies in, and the rest of the path: of several the one that readers see
    /// there with the longest path.
    pub fn resolve(&self, path: &str) -> Option<(&CatalogEntry, String)> {
        let key = path_key(path);
        let mut around: Vec<&CatalogEntry> = ancestors(&key)
            .chain([key.as_str()])
            .filter_map(|candidate| self.entries.get(candidate))
            .collect();
        around.reverse();
        let is_shown = |entry: &&&CatalogEntry| entry.repository.is_shown();
        let entry = *around.iter().find(is_shown).or(around.first())?;
        let rest = &key[entry.repository.path.as_str().len()..];
        Some((entry, path_of(rest.trim_start_matches('\0'))))
    }

    /// The published entries that `path` lies inside, the outermost first.
    pub fn around(&self, path: &DisplayPath) -> Vec<Arc<Repository>> {
        let key = path_key(path.as_str());
        ancestors(&key)
            .filter_map(|outer| self.entries.get(outer))
            .map(|entry| entry.repository.clone())
            .filter(|repository| repository.snapshot.is_some())
            .collect()
    }

    /// The entries that lie inside others, in the order of their paths.
    pub fn nested(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.with_keys(self.nested.iter())
    }

    pub fn index(&self) -> &CatalogIndex {
        &self.index
    }

    /// The entries with these keys.
    pub fn with_keys<'a>(
        &'a self,
        keys: impl Iterator<Item = &'a PathKey>,
    ) -> impl Iterator<Item = &'a CatalogEntry> {
        keys.filter_map(|key| self.entries.get(key))
    }

    /// Takes an entry as it was at the start.
    pub fn load(&mut self, repository: Repository, revision: u64) {
        let key: PathKey = path_key(repository.path.as_str()).into();
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
        let entry = CatalogEntry {
            repository: Arc::new(repository),
            revision,
            looked_at,
        };
        self.index.add(&key, &entry);
        // Of an entry that was there before nothing but this can make a difference.
        let is_shadowed = entry.repository.shadowed_by.is_some();
        let replaced = self.entries.insert(key.clone(), entry);
        let was_shadowed = replaced
            .as_ref()
            .map(|old| old.repository.shadowed_by.is_some());
        if was_shadowed != Some(is_shadowed) {
            self.note_nested(&key);
        }
    }

    /// Notes of an entry that came, changed or went, and of those inside it, whether they lie inside
    /// others; what is recorded as shadowed counts until that is changed.
    fn note_nested(&mut self, key: &PathKey) {
        let keys: Vec<PathKey> = inside(&self.entries, key).cloned().collect();
        for key in keys.into_iter().chain([key.clone()]) {
            let is_nested = self.entries.get(&key).is_some_and(|entry| {
                let mut around = ancestors(&key);
                entry.repository.shadowed_by.is_some()
                    || around.any(|outer| self.entries.contains_key(outer))
            });
            match is_nested {
                true => drop(self.nested.insert(key)),
                false => drop(self.nested.remove(&key)),
            }
        }
    }

    /// Notes that the source was looked at, or that this was tried. Not kept over a restart.
    pub fn looked(&mut self, path: &DisplayPath, now: i64) {
        let key: PathKey = path_key(path.as_str()).into();
        if let Some(entry) = self.entries.get_mut(&key) {
            self.index.remove(&key, entry);
            entry.looked_at = now;
            self.index.add(&key, entry);
        }
    }

    /// Takes an entry that was written at `revision` and is heard of at `now`. True: readers must
    /// hear about it.
    pub fn put(&mut self, repository: Repository, revision: u64, now: u64) -> bool {
        let key: PathKey = path_key(repository.path.as_str()).into();
        let visible = visible_change(
            self.entries.get(&key).map(|entry| &*entry.repository),
            &repository,
        );
        self.load(repository, revision);
        self.record(key, now, visible)
    }

    /// True: readers must hear about it.
    pub fn remove(&mut self, path: &DisplayPath, revision: u64) -> bool {
        let key: PathKey = path_key(path.as_str()).into();
        self.by_id.remove(&path.storage_id().number());
        let removed = self.entries.remove(&key);
        self.note_nested(&key);
        removed
            .iter()
            .for_each(|entry| self.index.remove(&key, entry));
        let visible = removed.is_some_and(|entry| entry.repository.snapshot.is_some());
        self.record(key, revision, visible)
    }

    fn record(&mut self, key: PathKey, revision: u64, visible: bool) -> bool {
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
    pub fn overlapping(&self, path: &DisplayPath) -> Vec<&CatalogEntry> {
        let key = path_key(path.as_str());
        let outer = ancestors(&key).filter_map(|outer| self.entries.get(outer));
        outer.chain(self.below(path.as_str(), "")).collect()
    }

    /// Entries at or below `prefix` (whole components), after the path `after`.
    pub fn below(
        &self,
        prefix: &str,
        after: &str,
    ) -> impl Iterator<Item = &CatalogEntry> + use<'_> {
        let prefix = path_key(prefix);
        let after = path_key(after);
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
        let range = (!is_empty(&start, &end))
            .then(|| self.entries.range::<str, _>((as_str(&start), as_str(&end))));
        range.into_iter().flatten().map(|(_, entry)| entry)
    }

    /// Names directly below `prefix` that lead to published repositories, after the name `after`.
    pub fn names(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Vec<(String, Option<Arc<Repository>>)> {
        // The keys of what is inside begin so.
        let mut inside = path_key(prefix);
        if !inside.is_empty() {
            inside.push('\0');
        }
        // From name to name: what is below one is passed over.
        let mut names = Vec::new();
        let mut from = match after {
            "" => inside.clone(),
            after => behind(&format!("{inside}{}", path_key(after))),
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
    pub fn age(&self, position: &CatalogPosition) -> Option<usize> {
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
    pub fn changes_since(&self, from: &CatalogPosition) -> Option<CatalogChanges> {
        let newer = self.log.iter().rev().take(self.age(from)?);
        let keys: BTreeSet<&PathKey> = newer.map(|(_, key)| key).collect();
        let mut changes = CatalogChanges {
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

/// The keys of the entries inside the one with this key.
fn inside<'a>(
    entries: &'a BTreeMap<PathKey, CatalogEntry>,
    key: &str,
) -> impl Iterator<Item = &'a PathKey> {
    let range = (
        Bound::Included(format!("{key}\0")),
        Bound::Excluded(behind(key)),
    );
    let range = (as_str(&range.0), as_str(&range.1));
    entries.range::<str, _>(range).map(|(key, _)| key)
}

/// Whether nothing can lie between them, which a range of a map must not be asked for.
fn is_empty(start: &Bound<String>, end: &Bound<String>) -> bool {
    matches!((start, end), (Bound::Excluded(start), Bound::Excluded(end)) if start >= end)
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
