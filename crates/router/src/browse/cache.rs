//! The directory records that were looked at last, in memory.

use monofs_model::tree::TreeRecord;
use monofs_model::{Oid, StorageId};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

/// Bytes of records that are kept.
pub(super) const BYTES_MAX: usize = 64 << 20;
/// How many of them are expected.
const RECORDS_EXPECTED: usize = 512;
/// What a record takes besides its own bytes.
const ENTRY_BYTES: usize = 128;
/// Records that are fetched at the same time; more wait.
const FETCHES_MAX: usize = 8;

/// The records looked at last. The repository is part of the key, so that rights can be checked
/// later.
pub struct RecordCache {
    pub(super) kept: Cache<(StorageId, Oid), TreeRecord, ByBytes>,
    pub(super) fetches: Semaphore,
}

#[derive(Clone)]
pub(super) struct ByBytes;

impl Weighter<(StorageId, Oid), TreeRecord> for ByBytes {
    fn weight(&self, _: &(StorageId, Oid), record: &TreeRecord) -> u64 {
        (record.bytes().len() + ENTRY_BYTES) as u64
    }
}

impl Default for RecordCache {
    fn default() -> Self {
        let kept = Cache::with_weighter(RECORDS_EXPECTED, BYTES_MAX as u64, ByBytes);
        Self {
            kept,
            fetches: Semaphore::new(FETCHES_MAX),
        }
    }
}
