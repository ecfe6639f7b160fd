//! Where the control state lives: ordered keys with revisions, changed by compare-and-set.
//!
//! Invariants: a commit is atomic and durable when it returns; revisions only grow, also over restarts; another epoch
//! means that the history was lost.

mod embedded;

use std::sync::Arc;

use async_trait::async_trait;
use monofs_model::Result;
use monofs_store::state::{CommitOutcome, Compare, Scan, Write};

use crate::config::StateLocation;
pub use embedded::EmbeddedState;

/// The control state; see the module. Errors: `Unavailable` when the store is away (reads go on from memory).
#[async_trait]
pub trait StateStore: Send + Sync {
    /// All keys that start with `prefix`, in order, and the revision at which that was so.
    async fn scan(&self, prefix: &str) -> Result<Scan>;
    /// Writes everything if every comparison holds, else nothing.
    async fn commit(&self, compares: Vec<Compare>, writes: Vec<Write>) -> Result<CommitOutcome>;
    /// Names this history.
    fn epoch(&self) -> &str;
}

/// Opens the state store at `location`.
pub async fn open(location: &StateLocation) -> Result<Arc<dyn StateStore>> {
    match location {
        StateLocation::Embedded(dir) => Ok(Arc::new(EmbeddedState::open(dir.clone()).await?)),
    }
}
