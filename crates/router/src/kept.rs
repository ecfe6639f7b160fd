//! Replaced snapshots that are kept beyond the grace because clients may still read them: what
//! operators are told, so that it is known why disks do not shrink and whom to ask.
//!
//! The leader finds them in each round of collection; another router has none of its own.

use monofs_control::catalog::RetainedSnapshot;
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;
use parking_lot::Mutex;

use crate::readers::{KEPT_FOR_READERS_MAX, SnapshotKeeper};

/// Most of them that are told.
const TOLD_MAX: usize = 100;

/// What the last round of collection found.
#[derive(Default)]
pub struct KeptSnapshots {
    found: Mutex<KeptList>,
}

/// The oldest of them, and how many there are.
#[derive(Debug, Clone, Default)]
pub struct KeptList {
    /// The oldest first.
    pub oldest: Vec<v1::KeptSnapshot>,
    pub total: usize,
}

impl KeptSnapshots {
    /// Takes the place of what was found before.
    pub(crate) fn set(&self, mut found: Vec<v1::KeptSnapshot>) {
        let total = found.len();
        found.sort_by(|a, b| (a.replaced_at, &a.path).cmp(&(b.replaced_at, &b.path)));
        found.truncate(TOLD_MAX);
        *self.found.lock() = KeptList {
            oldest: found,
            total,
        };
    }

    /// What was found.
    pub fn list(&self) -> KeptList {
        self.found.lock().clone()
    }
}

/// A snapshot that a client keeps.
pub(crate) fn described(
    retained: &RetainedSnapshot,
    keeper: SnapshotKeeper<'_>,
) -> v1::KeptSnapshot {
    let client_id = match keeper {
        SnapshotKeeper::Grace => "",
        SnapshotKeeper::NotApplied { client_id } | SnapshotKeeper::InUse { client_id } => client_id,
    };
    v1::KeptSnapshot {
        path: retained.path.to_string(),
        commit: oid_bytes(&retained.snapshot.commit),
        replaced_at: retained.replaced_at,
        until: retained.replaced_at + KEPT_FOR_READERS_MAX.as_secs() as i64,
        client_id: client_id.to_owned(),
        not_applied: matches!(keeper, SnapshotKeeper::NotApplied { .. }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_told_and_all_are_counted() {
        let kept = KeptSnapshots::default();
        let found = (0..TOLD_MAX as i64 + 50).map(|number| v1::KeptSnapshot {
            path: format!("h/{number}"),
            replaced_at: 1000 - number,
            ..Default::default()
        });
        kept.set(found.collect());
        let told = kept.list();
        assert_eq!((told.oldest.len(), told.total), (TOLD_MAX, TOLD_MAX + 50));
        assert_eq!(told.oldest[0].replaced_at, 1000 - (TOLD_MAX as i64 + 49));
        kept.set(Vec::new());
        assert_eq!(kept.list().total, 0);
    }
}
