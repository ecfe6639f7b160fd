//! How much of each snapshot's contents this node holds, without looking at every file at each
//! question.
//!
//! ```text
//! unknown --count (one walk)--> counted --add (per batch pulled)--> counted --complete--> all
//!    ^_______________ forget: a batch broke off, so what it stored is unknown
//! ```
//!
//! Invariants: only a walk says that all is held, `count` or the hydrator's that found nothing
//! missing; what was added since the count never sums up to all, whatever readers pull beside the
//! hydrator; a count that was dropped from the table (its snapshot is gone) is never asked again.
//!
//! Callers: `hydrate` counts and adds, `service::node` asks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use monofs_model::{Oid, Result, Snapshot, StorageId};
use monofs_store::repo::{BlobWalk, RepoStore};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::blocking::blocking;

/// Files looked at per view of the database while counting.
const COUNT_STEP: usize = 65_536;

/// The counts of all snapshots that were asked for or hydrated since the start.
#[derive(Default)]
pub(crate) struct HydratedCounts {
    by_repository: Mutex<HashMap<StorageId, HashMap<Oid, Arc<HydratedCount>>>>,
}

/// One snapshot's contents.
#[derive(Default)]
pub(crate) struct HydratedCount {
    /// Held when they were counted.
    counted: OnceCell<u64>,
    /// Pulled since then.
    added: AtomicU64,
    complete: AtomicBool,
}

impl HydratedCounts {
    /// The count of a snapshot.
    pub fn of(&self, id: &StorageId, commit: &Oid) -> Arc<HydratedCount> {
        self.by_repository
            .lock()
            .entry(id.clone())
            .or_default()
            .entry(*commit)
            .or_default()
            .clone()
    }

    /// The next question about this snapshot counts anew.
    pub fn forget(&self, id: &StorageId, commit: &Oid) {
        if let Some(counts) = self.by_repository.lock().get_mut(id) {
            counts.remove(commit);
        }
    }

    /// Only these snapshots of a repository are left.
    pub fn retain(&self, id: &StorageId, commits: &[Oid]) {
        let mut all = self.by_repository.lock();
        match all.get_mut(id) {
            Some(_) if commits.is_empty() => drop(all.remove(id)),
            Some(counts) => counts.retain(|commit, _| commits.contains(commit)),
            None => {}
        }
    }
}

impl HydratedCount {
    /// Distinct blobs of `snapshot` that are held. The first call walks the snapshot; others wait
    /// for it.
    pub async fn held(&self, store: &Arc<RepoStore>, snapshot: &Snapshot) -> Result<u64> {
        if self.is_complete() {
            return Ok(snapshot.blobs);
        }
        let counted = *self
            .counted
            .get_or_try_init(|| {
                let store = store.clone();
                let root = snapshot.root;
                blocking(move || count_held(&store, root))
            })
            .await?;
        Ok(match self.added.load(Ordering::Relaxed) {
            _ if self.is_complete() => snapshot.blobs,
            0 => counted.min(snapshot.blobs),
            added => (counted + added).min(snapshot.blobs.saturating_sub(1)),
        })
    }

    /// This many more are held.
    pub fn add(&self, blobs: usize) {
        self.added.fetch_add(blobs as u64, Ordering::Relaxed);
    }

    /// A walk found nothing missing.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }
}

/// Distinct blobs below `root` that are held, by one walk. Blocking. Ids are told apart by their
/// first 64 bits, which keeps a million of them at 20 MB; a figure for people, which decides
/// nothing.
pub(crate) fn count_held(store: &RepoStore, root: Oid) -> Result<u64> {
    if store.counts()?.blobs == 0 {
        return Ok(0);
    }
    let mut seen: HashSet<u64> = HashSet::new();
    let mut walk = BlobWalk::new(root);
    while walk.next_held(&store.read()?, COUNT_STEP, |oid, _| {
        seen.insert(id_prefix(oid));
    })? {}
    Ok(seen.len() as u64)
}

/// The first 64 bits of an id.
fn id_prefix(oid: &Oid) -> u64 {
    oid.as_bytes()
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
