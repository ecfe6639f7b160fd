//! [`Catalog`]: the catalogue as this router knows it. It follows the state store and answers from
//! memory.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use monofs_model::{DisplayPath, Error, NodeId, Repository, Result, StorageId};
use monofs_store::state::{CommitOutcome, Compare, Scan, Versioned};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::copies::{CopyCounts, copies};
use super::entry::{
    BELOW_PREFIX, CatalogEntry, NAMES_KEY, REPO_PREFIX, below_key, decode_repository,
    no_repository, repo_key,
};
use super::listing::CatalogListing;
use super::memory::{CatalogChanges, CatalogMemory, CatalogPosition};
use super::search::{RepositoryQuery, SEARCH_PAGE, SEARCHES_MAX};
use super::summary::{CatalogSummary, summary};
use crate::clock;
use crate::state::{CommitBatch, KeyEvent, SharedState, StateFollower};

/// The catalogue as this router knows it.
pub struct Catalog {
    shared: Arc<SharedState>,
    memory: RwLock<CatalogMemory>,
    /// Of the last change that readers can see.
    revision: watch::Sender<u64>,
    /// The last full listing that was made; held while another is made, so that one serves all who
    /// wait.
    listing: tokio::sync::Mutex<Option<Arc<CatalogListing>>>,
    /// Places for searches that look at all entries.
    searches: tokio::sync::Semaphore,
}

impl Catalog {
    /// An empty one; it fills when `shared` is started with it as a follower.
    pub fn new(shared: &Arc<SharedState>) -> Self {
        let position = CatalogPosition {
            epoch: shared.store().epoch(),
            revision: 0,
        };
        Self {
            shared: shared.clone(),
            memory: RwLock::new(CatalogMemory::new(position)),
            revision: watch::channel(0).0,
            listing: tokio::sync::Mutex::default(),
            searches: tokio::sync::Semaphore::new(SEARCHES_MAX),
        }
    }

    /// The state that it is a part of.
    pub(super) fn shared(&self) -> &Arc<SharedState> {
        &self.shared
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.memory.read().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at exactly this path.
    pub fn get(&self, path: &DisplayPath) -> Option<Arc<Repository>> {
        let memory = self.memory.read();
        memory
            .get(path.as_str())
            .map(|entry| entry.repository.clone())
    }

    /// The entry at exactly this path. Errors: `NotFound`, `Invalid`.
    pub fn require(&self, path: &str) -> Result<Arc<Repository>> {
        self.get(&DisplayPath::new(path)?)
            .ok_or_else(|| no_repository(path))
    }

    /// The entry stored under this id.
    pub fn by_storage_id(&self, id: &StorageId) -> Option<Arc<Repository>> {
        let memory = self.memory.read();
        memory.by_id(id).map(|entry| entry.repository.clone())
    }

    /// The entry that `path` lies in, and the rest of the path.
    pub fn resolve(&self, path: &str) -> Option<(Arc<Repository>, String)> {
        let memory = self.memory.read();
        let (entry, rest) = memory.resolve(path)?;
        Some((entry.repository.clone(), rest))
    }

    /// The published entries that `path` lies inside, the outermost first.
    pub fn around(&self, path: &DisplayPath) -> Vec<Arc<Repository>> {
        self.memory.read().around(path)
    }

    /// The entries that lie inside others, in the order of their paths.
    pub fn nested(&self) -> Vec<Arc<Repository>> {
        repositories(self.memory.read().nested())
    }

    /// Up to `limit` entries at or below `prefix` (whole components), after the path `after`, in
    /// the order of paths.
    pub fn page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<Repository>> {
        let memory = self.memory.read();
        repositories(memory.below(prefix, after).take(limit))
    }

    /// Names directly below `prefix` after the name `after`, each with its repository if it is one.
    pub fn names(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Vec<(String, Option<Arc<Repository>>)> {
        self.memory.read().names(prefix, after, limit)
    }

    /// What readers must learn to get from `position` to now; `None` when that is not known any
    /// more.
    pub fn changes_since(&self, position: &CatalogPosition) -> Option<CatalogChanges> {
        self.memory.read().changes_since(position)
    }

    /// Everything that readers see, as of a position that [`Catalog::changes_since`] knows.
    pub async fn listing(&self) -> Result<Arc<CatalogListing>> {
        let mut kept = self.listing.lock().await;
        if let Some(listing) = &*kept
            && listing.is_useful(&self.memory.read())
        {
            return Ok(listing.clone());
        }
        // Not two of them in memory.
        *kept = None;
        let (position, entries) = self.published();
        let encoding = tokio::task::spawn_blocking(move || {
            Arc::new(CatalogListing::encode(position, &entries))
        });
        let listing = encoding
            .await
            .map_err(|e| Error::internal(format!("encode the catalogue: {e}")))?;
        *kept = Some(listing.clone());
        Ok(listing)
    }

    /// The entries that readers see, and as of when.
    fn published(&self) -> (CatalogPosition, Vec<Arc<Repository>>) {
        let memory = self.memory.read();
        (
            memory.position.clone(),
            memory.published().cloned().collect(),
        )
    }

    /// What is the case with all entries, of which ready ones should have `copies` holders.
    pub fn summary(&self, copies: usize) -> CatalogSummary {
        summary(&self.memory.read(), copies)
    }

    /// The copies on the nodes that are `serving`, of entries that should have `wanted` each. Costs
    /// what is held by nodes that do not serve, and what has too few holders.
    pub fn copies(&self, wanted: usize, serving: &HashSet<NodeId>) -> CopyCounts {
        copies(&self.memory.read(), wanted, serving)
    }

    /// The entries whose first ingest has not ended.
    pub fn ingesting(&self) -> Vec<Arc<Repository>> {
        let memory = self.memory.read();
        repositories(memory.with_keys(memory.index().ingesting.iter()))
    }

    /// The entries that `node` is recorded to hold.
    pub fn held_by(&self, node: &NodeId) -> Vec<Arc<Repository>> {
        let memory = self.memory.read();
        let keys = memory.index().by_holder.get(node).into_iter().flatten();
        repositories(memory.with_keys(keys))
    }

    /// Number of entries that `node` is recorded to hold.
    pub fn count_held_by(&self, node: &NodeId) -> usize {
        let memory = self.memory.read();
        let keys = memory.index().by_holder.get(node);
        keys.map_or(0, BTreeSet::len)
    }

    /// Up to `limit` ready entries of a moving ref that no router tried to refresh after `before`,
    /// the longest waiting first.
    pub fn due(&self, before: i64, limit: usize) -> Vec<Arc<Repository>> {
        let memory = self.memory.read();
        let all = memory.index().due.iter();
        let due = all.take_while(|(looked_at, _)| *looked_at <= before);
        repositories(memory.with_keys(due.take(limit).map(|(_, key)| key)))
    }

    /// When the ready entry that waits longest for a look at its source was last looked at; seconds
    /// since the epoch. `None` when no entry follows a moving ref.
    pub fn oldest_look(&self) -> Option<i64> {
        let memory = self.memory.read();
        memory.index().due.first().map(|(looked_at, _)| *looked_at)
    }

    /// Notes that a refresh is being tried now, however it ends.
    pub fn looked(&self, path: &DisplayPath) {
        self.memory.write().looked(path, clock::now());
    }

    /// Where the catalogue is now.
    pub fn position(&self) -> CatalogPosition {
        self.memory.read().position.clone()
    }

    /// Wakes at every change that readers can see.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// The entries that match `query`, and how many match in all. Errors: the router stops.
    pub async fn search(self: &Arc<Self>, query: RepositoryQuery) -> Result<FoundRepositories> {
        let _place = self
            .searches
            .acquire()
            .await
            .map_err(|_| Error::unavailable("this router stops"))?;
        let catalog = self.clone();
        let searching = tokio::task::spawn_blocking(move || {
            let matching = catalog.matching(&query);
            FoundRepositories {
                total: matching.len(),
                shown: query.cut(matching),
            }
        });
        searching
            .await
            .map_err(|e| Error::internal(format!("a search of the catalogue ended early: {e}")))
    }

    /// All that match, in the order of their paths.
    fn matching(&self, query: &RepositoryQuery) -> Vec<Arc<Repository>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.page("", &after, SEARCH_PAGE);
            let Some(last) = page.last() else {
                return found;
            };
            after = last.path.to_string();
            let matching = page.into_iter().filter(|entry| query.filter.takes(entry));
            found.extend(matching);
        }
    }

    /// Whether memory shows the entry at `path`, or that there is none, as the state store has it
    /// now: what another router changed may be on its way. Errors: the state store's.
    pub async fn is_current(&self, path: &DisplayPath, entry: Option<&Repository>) -> Result<bool> {
        let known = self.memory.read().get(path.as_str()).cloned();
        if known.as_ref().map(|known| &*known.repository) != entry {
            return Ok(false);
        }
        let compares = vec![Compare {
            key: repo_key(path),
            revision: known.map_or(0, |known| known.revision),
        }];
        let compared = self.shared.store().commit(compares, Vec::new()).await?;
        Ok(matches!(compared, CommitOutcome::Done { .. }))
    }

    /// The entry with the revision of its key. Errors: `NotFound`.
    pub(super) fn entry(&self, path: &DisplayPath) -> Result<CatalogEntry> {
        let found = self.memory.read().get(path.as_str()).cloned();
        found.ok_or_else(|| no_repository(path.as_str()))
    }

    /// Asks memory something that only a change of the catalogue needs.
    pub(super) fn look<T>(&self, look: impl FnOnce(&CatalogMemory) -> T) -> T {
        look(&self.memory.read())
    }

    /// Takes over what changed after the revision `known`, as one change: so clients resume,
    /// although the commits are forgotten.
    fn catch_up(&self, known: u64, scan: &Scan) -> Result<()> {
        let there: HashSet<&[u8]> = scan.rows.iter().map(|(key, _)| &key[..]).collect();
        let mut events: Vec<KeyEvent> = self.keys();
        events.retain(|event| !there.contains(&event.key[..]));
        let newer = scan.rows.iter().filter(|(_, row)| row.revision > known);
        events.extend(newer.map(|(key, row)| KeyEvent {
            key: key.clone(),
            value: Some(row.clone()),
        }));
        self.apply(&CommitBatch {
            revision: scan.revision,
            events,
        })
    }

    /// The deletions of all keys that memory has.
    fn keys(&self) -> Vec<KeyEvent> {
        let memory = self.memory.read();
        let entries = memory.below("", "");
        let entries = entries.map(|entry| repo_key(&entry.repository.path));
        let keys = entries.chain(memory.with_below().map(below_key));
        keys.map(|key| KeyEvent { key, value: None }).collect()
    }
}

/// Repositories that match, cut to what was asked for.
#[derive(Debug)]
pub struct FoundRepositories {
    pub shown: Vec<Arc<Repository>>,
    /// How many match in all.
    pub total: usize,
}

fn repositories<'a>(entries: impl Iterator<Item = &'a CatalogEntry>) -> Vec<Arc<Repository>> {
    entries.map(|entry| entry.repository.clone()).collect()
}

impl StateFollower for Catalog {
    fn load(&self, scan: &Scan) -> Result<()> {
        // When the store is the one that is known, only what changed since is taken in.
        let epoch = self.shared.store().epoch();
        let known = self.position();
        if known.epoch == epoch && (1..=scan.revision).contains(&known.revision) {
            return self.catch_up(known.revision, scan);
        }

        // Memory is built anew from the rows and replaced in one step, so that readers never see a
        // part.
        let mut memory = CatalogMemory::new(CatalogPosition {
            epoch,
            revision: scan.revision,
        });
        for (key, versioned) in &scan.rows {
            if key.starts_with(REPO_PREFIX.as_bytes()) {
                memory.load(decode_entry(key, versioned)?, versioned.revision);
            } else if let Some(path) = below_path(key) {
                memory.set_below_revision(path, versioned.revision);
            } else if key == NAMES_KEY.as_bytes() {
                memory.names_revision = versioned.revision;
            }
        }
        *self.memory.write() = memory;
        self.revision.send_replace(scan.revision);
        Ok(())
    }

    fn apply(&self, batch: &CommitBatch) -> Result<()> {
        // Decoded before the lock is taken. What cannot be understood must not hold up the others.
        let mut changes = Vec::new();
        for event in &batch.events {
            match MemoryChange::of(event) {
                Ok(change) => changes.extend(change),
                Err(error) => {
                    tracing::error!(%error, "cannot take over a change of the catalogue")
                }
            }
        }
        let mut visible = false;
        {
            let mut memory = self.memory.write();
            for change in changes {
                visible |= change.make(&mut memory, batch.revision);
            }
            memory.position.revision = memory.position.revision.max(batch.revision);
        }
        if visible {
            self.revision.send_replace(batch.revision);
        }
        Ok(())
    }
}

/// What a commit does to memory.
enum MemoryChange {
    /// With the revision of the key.
    Put(Box<Repository>, u64),
    Remove(DisplayPath),
    /// The revision of the key that creations of routers of before `below/` write.
    Names(u64),
    /// The revision of the key that every creation below this path writes.
    Below(String, u64),
}

impl MemoryChange {
    /// `None` for a key of others. Errors: it cannot be understood.
    fn of(event: &KeyEvent) -> Result<Option<Self>> {
        let KeyEvent { key, value } = event;
        let revision = value.as_ref().map_or(0, |versioned| versioned.revision);
        if let Some(path) = below_path(key) {
            return Ok(Some(Self::Below(path.to_owned(), revision)));
        }
        let Some(path) = key.strip_prefix(REPO_PREFIX.as_bytes()) else {
            return Ok((key == NAMES_KEY.as_bytes()).then_some(Self::Names(revision)));
        };
        let change = match value {
            Some(versioned) => {
                let entry = decode_entry(key, versioned)?;
                Self::Put(Box::new(entry), versioned.revision)
            }
            None => Self::Remove(DisplayPath::new(&String::from_utf8_lossy(path))?),
        };
        Ok(Some(change))
    }

    /// Makes the change, heard of at the revision `now`. True: readers must hear about it.
    fn make(self, memory: &mut CatalogMemory, now: u64) -> bool {
        match self {
            Self::Put(repository, revision) => memory.put(*repository, revision, now),
            Self::Remove(path) => memory.remove(&path, now),
            Self::Names(revision) => {
                memory.names_revision = revision;
                false
            }
            Self::Below(path, revision) => {
                memory.set_below_revision(&path, revision);
                false
            }
        }
    }
}

/// The path whose key `below/<path>` this is.
fn below_path(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(BELOW_PREFIX.as_bytes())?).ok()
}

fn decode_entry(key: &[u8], versioned: &Versioned) -> Result<Repository> {
    decode_repository(&versioned.value)
        .map_err(|e| e.context(format!("catalogue entry {}", String::from_utf8_lossy(key))))
}
