//! The catalogue as this mount follows it: the watch stream of a router, and the one task that
//! applies what it says.
//!
//! ```text
//! watch (one router at a time) --changes--> apply (flips, invalidations)
//!   ^                                         |        |
//!   +-- acknowledges <------ position --------+        +--> copy on disk, for a start without any
//!                                                           router
//! ```
//!
//! Invariant: a position is acknowledged only when the kernel has been told of everything up to it,
//! and the router of every snapshot before it that may still be read here: those of pinned inodes,
//! and those of repositories that cannot be switched. A router that does not understand the latter
//! is told a position only when all up to it is shown.

pub mod ack;
pub mod apply;
pub mod clock;
mod copy;
mod late;
pub mod watch;

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use monofs_content::packed::{self, CheckedEntry, Packed, PageCheck};
use monofs_model::Result;
use monofs_proto::v1;
use parking_lot::{Mutex, MutexGuard};

use self::clock::RouterClock;

/// A batch of changes that is to be applied as a whole.
#[derive(Debug, Default)]
pub struct CatalogChange {
    pub position: Option<v1::Position>,
    /// What is not among the entries is gone.
    pub reset: bool,
    /// By path, what is there now; `None`: nothing that readers are to see. A later one replaces an
    /// earlier one.
    pub entries: BTreeMap<String, Option<Packed>>,
    /// Pages of a listing, whose entries come before those above; see [`CatalogChange::checked`].
    pages: Vec<PageCheck>,
    page_bytes: usize,
    /// The router's clock.
    pub clock: Option<RouterClock>,
}

impl CatalogChange {
    /// What a listing says.
    pub fn listing(position: Option<v1::Position>, entries: Vec<CheckedEntry>) -> Self {
        Self {
            position,
            reset: true,
            entries: entries.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Takes in a part of a listing, or of what changed; begins to check a page on the current
    /// runtime.
    pub fn add(&mut self, delta: v1::CatalogDelta) {
        if delta.reset {
            *self = Self {
                reset: true,
                ..Self::default()
            };
        }
        if !delta.page.is_empty() {
            self.page_bytes += delta.page.len();
            // Without what it was received in.
            self.pages
                .push(PageCheck::begin(Bytes::copy_from_slice(&delta.page)));
        }
        self.entries
            .extend(delta.removed_paths.into_iter().map(|path| (path, None)));
        self.entries.extend(
            delta
                .upserts
                .into_iter()
                .filter_map(|entry| packed::understood(Packed::pack(entry))),
        );
        self.position = delta.position.or(self.position.take());
    }

    /// Bytes of pages and number of other entries so far.
    pub fn size(&self) -> (usize, usize) {
        (self.page_bytes, self.entries.len())
    }

    /// The change with the entries of its pages. Errors: `Invalid` for what is no page.
    pub async fn checked(mut self) -> Result<Self> {
        let mut entries = Vec::new();
        for page in std::mem::take(&mut self.pages) {
            entries.push(page.entries().await?);
        }
        let mut later = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().flatten().collect();
        self.entries.append(&mut later);
        Ok(self)
    }
}

/// What is known about the connection to the routers and the state of the catalogue here.
#[derive(Debug, Default)]
pub struct RouterLink {
    state: Mutex<LinkState>,
}

/// See [`RouterLink`].
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
    /// The newest position up to which all is shown.
    pub applied: Option<v1::Position>,
    /// Repositories that are shown at an older commit than the catalogue says, and why.
    pub lagging: BTreeMap<String, String>,
    /// What is shown came from the copy on disk, not from a router.
    pub from_copy: bool,
    /// Of the router that was heard last.
    pub clock: Option<RouterClock>,
}

impl RouterLink {
    /// The state, to look at or to change.
    pub fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock()
    }
}
