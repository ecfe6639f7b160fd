//! Snapshots that were replaced and may still be read: kept in the state store under keys of their
//! own, never in memory.

use std::sync::atomic::Ordering;

use monofs_model::{NodeId, Repository, Result, Snapshot, StorageId};
use monofs_store::state::{Compare, Scan, Versioned, Write};

use super::Catalog;
use super::entry::{self, RETAINED_PREFIX, Retained, retained_key};
use crate::clock;

impl Catalog {
    /// Whether a replaced snapshot of this repository is still readable on `node`.
    pub async fn is_retained_on(&self, id: &StorageId, node: &NodeId) -> Result<bool> {
        let scan = self
            .shared
            .store()
            .scan(&format!("{RETAINED_PREFIX}{id}/"))
            .await?;
        for (_, versioned) in &scan.rows {
            if entry::decode_retained(&versioned.value)?
                .holders
                .contains(node)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Snapshots that were replaced and not yet collected, with the revision that replaced them.
    /// Nothing if all of them were replaced after `expired_before`, seconds since the epoch: then
    /// the state store is not asked.
    pub async fn retained(&self, expired_before: i64) -> Result<Vec<(Retained, u64)>> {
        if self.oldest_retained.load(Ordering::Acquire) > expired_before {
            return Ok(Vec::new());
        }
        // What is retained from here on lowers it again, after it is in the store.
        self.oldest_retained.store(i64::MAX, Ordering::Release);
        let rows = match self.shared.store().scan(RETAINED_PREFIX).await {
            Ok(Scan { rows, .. }) => rows,
            Err(error) => {
                self.oldest_retained.store(i64::MIN, Ordering::Release);
                return Err(error);
            }
        };
        let decoded = |versioned: &Versioned| {
            Ok((
                entry::decode_retained(&versioned.value)?,
                versioned.revision,
            ))
        };
        let retained: Result<Vec<_>> = rows
            .iter()
            .map(|(_, versioned)| decoded(versioned))
            .collect();
        let oldest = retained.as_ref().map_or(i64::MIN, |all| {
            all.iter()
                .map(|(retained, _)| retained.replaced_at)
                .min()
                .unwrap_or(i64::MAX)
        });
        self.oldest_retained.fetch_min(oldest, Ordering::AcqRel);
        retained
    }

    /// Forgets a retained snapshot, after nodes collected it. A no-op when it was replaced again
    /// meanwhile.
    pub async fn forget_retained(&self, retained: &Retained, revision: u64) -> Result<()> {
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

/// The write that keeps `old`, which `repository` shows no more.
pub(super) fn retain(repository: &Repository, old: &Snapshot) -> Write {
    let retained = Retained {
        path: repository.path.clone(),
        snapshot: old.clone(),
        holders: repository.holders.clone(),
        generation: repository.generation,
        replaced_at: clock::now(),
    };
    Write::Put {
        key: retained_key(&repository.storage_id(), &old.commit),
        value: entry::encode_retained(repository, &retained),
    }
}
