//! What one router is told of how far this mount is: positions, and before them the snapshots that
//! are still read here although they were replaced.
//!
//! Invariant: of a position and what is in use, what is in use is looked at last and told first, so
//! the router never knows of a position without what was in use when it was reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use monofs_content::repo::snapshot_of;
use monofs_model::Oid;
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use monofs_proto::v1::watch_request::Message as ToRouter;
use tokio::sync::{mpsc, watch};

use super::RouterLink;
use crate::fs::Fs;
use crate::fs::in_use::SnapshotUse;

/// What is in use is told at most this often, as it may be a megabyte.
pub(super) const IN_USE_EVERY: Duration = Duration::from_secs(1);

/// How far the catalogue is applied.
#[derive(Debug, Clone, Default)]
pub struct AppliedPositions {
    /// All up to here is shown.
    pub shown: Option<v1::Position>,
    /// All up to here is shown, but for the repositories that lag.
    pub reached: Option<v1::Position>,
}

impl AppliedPositions {
    /// Whether no repository lags.
    pub fn is_all_shown(&self) -> bool {
        self.shown == self.reached
    }
}

/// What is in use of a mount.
#[derive(Clone)]
pub(super) struct MountUse {
    pub fs: Arc<Fs>,
    pub link: Arc<RouterLink>,
}

impl MountUse {
    /// Every replaced snapshot that may still be read. `None`: more than can be named.
    fn list(&self) -> Option<Vec<v1::SnapshotInUse>> {
        let pinned = self.fs.inodes.pinned().list()?;
        let mut named: Vec<v1::SnapshotInUse> = pinned.into_iter().map(to_wire).collect();
        let lagging: Vec<String> = self.link.state().lagging.keys().cloned().collect();
        for path in lagging {
            // One that has come or gone meanwhile does not lag.
            if let Some(repo) = self.fs.repo(&path) {
                let commit = snapshot_of(&repo.entry()).commit;
                named.push(whole(path, &commit));
            }
        }
        Some(named)
    }
}

fn to_wire(used: SnapshotUse) -> v1::SnapshotInUse {
    v1::SnapshotInUse {
        path: used.path,
        commit: oid_bytes(&used.commit),
        oids: used.oids.iter().map(oid_bytes).collect(),
        whole: used.whole,
    }
}

fn whole(path: String, commit: &Oid) -> v1::SnapshotInUse {
    v1::SnapshotInUse {
        path,
        commit: oid_bytes(commit),
        oids: Vec::new(),
        whole: true,
    }
}

/// Tells one router, over one connection.
pub(super) struct Acknowledger {
    mount: MountUse,
    positions: watch::Receiver<AppliedPositions>,
    /// The router understands what is in use.
    understands: bool,
    /// What it was told, when, and as of which change.
    told: Vec<v1::SnapshotInUse>,
    told_at: Instant,
    told_changes: u64,
    /// A position is to be told once it may be.
    is_due: bool,
}

impl Acknowledger {
    /// For a new connection. Also gives what its greeting is to say: the position and what is in
    /// use.
    pub fn begin(
        mount: MountUse,
        mut positions: watch::Receiver<AppliedPositions>,
    ) -> (Self, Option<v1::Position>, Vec<v1::SnapshotInUse>) {
        let reached = positions.borrow().reached.clone();
        let told_changes = mount.fs.inodes.pinned().changes();
        let in_use = mount.list();
        // A position without what is in use is none.
        let applied = reached.filter(|_| in_use.is_some());
        let told = in_use.unwrap_or_default();
        // What was applied meanwhile is acknowledged again: this router may not know.
        positions.mark_changed();
        let acknowledger = Self {
            mount,
            positions,
            understands: false,
            told: told.clone(),
            told_at: Instant::now(),
            told_changes,
            is_due: false,
        };
        (acknowledger, applied, told)
    }

    /// The router says what it understands.
    pub fn welcomed(&mut self, welcome: &v1::WatchWelcome) {
        self.understands = welcome.exceptions;
        self.is_due = true;
    }

    /// Returns when a position was reached.
    pub async fn reached(&mut self) -> Result<(), watch::error::RecvError> {
        self.positions.changed().await?;
        self.is_due = true;
        Ok(())
    }

    /// Tells what there is to tell, as far as it may be told now.
    pub fn tell(&mut self, say: &mpsc::Sender<v1::WatchRequest>) {
        let positions = self.positions.borrow_and_update().clone();
        if !self.understands {
            // Full: it is told with the next look.
            if let Some(position) = positions.shown.filter(|_| self.is_due) {
                self.is_due = send(say, ToRouter::Ack(position)).is_err();
            }
            return;
        }
        let Ok(()) = self.tell_in_use(say) else {
            return;
        };
        if let Some(position) = positions.reached.filter(|_| self.is_due) {
            self.is_due = send(say, ToRouter::Ack(position)).is_err();
        }
    }

    /// Tells what is in use, if that changed. Err: it cannot be told now, so no position may be.
    fn tell_in_use(&mut self, say: &mpsc::Sender<v1::WatchRequest>) -> Result<(), ()> {
        let changes = self.mount.fs.inodes.pinned().changes();
        let may_lag =
            self.told.iter().any(|used| used.whole) || !self.mount.link.state().lagging.is_empty();
        if changes == self.told_changes && !may_lag {
            return Ok(());
        }
        let in_use = self.mount.list().ok_or(())?;
        if in_use != self.told {
            if self.told_at.elapsed() < IN_USE_EVERY {
                return Err(());
            }
            let snapshots = in_use.clone();
            send(say, ToRouter::InUse(v1::InUse { snapshots }))?;
            self.told = in_use;
            self.told_at = Instant::now();
        }
        self.told_changes = changes;
        Ok(())
    }
}

fn send(say: &mpsc::Sender<v1::WatchRequest>, message: ToRouter) -> Result<(), ()> {
    say.try_send(to_router(message)).map_err(drop)
}

/// A message of the watch.
pub(super) fn to_router(message: ToRouter) -> v1::WatchRequest {
    v1::WatchRequest {
        message: Some(message),
    }
}
