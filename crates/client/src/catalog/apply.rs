//! Makes what is shown follow the catalogue: one task that owns what is wanted and tries until it
//! is so.
//!
//! A repository whose new records cannot be had stays at its old commit, and is tried again. The
//! copy for an offline start is written from here, so it never says more than what was applied.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use monofs_content::content::Content;
use monofs_content::counters::Counters;
use monofs_content::packed::Packed;
use monofs_content::repo::{Repo, snapshot_of};
use monofs_content::times::{self, LateRun};
use monofs_model::limits::TREE_DEPTH_MAX;
use monofs_model::{ErrorKind, Oid, Result};
use monofs_proto::v1;
use monofs_rpc::context;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ack::AppliedPositions;
use super::clock::{RouterClock, wall_ms};
use super::copy::CatalogCopy;
use super::late::LateRuns;
use super::{CatalogChange, RouterLink};
use crate::changes::{ChangeLog, RepositoryChange, Watching};
use crate::fs::Fs;
use crate::fs::switch::{FlipEffect, FlipTarget, Invalidation};
use crate::invalidate::Invalidator;

/// The copy of the cluster view in the cache.
const VIEW_VALUE: &str = "view";
/// The copy is written at most this often.
const COPY_EVERY: Duration = Duration::from_secs(1);
/// Pause before a repository that could not be flipped is tried again: the first one, doubled with
/// each further one.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Each round of a flip learns the records of one more level; lookups in between may add a few.
const FLIP_ROUNDS_MAX: usize = TREE_DEPTH_MAX + 64;
/// A flip that is shown later than this after its time is late.
const LATE_AFTER_MS: i64 = 2000;
/// When the mount before this one ended, by the routers' clock, in milliseconds since the epoch;
/// empty while it is mounted, and after an end that it could not note.
const ENDED_VALUE: &str = "ended";

/// How often the kernel is told to drop names of what was replaced.
const DROP_NAMES_EVERY: Duration = Duration::from_secs(1);

/// Has the kernel drop the names of pinned inodes that it learns, until `stop`.
pub async fn drop_retired_names(
    fs: Arc<Fs>,
    invalidator: Arc<OnceLock<Invalidator>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(DROP_NAMES_EVERY) => {}
        }
        let names = fs.take_retired_names().into_iter();
        let invalidations: Vec<Invalidation> = names
            .map(|(directory, names)| Invalidation { directory, names })
            .collect();
        if let Some(invalidator) = invalidator.get()
            && !invalidations.is_empty()
        {
            let effect = FlipEffect {
                invalidations,
                drop_all_names: false,
            };
            invalidator.send(effect).await;
        }
    }
}

/// What changes are applied to, and who is told.
pub struct ApplierParts {
    pub fs: Arc<Fs>,
    pub content: Content,
    pub counters: Arc<Counters>,
    pub link: Arc<RouterLink>,
    /// Empty until the kernel has the mount; before that it knows no names.
    pub invalidator: Arc<OnceLock<Invalidator>>,
    /// For those who watch the mount.
    pub changes: Arc<ChangeLog>,
    /// New views, to be kept on disk.
    pub views: watch::Receiver<Option<v1::ClusterView>>,
    /// Positions that were applied.
    pub applied: watch::Sender<AppliedPositions>,
    pub stop: CancellationToken,
}

/// Applies changes to the file system.
pub struct Applier {
    parts: ApplierParts,
    /// What the catalogue says where that may differ from what is shown; `None`: nothing is to be
    /// there. In the order of paths, so that what is in one directory comes together.
    wanted: BTreeMap<String, Option<Packed>>,
    position: Option<v1::Position>,
    copy: CatalogCopy,
    /// Of the router that was heard last.
    clock: Option<RouterClock>,
    late: LateRuns,
    earlier: EarlierMount,
}

/// The mount that wrote the copy in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlierMount {
    /// There was none.
    Never,
    /// It ended at this time by the routers' clock, in milliseconds since the epoch.
    EndedAt(i64),
    /// It may have been there until now.
    Unknown,
}

impl Applier {
    /// Nothing is wanted yet.
    pub fn new(parts: ApplierParts) -> Self {
        Self {
            parts,
            wanted: BTreeMap::new(),
            position: None,
            copy: CatalogCopy::default(),
            clock: None,
            late: LateRuns::default(),
            earlier: EarlierMount::Never,
        }
    }

    /// Shows what the copy in the cache says, if there is one. True: there is.
    pub async fn load_copy(&mut self) -> bool {
        let cache = self.parts.fs.cache.clone();
        self.late = LateRuns::load(&cache);
        let ended = cache.value(ENDED_VALUE);
        cache.put_value(ENDED_VALUE, Vec::new());
        if let Some(view) = cache
            .value(VIEW_VALUE)
            .and_then(|bytes| v1::ClusterView::decode(&bytes[..]).ok())
            && let Ok(view) = view.try_into()
        {
            self.parts.content.replicas().set_view(view);
        }
        let mut copy = CatalogCopy::default();
        let Some(loaded) = copy.load(&cache).await else {
            return false;
        };
        let position = loaded.position.clone();
        self.take(CatalogChange::listing(loaded.position, loaded.entries));
        self.converge().await;
        // What is shown now is what it says, and was shown by the mount before.
        self.copy = copy;
        let ended = ended.and_then(|bytes| bytes.first_chunk().copied().map(i64::from_be_bytes));
        self.earlier = ended.map_or(EarlierMount::Unknown, EarlierMount::EndedAt);
        let mut state = self.parts.link.state();
        state.received = position;
        state.from_copy = true;
        true
    }

    /// Applies changes until stopped.
    pub async fn run(mut self, mut changes: mpsc::Receiver<CatalogChange>) {
        // What fails is tried again after a pause, and the copy on disk follows a while later.
        let mut pause = RETRY_FIRST;
        let mut copied = tokio::time::Instant::now();
        let mut copy_due = false;
        loop {
            let retry = !self.wanted.is_empty();
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { break };
                    self.take(change);
                    self.parts.link.state().from_copy = false;
                    pause = RETRY_FIRST;
                }
                Ok(()) = self.parts.views.changed() => {
                    let view = self.parts.views.borrow_and_update().clone();
                    if let Some(view) = view {
                        self.parts.fs.cache.put_value(VIEW_VALUE, view.encode_to_vec());
                    }
                    continue;
                }
                () = tokio::time::sleep(pause), if retry => pause = (pause * 2).min(RETRY_MAX),
                () = tokio::time::sleep_until(copied + COPY_EVERY), if copy_due => {
                    self.write_copy();
                    copied = tokio::time::Instant::now();
                    copy_due = false;
                    continue;
                }
                () = self.parts.stop.cancelled() => break,
            }
            self.converge().await;
            copy_due = true;
        }
        if copy_due {
            self.write_copy();
        }
        // The kernel has let go of the mount: nobody reads what is shown any more.
        let now_ms = self.clock.map_or_else(wall_ms, |clock| clock.now_ms());
        let cache = &self.parts.fs.cache;
        cache.put_value(ENDED_VALUE, now_ms.to_be_bytes().to_vec());
    }

    fn take(&mut self, mut change: CatalogChange) {
        if change.reset {
            // What the listing does not have is to go.
            self.wanted = self
                .parts
                .fs
                .paths()
                .into_iter()
                .map(|path| (path, None))
                .collect();
        }
        self.wanted.append(&mut change.entries);
        self.position = change.position.or(self.position.take());
        self.clock = change.clock.or(self.clock);
    }

    /// Makes what is shown equal to what is wanted, as far as content can be had.
    async fn converge(&mut self) {
        // Repositories that come and go first, then each one whose commit changed.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs() as i64);
        self.parts.fs.set_now(now);
        let stop = self.parts.stop.clone();
        for (repo, packed) in self.come_and_go().await {
            let outcome = tokio::select! {
                outcome = context::begin("flip", self.flip(&repo, &packed)) => outcome,
                () = stop.cancelled() => return,
            };
            let path = repo.path();
            match outcome {
                Ok(()) => {
                    self.parts.link.state().lagging.remove(path);
                    self.copy.outdate(path);
                }
                Err(error) => {
                    let before = {
                        let mut state = self.parts.link.state();
                        state.lagging.insert(path.to_owned(), error.to_string())
                    };
                    if before.is_none() {
                        tracing::warn!(repo = path, %error, "cannot switch to the new commit; \
                         showing the old one");
                    }
                    self.wanted.insert(path.to_owned(), Some(packed));
                }
            }
        }

        // What the kernel was not told to forget, or still holds, is in use from now on.
        self.parts.fs.pin_retired();
        let shown = {
            let mut state = self.parts.link.state();
            state
                .lagging
                .retain(|path, _| self.wanted.contains_key(path));
            if self.wanted.is_empty() {
                state.applied.clone_from(&self.position);
            }
            state.applied.clone()
        };
        let reached = self.position.clone();
        self.parts
            .applied
            .send_replace(AppliedPositions { shown, reached });
    }

    /// Shows repositories that appeared and no longer those that disappeared. Returns those that
    /// changed.
    async fn come_and_go(&mut self) -> Vec<(Arc<Repo>, Packed)> {
        let mut added = Vec::new();
        let mut removed = Vec::new();
        let mut changed = Vec::new();
        let nothing_shown = self.parts.fs.world().totals().repositories == 0;
        // What is to happen at each path where something is wanted.
        for (path, packed) in std::mem::take(&mut self.wanted) {
            let shown = match nothing_shown {
                true => None,
                false => self.parts.fs.repo(&path),
            };
            match (shown, packed) {
                (None, Some(packed)) => {
                    let repo = Repo::packed(path, packed);
                    self.late.tell(&repo);
                    added.push(repo);
                }
                (Some(_), None) => {
                    self.late.forget(&self.parts.fs.cache, &path);
                    removed.push(path);
                }
                (Some(repo), Some(packed)) if !repo.shows(&packed) => changed.push((repo, packed)),
                _ => {}
            }
        }
        if !added.is_empty() || !removed.is_empty() {
            added.iter().for_each(|repo| self.copy.outdate(repo.path()));
            removed.iter().for_each(|path| self.copy.outdate(path));
            let told = match self.parts.changes.watching() {
                Watching::Watched => Some(came_and_went(&added, &removed)),
                Watching::Unwatched => None,
            };
            let invalidations = self.parts.fs.change_repositories(added, &removed);
            self.tell(FlipEffect {
                invalidations,
                drop_all_names: false,
            })
            .await;
            match told {
                Some(changes) => self.parts.changes.note(changes),
                None => self.parts.changes.skip(),
            }
        }
        changed
    }

    async fn flip(&mut self, repo: &Arc<Repo>, packed: &Packed) -> Result<()> {
        let entry = &Arc::new(packed.decode());
        let was = repo.entry();
        let same_snapshot = was.snapshot == entry.snapshot;
        let (before, _) = repo.shown_times().last();
        let watching = self.parts.changes.watching();
        let mut lost: HashSet<Oid> = HashSet::new();
        for _ in 0..FLIP_ROUNDS_MAX {
            let target = FlipTarget {
                entry,
                lost: &lost,
                late: self.late_run(repo, packed),
            };
            let needed = match self.parts.fs.try_flip(repo, &target) {
                Ok(effect) => {
                    if !same_snapshot {
                        self.parts.counters.flips.one();
                    }
                    self.note_times(repo, before, target.late);
                    self.tell(effect).await;
                    let is = entry.clone();
                    match watching {
                        _ if same_snapshot => {}
                        Watching::Watched => {
                            let flipped = RepositoryChange::Flipped { was, is };
                            self.parts.changes.note([flipped]);
                        }
                        Watching::Unwatched => self.parts.changes.skip(),
                    }
                    return Ok(());
                }
                Err(needed) => needed,
            };
            if !needed.times.is_empty() {
                self.parts.content.times(repo, &needed.times).await?;
            }
            if !needed.old.is_empty()
                && let Err(error) = self.parts.content.trees(repo, needed.old.clone(), 0).await
            {
                match error.kind {
                    // Its grace is over: no replica has it, and none will.
                    ErrorKind::NotHeld | ErrorKind::NotFound => {
                        for key in needed.old {
                            lost.extend(key.node.into_iter().chain([key.tree]));
                        }
                    }
                    _ => return Err(error),
                }
            }
            if !needed.new.is_empty()
                && let Some(new) = Repo::new(entry.clone())
            {
                self.parts.content.trees(&new, needed.new, 0).await?;
            }
        }
        Err(monofs_model::Error::internal(
            "the directories change faster than they can be compared",
        ))
    }

    /// The generations that come to be shown with `packed`, if that is too late for their own time:
    /// what was built since was built from the old text.
    fn late_run(&self, repo: &Repo, packed: &Packed) -> Option<LateRun> {
        let now_ms = self.clock?.now_ms();
        let (before, _) = repo.shown_times().last();
        let (generation, time) = packed.times.last();
        let time_ms = time.saturating_mul(1000);
        // Before the kernel has this mount, the one before may have shown the old text.
        let was_read_until = match (self.parts.invalidator.get(), self.earlier) {
            (None, EarlierMount::Never) => return None,
            (None, EarlierMount::EndedAt(ended_ms)) => ended_ms.min(now_ms),
            (Some(_), _) | (None, EarlierMount::Unknown) => now_ms,
        };
        let is_late = now_ms.saturating_sub(time_ms) > LATE_AFTER_MS && was_read_until >= time_ms;
        let shown_at = now_ms.div_euclid(1000) + 1;
        (generation > before && packed.times.is_told() && is_late).then_some(LateRun {
            first: before + 1,
            last: generation,
            shown_at,
        })
    }

    /// Keeps the time of the generation `before`, which no entry tells since the repository was
    /// switched, and that it was late, if it was.
    fn note_times(&mut self, repo: &Repo, before: u64, late: Option<LateRun>) {
        self.parts.content.keep_times(repo, before / times::ROW);
        if let Some(run) = late {
            self.parts.counters.late_flips.one();
            tracing::info!(
                repo = repo.path(),
                ?run,
                "shown late: its names have the time of now"
            );
            self.late.add(&self.parts.fs.cache, repo);
        }
    }

    /// Has the kernel told what changed, and returns when it was.
    async fn tell(&self, effect: FlipEffect) {
        let is_any = effect.drop_all_names || !effect.invalidations.is_empty();
        if is_any && let Some(invalidator) = self.parts.invalidator.get() {
            invalidator.send(effect).await;
        }
    }

    /// Puts what is shown on disk, for a start without any router.
    fn write_copy(&mut self) {
        let position = self.parts.link.state().applied.clone();
        self.copy.write(&self.parts.fs, position);
    }
}

/// What those who watch the mount are told about repositories that appear and disappear.
fn came_and_went(added: &[Arc<Repo>], removed: &[String]) -> Vec<RepositoryChange> {
    let went = removed
        .iter()
        .map(|path| RepositoryChange::Went(path.as_str().into()));
    let came = added.iter().map(|repo| {
        let commit = snapshot_of(&repo.entry()).commit;
        RepositoryChange::Came(repo.path().into(), commit)
    });
    went.chain(came).collect()
}
