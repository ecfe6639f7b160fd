//! The clients that are connected, how far each of them is, and how they say they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_control::clock;
use monofs_model::Error;
use monofs_proto::v1;
use parking_lot::{Mutex, MutexGuard};

/// Most connected clients.
const CLIENTS_MAX: usize = 100_000;
/// The clients that are connected, and how far each of them is.
#[derive(Default)]
pub struct Watchers {
    clients: Mutex<HashMap<u64, v1::ClientStatus>>,
    next: AtomicU64,
}

impl Watchers {
    /// Every connected client.
    pub fn list(&self) -> Vec<v1::ClientStatus> {
        self.lock().values().cloned().collect()
    }

    /// Number of connected clients.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no client is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The revision that every connected client acknowledged; `None` without clients.
    pub fn acknowledged_by_all(&self) -> Option<u64> {
        self.lock()
            .values()
            .map(|client| client.acked_revision)
            .min()
    }

    /// A client joins that has applied everything up to `acked_revision`.
    pub(super) fn join(&self, hello: &v1::WatchHello, acked_revision: u64) -> Result<u64, Error> {
        let mut clients = self.lock();
        if clients.len() >= CLIENTS_MAX {
            return Err(Error::full(format!(
                "{CLIENTS_MAX} clients are connected already"
            )));
        }
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let status = v1::ClientStatus {
            client_id: hello.client_id.clone(),
            version: hello.version.clone(),
            mount: hello.mount.clone(),
            acked_revision,
            connected_at: clock::now(),
            ..Default::default()
        };
        clients.insert(key, status);
        Ok(key)
    }

    pub(super) fn acknowledge(&self, key: u64, revision: u64) {
        if let Some(client) = self.lock().get_mut(&key) {
            client.acked_revision = client.acked_revision.max(revision);
        }
    }

    /// A client says how it is.
    pub(super) fn reported(&self, key: u64, report: v1::ClientReport) {
        if let Some(client) = self.lock().get_mut(&key) {
            (client.report, client.reported_at) = (Some(report), clock::now());
        }
    }

    pub(super) fn leave(&self, key: u64) {
        self.lock().remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, v1::ClientStatus>> {
        self.clients.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(client: &str) -> v1::WatchHello {
        v1::WatchHello {
            client_id: client.into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_all_acknowledged_is_what_the_slowest_did_and_never_goes_back() {
        let watchers = Watchers::default();
        assert_eq!(watchers.acknowledged_by_all(), None, "without clients");
        let fast = watchers.join(&hello("fast"), 0).expect("joins");
        let slow = watchers.join(&hello("slow"), 5).expect("joins");
        assert_eq!(watchers.acknowledged_by_all(), Some(0));
        watchers.acknowledge(fast, 9);
        assert_eq!(watchers.acknowledged_by_all(), Some(5));
        watchers.acknowledge(slow, 3);
        assert_eq!(watchers.acknowledged_by_all(), Some(5), "a late message");
        watchers.leave(slow);
        assert_eq!(watchers.acknowledged_by_all(), Some(9));
        // A message of a client that left changes nothing.
        watchers.acknowledge(slow, 1);
        assert_eq!(
            (watchers.len(), watchers.acknowledged_by_all()),
            (1, Some(9))
        );
    }

    #[test]
    fn two_connections_of_one_client_count_both() {
        let watchers = Watchers::default();
        let first = watchers.join(&hello("same"), 4).expect("joins");
        let second = watchers.join(&hello("same"), 7).expect("joins");
        assert_ne!(first, second);
        watchers.leave(first);
        let left: Vec<u64> = watchers.list().iter().map(|c| c.acked_revision).collect();
        assert_eq!(left, [7]);
    }

    #[test]
    fn a_report_is_kept_with_its_time() {
        let watchers = Watchers::default();
        let key = watchers.join(&hello("c"), 0).expect("joins");
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
