//! Which servers failed lately, and are asked last.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A server that failed is asked last for this long, as clients do.
const SUSPECT_FOR: Duration = Duration::from_secs(5);

/// What is known about the servers; shared by the clients of one thread.
#[derive(Default)]
pub struct LoadPeers {
    suspects: RefCell<HashSet<u32>>,
    since: Cell<Option<Instant>>,
    failovers: Cell<u64>,
}

impl LoadPeers {
    /// Times that another server had to be asked.
    pub fn failovers(&self) -> u64 {
        self.failovers.get()
    }

    /// Counts that another server had to be asked.
    pub fn failed_over(&self) {
        self.failovers.set(self.failovers.get() + 1);
    }

    /// Takes note that this server failed.
    pub fn suspect(&self, peer: u32) {
        self.suspects.borrow_mut().insert(peer);
        self.since.set(Some(Instant::now()));
    }

    /// Whether this server is to be asked last. All are given another chance together.
    pub fn is_suspect(&self, peer: u32) -> bool {
        let Some(since) = self.since.get() else {
            return false;
        };
        if since.elapsed() > SUSPECT_FOR {
            self.suspects.borrow_mut().clear();
            self.since.set(None);
        }
        self.suspects.borrow().contains(&peer)
    }
}
