//! What was fetched ahead and not used yet, so that waste shows and prefetching keeps step with its
//! readers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::Oid;
use parking_lot::Mutex;

use crate::counters::Counters;
use crate::want::Span;

/// Most blobs marked; beyond, those of a whole shard are counted as wasted.
const MARKS_MAX: usize = 1 << 17;
const SHARDS: usize = 16;

/// Blobs that were fetched ahead and not used yet.
pub struct Marks {
    counters: Arc<Counters>,
    shards: [Mutex<HashMap<Oid, u64>>; SHARDS],
    waiting_bytes: AtomicU64,
    used_bytes: AtomicU64,
}

impl Marks {
    /// Nothing is marked.
    pub fn new(counters: Arc<Counters>) -> Arc<Self> {
        let shards = std::array::from_fn(|_| Mutex::default());
        Arc::new(Self {
            counters,
            shards,
            waiting_bytes: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
        })
    }

    fn shard(&self, blob: &Oid) -> &Mutex<HashMap<Oid, u64>> {
        &self.shards[blob.as_bytes()[0] as usize % SHARDS]
    }

    /// These blobs are being fetched ahead. What follows in a large one whose reading has begun is
    /// not marked.
    pub fn mark(&self, spans: &[Span]) {
        for span in spans.iter().filter(|span| span.first == 0) {
            let mut shard = self.shard(&span.blob).lock();
            if shard.len() >= MARKS_MAX / SHARDS {
                self.counters.prefetch_wasted.add(shard.len() as u64);
                self.waiting_bytes
                    .fetch_sub(shard.drain().map(|(_, size)| size).sum(), Ordering::Relaxed);
            }
            let bytes = span.bytes();
            if let Entry::Vacant(mark) = shard.entry(span.blob) {
                mark.insert(bytes);
                self.counters.prefetched.one();
                self.counters.prefetched_bytes.add(bytes);
                self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Somebody read this blob.
    pub fn used(&self, blob: &Oid) {
        let size = self.shard(blob).lock().remove(blob);
        if let Some(size) = size {
            self.counters.prefetch_used.one();
            self.waiting_bytes.fetch_sub(size, Ordering::Relaxed);
            self.used_bytes.fetch_add(size, Ordering::Relaxed);
        }
    }

    /// Bytes fetched ahead and not used so far.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Bytes fetched ahead and used since the start.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Blobs fetched ahead and not used so far.
    pub fn outstanding(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn use_and_waste_add_up() {
        let counters = Arc::new(Counters::default());
        let marks = Marks::new(counters.clone());
        let span = |n: u32| {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_le_bytes());
            Span {
                blob: Oid::from_bytes(&id).unwrap(),
                size: 10,
                first: 0,
                count: 1,
            }
        };
        marks.mark(&[span(1), span(2), span(1)]);
        marks.used(&span(1).blob);
        marks.used(&span(1).blob);
        marks.used(&span(3).blob);
        assert_eq!(
            (
                marks.outstanding(),
                marks.waiting_bytes(),
                marks.used_bytes()
            ),
            (1, 10, 10)
        );
        // However much is marked, the table stays bounded and nothing is counted twice.
        let many: Vec<Span> = (0..3 * MARKS_MAX as u32)
            .map(|n| span(n << 8 | 7))
            .collect();
        marks.mark(&many);
        assert!(marks.outstanding() <= MARKS_MAX);
        assert_eq!(marks.waiting_bytes(), 10 * marks.outstanding() as u64);
        assert_eq!(
            counters.prefetched.get(),
            counters.prefetch_used.get()
                + counters.prefetch_wasted.get()
                + marks.outstanding() as u64
        );
    }
}
