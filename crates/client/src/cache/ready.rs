//! Contents as the kernel wants them: verified, decoded, and not asked for yet.
//!
//! Content is decoded to be verified when it arrives. What was fetched ahead is kept decoded here until it is read, so that
//! reading it costs no second decoding. Once read to its end, it is the kernel's to keep. Bounded: the oldest goes first, and
//! is then decoded again from its frame.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use monofs_model::Oid;

/// Most bytes kept, over all shards.
pub const READY_BYTES_MAX: usize = 40 << 20;
const SHARDS: usize = 8;

#[derive(Default)]
struct Shard {
    contents: HashMap<Oid, Bytes>,
    /// In the order of arrival; what was taken meanwhile is still named.
    order: VecDeque<Oid>,
    bytes: usize,
}

/// Decoded contents of files of one chunk.
#[derive(Default)]
pub struct Ready {
    shards: [Mutex<Shard>; SHARDS],
}

impl Ready {
    fn shard(&self, blob: &Oid) -> MutexGuard<'_, Shard> {
        self.shards[blob.as_bytes()[1] as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the verified bytes of a whole blob.
    pub fn put(&self, blob: Oid, raw: Bytes) {
        let len = raw.len();
        let mut shard = self.shard(&blob);
        let shard = &mut *shard;
        if shard.contents.insert(blob, raw).is_some() {
            return;
        }
        shard.order.push_back(blob);
        shard.bytes += len;
        // Names of what was taken are dropped on the way, so the order stays as short as the contents are many.
        while shard.bytes > READY_BYTES_MAX / SHARDS || shard.order.len() > 2 * shard.contents.len() + 64 {
            let Some(oldest) = shard.order.pop_front() else { break };
            shard.bytes -= shard.contents.remove(&oldest).map_or(0, |raw| raw.len());
        }
    }

    /// The bytes of a blob, if they are here.
    pub fn get(&self, blob: &Oid) -> Option<Bytes> {
        self.shard(blob).contents.get(blob).cloned()
    }

    /// The kernel has them now.
    pub fn drop_read(&self, blob: &Oid) {
        let mut shard = self.shard(blob);
        if let Some(raw) = shard.contents.remove(blob) {
            shard.bytes -= raw.len();
        }
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn oid(n: u32) -> Oid {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&n.to_be_bytes());
        id[1] = n as u8;
        Oid::from_bytes(&id).unwrap()
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_newest_stays() {
        let ready = Ready::default();
        let piece = Bytes::from(vec![7u8; 100_000]);
        for n in 0..2000 {
            ready.put(oid(n), piece.clone());
            assert!(ready.get(&oid(n)).is_some());
            assert!(ready.bytes() <= READY_BYTES_MAX);
        }
        assert!(ready.get(&oid(0)).is_none());
    }

    #[test]
    fn what_was_read_is_gone_and_leaves_no_trace() {
        let ready = Ready::default();
        for n in 0..100_000 {
            ready.put(oid(n), Bytes::from_static(b"x"));
            ready.put(oid(n), Bytes::from_static(b"x"));
            ready.drop_read(&oid(n));
            ready.drop_read(&oid(n));
        }
        assert_eq!(ready.bytes(), 0);
        let named: usize = ready.shards.iter().map(|shard| shard.lock().unwrap().order.len()).sum();
        assert!(named <= SHARDS * 67, "{named}");
    }
}
