//! What keeps a replaced snapshot: one function, [`keeps`], decides it for collection.
//!
//! A snapshot is kept for the grace, and then for readers: clients that have not applied what took
//! its place, and clients that have but still hold files or directories of it (or cannot switch to
//! the new commit). Readers keep it for [`KEPT_FOR_READERS_MAX`] after its replacement and no
//! longer, so a client that hangs holds up nothing for ever; what it reads then fails with ESTALE.
//!
//! Callers: `collect`, with what all routers say of their clients; `cluster` says it of this one's.

use std::collections::BTreeMap;
use std::time::Duration;

use monofs_control::catalog::RetainedSnapshot;
use monofs_model::{Oid, Result};
use monofs_proto::convert::oid_bytes;
use monofs_proto::v1;

use crate::Config;

/// How long after its replacement a snapshot is kept for readers at most.
pub const KEPT_FOR_READERS_MAX: Duration = Duration::from_secs(24 * 3600);
/// A client that left counts for as long as the grace, within these bounds: it tries to come back
/// every few seconds, and notices after half a minute that a router is gone.
const LINGER_MIN: Duration = Duration::from_secs(10);
const LINGER_MAX: Duration = Duration::from_secs(60);
/// Most snapshots in use that one router tells.
const IN_USE_MAX: usize = 100_000;

/// How long a client that left counts, and how long a router that has just started waits for its
/// clients.
pub(crate) fn linger(config: &Config) -> Duration {
    let by_grace = config.snapshot_grace.clamp(LINGER_MIN, LINGER_MAX);
    config.reader_linger.unwrap_or(by_grace)
}

/// The client that is furthest behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlowestReader {
    /// What it has applied.
    pub revision: u64,
    pub client_id: String,
}

/// What the clients of one or more routers may read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Readers {
    pub slowest: Option<SlowestReader>,
    /// Replaced snapshots that are in use, by path and commit, each with one of the clients.
    pub in_use: BTreeMap<(String, Oid), String>,
}

impl Readers {
    /// Adds a client that has applied everything up to `revision`.
    pub fn add(&mut self, revision: u64, client_id: &str) {
        let is_slower = |slowest: &SlowestReader| revision < slowest.revision;
        if self.slowest.as_ref().is_none_or(is_slower) {
            self.slowest = Some(SlowestReader {
                revision,
                client_id: client_id.to_owned(),
            });
        }
    }

    /// Adds a snapshot that a client still reads.
    pub fn add_use(&mut self, path: &str, commit: Oid, client_id: &str) {
        self.in_use
            .entry((path.to_owned(), commit))
            .or_insert_with(|| client_id.to_owned());
    }

    /// Adds the clients of another router.
    pub fn merge(&mut self, other: Self) {
        if let Some(slowest) = other.slowest {
            self.add(slowest.revision, &slowest.client_id);
        }
        for (snapshot, client_id) in other.in_use {
            self.in_use.entry(snapshot).or_insert(client_id);
        }
    }

    /// As another router is told. More than can be told is told as a client that has applied
    /// nothing, so that everything is kept.
    pub fn to_wire(&self) -> v1::AcknowledgedResponse {
        if let Some(client_id) = self.in_use.values().next()
            && self.in_use.len() > IN_USE_MAX
        {
            return v1::AcknowledgedResponse {
                revision: Some(0),
                slowest_client: client_id.clone(),
                ..Default::default()
            };
        }
        let slowest = self.slowest.as_ref();
        v1::AcknowledgedResponse {
            revision: slowest.map(|slowest| slowest.revision),
            slowest_client: slowest.map_or_else(String::new, |slowest| slowest.client_id.clone()),
            in_use: self
                .in_use
                .iter()
                .map(|((path, commit), client_id)| v1::ReadSnapshot {
                    path: path.clone(),
                    commit: oid_bytes(commit),
                    client_id: client_id.clone(),
                })
                .collect(),
            settling: false,
        }
    }

    /// What another router told. Errors: `Invalid` for what is no commit.
    pub fn from_wire(wire: &v1::AcknowledgedResponse) -> Result<Self> {
        let mut readers = Self::default();
        if let Some(revision) = wire.revision {
            readers.add(revision, &wire.slowest_client);
        }
        for used in &wire.in_use {
            readers.add_use(&used.path, Oid::from_bytes(&used.commit)?, &used.client_id);
        }
        Ok(readers)
    }
}

/// Why a replaced snapshot stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SnapshotKeeper<'a> {
    /// Its grace is not over.
    Grace,
    /// A client has not applied what took its place.
    NotApplied { client_id: &'a str },
    /// A client holds files or directories of it.
    InUse { client_id: &'a str },
}

/// What keeps a snapshot that was replaced at `revision`; `None`: nothing does, so it may go. `now`
/// is in seconds since the epoch.
pub(crate) fn keeps<'a>(
    retained: &RetainedSnapshot,
    revision: u64,
    readers: &'a Readers,
    grace: Duration,
    now: i64,
) -> Option<SnapshotKeeper<'a>> {
    // A clock that was set back makes it young.
    let age = Duration::from_secs(u64::try_from(now - retained.replaced_at).unwrap_or(0));
    if age < grace {
        return Some(SnapshotKeeper::Grace);
    }
    if age >= KEPT_FOR_READERS_MAX {
        return None;
    }
    let snapshot = (retained.path.to_string(), retained.snapshot.commit);
    if let Some(client_id) = readers.in_use.get(&snapshot) {
        return Some(SnapshotKeeper::InUse { client_id });
    }
    let slowest = readers.slowest.as_ref();
    slowest
        .filter(|slowest| slowest.revision < revision)
        .map(|slowest| SnapshotKeeper::NotApplied {
            client_id: &slowest.client_id,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{path, snapshot};

    const GRACE: Duration = Duration::from_secs(600);
    const REVISION: u64 = 5;

    fn retained(byte: u8) -> RetainedSnapshot {
        RetainedSnapshot {
            path: path("h/r"),
            snapshot: snapshot(byte),
            holders: Vec::new(),
            generation: 1,
            replaced_at: 1_000_000,
        }
    }

    fn kept<'a>(readers: &'a Readers, age: Duration) -> Option<SnapshotKeeper<'a>> {
        let now = 1_000_000 + age.as_secs() as i64;
        keeps(&retained(1), REVISION, readers, GRACE, now)
    }

    #[test]
    fn a_replaced_snapshot_stays_for_its_grace_whoever_reads() {
        let nobody = Readers::default();
        let almost = GRACE - Duration::from_secs(1);
        assert_eq!(kept(&nobody, almost), Some(SnapshotKeeper::Grace));
        assert_eq!(kept(&nobody, GRACE), None);
        // The clock was set back.
        let early = keeps(&retained(1), REVISION, &nobody, GRACE, 0);
        assert_eq!(early, Some(SnapshotKeeper::Grace));
    }

    #[test]
    fn a_client_that_has_not_applied_its_replacement_keeps_it() {
        let mut readers = Readers::default();
        readers.add(REVISION, "fast");
        assert_eq!(kept(&readers, GRACE), None);
        readers.add(REVISION - 1, "slow");
        readers.add(REVISION + 1, "faster");
        let slow = SnapshotKeeper::NotApplied { client_id: "slow" };
        assert_eq!(kept(&readers, GRACE), Some(slow));
    }

    #[test]
    fn a_client_that_holds_files_of_it_keeps_it_and_no_other_snapshot() {
        let mut readers = Readers::default();
        readers.add(REVISION + 10, "reader");
        readers.add_use("h/r", snapshot(1).commit, "reader");
        readers.add_use("h/r", snapshot(1).commit, "second reader");
        let reader = SnapshotKeeper::InUse {
            client_id: "reader",
        };
        assert_eq!(kept(&readers, GRACE), Some(reader));
        let now = 1_000_000 + GRACE.as_secs() as i64;
        assert_eq!(keeps(&retained(2), REVISION, &readers, GRACE, now), None);
        let mut elsewhere = Readers::default();
        elsewhere.add_use("h/other", snapshot(1).commit, "reader");
        assert_eq!(kept(&elsewhere, GRACE), None);
    }

    #[test]
    fn readers_keep_it_for_a_day_and_no_longer() {
        let mut readers = Readers::default();
        readers.add(0, "hangs");
        readers.add_use("h/r", snapshot(1).commit, "hangs");
        assert!(kept(&readers, KEPT_FOR_READERS_MAX - Duration::from_secs(1)).is_some());
        assert_eq!(kept(&readers, KEPT_FOR_READERS_MAX), None);
        // A grace that is longer than that is kept all the same.
        let now = 1_000_000 + KEPT_FOR_READERS_MAX.as_secs() as i64;
        let grace = KEPT_FOR_READERS_MAX * 2;
        let kept = keeps(&retained(1), REVISION, &readers, grace, now);
        assert_eq!(kept, Some(SnapshotKeeper::Grace));
    }

    #[test]
    fn what_a_router_tells_of_its_clients_is_what_another_one_hears() {
        let mut readers = Readers::default();
        assert_eq!(
            Readers::from_wire(&readers.to_wire()).ok(),
            Some(readers.clone())
        );
        readers.add(7, "a");
        readers.add_use("h/r", snapshot(1).commit, "b");
        assert_eq!(
            Readers::from_wire(&readers.to_wire()).ok(),
            Some(readers.clone())
        );
        let mut both = Readers::default();
        both.add(3, "c");
        both.merge(readers);
        let slowest = both.slowest.as_ref().map(|slowest| slowest.revision);
        assert_eq!((slowest, both.in_use.len()), (Some(3), 1));
        // A router of before says its position alone.
        let old = v1::AcknowledgedResponse {
            revision: Some(4),
            ..Default::default()
        };
        let heard = Readers::from_wire(&old).expect("understood");
        assert_eq!(heard.slowest.map(|slowest| slowest.revision), Some(4));
    }

    #[test]
    fn more_than_can_be_told_keeps_everything() {
        let mut readers = Readers::default();
        readers.add(REVISION + 1, "a");
        for number in 0..=IN_USE_MAX {
            readers.add_use(&format!("h/{number}"), snapshot(1).commit, "a");
        }
        let told = Readers::from_wire(&readers.to_wire()).expect("understood");
        let a = SnapshotKeeper::NotApplied { client_id: "a" };
        assert_eq!(kept(&told, GRACE), Some(a));
    }
}
