//! The clients that are connected, how far each of them is, what it still reads, and how it says it
//! is.
//!
//! Invariant: of a client counts what it said itself: a position of another epoch, or none, is
//! nothing applied. One that left goes on counting for a while, since it is on its way back to this
//! router or another one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use monofs_control::catalog::CatalogPosition;
use monofs_control::clock;
use monofs_model::{Error, Oid};
use monofs_proto::v1;
use parking_lot::{Mutex, MutexGuard};

use crate::readers::Readers;

/// Most clients, with those that left and still count.
const CLIENTS_MAX: usize = 100_000;
/// Most snapshots, and contents of them, that one client may say are in use.
const SNAPSHOTS_MAX: usize = 65_536;
const CONTENTS_MAX: usize = 65_536;
/// Most contents in use that are remembered of all clients together; of a client beyond that only
/// the snapshots are.
const ALL_CONTENTS_MAX: usize = 1_000_000;

/// A replaced snapshot that a client still reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedSnapshot {
    pub path: String,
    pub commit: Oid,
    /// Contents that it named.
    pub contents: Vec<Oid>,
}

/// What one client reads.
#[derive(Debug, Default)]
enum ClientUse {
    /// Replaced snapshots that it named.
    Named(Vec<UsedSnapshot>),
    /// More than can be remembered, or what cannot be understood: everything is kept for it.
    #[default]
    Anything,
}

impl ClientUse {
    fn parse(in_use: &[v1::SnapshotInUse]) -> Self {
        let contents: usize = in_use.iter().map(|used| used.oids.len()).sum();
        if in_use.len() > SNAPSHOTS_MAX || contents > CONTENTS_MAX {
            return Self::Anything;
        }
        let parsed: Result<Vec<UsedSnapshot>, Error> = in_use
            .iter()
            .map(|used| {
                let contents = used.oids.iter().map(|oid| Oid::from_bytes(oid));
                Ok(UsedSnapshot {
                    path: used.path.clone(),
                    commit: Oid::from_bytes(&used.commit)?,
                    contents: contents.collect::<Result<_, _>>()?,
                })
            })
            .collect();
        parsed.map_or(Self::Anything, Self::Named)
    }

    fn named(&self) -> &[UsedSnapshot] {
        match self {
            Self::Named(snapshots) => snapshots,
            Self::Anything => &[],
        }
    }

    fn contents(&self) -> usize {
        self.named().iter().map(|used| used.contents.len()).sum()
    }
}

/// One connection of a client.
struct Watcher {
    status: v1::ClientStatus,
    /// What it has applied.
    applied: Option<CatalogPosition>,
    in_use: ClientUse,
}

impl Watcher {
    fn uses(&mut self, in_use: ClientUse) {
        self.status.in_use_snapshots = in_use.named().len() as u64;
        self.status.in_use_contents = in_use.contents() as u64;
        self.in_use = in_use;
    }

    fn add_to(&self, readers: &mut Readers, epoch: &str) {
        let client_id = &self.status.client_id;
        let applied = self.applied.as_ref();
        let revision = applied
            .filter(|position| position.epoch == epoch)
            .filter(|_| matches!(self.in_use, ClientUse::Named(_)))
            .map_or(0, |position| position.revision);
        readers.add(revision, client_id);
        for used in self.in_use.named() {
            readers.add_use(&used.path, used.commit, client_id);
        }
    }
}

#[derive(Default)]
struct WatcherTable {
    connected: HashMap<u64, Watcher>,
    /// Those that left, and when.
    left: HashMap<u64, (Instant, Watcher)>,
}

impl WatcherTable {
    fn forget_left(&mut self, now: Instant, linger: Duration) {
        self.left
            .retain(|_, (left_at, _)| now.duration_since(*left_at) < linger);
    }

    fn all(&self) -> impl Iterator<Item = &Watcher> {
        let left = self.left.values().map(|(_, watcher)| watcher);
        self.connected.values().chain(left)
    }
}

/// The clients of one router.
pub struct Watchers {
    clients: Mutex<WatcherTable>,
    next: AtomicU64,
    /// How long a client that left counts.
    linger: Duration,
    /// From when on clients of before a restart had time to come back.
    settled_at: Instant,
}

impl Watchers {
    /// No clients yet; those that leave count for `linger`.
    pub(crate) fn new(linger: Duration) -> Self {
        Self {
            clients: Mutex::default(),
            next: AtomicU64::new(0),
            linger,
            settled_at: Instant::now() + linger,
        }
    }

    /// Every connected client.
    pub fn list(&self) -> Vec<v1::ClientStatus> {
        let clients = self.lock();
        let connected = clients.connected.values();
        connected.map(|watcher| watcher.status.clone()).collect()
    }

    /// Number of connected clients.
    pub fn len(&self) -> usize {
        self.lock().connected.len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision that every connected client acknowledged; `None` without clients.
    pub fn acknowledged_by_all(&self) -> Option<u64> {
        let clients = self.lock();
        let connected = clients.connected.values();
        connected.map(|watcher| watcher.status.acked_revision).min()
    }

    /// What clients read, those that left a moment ago too, by positions of `epoch`. `None`: this
    /// router has just started, and its clients had no time to come back.
    pub(crate) fn readers(&self, epoch: &str, now: Instant) -> Option<Readers> {
        if now < self.settled_at {
            return None;
        }
        let mut clients = self.lock();
        clients.forget_left(now, self.linger);
        let mut readers = Readers::default();
        for watcher in clients.all() {
            watcher.add_to(&mut readers, epoch);
        }
        Some(readers)
    }

    /// The contents of replaced snapshots that clients named.
    pub(crate) fn contents_in_use(&self) -> Vec<UsedSnapshot> {
        let clients = self.lock();
        let named = clients.all().flat_map(|watcher| watcher.in_use.named());
        named
            .filter(|used| !used.contents.is_empty())
            .cloned()
            .collect()
    }

    /// A client joins. `epoch`: that of the catalogue. Errors: `Full`.
    pub(super) fn join(&self, hello: &v1::WatchHello, epoch: &str) -> Result<u64, Error> {
        let mut clients = self.lock();
        clients.forget_left(Instant::now(), self.linger);
        if clients.connected.len() + clients.left.len() >= CLIENTS_MAX {
            return Err(Error::full(format!(
                "{CLIENTS_MAX} clients are connected already"
            )));
        }
        // It is back, and says all that it said before.
        let is_same = |watcher: &Watcher| watcher.status.client_id == hello.client_id;
        clients.left.retain(|_, (_, watcher)| !is_same(watcher));
        let applied = hello.applied.as_ref().filter(|at| at.epoch == epoch);
        let mut watcher = Watcher {
            status: v1::ClientStatus {
                client_id: hello.client_id.clone(),
                version: hello.version.clone(),
                mount: hello.mount.clone(),
                acked_revision: applied.map_or(0, |at| at.revision),
                connected_at: clock::now(),
                ..Default::default()
            },
            applied: applied.map(position),
            in_use: ClientUse::default(),
        };
        watcher.uses(remembered(&clients, &hello.in_use));
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        clients.connected.insert(key, watcher);
        Ok(key)
    }

    /// A client has applied everything up to a position. One of another epoch than `epoch`, that of
    /// the catalogue, says nothing.
    pub(super) fn acknowledge(&self, key: u64, acked: &v1::Position, epoch: &str) {
        let mut clients = self.lock();
        let Some(watcher) = clients.connected.get_mut(&key) else {
            return;
        };
        let before = watcher.applied.as_ref();
        let is_back = before.is_some_and(|at| at.epoch == epoch && at.revision >= acked.revision);
        if acked.epoch == epoch && !is_back {
            watcher.status.acked_revision = acked.revision;
            watcher.applied = Some(position(acked));
        }
    }

    /// A client says what of replaced snapshots it still reads.
    pub(super) fn uses(&self, key: u64, in_use: &v1::InUse) {
        let mut clients = self.lock();
        // What it said before is not counted against what it says now.
        if let Some(watcher) = clients.connected.get_mut(&key) {
            watcher.uses(ClientUse::default());
        }
        let parsed = remembered(&clients, &in_use.snapshots);
        if let Some(watcher) = clients.connected.get_mut(&key) {
            watcher.uses(parsed);
        }
    }

    /// A client says how it is.
    pub(super) fn reported(&self, key: u64, report: v1::ClientReport) {
        if let Some(watcher) = self.lock().connected.get_mut(&key) {
            watcher.status.report = Some(report);
            watcher.status.reported_at = clock::now();
        }
    }

    /// A connection ended.
    pub(super) fn leave(&self, key: u64) {
        let now = Instant::now();
        let mut clients = self.lock();
        clients.forget_left(now, self.linger);
        if let Some(watcher) = clients.connected.remove(&key) {
            clients.left.insert(key, (now, watcher));
        }
    }

    fn lock(&self) -> MutexGuard<'_, WatcherTable> {
        self.clients.lock()
    }
}

/// What is remembered of what a client says: without contents when there are too many of all.
fn remembered(clients: &WatcherTable, in_use: &[v1::SnapshotInUse]) -> ClientUse {
    let mut parsed = ClientUse::parse(in_use);
    let others: usize = clients.all().map(|watcher| watcher.in_use.contents()).sum();
    if let ClientUse::Named(snapshots) = &mut parsed
        && others
            + snapshots
                .iter()
                .map(|used| used.contents.len())
                .sum::<usize>()
            > ALL_CONTENTS_MAX
    {
        snapshots.iter_mut().for_each(|used| used.contents.clear());
    }
    parsed
}

fn position(wire: &v1::Position) -> CatalogPosition {
    CatalogPosition {
        epoch: wire.epoch.clone(),
        revision: wire.revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "epoch";
    const LINGER: Duration = Duration::from_secs(60);

    /// The clients of a router that started long ago.
    fn settled() -> Watchers {
        Watchers {
            settled_at: Instant::now(),
            ..Watchers::new(LINGER)
        }
    }

    fn at(revision: u64) -> v1::Position {
        v1::Position {
            epoch: EPOCH.into(),
            revision,
        }
    }

    fn hello(client: &str, applied: u64) -> v1::WatchHello {
        v1::WatchHello {
            client_id: client.into(),
            applied: Some(at(applied)),
            ..Default::default()
        }
    }

    fn join(watchers: &Watchers, client: &str, applied: u64) -> u64 {
        let joined = watchers.join(&hello(client, applied), EPOCH);
        joined.expect("joins")
    }

    fn used(path: &str, byte: u8, contents: usize) -> v1::SnapshotInUse {
        v1::SnapshotInUse {
            path: path.into(),
            commit: vec![byte; 20].into(),
            oids: vec![vec![9; 20].into(); contents],
            whole: false,
        }
    }

    /// The slowest client, and the number of snapshots in use.
    fn readers(watchers: &Watchers, now: Instant) -> (Option<u64>, usize) {
        let readers = watchers.readers(EPOCH, now).expect("settled");
        let slowest = readers.slowest.map(|slowest| slowest.revision);
        (slowest, readers.in_use.len())
    }

    #[test]
    fn what_all_acknowledged_is_what_the_slowest_did_and_never_goes_back() {
        let watchers = settled();
        assert_eq!(watchers.acknowledged_by_all(), None, "without clients");
        let fast = join(&watchers, "fast", 0);
        let slow = join(&watchers, "slow", 5);
        assert_eq!(watchers.acknowledged_by_all(), Some(0));
        watchers.acknowledge(fast, &at(9), EPOCH);
        assert_eq!(watchers.acknowledged_by_all(), Some(5));
        watchers.acknowledge(slow, &at(3), EPOCH);
        assert_eq!(watchers.acknowledged_by_all(), Some(5), "a late message");
        watchers.leave(slow);
        assert_eq!(watchers.acknowledged_by_all(), Some(9));
        // A message of a client that left changes nothing.
        watchers.acknowledge(slow, &at(1), EPOCH);
        assert_eq!(
            (watchers.len(), watchers.acknowledged_by_all()),
            (1, Some(9))
        );
    }

    #[test]
    fn what_was_only_received_or_is_of_another_epoch_is_not_applied() {
        let watchers = settled();
        let old_client = v1::WatchHello {
            client_id: "old".into(),
            resume: Some(at(8)),
            ..Default::default()
        };
        let old = watchers.join(&old_client, EPOCH).expect("joins");
        let now = Instant::now();
        assert_eq!(readers(&watchers, now).0, Some(0), "until it acknowledges");
        watchers.acknowledge(old, &at(8), EPOCH);
        assert_eq!(readers(&watchers, now).0, Some(8));
        let elsewhere = v1::Position {
            epoch: "another".into(),
            revision: 99,
        };
        watchers.acknowledge(old, &elsewhere, EPOCH);
        assert_eq!(readers(&watchers, now).0, Some(8));
        // The state was restored: what clients applied of another one says nothing.
        let after = watchers.readers("another", now).expect("settled");
        assert_eq!(after.slowest.map(|slowest| slowest.revision), Some(0));
        let moved = v1::WatchHello {
            applied: Some(elsewhere),
            ..hello("moved", 0)
        };
        watchers.join(&moved, EPOCH).expect("joins");
        assert_eq!(readers(&watchers, now).0, Some(0));
    }

    #[test]
    fn what_a_client_says_is_in_use_replaces_what_it_said_before() {
        let watchers = settled();
        let greeting = v1::WatchHello {
            in_use: vec![used("h/a", 1, 3)],
            ..hello("reader", 7)
        };
        let key = watchers.join(&greeting, EPOCH).expect("joins");
        let now = Instant::now();
        assert_eq!(readers(&watchers, now), (Some(7), 1));
        assert_eq!(watchers.contents_in_use()[0].contents.len(), 3);
        let snapshots = vec![used("h/a", 2, 0), used("h/b", 2, 1)];
        watchers.uses(key, &v1::InUse { snapshots });
        let told = watchers.readers(EPOCH, now).expect("settled");
        let paths: Vec<&str> = told.in_use.keys().map(|key| key.0.as_str()).collect();
        assert_eq!(paths, ["h/a", "h/b"]);
        let status = watchers.list().remove(0);
        assert_eq!((status.in_use_snapshots, status.in_use_contents), (2, 1));
        watchers.uses(key, &v1::InUse::default());
        assert_eq!(readers(&watchers, now), (Some(7), 0));
    }

    #[test]
    fn a_client_that_says_too_much_or_nonsense_keeps_everything() {
        let watchers = settled();
        let key = join(&watchers, "reader", 7);
        let too_many = vec![used("h/a", 1, CONTENTS_MAX + 1)];
        let nonsense = v1::SnapshotInUse {
            commit: vec![1, 2].into(),
            ..used("h/a", 1, 0)
        };
        for snapshots in [too_many, vec![nonsense]] {
            watchers.uses(key, &v1::InUse { snapshots });
            assert_eq!(readers(&watchers, Instant::now()), (Some(0), 0));
        }
        // Nothing of it sticks.
        watchers.uses(key, &v1::InUse::default());
        assert_eq!(readers(&watchers, Instant::now()), (Some(7), 0));
    }

    #[test]
    fn contents_beyond_the_most_that_are_remembered_leave_the_snapshots_in_use() {
        let watchers = settled();
        let clients = ALL_CONTENTS_MAX / CONTENTS_MAX + 1;
        for number in 0..clients {
            let greeting = v1::WatchHello {
                in_use: vec![used(&format!("h/{number}"), 1, CONTENTS_MAX)],
                ..hello(&format!("client {number}"), 7)
            };
            watchers.join(&greeting, EPOCH).expect("joins");
        }
        let named = watchers.contents_in_use();
        let contents: usize = named.iter().map(|used| used.contents.len()).sum();
        assert!(contents <= ALL_CONTENTS_MAX && named.len() == clients - 1);
        assert_eq!(readers(&watchers, Instant::now()), (Some(7), clients));
    }

    #[test]
    fn a_client_that_left_counts_until_it_is_back_or_has_been_away_for_long() {
        let watchers = settled();
        let greeting = v1::WatchHello {
            in_use: vec![used("h/a", 1, 0)],
            ..hello("reader", 4)
        };
        let key = watchers.join(&greeting, EPOCH).expect("joins");
        watchers.leave(key);
        let now = Instant::now();
        assert_eq!((watchers.len(), readers(&watchers, now)), (0, (Some(4), 1)));
        // It is back, and has applied more.
        let key = join(&watchers, "reader", 6);
        assert_eq!(readers(&watchers, now), (Some(6), 0));
        watchers.leave(key);
        let late = Instant::now() + LINGER;
        assert_eq!(readers(&watchers, late), (None, 0));
    }

    #[test]
    fn a_router_that_has_just_started_waits_for_its_clients() {
        let watchers = Watchers::new(LINGER);
        join(&watchers, "early", 3);
        let now = Instant::now();
        assert_eq!(watchers.readers(EPOCH, now), None);
        assert!(watchers.readers(EPOCH, now + LINGER).is_some());
    }

    #[test]
    fn two_connections_of_one_client_count_both() {
        let watchers = settled();
        let first = join(&watchers, "same", 4);
        let second = join(&watchers, "same", 7);
        assert_ne!(first, second);
        watchers.leave(first);
        let left: Vec<u64> = watchers.list().iter().map(|c| c.acked_revision).collect();
        assert_eq!(left, [7]);
    }

    #[test]
    fn a_report_is_kept_with_its_time() {
        let watchers = settled();
        let key = join(&watchers, "c", 0);
        let report = v1::ClientReport {
            cache_bytes: 12,
            ..Default::default()
        };
        watchers.reported(key, report);
        let client = watchers.list().remove(0);
        assert_eq!(client.report, Some(report));
        assert!(client.reported_at >= client.connected_at);
    }
}
