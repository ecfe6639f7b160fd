//! [`CatalogWriter`]: every change of what is at which path. Each one is a compare-and-set against
//! what memory has, and returns after memory has the result. Each is made on
//! behalf of an actor, who is named in the log.

use std::sync::Arc;
use std::time::Duration;

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
use super::times::{
    AHEAD_MAX_MS, AHEAD_WAIT_MAX_MS, GenerationTime, TimesOfEntry, TimesOfGenerations, next_time,
};
use crate::clock;
use crate::state::{StateAction, StateTable, StateTransaction, StateVerb};

/// The way to change the catalogue. Its changes are seen in [`Catalog`].
pub struct CatalogWriter {
    catalog: Arc<Catalog>,
    published: PublishedCommits,
    retained: Arc<RetainedSnapshots>,
    times: TimesOfGenerations,
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
            times: TimesOfGenerations::new(catalog.shared()),
            routers: routers.clone(),
            router_id: router_id.to_owned(),
        }
    }

    /// Adds an entry that lies inside no repository with readers. Errors: those of
    /// [`CatalogWriter::create_inside`].
    pub async fn create(&self, actor: &Actor, repository: Repository) -> Result<()> {
        self.create_inside(actor, repository, &[]).await
    }

    /// Adds an entry; it goes on counting generations where an earlier one at its path ended.
    /// `looked_into`: the repositories with readers around its path, none of which has the name in
    /// that tree. Errors: `Refused` when there is an entry at its path, when there are other such
    /// repositories or trees by now, and, while a router of an older version runs, when its path
    /// encloses or lies inside another's.
    pub async fn create_inside(
        &self,
        actor: &Actor,
        mut repository: Repository,
        looked_into: &[EnclosingTree],
    ) -> Result<()> {
        let id = repository.storage_id();
        let last = self.times.last(&id).await;
        let last = last.map_err(|error| self.catalog.shared().refused(error))?;
        let counted = last.map_or(0, |last| last.generation);
        repository.generation = repository.generation.max(counted);
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

    /// Publishes a commit in `entry`: the flip, which sets the time of the new generation. Waits
    /// while that would be too far ahead of the clock. Errors: `Refused` when the stored entry
    /// moved on meanwhile; `Unavailable` when the last time is that of a wrong clock.
    pub async fn flip(
        &self,
        actor: &Actor,
        entry: &Repository,
        snapshot: &Snapshot,
        holder: &NodeId,
    ) -> Result<Arc<Repository>> {
        // Of the same generation, so nothing can be added to these meanwhile.
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
        let times = self.times_of(entry).await?;
        self.raise(actor, entry, &times).await?;
        let last = times.last(entry, clock::now());
        let next = GenerationTime {
            generation: entry.generation + 1,
            time: first_moment(entry, snapshot, last).await?,
        };

        // What is shown from now on, while the entry is as it was.
        let flipped = Repository {
            snapshot: Some(snapshot.clone()),
            generation: next.generation,
            generation_time: (next.time != snapshot.commit_time).then_some(next.time),
            root_time: root_time(entry, snapshot, next, last),
            holders: vec![holder.clone()],
            state: RepositoryState::Ready,
            ..entry.clone()
        };
        let flip = |stored: &Repository| {
            // An entry that was deleted and made again goes on counting, but shows nothing yet.
            let is_base = stored.generation == entry.generation
                && stored.snapshot.is_some() == entry.snapshot.is_some();
            if !is_base {
                return Err(changed_meanwhile(entry));
            }
            Ok(Some(Repository {
                shadowed_by: stored.shadowed_by.clone(),
                ..flipped.clone()
            }))
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
            let mut writes = times.writes(&entry.storage_id(), last, next);
            writes.extend(published.into_iter().chain(kept).chain(named));
            writes
        })
        .await
    }

    /// The times of the generations of `entry`. Errors: the state store's.
    async fn times_of(&self, entry: &Repository) -> Result<TimesOfEntry> {
        let times = self.times.of(entry).await;
        times.map_err(|error| self.catalog.shared().refused(error))
    }

    /// Has an entry that counts from an earlier generation than one that its path showed go on from
    /// that. Errors: `Refused` then: what was worked out for it is of a generation that was.
    async fn raise(&self, actor: &Actor, entry: &Repository, times: &TimesOfEntry) -> Result<()> {
        let kept = times.kept();
        let Some(kept) = kept.filter(|kept| kept.generation > entry.generation) else {
            return Ok(());
        };
        let raise = |stored: &Repository| {
            let is_behind = stored.generation < kept.generation;
            Ok(is_behind.then(|| Repository {
                generation: kept.generation,
                ..stored.clone()
            }))
        };
        self.update(actor, &entry.path, raise).await?;
        Err(changed_meanwhile(entry))
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
        // What was published before times were kept, too, is counted on.
        let looked = self.catalog.entry(path)?.repository;
        let times = self.times_of(&looked).await?;
        let last = times.last(&looked, clock::now());
        let attempt = || {
            let entry = self.catalog.entry(path)?;
            let repository = &entry.repository;
            let mut change = self.catalog.look(|memory| room::removal(memory, &entry));
            // A flip meanwhile kept its own.
            let last = last.filter(|last| last.generation == repository.generation);
            let kept = last.and_then(|last| times.keep_last(&repository.storage_id(), last));
            change.writes.extend(kept);
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

/// The time of the generation that follows what `entry` shows, of the time `last`, when that may be
/// shown. A path that never showed anything takes the commit's time. Errors: `Unavailable` when
/// `last` is too far ahead to wait for.
async fn first_moment(
    entry: &Repository,
    snapshot: &Snapshot,
    last: Option<GenerationTime>,
) -> Result<i64> {
    // A path that never showed anything has no last time to come after.
    let Some(GenerationTime { time: last, .. }) = last else {
        return Ok(snapshot.commit_time.min(clock::now()));
    };

    // The next time may be a little ahead of the clock. The wait is for the clock to catch up,
    // unless the last time is so far ahead that a clock must be wrong.
    loop {
        let now_ms = clock::now_ms();
        let time = next_time(last, now_ms);
        let ahead_ms = time.saturating_mul(1000).saturating_sub(now_ms);
        if ahead_ms <= AHEAD_MAX_MS {
            return Ok(time);
        }
        if ahead_ms > AHEAD_WAIT_MAX_MS {
            return Err(Error::unavailable(format!(
                "the last commit of {} was published {} s after now, by this router's clock; set \
                 the clocks of the routers right",
                entry.path,
                ahead_ms / 1000
            )));
        }
        let wait_ms = (ahead_ms - AHEAD_MAX_MS).unsigned_abs();
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
}

/// When the names in the root directory last changed, if `next` shows `snapshot` instead of what
/// `entry` shows, which is `last`; `None` = at the commit's time.
fn root_time(
    entry: &Repository,
    snapshot: &Snapshot,
    next: GenerationTime,
    last: Option<GenerationTime>,
) -> Option<i64> {
    let changed = snapshot.generations.map(|all| all.own());
    let last = last.filter(|last| Some(last.generation) == changed);
    let time = match (changed, last) {
        (_, Some(last)) => last.time,
        // As before.
        (Some(generation), None) if generation < next.generation => {
            let shown = entry.snapshot.as_ref();
            let time = entry.root_time;
            time.or(shown.map(|snapshot| snapshot.commit_time))
                .unwrap_or(next.time)
        }
        _ => next.time,
    };
    (time != snapshot.commit_time).then_some(time)
}

fn changed_meanwhile(entry: &Repository) -> Error {
    Error::refused(format!(
        "{} changed while it was being ingested; try again",
        entry.path
    ))
}

fn without_holder(entry: &Repository, node: &NodeId) -> Repository {
    let mut shrunk = entry.clone();
    shrunk.holders.retain(|holder| holder != node);
    shrunk
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn moment_after(entry: &Repository, snapshot: &Snapshot, time: i64) -> Result<i64> {
        let last = GenerationTime {
            generation: 1,
            time,
        };
        first_moment(entry, snapshot, Some(last)).await
    }

    #[tokio::test]
    async fn a_flip_waits_for_a_time_that_is_near_and_refuses_one_of_a_wrong_clock() {
        let entry = super::super::tests::entry("h/x");
        let snapshot = super::super::tests::a_snapshot();
        let now = clock::now();
        let near = moment_after(&entry, &snapshot, now + 3).await;
        assert_eq!(near.expect("it waits"), now + 4);
        assert!(clock::now() >= now + 2, "it waited");
        let far = moment_after(&entry, &snapshot, now + 3600).await;
        assert_eq!(far.expect_err("too far").kind, ErrorKind::Unavailable);
    }
}
