//! The catalogue as this mount follows it: the watch stream of a router, and the one task that applies what it says.
//!
//! ```text
//! watch (one router at a time, reconnects) --changes--> apply (flips, invalidations) --position--> watch (acknowledges)
//!                                                          |
//!                                                          +--> copy on disk, for a start without any router
//! ```
//!
//! Invariant: a position is acknowledged only when everything up to it is shown and the kernel has been told.

pub mod apply;
mod copy;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use monofs_model::Result;
use monofs_proto::v1;

use crate::packed::{self, Packed};

/// A batch of changes that is to be applied as a whole.
#[derive(Debug, Default)]
pub struct Change {
    pub position: Option<v1::Position>,
    /// What is not among the entries is gone.
    pub reset: bool,
    /// By path, what is there now; `None`: nothing that readers are to see. A later one replaces an earlier one.
    pub entries: Vec<(String, Option<Packed>)>,
}

impl Change {
    /// Takes in a part of a listing, or of what changed. Errors: `Invalid` for what is no page; an entry that is not
    /// understood is left out.
    pub fn add(&mut self, delta: v1::CatalogDelta) -> Result<()> {
        if delta.reset {
            *self = Self { reset: true, ..Self::default() };
        }
        let paged = packed::entries(delta.page)?.into_iter().map(Packed::check);
        let removed = delta.removed_paths.into_iter().map(|path| Ok((path, None)));
        let upserts = delta.upserts.into_iter().map(Packed::pack);
        for entry in paged.chain(removed).chain(upserts) {
            match entry {
                Ok(entry) => self.entries.push(entry),
                Err(error) => tracing::warn!(%error, "ignoring what the router said about a repository"),
            }
        }
        self.position = delta.position.or(self.position.take());
        Ok(())
    }
}

/// What is known about the connection to the routers and the state of the catalogue here.
#[derive(Debug, Default)]
pub struct Link {
    state: Mutex<LinkState>,
}

/// See [`Link`].
#[derive(Debug, Clone, Default)]
pub struct LinkState {
    /// The router whose watch is open.
    pub router: Option<String>,
    pub connected_since: Option<Instant>,
    pub last_message: Option<Instant>,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// How often a connection could not be made or broke, since the last one that worked.
    pub failures: u64,
    /// The newest position received.
    pub received: Option<v1::Position>,
    /// The newest position applied.
    pub applied: Option<v1::Position>,
    /// Repositories that are shown at an older commit than the catalogue says, and why.
    pub lagging: BTreeMap<String, String>,
    /// What is shown came from the copy on disk, not from a router.
    pub from_copy: bool,
}

impl Link {
    /// The state, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
