//! The catalogue: which repository is at which path and commit, and every change of it.
//!
//! Keys of the state store: `repo/<path>` (an entry), `retained/<storage id>/<commit>` (a snapshot
//! that was replaced and may still be read), `names` (written with every creation and removal, so
//! that two of them cannot pass each other), and kept aside `published/<storage id>` (the commits
//! that an entry showed, see [`published`]). Values are a version byte and a message of the wire
//! protocol, which only ever gains fields.
//!
//! Invariants: memory changes only after the store did; of two paths in the catalogue none lies
//! inside the other (failed entries do not count: they never had readers); a change that readers
//! can see is in the log of changes; nothing here looks at all entries but the load at the start
//! and [`Catalog::listing`], whose result is shared.

mod copies;
mod entry;
mod index;
mod listing;
mod memory;
mod published;
mod retained;
mod search;
mod seed;
#[cfg(test)]
mod tests;

use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use monofs_model::{
    DisplayPath, Error, ErrorKind, NodeId, Repository, RepositoryState, Result, Snapshot, StorageId,
};
use monofs_store::state::{Compare, Scan, Versioned, Write};
use tokio::sync::watch;

pub use copies::Copies;
use entry::{NAMES_KEY, REPO_PREFIX, RETAINED_PREFIX, repo_key};
pub use entry::{Retained, no_repository};
pub use index::Key;
pub use listing::Listing;
pub use memory::{Changes, Position};
use memory::{Entry, Memory};
use retained::retain;
pub use search::{Filter, Sorting};
pub use seed::seed_catalogue;

use crate::clock;
use crate::state::{Batch, Event, Follower, SharedState};

pub struct Catalog {
    shared: Arc<SharedState>,
    memory: RwLock<Memory>,
    /// Of the last change that readers can see.
    revision: watch::Sender<u64>,
    /// The last full listing that was made; held while another is made, so that one serves all who
    /// wait.
    listing: tokio::sync::Mutex<Option<Arc<Listing>>>,
    /// When the oldest retained snapshot was replaced, seconds since the epoch; none is older.
    oldest_retained: AtomicI64,
    /// Places for searches that look at all entries.
    searches: tokio::sync::Semaphore,
    /// As it is named in what this router publishes.
    router_id: String,
}

/// Entries that operators must hear about: how many, and the first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    pub count: usize,
    pub first: Option<DisplayPath>,
}

/// What is the case with all entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub ingesting: usize,
    pub ready: usize,
    pub failed: Trouble,
    /// Ready, with fewer copies than asked about.
    pub few: Trouble,
    /// Ready, and the last refresh failed.
    pub stale: Trouble,
}

impl Catalog {
    /// An empty one; it fills when `shared` is started.
    pub fn new(shared: &Arc<SharedState>, router_id: &str) -> Self {
        let position = Position {
            epoch: shared.store().epoch(),
            revision: 0,
        };
        Self {
            shared: shared.clone(),
            memory: RwLock::new(Memory::new(position)),
            revision: watch::channel(0).0,
            listing: tokio::sync::Mutex::default(),
            oldest_retained: AtomicI64::new(i64::MIN),
            searches: tokio::sync::Semaphore::new(search::SEARCHES_MAX),
            router_id: router_id.to_owned(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.read(Memory::len)
    }

    /// The entry at exactly this path.
    pub fn get(&self, path: &DisplayPath) -> Option<Arc<Repository>> {
        self.read(|memory| {
            memory
                .get(path.as_str())
                .map(|entry| entry.repository.clone())
        })
    }

    /// The entry at exactly this path. Errors: `NotFound`, `Invalid`.
    pub fn require(&self, path: &str) -> Result<Arc<Repository>> {
        self.get(&DisplayPath::new(path)?)
            .ok_or_else(|| no_repository(path))
    }

    /// The entry stored under this id.
    pub fn by_storage_id(&self, id: &StorageId) -> Option<Arc<Repository>> {
        self.read(|memory| memory.by_id(id).map(|entry| entry.repository.clone()))
    }

    /// The entry that `path` lies in, and the rest of the path.
    pub fn resolve(&self, path: &str) -> Option<(Arc<Repository>, String)> {
        self.read(|memory| {
            memory
                .resolve(path)
                .map(|(entry, rest)| (entry.repository.clone(), rest))
        })
    }

    /// Up to `limit` entries at or below `prefix` (whole components), after the path `after`, in
    /// the order of paths.
    pub fn page(&self, prefix: &str, after: &str, limit: usize) -> Vec<Arc<Repository>> {
        self.read(|memory| {
            memory
                .below(prefix, after)
                .take(limit)
                .map(|entry| entry.repository.clone())
                .collect()
        })
    }

    /// Names directly below `prefix` after the name `after`, each with its repository if it is one.
    pub fn names(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Vec<(String, Option<Arc<Repository>>)> {
        self.read(|memory| memory.names(prefix, after, limit))
    }

    /// What readers must learn to get from `position` to now; `None` when that is not known any
    /// more.
    pub fn changes_since(&self, position: &Position) -> Option<Changes> {
        self.read(|memory| memory.changes_since(position))
    }

    /// Everything that readers see, as of a position that [`Catalog::changes_since`] knows.
    pub async fn listing(&self) -> Result<Arc<Listing>> {
        let mut kept = self.listing.lock().await;
        if let Some(listing) = kept
            .as_ref()
            .filter(|listing| self.read(|memory| listing.is_useful(memory)))
        {
            return Ok(listing.clone());
        }
        // Not two of them in memory.
        *kept = None;
        let (position, entries) = self.read(|memory| {
            (
                memory.position.clone(),
                memory.published().cloned().collect::<Vec<_>>(),
            )
        });
        let made =
            tokio::task::spawn_blocking(move || Arc::new(Listing::encode(position, &entries)));
        let listing = made
            .await
            .map_err(|e| Error::internal(format!("encode the catalogue: {e}")))?;
        *kept = Some(listing.clone());
        Ok(listing)
    }

    /// What is the case with all entries, of which ready ones should have `copies` holders.
    pub fn summary(&self, copies: usize) -> Summary {
        self.read(|memory| {
            let index = memory.index();
            let path = |key: &Arc<str>| {
                memory
                    .with_keys([key].into_iter())
                    .next()
                    .map(|e| e.repository.path.clone())
            };
            let trouble = |count, first: Option<&Arc<str>>| Trouble {
                count,
                first: first.and_then(path),
            };
            let (few, first_few) = index.below(copies);
            Summary {
                ingesting: index.ingesting.len(),
                ready: index.ready(),
                failed: trouble(index.failed.len(), index.failed.first()),
                few: trouble(few, first_few),
                stale: trouble(index.stale.len(), index.stale.first()),
            }
        })
    }

    /// The entries whose first ingest has not ended.
    pub fn ingesting(&self) -> Vec<Arc<Repository>> {
        self.read(|memory| {
            memory
                .with_keys(memory.index().ingesting.iter())
                .map(|entry| entry.repository.clone())
                .collect()
        })
    }

    /// The entries that `node` is recorded to hold.
    pub fn held_by(&self, node: &NodeId) -> Vec<Arc<Repository>> {
        let held = |memory: &Memory| {
            let keys = memory.index().by_holder.get(node).into_iter().flatten();
            memory
                .with_keys(keys)
                .map(|entry| entry.repository.clone())
                .collect()
        };
        self.read(held)
    }

    /// Number of entries that `node` is recorded to hold.
    pub fn count_held_by(&self, node: &NodeId) -> usize {
        self.read(|memory| {
            memory
                .index()
                .by_holder
                .get(node)
                .map_or(0, std::collections::BTreeSet::len)
        })
    }

    /// Up to `limit` ready entries of a moving ref that nobody tried to refresh after `before`, the
    /// longest waiting first.
    pub fn due(&self, before: i64, limit: usize) -> Vec<Arc<Repository>> {
        self.read(|memory| {
            let due = memory
                .index()
                .due
                .iter()
                .take_while(|(looked_at, _)| *looked_at <= before);
            memory
                .with_keys(due.take(limit).map(|(_, key)| key))
                .map(|entry| entry.repository.clone())
                .collect()
        })
    }

    /// Notes that a refresh is being tried now, however it ends.
    pub fn looked(&self, path: &DisplayPath) {
        self.memory.write().looked(path, clock::now());
    }

    /// Where the catalogue is now.
    pub fn position(&self) -> Position {
        self.read(|memory| memory.position.clone())
    }

    /// Wakes at every change that readers can see.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Adds an entry. Errors: `Refused` when a path is, encloses or lies inside another's.
    pub async fn create(&self, repository: Repository) -> Result<()> {
        let key = repo_key(&repository.path);
        let value = entry::encode_repository(&repository);
        self.shared
            .transact(|| {
                let (revision, names, gone) = self.room_for(&repository)?;
                let mut writes: Vec<Write> = gone
                    .iter()
                    .map(|path| Write::Delete {
                        key: repo_key(path),
                    })
                    .collect();
                writes.push(Write::Put {
                    key: key.clone(),
                    value: value.clone(),
                });
                writes.push(Write::Put {
                    key: NAMES_KEY.into(),
                    value: Vec::new(),
                });
                let compares = vec![
                    Compare {
                        key: key.clone(),
                        revision,
                    },
                    Compare {
                        key: NAMES_KEY.into(),
                        revision: names,
                    },
                ];
                Ok((compares, writes))
            })
            .await
    }

    /// The revisions of the entry's own key and of the names, and the failed entries that it
    /// replaces. Errors: `Refused`.
    fn room_for(&self, repository: &Repository) -> Result<(u64, u64, Vec<DisplayPath>)> {
        self.read(|memory| {
            let mut gone = Vec::new();
            for other in memory.overlapping(&repository.path) {
                if other.repository.state == RepositoryState::Failed {
                    gone.extend(
                        (other.repository.path != repository.path)
                            .then(|| other.repository.path.clone()),
                    );
                    continue;
                }
                let theirs = &other.repository.path;
                let how = if *theirs == repository.path {
                    "is already there"
                } else {
                    "overlaps it; no repository can lie inside another"
                };
                return Err(Error::refused(format!(
                    "cannot add '{}': '{theirs}' {how}; choose another --path",
                    repository.path
                )));
            }
            let revision = memory
                .get(repository.path.as_str())
                .map_or(0, |entry| entry.revision);
            Ok((revision, memory.names_revision, gone))
        })
    }

    /// Changes an entry by compare-and-set; `change` says `None` to leave it. Errors: `NotFound`,
    /// `change`'s own.
    pub async fn update(
        &self,
        path: &DisplayPath,
        change: impl FnMut(&Repository) -> Result<Option<Repository>>,
    ) -> Result<Arc<Repository>> {
        self.update_with(path, change, |_| None).await
    }

    /// [`Catalog::update`], with something written by the same commit.
    async fn update_with(
        &self,
        path: &DisplayPath,
        mut change: impl FnMut(&Repository) -> Result<Option<Repository>>,
        also: impl Fn(&Repository) -> Option<Write>,
    ) -> Result<Arc<Repository>> {
        let key = repo_key(path);
        let attempt = || {
            let Entry {
                repository,
                revision,
                ..
            } = self.entry(path)?;
            let Some(changed) = change(&repository)? else {
                return Ok((Vec::new(), Vec::new()));
            };
            let mut writes = vec![Write::Put {
                key: key.clone(),
                value: entry::encode_repository(&changed),
            }];
            let replaced = repository
                .snapshot
                .as_ref()
                .filter(|old| Some(*old) != changed.snapshot.as_ref());
            writes.extend(replaced.map(|old| retain(&repository, old)));
            writes.extend(also(&changed));
            Ok((
                vec![Compare {
                    key: key.clone(),
                    revision,
                }],
                writes,
            ))
        };
        self.shared.transact(attempt).await?;
        self.entry(path).map(|entry| entry.repository)
    }

    /// Errors: `NotFound`.
    fn entry(&self, path: &DisplayPath) -> Result<Entry> {
        let found = self.read(|memory| memory.get(path.as_str()).cloned());
        found.ok_or_else(|| no_repository(path.as_str()))
    }

    /// Publishes a commit in `entry`: the flip. Errors: `Refused` when the stored entry moved on
    /// meanwhile.
    pub async fn flip(
        &self,
        entry: &Repository,
        snapshot: &Snapshot,
        holder: &NodeId,
    ) -> Result<Arc<Repository>> {
        let flipped = Repository {
            snapshot: Some(snapshot.clone()),
            generation: entry.generation + 1,
            holders: vec![holder.clone()],
            state: RepositoryState::Ready,
            ..entry.clone()
        };
        let flip = |stored: &Repository| {
            if stored.generation != entry.generation {
                return Err(Error::refused(format!(
                    "{} changed while it was being ingested; try again",
                    entry.path
                )));
            }
            Ok(Some(flipped.clone()))
        };
        // Of the same generation, so that nobody can have added to it meanwhile.
        let before = match self.publications(&entry.path).await {
            Ok(before) => before,
            Err(error) if error.kind == ErrorKind::Unavailable => {
                return Err(self.shared.refused(error));
            }
            Err(error) => {
                tracing::warn!(path = %entry.path, %error, "what it showed before cannot be \
                 understood; beginning anew");
                Vec::new()
            }
        };
        let published =
            |flipped: &Repository| published::with(&before, flipped, &self.router_id, clock::now());
        self.update_with(&entry.path, flip, published).await
    }

    /// Records that `node` holds the commit of `generation`; a no-op when the entry moved on.
    pub async fn add_holder(
        &self,
        path: &DisplayPath,
        generation: u64,
        node: &NodeId,
    ) -> Result<()> {
        let add = |entry: &Repository| {
            if entry.generation != generation || entry.holders.contains(node) {
                return Ok(None);
            }
            let mut grown = entry.clone();
            grown.holders.push(node.clone());
            grown.holders.sort();
            Ok(Some(grown))
        };
        self.update(path, add).await.map(drop)
    }

    /// Records that `node` lost the commit of `generation`; a no-op when the entry moved on.
    pub async fn remove_holder(
        &self,
        path: &DisplayPath,
        generation: u64,
        node: &NodeId,
    ) -> Result<()> {
        let remove = |entry: &Repository| {
            if entry.generation != generation || !entry.holders.contains(node) {
                return Ok(None);
            }
            let mut shrunk = entry.clone();
            shrunk.holders.retain(|holder| holder != node);
            Ok(Some(shrunk))
        };
        self.update(path, remove).await.map(drop)
    }

    /// Takes `node` off the holders of the commit of `generation` while all of `keep` are; its data
    /// may go afterwards. Errors: `Refused` when the entry moved on, or one of them is no holder.
    pub async fn release_holder(
        &self,
        path: &DisplayPath,
        generation: u64,
        node: &NodeId,
        keep: &[NodeId],
    ) -> Result<()> {
        let release = |entry: &Repository| {
            if entry.generation != generation {
                return Err(Error::refused(format!("{path} moved on")));
            }
            let gone = keep
                .iter()
                .find(|keeper| *keeper == node || !entry.holders.contains(keeper));
            if keep.is_empty() || gone.is_some() {
                return Err(Error::refused(format!(
                    "{path}: too few other copies are recorded"
                )));
            }
            let mut shrunk = entry.clone();
            shrunk.holders.retain(|holder| holder != node);
            Ok(Some(shrunk))
        };
        self.update(path, release).await.map(drop)
    }

    /// Removes an entry; its snapshot stays readable for the grace. Errors: `NotFound`.
    pub async fn remove(&self, path: &DisplayPath) -> Result<()> {
        let key = repo_key(path);
        let attempt = || {
            let Entry {
                repository,
                revision,
                ..
            } = self.entry(path)?;
            let names = self.read(|memory| memory.names_revision);
            let mut writes = vec![
                Write::Delete { key: key.clone() },
                Write::Put {
                    key: NAMES_KEY.into(),
                    value: Vec::new(),
                },
            ];
            writes.extend(
                repository
                    .snapshot
                    .as_ref()
                    .map(|old| retain(&repository, old)),
            );
            writes.push(Write::Delete {
                key: published::key(&repository.storage_id()),
            });
            let compares = vec![
                Compare {
                    key: key.clone(),
                    revision,
                },
                Compare {
                    key: NAMES_KEY.into(),
                    revision: names,
                },
            ];
            Ok((compares, writes))
        };
        self.shared.transact(attempt).await
    }

    /// Takes over what changed after `known`, as one change: so clients resume, although the
    /// commits are forgotten.
    fn catch_up(&self, known: u64, scan: &Scan) -> Result<()> {
        let there: HashSet<&[u8]> = scan.rows.iter().map(|(key, _)| &key[..]).collect();
        let paths = self.read(|memory| {
            memory
                .below("", "")
                .map(|e| repo_key(&e.repository.path))
                .collect::<Vec<_>>()
        });
        let gone = paths
            .into_iter()
            .filter(|key| !there.contains(&key[..]))
            .map(|key| Event { key, value: None });
        let newer = scan
            .rows
            .iter()
            .filter(|(_, versioned)| versioned.revision > known);
        let newer = newer.map(|(key, versioned)| Event {
            key: key.clone(),
            value: Some(versioned.clone()),
        });
        self.oldest_retained.store(i64::MIN, Ordering::Release);
        self.apply(&Batch {
            revision: scan.revision,
            events: gone.chain(newer).collect(),
        })
    }

    fn read<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&self.memory.read())
    }

    fn write<T>(&self, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(&mut self.memory.write())
    }
}

impl Follower for Catalog {
    fn load(&self, scan: &Scan) -> Result<()> {
        let epoch = self.shared.store().epoch();
        let known = self.position();
        if known.epoch == epoch && (1..=scan.revision).contains(&known.revision) {
            return self.catch_up(known.revision, scan);
        }
        let mut memory = Memory::new(Position {
            epoch,
            revision: scan.revision,
        });
        for (key, versioned) in &scan.rows {
            if key.starts_with(REPO_PREFIX.as_bytes()) {
                memory.load(decode_entry(key, versioned)?, versioned.revision);
            } else if key == NAMES_KEY.as_bytes() {
                memory.names_revision = versioned.revision;
            }
        }
        // What was looked at, and what was retained, while nobody followed.
        self.oldest_retained.store(i64::MIN, Ordering::Release);
        self.write(|now| *now = memory);
        self.revision.send_replace(scan.revision);
        Ok(())
    }

    fn apply(&self, batch: &Batch) -> Result<()> {
        let mut changes = Vec::new();
        for Event { key, value } in &batch.events {
            if let Some(path) = key.strip_prefix(REPO_PREFIX.as_bytes()) {
                let change = match value {
                    Some(versioned) => decode_entry(key, versioned)
                        .map(|entry| Change::Put(Box::new(entry), versioned.revision)),
                    None => DisplayPath::new(&String::from_utf8_lossy(path)).map(Change::Remove),
                };
                match change {
                    Ok(change) => changes.push(change),
                    // The others of this commit must not wait for it.
                    Err(error) => {
                        tracing::error!(%error, "cannot take over a change of the catalogue")
                    }
                }
            } else if key == NAMES_KEY.as_bytes() {
                changes.push(Change::Names(
                    value.as_ref().map_or(0, |versioned| versioned.revision),
                ));
            } else if key.starts_with(RETAINED_PREFIX.as_bytes())
                && let Some(versioned) = value
            {
                let retained = entry::decode_retained(&versioned.value)?;
                self.oldest_retained
                    .fetch_min(retained.replaced_at, Ordering::AcqRel);
            }
        }
        let visible = self.write(|memory| {
            let mut visible = false;
            for change in changes {
                visible |= match change {
                    Change::Put(repository, revision) => {
                        memory.put(*repository, revision, batch.revision)
                    }
                    Change::Remove(path) => memory.remove(&path, batch.revision),
                    Change::Names(revision) => {
                        memory.names_revision = revision;
                        false
                    }
                };
            }
            memory.position.revision = memory.position.revision.max(batch.revision);
            visible
        });
        if visible {
            self.revision.send_replace(batch.revision);
        }
        Ok(())
    }
}

/// What a commit does to memory, decoded before the lock is taken.
enum Change {
    /// With the revision of the key.
    Put(Box<Repository>, u64),
    Remove(DisplayPath),
    Names(u64),
}

fn decode_entry(key: &[u8], versioned: &Versioned) -> Result<Repository> {
    entry::decode_repository(&versioned.value)
        .map_err(|e| e.context(format!("catalogue entry {}", String::from_utf8_lossy(key))))
}
