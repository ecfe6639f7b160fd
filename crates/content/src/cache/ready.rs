//! Contents as the kernel wants them: verified, decoded, and not asked for yet.
//!
//! Content is decoded to be verified when it arrives. It is kept decoded here until it is read, so
//! that reading it costs no second decoding, and so that the reader that waited for it gets it even
//! when the disk is too slow to take it. Once read to its end, a chunk is the kernel's to keep.
//! Bounded: the oldest goes first, and is then decoded again from its frame.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::want::ChunkKey;

/// Most bytes kept, over all shards.
pub const READY_BYTES_MAX: usize = 24 << 20;
const SHARDS: usize = 8;

#[derive(Default)]
struct ReadyShard {
    contents: HashMap<ChunkKey, Bytes>,
    /// In the order of arrival; what was taken meanwhile is still named.
    order: VecDeque<ChunkKey>,
    bytes: usize,
}

/// Decoded chunks.
#[derive(Default)]
pub struct ReadyChunks {
    shards: [Mutex<ReadyShard>; SHARDS],
}

impl ReadyChunks {
    fn shard(&self, (blob, index): &ChunkKey) -> MutexGuard<'_, ReadyShard> {
        // The chunks of one blob are spread, too.
        let at = blob.as_bytes()[1] as usize + *index as usize;
        self.shards[at % SHARDS].lock()
    }

    /// Takes in the verified bytes of a chunk.
    pub fn put(&self, key: ChunkKey, raw: Bytes) {
        let len = raw.len();
        let mut shard = self.shard(&key);
        let shard = &mut *shard;
        if shard.contents.insert(key, raw).is_some() {
            return;
        }
        shard.order.push_back(key);
        shard.bytes += len;
        // Names of what was taken are dropped on the way, so the order stays as short as the
        // contents are many.
        while shard.bytes > READY_BYTES_MAX / SHARDS
            || shard.order.len() > 2 * shard.contents.len() + 64
        {
            let Some(oldest) = shard.order.pop_front() else {
                break;
            };
            shard.bytes -= shard.contents.remove(&oldest).map_or(0, |raw| raw.len());
        }
    }

    /// The bytes of a chunk, if they are here.
    pub fn get(&self, key: &ChunkKey) -> Option<Bytes> {
        self.shard(key).contents.get(key).cloned()
    }

    /// Whether a chunk is here.
    pub fn has(&self, key: &ChunkKey) -> bool {
        self.shard(key).contents.contains_key(key)
    }

    /// The kernel has it now.
    pub fn drop_read(&self, key: &ChunkKey) {
        let mut shard = self.shard(key);
        if let Some(raw) = shard.contents.remove(key) {
            shard.bytes -= raw.len();
        }
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::Oid;

    use super::*;

    fn key(n: u32) -> ChunkKey {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id[1] = n as u8;
        (Oid::from_bytes(&id).unwrap(), n % 3)
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_stays() {
        let ready = ReadyChunks::default();
        let piece = Bytes::from(vec![7u8; 100_000]);
        for n in 0..2000 {
            ready.put(key(n), piece.clone());
            assert!(ready.get(&key(n)).is_some());
            assert!(ready.bytes() <= READY_BYTES_MAX);
        }
        assert!(ready.get(&key(0)).is_none());
    }

    #[test]
    fn what_was_read_is_gone_and_leaves_no_trace() {
        let ready = ReadyChunks::default();
        for n in 0..100_000 {
            ready.put(key(n), Bytes::from_static(b"x"));
            ready.put(key(n), Bytes::from_static(b"x"));
            ready.drop_read(&key(n));
            ready.drop_read(&key(n));
        }
        assert_eq!(ready.bytes(), 0);
        let named: usize = ready
            .shards
            .iter()
            .map(|shard| shard.lock().order.len())
            .sum();
        assert!(named <= SHARDS * 67, "{named}");
    }
}
