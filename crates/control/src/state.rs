//! Where the control state lives: ordered keys with revisions, changed by compare-and-set, watched
//! by every router.
//!
//! From the bottom: [`store`] (the trait, and what it gives), its implementations [`embedded`] and
//! [`etcd`], [`measured`] around either, [`follow`] (this router's memory follows the store, and
//! [`SharedState::transact`] is the way to change it), [`table`] and [`tables`] (small typed rows
//! in memory).
//!
//! What no router needs in memory is kept aside, under keys that begin with [`ASIDE`]: it is
//! written by the same commits, but neither a scan of everything nor a watch brings it.

mod action;
mod embedded;
mod etcd;
mod follow;
mod measured;
mod store;
mod table;
mod tables;

use std::sync::Arc;

use monofs_model::Result;

use crate::location::StateLocation;
pub use action::{StateAction, StateVerb};
pub use embedded::EmbeddedState;
pub use etcd::EtcdState;
pub use follow::{SharedState, StateFollower, StateTransaction};
pub use measured::{MeasuredState, StateDurations};
pub use store::{ASIDE, CommitBatch, HeldKey, KeyEvent, StateStore};
pub use table::StateTable;
pub use tables::StateTables;

/// Opens the state store at `location`.
pub async fn open(location: &StateLocation) -> Result<Arc<dyn StateStore>> {
    match location {
        StateLocation::Embedded(dir) => Ok(Arc::new(EmbeddedState::open(dir.clone()).await?)),
        StateLocation::Etcd { endpoints, prefix } => {
            Ok(Arc::new(EtcdState::open(endpoints.clone(), prefix).await?))
        }
    }
}
