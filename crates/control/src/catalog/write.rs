//! [`CatalogWriter`]: every change of what is at which path. Each one is a compare-and-set against
//! what memory has, and returns after memory has the result. Each is made on
//! behalf of an actor, who is named in the log.

use std::sync::Arc;

use monofs_model::{
    Actor, DisplayPath, Error, ErrorKind, NodeId, Repository, RepositoryState, Result, Snapshot,
};
use monofs_proto::v1;
use monofs_store::state::Write;

use super::entry::{encode_repository, repo_key};
use super::known::Catalog;
use super::published::{PublishedCommits, published_key, with_publication};
use super::retained::{RetainedSnapshots, name_given, name_no_more, retain};
use super::room::{self, CreatingRouters, EnclosingTree, compare, delete, put};
use crate::clock;
use crate::state::{StateAction, StateTable, StateTransaction, StateVerb};

/// The way to change the catalogue. Its changes are seen in [`Catalog`].
pub struct CatalogWriter {
    catalog: Arc<Catalog>,
    published: PublishedCommits,
    retained: Arc<RetainedSnapshots>,
    routers: Arc<StateTable<v1::RouterStatus>>,
    /// As it is named in what this router publishes.
    router_id: String,
}

impl CatalogWriter {
    /// Changes the entries of `catalog` in the name of the router `router_id`, beside `routers`.
    pub fn new(
        catalog: &Arc<Catalog>,
        published: &PublishedCommits,
        retained: &Arc<RetainedSnapshots>,
        routers: &Arc<StateTable<v1::RouterStatus>>,
        router_id: &str,
    ) -> Self {
        Self {
            catalog: catalog.clone(),
            published: published.clone(),
            retained: retained.clone(),
            routers: routers.clone(),
            router_id: router_id.to_owned(),
        }
    }

    /// Adds an entry that lies inside no repository with readers. Errors: those of
    /// [`CatalogWriter::create_inside`].
    pub async fn create(&self, actor: &Actor, repository: Repository) -> Result<()> {
        self.create_inside(actor, repository, &[]).await
    }

    /// Adds an entry. `looked_into`: the repositories with readers around its path, none of which
    /// has the name in that tree. Errors: `Refused` when there is an entry at its path, when there
    /// are other such repositories or trees by now, and, while a router of an older version runs,
    /// when its path encloses or lies inside another's.
    pub async fn create_inside(
        &self,
        actor: &Actor,
        repository: Repository,
        looked_into: &[EnclosingTree],
    ) -> Result<()> {
        let attempt = || {
            let routers = self.creating_routers();
            self.catalog
                .look(|memory| room::creation(memory, &repository, routers, looked_into))
        };
        self.transact(actor, StateVerb::CreateEntry, &repository.path, attempt)
            .await
    }

    fn creating_routers(&self) -> CreatingRouters {
        let routers = self.routers.list();
        if !routers.iter().all(|router| router.compares_directories) {
            CreatingRouters::SomeCompareNames
        } else if !routers.iter().all(|router| router.nests_repositories) {
            CreatingRouters::AllCompareDirectories
        } else {
            CreatingRouters::AllNest
        }
    }

    /// Changes what an entry says beside its commit and its holders, by compare-and-set; `change`
    /// says `None` to leave it. Errors: `NotFound`,
    /// `change`'s own.
    pub async fn update(
        &self,
        actor: &Actor,
        path: &DisplayPath,
        change: impl FnMut(&Repository) -> Result<Option<Repository>>,
    ) -> Result<Arc<Repository>> {
        self.change(actor, StateVerb::UpdateEntry, path, change, |_, _| {
            Vec::new()
        })
        .await
    }

    /// [`CatalogWriter::update`] with another verb, and with something written by the same commit:
    /// `also` is given the entry as it was and as it will be.
    async fn change(
        &self,
        actor: &Actor,
        verb: StateVerb,
        path: &DisplayPath,
        mut change: impl FnMut(&Repository) -> Result<Option<Repository>>,
        also: impl Fn(&Repository, &Repository) -> Vec<Write>,
    ) -> Result<Arc<Repository>> {
        let key = repo_key(path);
        let attempt = || {
            let before = self.catalog.entry(path)?;
            let repository = &before.repository;
            let Some(changed) = change(repository)? else {
                return Ok(StateTransaction::default());
            };
            let mut writes = vec![put(key.clone(), encode_repository(&changed))];
            writes.extend(also(repository, &changed));
            Ok(StateTransaction {
                compares: vec![compare(key.clone(), before.revision)],
                writes,
            })
        };
        self.transact(actor, verb, path, attempt).await?;
        self.catalog.entry(path).map(|entry| entry.repository)
    }

    /// Publishes a commit in `entry`: the flip. Errors: `Refused` when the stored entry moved on
    /// meanwhile.
    pub async fn flip(
        &self,
        actor: &Actor,
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
            Ok(Some(Repository {
                shadowed_by: stored.shadowed_by.clone(),
                ..flipped.clone()
            }))
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
        let rows = self.retained.rows(&entry.storage_id()).await?;
        let publish = StateVerb::PublishCommit;
        self.change(actor, publish, &entry.path, flip, |stored, flipped| {
            let published = with_publication(&before, flipped, &self.router_id, clock::now());
            // A snapshot that is replaced stays readable for the grace.
            let shown = stored.snapshot.as_ref();
            let replaced = shown.filter(|old| old.commit != snapshot.commit);
            let kept = replaced.map(|old| retain(stored, old, &rows));
            let named = name_no_more(flipped, holder, &rows);
            published.into_iter().chain(kept).chain(named).collect()
        })
        .await
    }

    /// Records that `node` holds the commit of `generation`; a no-op when the entry moved on.
    pub async fn add_holder(
        &self,
        actor: &Actor,
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
        let rows = self.retained.rows(&path.storage_id()).await?;
        self.change(actor, StateVerb::AddHolder, path, add, |_, grown| {
            name_no_more(grown, node, &rows).into_iter().collect()
        })
        .await
        .map(drop)
    }

    /// Records that `node` lost the commit of `generation`; a no-op when the entry moved on.
    pub async fn remove_holder(
        &self,
        actor: &Actor,
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
        self.change(actor, StateVerb::RemoveHolder, path, remove, |_, _| {
            Vec::new()
        })
        .await
        .map(drop)
    }

    /// Takes `node` off the holders of the commit of `generation` while all of `keep` are; its data
    /// may go afterwards. Errors: `Refused` when the entry moved on, or one of them is no holder.
    pub async fn release_holder(
        &self,
        actor: &Actor,
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
        self.change(actor, StateVerb::ReleaseHolder, path, release, |_, _| {
            Vec::new()
        })
        .await
        .map(drop)
    }

    /// Notes that `nodes`, which do not hold `snapshot`, are about to be given it. It is collected
    /// from those that are not recorded as holders in the end, like one that was replaced. Errors:
    /// `NotFound`.
    pub async fn note_given(
        &self,
        actor: &Actor,
        path: &DisplayPath,
        snapshot: &Snapshot,
        nodes: &[NodeId],
    ) -> Result<()> {
        let rows = self.retained.rows(&path.storage_id()).await?;
        let attempt = || {
            let entry = self.catalog.entry(path)?;
            let named = name_given(&entry.repository, snapshot, nodes, &rows);
            Ok(StateTransaction {
                compares: vec![compare(repo_key(path), entry.revision)],
                writes: named.into_iter().collect(),
            })
        };
        self.transact(actor, StateVerb::GiveCommit, path, attempt)
            .await
    }

    /// Removes an entry; its snapshot stays readable for the grace. Errors: `NotFound`.
    pub async fn remove(&self, actor: &Actor, path: &DisplayPath) -> Result<()> {
        let rows = self.retained.rows(&path.storage_id()).await?;
        let attempt = || {
            let entry = self.catalog.entry(path)?;
            let repository = &entry.repository;
            let mut change = self.catalog.look(|memory| room::removal(memory, &entry));
            let published = published_key(&repository.storage_id());
            change.writes.push(delete(published));
            let shown = repository.snapshot.as_ref();
            change
                .writes
                .extend(shown.map(|old| retain(repository, old, &rows)));
            Ok(change)
        };
        self.transact(actor, StateVerb::RemoveEntry, path, attempt)
            .await
    }

    async fn transact(
        &self,
        actor: &Actor,
        verb: StateVerb,
        path: &DisplayPath,
        attempt: impl FnMut() -> Result<StateTransaction>,
    ) -> Result<()> {
        let subject = path.as_str();
        let action = StateAction { verb, subject };
        let shared = self.catalog.shared();
        shared.transact(actor, action, attempt).await
    }
}

fn without_holder(entry: &Repository, node: &NodeId) -> Repository {
    let mut shrunk = entry.clone();
    shrunk.holders.retain(|holder| holder != node);
    shrunk
}
