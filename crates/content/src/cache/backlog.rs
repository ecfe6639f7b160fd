//! What waits for the disk: served from memory until it is written, and bounded.
//!
//! Shared by the threads that take contents in, those that read, and the writer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use monofs_model::Oid;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::want::ChunkKey;

/// Bound of what waits for the writer; over it, content that a reader waits for is served without
/// being written.
pub const PENDING_BYTES_MAX: usize = 24 << 20;
/// Prefetching stops while more than this waits for the writer.
pub(super) const PENDING_BYTES_HIGH: usize = PENDING_BYTES_MAX / 2;
/// Most frames remembered as damaged.
const DISTRUST_MAX: usize = 4096;
/// Cost of an entry besides its bytes.
pub(super) const ENTRY_BYTES: usize = 96;

#[derive(Default)]
struct PendingWrites {
    trees: HashMap<Oid, Bytes>,
    chunks: HashMap<ChunkKey, Bytes>,
}

/// What waits for the disk, and what is known about the disk.
#[derive(Default)]
pub(super) struct Backlog {
    pending: Mutex<PendingWrites>,
    pending_bytes: AtomicUsize,
    /// Frames found damaged on disk, until they are written again.
    distrusted: RwLock<HashSet<ChunkKey>>,
    /// Told when something was written.
    room: Notify,
    last_error: Mutex<Option<String>>,
}

impl Backlog {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Acquire)
    }

    /// A record that waits.
    pub fn tree(&self, tree: &Oid) -> Option<Bytes> {
        self.pending.lock().trees.get(tree).cloned()
    }

    /// A frame that waits.
    pub fn chunk(&self, key: &ChunkKey) -> Option<Bytes> {
        self.pending.lock().chunks.get(key).cloned()
    }

    /// Takes room for something to be written; false when the writer is too far behind.
    fn reserve(&self, bytes: usize) -> bool {
        let bytes = bytes + ENTRY_BYTES;
        let before = self.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        if before > PENDING_BYTES_MAX {
            self.pending_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        true
    }

    /// Takes in a record to be written. False: the writer is too far behind.
    pub fn add_tree(&self, tree: Oid, bytes: &Bytes) -> bool {
        let is_taken = self.reserve(bytes.len());
        if is_taken {
            self.pending.lock().trees.insert(tree, bytes.clone());
        }
        is_taken
    }

    /// Takes in a frame to be written. False: the writer is too far behind.
    pub fn add_chunk(&self, key: ChunkKey, frame: &Bytes) -> bool {
        let is_taken = self.reserve(frame.len());
        if is_taken {
            self.pending.lock().chunks.insert(key, frame.clone());
        }
        is_taken
    }

    /// These were written, or refused by the disk; `bytes`: what they were counted as.
    pub fn remove<'a>(
        &self,
        trees: impl Iterator<Item = &'a Oid>,
        chunks: impl Iterator<Item = ChunkKey>,
        bytes: usize,
    ) {
        {
            let mut pending = self.pending.lock();
            for tree in trees {
                pending.trees.remove(tree);
            }
            for key in chunks {
                pending.chunks.remove(&key);
            }
        }
        self.pending_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.room.notify_waiters();
    }

    /// Waits until the writer has caught up enough for content that no reader waits for.
    pub async fn room(&self) {
        while self.bytes() > PENDING_BYTES_HIGH {
            let room = self.room.notified();
            if self.bytes() > PENDING_BYTES_HIGH {
                room.await;
            }
        }
    }

    /// Whether the frame on disk is known to be damaged.
    pub fn is_distrusted(&self, key: &ChunkKey) -> bool {
        self.distrusted.read().contains(key)
    }

    /// The frame on disk is damaged.
    pub fn distrust(&self, key: ChunkKey) {
        let mut distrusted = self.distrusted.write();
        if distrusted.len() < DISTRUST_MAX {
            distrusted.insert(key);
        }
    }

    /// These frames were written again.
    pub fn trust_again(&self, keys: impl Iterator<Item = ChunkKey>) {
        // Nearly always there is nothing to do, and readers are not to wait for it.
        if self.distrusted.read().is_empty() {
            return;
        }
        let mut distrusted = self.distrusted.write();
        for key in keys {
            distrusted.remove(&key);
        }
    }

    /// Why the last write failed, if it did.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Remembers how the last write went. Returns what was remembered before.
    pub fn set_last_error(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut *self.last_error.lock(), error)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(n: u8) -> ChunkKey {
        (Oid::from_bytes(&[n; 20]).unwrap(), u32::from(n))
    }

    #[test]
    fn what_waits_is_found_until_it_is_written_and_is_bounded() {
        let backlog = Backlog::default();
        let frame = Bytes::from(vec![0; PENDING_BYTES_MAX - ENTRY_BYTES]);
        assert!(backlog.add_chunk(key(1), &frame));
        assert!(backlog.add_tree(key(2).0, &Bytes::from_static(b"record")));
        assert!(
            !backlog.add_chunk(key(3), &frame),
            "the writer is too far behind"
        );
        assert!(backlog.chunk(&key(1)).is_some() && backlog.tree(&key(2).0).is_some());
        assert!(backlog.chunk(&key(3)).is_none());
        let bytes = backlog.bytes();
        backlog.remove([key(2).0].iter(), [key(1)].into_iter(), bytes);
        assert_eq!(backlog.bytes(), 0);
        assert!(backlog.chunk(&key(1)).is_none() && backlog.tree(&key(2).0).is_none());
    }

    #[tokio::test]
    async fn what_is_fetched_ahead_waits_for_room() {
        let backlog = Backlog::default();
        let frame = Bytes::from(vec![0; PENDING_BYTES_MAX - ENTRY_BYTES]);
        backlog.room().await;
        backlog.add_chunk(key(1), &frame);
        let bytes = backlog.bytes();
        tokio::join!(biased_room(&backlog), async {
            backlog.remove([].iter(), [key(1)].into_iter(), bytes);
        });
    }

    /// Is polled first, and so waits before anything is written.
    async fn biased_room(backlog: &Backlog) {
        assert!(backlog.bytes() > PENDING_BYTES_HIGH);
        backlog.room().await;
        assert_eq!(backlog.bytes(), 0);
    }

    #[test]
    fn a_damaged_frame_is_distrusted_until_it_is_written_again() {
        let backlog = Backlog::default();
        backlog.trust_again([key(1)].into_iter());
        backlog.distrust(key(1));
        backlog.distrust(key(2));
        backlog.trust_again([key(1)].into_iter());
        assert!(!backlog.is_distrusted(&key(1)) && backlog.is_distrusted(&key(2)));
    }
}
