//! Since when entries have been below their copies, as this router saw it.
//!
//! Invariant: at most one moment is remembered for each entry.

use std::collections::HashMap;
use std::time::Instant;

use monofs_control::catalog::PathKey;
use monofs_model::NodeId;
use parking_lot::{Mutex, MutexGuard};

/// Lags of copies, and what the plan says is missing.
#[derive(Default)]
pub struct Replication(Mutex<LagSeen>);

#[derive(Default)]
pub(super) struct LagSeen {
    /// Since when each entry has been below its copies.
    below: HashMap<PathKey, Instant>,
    /// Copies that placement wants on each node and that it lacks, as the plan of this router says.
    pub(super) behind: Vec<(NodeId, usize)>,
}

impl Replication {
    pub(super) fn lock(&self) -> MutexGuard<'_, LagSeen> {
        self.0.lock()
    }

    /// The plan says so.
    pub fn planned(&self, behind: Vec<(NodeId, usize)>) {
        self.lock().behind = behind;
    }

    /// Takes in who is below now; gives since when the oldest of them is.
    pub(super) fn look(&self, below: &[PathKey], now: Instant) -> Option<Instant> {
        let mut seen = self.lock();
        let before = std::mem::take(&mut seen.below);
        let since = |key: &PathKey| (key.clone(), before.get(key).copied().unwrap_or(now));
        seen.below = below.iter().map(since).collect();
        seen.below.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_lag_is_that_of_the_entry_that_waits_longest() {
        let (replication, start) = (Replication::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let keys: Vec<PathKey> = ["a", "b"].map(PathKey::from).to_vec();
        assert_eq!(replication.look(&keys[..1], at(0)), Some(at(0)));
        assert_eq!(replication.look(&keys, at(5)), Some(at(0)));
        assert_eq!(
            replication.look(&keys[1..], at(9)),
            Some(at(5)),
            "the older one has its copies again"
        );
        assert_eq!(replication.look(&[], at(10)), None);
        assert_eq!(
            replication.look(&keys, at(20)),
            Some(at(20)),
            "and later it is below anew"
        );
    }
}
