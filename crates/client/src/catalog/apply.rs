//! Makes what is shown follow the catalogue: one task that owns what is wanted and tries until it is so.
//!
//! A repository whose new records cannot be had stays at its old commit, and is tried again. The copy for an offline start
//! is written from here, so it never says more than what was applied.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use monofs_model::limits::TREE_DEPTH_MAX;
use monofs_model::{ErrorKind, Oid, Repository, Result};
use monofs_proto::v1;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Change, Link, readable};
use crate::content::Content;
use crate::counters::Counters;
use crate::fs::Fs;
use crate::fs::switch::{Flipped, Invalidation};
use crate::invalidate::Invalidator;
use crate::repo::Repo;

/// The copy of the catalogue in the cache: an encoded `CatalogDelta`.
const CATALOG_VALUE: &str = "catalog";
/// The copy of the cluster view in the cache.
const VIEW_VALUE: &str = "view";
/// The copy is written at most this often.
const COPY_EVERY: Duration = Duration::from_secs(1);
/// First and longest pause before a repository that could not be flipped is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Each round of a flip learns the records of one more level; lookups in between may add a few.
const FLIP_ROUNDS_MAX: usize = TREE_DEPTH_MAX + 64;

/// Applies changes to the file system.
pub struct Applier {
    pub fs: Arc<crate::fuse::Shared>,
    pub link: Arc<Link>,
    pub counters: Arc<Counters>,
    /// Empty until the kernel has the mount; before that it knows no names.
    pub invalidator: Arc<OnceLock<Invalidator>>,
    pub views: watch::Receiver<Option<v1::ClusterView>>,
    pub applied: watch::Sender<Option<v1::Position>>,
    pub stop: CancellationToken,
    /// What the catalogue says.
    wanted: BTreeMap<String, Arc<Repository>>,
    /// Paths whose entry may differ from what is shown.
    dirty: BTreeSet<String>,
    position: Option<v1::Position>,
}

impl Applier {
    /// Nothing is wanted yet.
    pub fn new(
        fs: Arc<crate::fuse::Shared>,
        link: Arc<Link>,
        invalidator: Arc<OnceLock<Invalidator>>,
        views: watch::Receiver<Option<v1::ClusterView>>,
        applied: watch::Sender<Option<v1::Position>>,
        stop: CancellationToken,
    ) -> Self {
        let counters = fs.counters.clone();
        let (wanted, dirty, position) = Default::default();
        Self { fs, link, counters, invalidator, views, applied, stop, wanted, dirty, position }
    }

    fn tree(&self) -> &Fs {
        &self.fs.fs
    }

    fn content(&self) -> &Content {
        &self.fs.content
    }

    /// Shows what the copy in the cache says, if there is one. True: there is.
    pub async fn load_copy(&mut self) -> bool {
        let cache = self.tree().cache.clone();
        if let Some(view) = cache.value(VIEW_VALUE).and_then(|bytes| v1::ClusterView::decode(&bytes[..]).ok())
            && let Ok(view) = view.try_into()
        {
            self.content().replicas().set_view(view);
        }
        let Some(copy) = cache.value(CATALOG_VALUE).and_then(|bytes| v1::CatalogDelta::decode(&bytes[..]).ok()) else {
            return false;
        };
        let position = copy.position.clone();
        let change = Change { position: copy.position, reset: true, upserts: copy.upserts, removed: vec![] };
        self.take(change);
        self.converge().await;
        let mut state = self.link.state();
        state.received = position;
        state.from_copy = true;
        true
    }

    /// Applies changes until stopped.
    pub async fn run(mut self, mut changes: mpsc::Receiver<Change>) {
        let mut pause = BACKOFF.0;
        let mut copied = tokio::time::Instant::now();
        let mut copy_due = false;
        loop {
            let retry = !self.dirty.is_empty();
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { break };
                    self.take(change);
                    self.link.state().from_copy = false;
                    pause = BACKOFF.0;
                }
                Ok(()) = self.views.changed() => {
                    let view = self.views.borrow_and_update().clone();
                    if let Some(view) = view {
                        self.tree().cache.put_value(VIEW_VALUE, view.encode_to_vec());
                    }
                    continue;
                }
                () = tokio::time::sleep(pause), if retry => pause = (pause * 2).min(BACKOFF.1),
                () = tokio::time::sleep_until(copied + COPY_EVERY), if copy_due => {
                    self.write_copy();
                    (copied, copy_due) = (tokio::time::Instant::now(), false);
                    continue;
                }
                () = self.stop.cancelled() => break,
            }
            self.converge().await;
            copy_due = true;
        }
        if copy_due {
            self.write_copy();
        }
    }

    fn take(&mut self, change: Change) {
        if change.reset {
            self.dirty.extend(std::mem::take(&mut self.wanted).into_keys());
        }
        for path in change.removed {
            self.wanted.remove(&path);
            self.dirty.insert(path);
        }
        for wire in change.upserts {
            let path = wire.path.clone();
            match readable(wire) {
                Ok(Some(entry)) => drop(self.wanted.insert(path.clone(), Arc::new(entry))),
                Ok(None) => drop(self.wanted.remove(&path)),
                Err(error) => {
                    tracing::warn!(%error, "ignoring what the router said about a repository");
                    continue;
                }
            }
            self.dirty.insert(path);
        }
        self.position = change.position.or(self.position.take());
    }

    /// Makes what is shown equal to what is wanted, as far as content can be had.
    async fn converge(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        self.tree().set_now(now);
        self.come_and_go().await;
        for path in std::mem::take(&mut self.dirty) {
            let (Some(entry), Some(repo)) = (self.wanted.get(&path).cloned(), self.tree().repo(&path)) else {
                continue;
            };
            let outcome = tokio::select! {
                outcome = self.flip(&repo, &entry) => outcome,
                () = self.stop.cancelled() => return,
            };
            let mut state = self.link.state();
            match outcome {
                Ok(()) => drop(state.lagging.remove(&path)),
                Err(error) => {
                    if !state.lagging.contains_key(&path) {
                        tracing::warn!(repo = path, %error, "cannot switch to the new commit; showing the old one");
                    }
                    state.lagging.insert(path.clone(), error.to_string());
                    drop(state);
                    self.dirty.insert(path);
                }
            }
        }
        let mut state = self.link.state();
        state.lagging.retain(|path, _| self.wanted.contains_key(path));
        if self.dirty.is_empty() {
            state.applied.clone_from(&self.position);
            drop(state);
            self.applied.send_replace(self.position.clone());
        }
    }

    /// Repositories that appear and disappear.
    async fn come_and_go(&mut self) {
        let shown = |path: &String| self.tree().repo(path).is_some();
        let removed: Vec<String> =
            self.dirty.iter().filter(|path| !self.wanted.contains_key(*path) && shown(path)).cloned().collect();
        let added: Vec<Arc<Repo>> = self
            .dirty
            .iter()
            .filter(|path| !shown(path))
            .filter_map(|path| Repo::new(self.wanted.get(path)?.clone()))
            .collect();
        if added.is_empty() && removed.is_empty() {
            return;
        }
        let invalidations = self.tree().change_repositories(added, &removed);
        self.tell(invalidations, false).await;
    }

    async fn flip(&self, repo: &Arc<Repo>, entry: &Arc<Repository>) -> Result<()> {
        let shown = repo.entry();
        if shown == *entry {
            return Ok(());
        }
        let same_snapshot = shown.snapshot == entry.snapshot;
        let mut lost: HashSet<Oid> = HashSet::new();
        for _ in 0..FLIP_ROUNDS_MAX {
            let needed = match self.tree().try_flip(repo, entry, &lost) {
                Ok(Flipped { invalidations, drop_all_names }) => {
                    if !same_snapshot {
                        self.counters.flips.one();
                    }
                    self.tell(invalidations, drop_all_names).await;
                    return Ok(());
                }
                Err(needed) => needed,
            };
            if !needed.old.is_empty()
                && let Err(error) = self.content().trees(repo, needed.old.clone(), 0).await
            {
                match error.kind {
                    // Its grace is over: nobody has it, and nobody will.
                    ErrorKind::NotHeld | ErrorKind::NotFound => lost.extend(needed.old),
                    _ => return Err(error),
                }
            }
            if !needed.new.is_empty()
                && let Some(new) = Repo::new(entry.clone())
            {
                self.content().trees(&new, needed.new, 0).await?;
            }
        }
        Err(monofs_model::Error::internal("the directories change faster than they can be compared"))
    }

    async fn tell(&self, invalidations: Vec<Invalidation>, drop_all_names: bool) {
        if let Some(invalidator) = self.invalidator.get()
            && (drop_all_names || !invalidations.is_empty())
        {
            invalidator.send(Flipped { invalidations, drop_all_names }).await;
        }
    }

    /// Puts what is shown on disk, for a start without any router.
    fn write_copy(&self) {
        let shown = self.tree().repos().iter().map(|repo| v1::Repository::from(&*repo.entry())).collect();
        let position = self.link.state().applied.clone();
        let copy = v1::CatalogDelta { position, reset: true, complete: true, upserts: shown, removed_paths: vec![] };
        self.tree().cache.put_value(CATALOG_VALUE, copy.encode_to_vec());
    }
}
