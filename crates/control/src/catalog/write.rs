//! [`CatalogWriter`]: every change of what is at which path. Each one is a compare-and-set against
//! what memory has, and returns after memory has the result. The actor is that of the request of
//! the task that asks for the change.

use std::sync::Arc;

use monofs_model::{
    DisplayPath, Error, ErrorKind, NodeId, Repository, RepositoryState, Result, Snapshot,
};
use monofs_rpc::context;
use monofs_store::state::{Compare, Write};

use super::entry::{NAMES_KEY, encode_repository, repo_key};
use super::known::Catalog;
use super::memory::CatalogMemory;
use super::published::{PublishedCommits, published_key, with_publication};
use super::retained::retain;
use crate::clock;
use crate::state::{StateAction, StateTransaction, StateVerb};

/// The way to change the catalogue. Its changes are seen in [`Catalog`].
pub struct CatalogWriter {
    catalog: Arc<Catalog>,
    published: PublishedCommits,
    /// As it is named in what this router publishes.
    router_id: String,
}

/// What an entry that is created replaces, and what must still be so then.
struct RoomForEntry {
    /// Of the entry's own key.
    revision: u64,
    /// Of the key that every creation and removal writes.
    names_revision: u64,
    /// Failed entries that it replaces.
    gone: Vec<DisplayPath>,
}

impl CatalogWriter {
    /// Changes the entries of `catalog` in the name of the router `router_id`.
    pub fn new(catalog: &Arc<Catalog>, published: &PublishedCommits, router_id: &str) -> Self {
        Self {
            catalog: catalog.clone(),
            published: published.clone(),
            router_id: router_id.to_owned(),
        }
    }

    /// Adds an entry. Errors: `Refused` when a path is, encloses or lies inside another's.
    pub async fn create(&self, repository: Repository) -> Result<()> {
        let key = repo_key(&repository.path);
        let value = encode_repository(&repository);
        let attempt = || {
            let room = self
                .catalog
                .look(|memory| room_for(memory, &repository.path))?;
            let gone = room.gone.iter();
            let mut writes: Vec<Write> = gone.map(|path| delete(repo_key(path))).collect();
            writes.push(put(key.clone(), value.clone()));
            writes.push(put(NAMES_KEY.into(), Vec::new()));
            Ok(StateTransaction {
                compares: vec![
                    compare(key.clone(), room.revision),
                    compare(NAMES_KEY.into(), room.names_revision),
                ],
                writes,
            })
        };
        self.transact(StateVerb::CreateEntry, &repository.path, attempt)
            .await
    }

    /// Changes an entry by compare-and-set; `change` says `None` to leave it. Errors: `NotFound`,
    /// `change`'s own.
    pub async fn update(
        &self,
        path: &DisplayPath,
        change: impl FnMut(&Repository) -> Result<Option<Repository>>,
    ) -> Result<Arc<Repository>> {
        self.change(StateVerb::UpdateEntry, path, change, |_| None)
            .await
    }

    /// [`CatalogWriter::update`] with another verb, and with something written by the same commit.
    async fn change(
        &self,
        verb: StateVerb,
        path: &DisplayPath,
        mut change: impl FnMut(&Repository) -> Result<Option<Repository>>,
        also: impl Fn(&Repository) -> Option<Write>,
    ) -> Result<Arc<Repository>> {
        let key = repo_key(path);
        let attempt = || {
            let before = self.catalog.entry(path)?;
            let repository = &before.repository;
            let Some(changed) = change(repository)? else {
                return Ok(StateTransaction::default());
            };
            let mut writes = vec![put(key.clone(), encode_repository(&changed))];
            // A snapshot that is replaced stays readable for the grace.
            let shown = repository.snapshot.as_ref();
            let replaced = shown.filter(|old| Some(*old) != changed.snapshot.as_ref());
            writes.extend(replaced.map(|old| retain(repository, old)));
            writes.extend(also(&changed));
            Ok(StateTransaction {
                compares: vec![compare(key.clone(), before.revision)],
                writes,
            })
        };
        self.transact(verb, path, attempt).await?;
        self.catalog.entry(path).map(|entry| entry.repository)
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
        // Of the same generation, so nothing can be added to it meanwhile.
        let before = match self.published.of(&entry.path).await {
            Ok(before) => before,
            Err(error) if error.kind == ErrorKind::Unavailable => {
                return Err(self.catalog.shared().refused(error));
            }
            Err(error) => {
                tracing::warn!(path = %entry.path, %error, "what it showed before cannot be \
                 understood; beginning anew");
                Vec::new()
            }
        };
        let publish = StateVerb::PublishCommit;
        self.change(publish, &entry.path, flip, |flipped| {
            with_publication(&before, flipped, &self.router_id, clock::now())
        })
        .await
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
        self.change(StateVerb::AddHolder, path, add, |_| None)
            .await
            .map(drop)
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
            Ok(Some(without_holder(entry, node)))
        };
        self.change(StateVerb::RemoveHolder, path, remove, |_| None)
            .await
            .map(drop)
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
            Ok(Some(without_holder(entry, node)))
        };
        self.change(StateVerb::ReleaseHolder, path, release, |_| None)
            .await
            .map(drop)
    }

    /// Notes that `snapshot` was given to the holders of `tried` and never published, so that it is
    /// collected like one that was replaced. A no-op when readers see it.
    pub async fn abandon(&self, tried: &Repository, snapshot: &Snapshot) -> Result<()> {
        let attempt = || {
            // Deleted meanwhile: then this is all that names the commit.
            let entry = self.catalog.entry(&tried.path).ok();
            let shown = entry.as_ref().and_then(|e| e.repository.snapshot.as_ref());
            if shown == Some(snapshot) {
                return Ok(StateChange::default());
            }
            let revision = entry.map_or(0, |entry| entry.revision);
            Ok(StateChange {
                compares: vec![compare(repo_key(&tried.path), revision)],
                writes: vec![retain(tried, snapshot)],
            })
        };
        self.transact(StateVerb::AbandonCommit, &tried.path, attempt)
            .await
    }

    /// Removes an entry; its snapshot stays readable for the grace. Errors: `NotFound`.
    pub async fn remove(&self, path: &DisplayPath) -> Result<()> {
        let key = repo_key(path);
        let attempt = || {
            let entry = self.catalog.entry(path)?;
            let names_revision = self.catalog.look(|memory| memory.names_revision);
            let repository = &entry.repository;
            let mut writes = vec![
                delete(key.clone()),
                put(NAMES_KEY.into(), Vec::new()),
                delete(published_key(&repository.storage_id())),
            ];
            // What readers saw stays readable for the grace.
            let shown = repository.snapshot.as_ref();
            writes.extend(shown.map(|old| retain(repository, old)));
            Ok(StateTransaction {
                compares: vec![
                    compare(key.clone(), entry.revision),
                    compare(NAMES_KEY.into(), names_revision),
                ],
                writes,
            })
        };
        self.transact(StateVerb::RemoveEntry, path, attempt).await
    }

    async fn transact(
        &self,
        verb: StateVerb,
        path: &DisplayPath,
        attempt: impl FnMut() -> Result<StateTransaction>,
    ) -> Result<()> {
        let subject = path.as_str();
        let action = StateAction { verb, subject };
        let shared = self.catalog.shared();
        shared.transact(&context::actor(), action, attempt).await
    }
}

/// What creating an entry at `path` replaces. Errors: `Refused` when that is an entry with readers.
fn room_for(memory: &CatalogMemory, path: &DisplayPath) -> Result<RoomForEntry> {
    let mut gone = Vec::new();
    for other in memory.overlapping(path) {
        // Failed entries never had readers: they make room.
        let theirs = &other.repository.path;
        if other.repository.state != RepositoryState::Failed {
            let how = if theirs == path {
                "is already there"
            } else {
                "overlaps it; no repository can lie inside another"
            };
            return Err(Error::refused(format!(
                "cannot add '{path}': '{theirs}' {how}; choose another --path"
            )));
        }
        if theirs != path {
            gone.push(theirs.clone());
        }
    }
    Ok(RoomForEntry {
        revision: memory.get(path.as_str()).map_or(0, |entry| entry.revision),
        names_revision: memory.names_revision,
        gone,
    })
}

fn without_holder(entry: &Repository, node: &NodeId) -> Repository {
    let mut shrunk = entry.clone();
    shrunk.holders.retain(|holder| holder != node);
    shrunk
}

fn compare(key: Vec<u8>, revision: u64) -> Compare {
    Compare { key, revision }
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Write {
    Write::Put { key, value }
}

fn delete(key: Vec<u8>) -> Write {
    Write::Delete { key }
}
