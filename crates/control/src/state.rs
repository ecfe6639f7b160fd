//! Where the control state lives: ordered keys with revisions, changed by compare-and-set, watched
//! by every router.
//!
//! Invariants: a commit is atomic and durable when it returns; revisions only grow, also over
//! restarts; another epoch means that the history was lost; a watch gives every commit after its
//! start, whole and in order, or ends with an error.
//!
//! What no router needs in memory is kept aside, under keys that begin with [`ASIDE`]: it is
//! written by the same commits, but neither a scan of everything nor a watch brings it.

mod embedded;
mod etcd;
mod follow;
mod measured;
mod table;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use monofs_model::Result;
use monofs_store::state::{CommitOutcome, Compare, Scan, Versioned, Write};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::location::StateLocation;
pub use embedded::EmbeddedState;
pub use etcd::EtcdState;
pub use follow::{Follower, SharedState};
pub use measured::{MeasuredState, StateDurations};
pub use table::{Table, Tables};

/// How the keys begin of what is only read when somebody asks for it, by a scan of a prefix that
/// begins so.
pub const ASIDE: &str = "aside/";

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub key: Vec<u8>,
    /// `None` = it was deleted.
    pub value: Option<Versioned>,
}

/// Everything that one commit changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub revision: u64,
    pub events: Vec<Event>,
}

/// A key that is there as long as this process holds it: dropping it lets it go, at once or when
/// its time is over.
#[derive(Debug)]
pub struct Hold {
    /// Cancelled when the key is held no longer, although nobody let it go.
    pub lost: CancellationToken,
    /// Tells the store's task to let go.
    pub release: DropGuard,
    /// Cancelled when the store's task has ended, with or without success.
    pub gone: CancellationToken,
}

impl Hold {
    /// Lets go and waits until that is done, for `limit` at most: then the key goes when its time
    /// is over.
    pub async fn let_go(self, limit: Duration) {
        drop(self.release);
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
    async fn watch(&self, revision: u64) -> Result<BoxStream<'static, Result<Batch>>>;
    /// Creates `key` for as long as this process lives and holds it; it goes at most `ttl` after
    /// the process ended or was cut off. `None`: somebody else holds it.
    async fn hold(&self, key: &str, value: Vec<u8>, ttl: Duration) -> Result<Option<Hold>>;
    /// Whether changes can be made now. Errors: `Unavailable`.
    async fn reach(&self) -> Result<()>;
    /// Names this history, as of the last scan of everything.
    fn epoch(&self) -> String;
    /// Whether there may be other routers on it.
    fn is_shared(&self) -> bool;
}

/// Opens the state store at `location`.
pub async fn open(location: &StateLocation) -> Result<Arc<dyn StateStore>> {
    match location {
        StateLocation::Embedded(dir) => Ok(Arc::new(EmbeddedState::open(dir.clone()).await?)),
        StateLocation::Etcd { endpoints, prefix } => {
            Ok(Arc::new(EtcdState::open(endpoints.clone(), prefix).await?))
        }
    }
}
