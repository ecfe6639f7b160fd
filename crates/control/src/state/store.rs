//! What a state store is, and what it gives: scans, commits, watches and held keys.
//!
//! Below every implementation and every user. Invariants of an implementation: a commit is atomic
//! and durable when it returns; revisions only grow, also over restarts; another epoch means that
//! the history was lost; a watch gives every commit after its start, whole and in order, or ends
//! with an error.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use monofs_model::Result;
use monofs_store::state::{CommitOutcome, Compare, Scan, Versioned, Write};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The first characters of keys that are kept aside: they are read on demand alone, by a scan of a
/// prefix that begins so.
pub const ASIDE: &str = "aside/";

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvent {
    pub key: Vec<u8>,
    /// `None` = it was deleted.
    pub value: Option<Versioned>,
}

/// Everything that one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitBatch {
    pub revision: u64,
    pub events: Vec<KeyEvent>,
}

/// A key that is there as long as this process holds it. Dropping it releases it, at once or when
/// its time to live is over.
#[derive(Debug)]
pub struct HeldKey {
    /// Cancelled when the key is held no longer although this process did not release it.
    pub lost: CancellationToken,
    /// Its end tells the store's task to release the key.
    pub guard: DropGuard,
    /// Cancelled when the store's task has ended, with or without success.
    pub gone: CancellationToken,
}

impl HeldKey {
    /// Releases the key and waits until that is done, for `limit` at most: after that the key goes
    /// when its time to live is over.
    pub async fn release(self, limit: Duration) {
        drop(self.guard);
        // Late: see above.
        let _ = tokio::time::timeout(limit, self.gone.cancelled()).await;
    }
}

/// The control state; see the module. Errors: `Unavailable` when the store is away (reads go on
/// from memory).
#[async_trait]
pub trait StateStore: Send + Sync {
    /// All keys that start with `prefix`, in order, and the revision at which that was so. An empty
    /// prefix means everything but what is kept aside.
    async fn scan(&self, prefix: &str) -> Result<Scan>;
    /// Writes everything if every comparison holds, else nothing. Watches need not hear of a commit
    /// of what is kept aside alone.
    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome>;
    /// Every commit after `revision`, in order. Errors: `NotHeld` (also as an item) when the
    /// history does not reach back that far: scan again.
    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<CommitBatch>>>;
    /// Creates `key` for as long as this process lives and holds it; it goes at most `ttl` after
    /// the process ended or was cut off. `None`: another process holds it.
    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<HeldKey>>;
    /// Whether changes can be made now. Errors: `Unavailable`.
    async fn reach(&self) -> Result<()>;
    /// Names this history, as of the last scan of everything.
    fn epoch(&self) -> String;
    /// Whether there may be other routers on it.
    fn is_shared(&self) -> bool;
}
