//! Snapshots that were replaced and may still be read: kept in the state store under keys of their
//! own, never in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use monofs_model::{NodeId, Repository, Result, Snapshot, StorageId};
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

    /// Snapshots that were replaced and not yet collected, with the revision that replaced them.
    /// Nothing if all of them were replaced after `expired_before`, seconds since the epoch: then
    /// the state store is not asked.
    pub async fn expired(&self, expired_before: i64) -> Result<Vec<(RetainedSnapshot, u64)>> {
        if self.oldest.load(Ordering::Acquire) > expired_before {
            return Ok(Vec::new());
        }
        // What is retained from here on lowers it again, after it is in the store.
        self.oldest.store(i64::MAX, Ordering::Release);
        let retained = self.all().await;
        let oldest = match &retained {
            Ok(all) => {
                let times = all.iter().map(|(retained, _)| retained.replaced_at);
                times.min().unwrap_or(i64::MAX)
            }
            Err(_) => i64::MIN,
        };
        self.oldest.fetch_min(oldest, Ordering::AcqRel);
        retained
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

/// The write that keeps `old`, which `repository` shows no more.
pub(super) fn retain(repository: &Repository, old: &Snapshot) -> Write {
    let retained = RetainedSnapshot {
        path: repository.path.clone(),
        snapshot: old.clone(),
        holders: repository.holders.clone(),
        generation: repository.generation,
        replaced_at: clock::now(),
    };
    Write::Put {
        key: retained_key(&repository.storage_id(), &old.commit),
        value: encode_retained(repository, &retained),
    }
}
