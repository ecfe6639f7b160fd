//! Snapshots that were replaced and may still be read, or were given to nodes and not published:
//! kept in the state store under keys of their own, never in memory.
//!
//! Invariant: a row names every node that was given its commit, or was a holder of it, and is not
//! recorded as a holder now. It is written before the node is given the commit, or when the commit
//! is replaced; a node goes off it in the commit that records it as a holder. A node that had the
//! commit before, for a reason that this state does not know, is not named.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use monofs_model::{ErrorKind, NodeId, Repository, Result, Snapshot, StorageId};
use monofs_store::state::{Compare, Scan, Versioned, Write};

use super::entry::{
    RETAINED_PREFIX, RetainedSnapshot, decode_retained, encode_retained, retained_key,
};
use crate::clock;
use crate::state::{CommitBatch, SharedState, StateFollower};

/// Replaced snapshots of each repository that has some.
pub type RetainedById = HashMap<StorageId, Vec<RetainedSnapshot>>;

/// Snapshots that were replaced and may still be read.
pub struct RetainedSnapshots {
    shared: Arc<SharedState>,
    /// When the oldest one was replaced, seconds since the epoch; none is older. `i64::MIN` = that
    /// is not known, `i64::MAX` = there is none.
    oldest: AtomicI64,
}

/// What a look at the store finds to be the oldest, taken over however the look ends: one that fails
/// or is given up leaves it unknown.
struct OldestFound<'a> {
    oldest: &'a AtomicI64,
    found: i64,
}

impl Drop for OldestFound<'_> {
    fn drop(&mut self) {
        self.oldest.fetch_min(self.found, Ordering::AcqRel);
    }
}

impl RetainedSnapshots {
    /// Nothing is known of them yet; it follows when `shared` is started with it.
    pub fn new(shared: &Arc<SharedState>) -> Self {
        Self {
            shared: shared.clone(),
            oldest: AtomicI64::new(i64::MIN),
        }
    }

    /// Whether a replaced snapshot of this repository is still readable on `node`.
    pub async fn is_on(&self, id: &StorageId, node: &NodeId) -> Result<bool> {
        let prefix = format!("{RETAINED_PREFIX}{id}/");
        for (_, versioned) in &self.shared.store().scan(&prefix).await?.rows {
            let retained = decode_retained(&versioned.value)?;
            if retained.holders.contains(node) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Snapshots that were replaced and not yet collected, by repository: of `only`, or of all of
    /// them. Those of a repository that was deleted are the evidence that it was.
    pub async fn of(&self, only: Option<&StorageId>) -> Result<RetainedById> {
        let prefix = match only {
            Some(id) => format!("{RETAINED_PREFIX}{id}/"),
            None => RETAINED_PREFIX.to_owned(),
        };
        let mut found = RetainedById::new();
        for (_, versioned) in &self.shared.store().scan(&prefix).await?.rows {
            let retained = decode_retained(&versioned.value)?;
            let id = retained.path.storage_id();
            found.entry(id).or_default().push(retained);
        }
        Ok(found)
    }

    /// The rows of one repository. Errors: the state store's.
    pub(super) async fn rows(&self, id: &StorageId) -> Result<Vec<RetainedSnapshot>> {
        match self.of(Some(id)).await {
            Err(error) if error.kind == ErrorKind::Unavailable => Err(self.shared.refused(error)),
            rows => Ok(rows?.remove(id).unwrap_or_default()),
        }
    }

    /// Snapshots that were replaced and not yet collected, with the revision that replaced them.
    /// Nothing if all of them were replaced after `expired_before`, seconds since the epoch: then
    /// the state store is not asked.
    pub async fn expired(&self, expired_before: i64) -> Result<Vec<(RetainedSnapshot, u64)>> {
        if self.oldest.load(Ordering::Acquire) > expired_before {
            return Ok(Vec::new());
        }
        // What is retained from here on lowers it again, after it is in the store.
        self.oldest.store(i64::MAX, Ordering::Release);
        let mut found = OldestFound {
            oldest: &self.oldest,
            found: i64::MIN,
        };
        let retained = self.all().await?;
        let times = retained.iter().map(|(retained, _)| retained.replaced_at);
        found.found = times.min().unwrap_or(i64::MAX);
        Ok(retained)
    }

    async fn all(&self) -> Result<Vec<(RetainedSnapshot, u64)>> {
        let Scan { rows, .. } = self.shared.store().scan(RETAINED_PREFIX).await?;
        let decoded = rows.iter().map(|(_, Versioned { value, revision })| {
            let retained = decode_retained(value)?;
            Ok((retained, *revision))
        });
        decoded.collect()
    }

    /// Forgets a retained snapshot, after nodes collected it. A no-op when it was replaced again
    /// meanwhile.
    pub async fn forget(&self, retained: &RetainedSnapshot, revision: u64) -> Result<()> {
        let key = retained_key(&retained.path.storage_id(), &retained.snapshot.commit);
        let compares = vec![Compare {
            key: key.clone(),
            revision,
        }];
        self.shared
            .store()
            .commit(compares, vec![Write::Delete { key }])
            .await
            .map(drop)
    }
}

impl StateFollower for RetainedSnapshots {
    fn load(&self, _: &Scan) -> Result<()> {
        // What was retained while nothing was followed is not known.
        self.oldest.store(i64::MIN, Ordering::Release);
        Ok(())
    }

    fn apply(&self, batch: &CommitBatch) -> Result<()> {
        for event in &batch.events {
            if event.key.starts_with(RETAINED_PREFIX.as_bytes())
                && let Some(versioned) = &event.value
            {
                let retained = decode_retained(&versioned.value)?;
                self.oldest
                    .fetch_min(retained.replaced_at, Ordering::AcqRel);
            }
        }
        Ok(())
    }
}

/// The write that keeps `old`, which `repository` shows no more, on its holders and on the nodes
/// that `rows` name for it.
pub(super) fn retain(repository: &Repository, old: &Snapshot, rows: &[RetainedSnapshot]) -> Write {
    let named = rows.iter().filter(|row| row.snapshot.commit == old.commit);
    let holders = repository.holders.iter();
    let retained = RetainedSnapshot {
        path: repository.path.clone(),
        snapshot: old.clone(),
        holders: union(holders.chain(named.flat_map(|row| &row.holders))),
        generation: repository.generation,
        replaced_at: clock::now(),
    };
    row_of(repository, &retained)
}

/// The write that names `nodes` as some that are given `snapshot`, beside those that `rows` name for
/// it; `None` when they name all of them.
pub(super) fn name_given(
    repository: &Repository,
    snapshot: &Snapshot,
    nodes: &[NodeId],
    rows: &[RetainedSnapshot],
) -> Option<Write> {
    let known = rows
        .iter()
        .find(|row| row.snapshot.commit == snapshot.commit);
    let named = known.map_or(&[][..], |row| &row.holders);
    if nodes.iter().all(|node| named.contains(node)) {
        return None;
    }
    let retained = RetainedSnapshot {
        path: repository.path.clone(),
        snapshot: snapshot.clone(),
        holders: union(named.iter().chain(nodes)),
        generation: repository.generation,
        replaced_at: known.map_or_else(clock::now, |row| row.replaced_at),
    };
    Some(row_of(repository, &retained))
}

/// The write that takes `holder` off the nodes that `rows` name for the commit that `repository`
/// shows, since it is recorded as a holder by the same commit.
pub(super) fn name_no_more(
    repository: &Repository,
    holder: &NodeId,
    rows: &[RetainedSnapshot],
) -> Option<Write> {
    let shown = repository.snapshot.as_ref()?;
    let row = rows
        .iter()
        .find(|row| row.snapshot.commit == shown.commit)?;
    let mut left = row.clone();
    left.holders.retain(|node| node != holder);
    if left.holders.is_empty() {
        let key = retained_key(&repository.storage_id(), &shown.commit);
        return Some(Write::Delete { key });
    }
    (left.holders.len() < row.holders.len()).then(|| row_of(repository, &left))
}

fn row_of(repository: &Repository, retained: &RetainedSnapshot) -> Write {
    Write::Put {
        key: retained_key(&repository.storage_id(), &retained.snapshot.commit),
        value: encode_retained(repository, retained),
    }
}

fn union<'a>(nodes: impl Iterator<Item = &'a NodeId>) -> Vec<NodeId> {
    let distinct: BTreeSet<&NodeId> = nodes.collect();
    distinct.into_iter().cloned().collect()
}
