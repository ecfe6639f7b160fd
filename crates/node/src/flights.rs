//! Which contents are being pulled right now, so that nobody pulls the same ones twice, and how far
//! large ones have come, so that readers get their chunks while the rest still arrives.
//!
//! Invariants: a blob has one claim at a time; when the claim is dropped, well or badly, whoever
//! waited looks at the store.
//!
//! Callers: `hydrate` and `service::content` claim, `upstream` tells what has arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use monofs_model::{Oid, StorageId};
use tokio::sync::{Semaphore, watch};

use crate::blobs::Span;

/// Large contents that are pulled for readers at a time, some tens of megabytes of memory each;
/// further ones wait.
const LARGE_PULLS_MAX: usize = 8;

type Key = (StorageId, Oid);

/// All pulls under way.
pub(crate) struct Flights {
    /// What is sent: chunks in the store. Small blobs of one claim share a channel, of which only
    /// the end counts.
    running: Mutex<HashMap<Key, watch::Sender<u32>>>,
    pub large_turns: Arc<Semaphore>,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            large_turns: Arc::new(Semaphore::new(LARGE_PULLS_MAX)),
        }
    }
}

/// Spans that this caller pulls; dropping it lets the waiting ones look again.
pub(crate) struct Claim {
    flights: Arc<Flights>,
    keys: Vec<Key>,
}

/// What tells how far a pull has come.
pub(crate) struct Arrival(watch::Receiver<u32>);

impl Arrival {
    /// Returns when the pull has ended.
    pub async fn ended(&mut self) {
        while self.0.changed().await.is_ok() {}
    }

    /// The number of chunks in the store, once it is over `chunks`; `None` when the pull has ended.
    pub async fn beyond(&mut self, chunks: u32) -> Option<u32> {
        self.0
            .wait_for(|stored| *stored > chunks)
            .await
            .ok()
            .map(|stored| *stored)
    }

    /// Returns when there is news; false when the pull has ended.
    pub async fn news(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// A span that somebody else pulls, and what tells how far that is.
pub(crate) type Elsewhere = (Span, Arrival);

impl Flights {
    /// Splits `spans` into those the caller must pull now and those that somebody else already
    /// pulls.
    pub fn claim(
        self: &Arc<Self>,
        id: &StorageId,
        spans: Vec<Span>,
    ) -> (Claim, Vec<Span>, Vec<Elsewhere>) {
        let shared = watch::Sender::new(0);
        let mut claim = Claim {
            flights: self.clone(),
            keys: Vec::new(),
        };
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        let mut running = self.lock();
        for span in spans {
            let key = (id.clone(), span.oid);
            match running.get(&key) {
                Some(flight) => others.push((span, Arrival(flight.subscribe()))),
                None => {
                    let sender = if span.is_large() {
                        watch::Sender::new(0)
                    } else {
                        shared.clone()
                    };
                    running.insert(key.clone(), sender);
                    claim.keys.push(key);
                    mine.push(span);
                }
            }
        }
        (claim, mine, others)
    }

    /// Tells whoever waits for a large blob how many of its chunks are in the store.
    pub fn arrived(&self, id: &StorageId, oid: &Oid, chunks: u32) {
        if let Some(flight) = self.lock().get(&(id.clone(), *oid)) {
            flight.send_if_modified(|stored| std::mem::replace(stored, chunks) != chunks);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Sender<u32>>> {
        self.running.lock().expect("no holder of this lock panics")
    }
}

impl Claim {
    /// Follows a blob of this claim.
    pub fn follow(&self, oid: &Oid) -> Option<Arrival> {
        let key = self.keys.iter().find(|(_, claimed)| claimed == oid)?;
        self.flights
            .lock()
            .get(key)
            .map(|flight| Arrival(flight.subscribe()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.flights.lock();
        for key in &self.keys {
            running.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind};

    use super::*;

    #[tokio::test]
    async fn a_large_blob_is_claimed_once_and_its_readers_hear_what_has_arrived() {
        let flights = Arc::new(Flights::default());
        let id = DisplayPath::new("h/r").expect("a path").storage_id();
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"long");
        let span = Span::whole(oid, 5 * CHUNK_BYTES as u64);
        let (claim, mine, others) = flights.claim(&id, vec![span]);
        assert_eq!((mine.len(), others.len()), (1, 0));
        let mut own = claim.follow(&oid).expect("claimed");
        let (_second, mine, mut others) = flights.claim(&id, vec![Span { first: 3, ..span }]);
        assert!(mine.is_empty(), "nobody pulls it twice");
        let (_, mut other) = others.pop().expect("it is elsewhere");
        flights.arrived(&id, &oid, 2);
        assert_eq!(
            (own.beyond(0).await, other.beyond(1).await),
            (Some(2), Some(2))
        );
        flights.arrived(&id, &oid, 4);
        assert_eq!(other.beyond(3).await, Some(4));
        drop(claim);
        assert_eq!(other.beyond(4).await, None);
        own.ended().await;
        let (_, mine, _) = flights.claim(&id, vec![span]);
        assert_eq!(mine.len(), 1, "what ended can be claimed again");
    }
}
