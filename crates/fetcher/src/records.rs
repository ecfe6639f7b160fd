//! Directory records in memory, bounded by bytes, and the breadth-first closures that `GetTrees`
//! streams.

use std::collections::{HashSet, VecDeque};

use monofs_model::{Oid, Result, StorageId, TreeRecord};
use monofs_rpc::metrics::Counter;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::objects::ObjectReader;
use crate::walk;

/// Bytes that an entry of the cache takes beside its record.
const ENTRY_BYTES: u64 = 160;
/// Records that the cache is laid out for; more fit when they are small.
const ENTRIES_ESTIMATED: usize = 1 << 16;
/// Most trees that one closure may hold.
const CLOSURE_TREES_MAX: usize = 20_000_000;

type Key = (StorageId, Oid);

#[derive(Clone)]
struct RecordWeight;

impl Weighter<Key, TreeRecord> for RecordWeight {
    fn weight(&self, _key: &Key, record: &TreeRecord) -> u64 {
        record.bytes().len() as u64 + ENTRY_BYTES
    }
}

/// Records of all repositories. What is not here is computed again from the objects.
pub struct EncodedRecords {
    cache: Cache<Key, TreeRecord, RecordWeight>,
    /// Records asked for that were here, and that were computed.
    pub hits: Counter,
    pub misses: Counter,
}

impl EncodedRecords {
    /// A cache of at most `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self {
            cache: Cache::with_weighter(ENTRIES_ESTIMATED, bytes.max(1), RecordWeight),
            hits: Counter::default(),
            misses: Counter::default(),
        }
    }

    /// Bytes of records, with what an entry takes besides.
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// The bound of [`EncodedRecords::bytes`].
    pub fn bytes_max(&self) -> u64 {
        self.cache.capacity()
    }

    /// Keeps a record, as long as there is room.
    pub fn keep(&self, id: &StorageId, oid: &Oid, record: &TreeRecord) {
        self.cache.insert((id.clone(), *oid), record.clone());
    }

    /// The record of a tree; `None` when the repository does not have it.
    pub fn get(
        &self,
        id: &StorageId,
        oid: &Oid,
        objects: &ObjectReader,
    ) -> Result<Option<TreeRecord>> {
        let key = (id.clone(), *oid);
        if let Some(record) = self.cache.get(&key) {
            self.hits.one();
            return Ok(Some(record));
        }
        self.misses.one();
        let record = walk::record(objects, oid)?;
        if let Some(record) = &record {
            self.cache.insert(key, record.clone());
        }
        Ok(record)
    }
}

/// A closure to walk.
#[derive(Debug, Clone)]
pub struct TreeClosure {
    /// Always answered when held.
    pub roots: Vec<Oid>,
    /// Bytes of records below the roots that may be added.
    pub byte_budget: u64,
    /// Levels: 1 = the roots alone, 0 = no limit.
    pub depth: u32,
}

/// One answer of a closure.
pub enum ClosureItem {
    Record(Oid, TreeRecord),
    Missing(Oid),
}

impl TreeClosure {
    /// Hands the roots and then, breadth first, what the budget allows to `give` until it says
    /// false.
    pub fn walk(
        &self,
        id: &StorageId,
        records: &EncodedRecords,
        objects: &ObjectReader,
        give: &mut dyn FnMut(ClosureItem) -> bool,
    ) -> Result<()> {
        // The queue begins with the roots, each once.
        let mut seen: HashSet<Oid> = HashSet::new();
        let mut queue: VecDeque<(Oid, u32)> = self
            .roots
            .iter()
            .filter(|oid| seen.insert(**oid))
            .map(|oid| (*oid, 1))
            .collect();
        let roots = queue.len();
        let mut left = self.byte_budget;
        let mut done = 0;
        while let Some((oid, level)) = queue.pop_front() {
            let is_root = done < roots;
            done += 1;
            let Some(record) = records.get(id, &oid, objects)? else {
                if !give(ClosureItem::Missing(oid)) {
                    return Ok(());
                }
                continue;
            };
            // Records below the roots are paid for out of the budget.
            if !is_root {
                match left.checked_sub(record.bytes().len() as u64) {
                    Some(rest) => left = rest,
                    None => return Ok(()),
                }
            }
            // Directories below are answered later, level by level.
            let below = self.byte_budget > 0 && (self.depth == 0 || level < self.depth);
            if below && seen.len() < CLOSURE_TREES_MAX {
                queue.extend(
                    walk::children(&record)
                        .into_iter()
                        .filter(|oid| seen.insert(*oid))
                        .map(|oid| (oid, level + 1)),
                );
            }
            if !give(ClosureItem::Record(oid, record)) {
                return Ok(());
            }
        }
        Ok(())
    }
}
