//! Which contents are being pulled right now, so that none is pulled twice at a time, and how far
//! large ones have come, so that readers get their chunks while the rest still arrives.
//!
//! Invariants: a blob has one claim at a time; when the claim is dropped, after a success, a
//! failure or a panic, those that waited for it look at the store.
//!
//! Callers: `upstream::pull` and `service::pulled` claim, `upstream::receive` tells what has
//! arrived.

use std::collections::HashMap;
use std::sync::Arc;

use monofs_model::{Oid, StorageId};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::chunk_span::ChunkSpan;

/// Large contents that are pulled for readers at a time, some tens of megabytes of memory each;
/// further ones wait.
const LARGE_PULLS_MAX: usize = 8;

type FlightKey = (StorageId, Oid);

/// All pulls under way.
pub(crate) struct PullFlights {
    /// Each channel carries the number of chunks in the store. Small blobs of one claim share a
    /// channel, of which only the end counts.
    running: Mutex<HashMap<FlightKey, watch::Sender<u32>>>,
    /// Permits of large pulls for readers.
    pub large_turns: Arc<Semaphore>,
}

impl Default for PullFlights {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
            large_turns: Arc::new(Semaphore::new(LARGE_PULLS_MAX)),
        }
    }
}

/// Spans that this caller pulls; dropping it lets the waiting callers look again.
pub(crate) struct PullClaim {
    flights: Arc<PullFlights>,
    keys: Vec<FlightKey>,
}

/// Tells how far a pull has come.
pub(crate) struct ChunkArrival(watch::Receiver<u32>);

impl ChunkArrival {
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

/// A span that another caller pulls, and how far that is.
pub(crate) struct ForeignPull {
    pub span: ChunkSpan,
    pub arrival: ChunkArrival,
}

/// What [`PullFlights::claim`] made of some spans.
pub(crate) struct ClaimedSpans {
    /// Covers `mine`.
    pub claim: PullClaim,
    /// Spans that the caller must pull now.
    pub mine: Vec<ChunkSpan>,
    /// Spans that other callers already pull.
    pub others: Vec<ForeignPull>,
}

impl PullFlights {
    /// Splits `spans` into those that the caller must pull now and those that are being pulled.
    pub fn claim(self: &Arc<Self>, id: &StorageId, spans: Vec<ChunkSpan>) -> ClaimedSpans {
        let mut claimed = ClaimedSpans {
            claim: PullClaim {
                flights: self.clone(),
                keys: Vec::new(),
            },
            mine: Vec::new(),
            others: Vec::new(),
        };
        let shared = watch::Sender::new(0);
        let mut running = self.running.lock();
        for span in spans {
            // What is being pulled is followed, the rest is the caller's.
            let key = (id.clone(), span.oid);
            if let Some(flight) = running.get(&key) {
                let arrival = ChunkArrival(flight.subscribe());
                claimed.others.push(ForeignPull { span, arrival });
                continue;
            }
            let flight = match span.is_large() {
                true => watch::Sender::new(0),
                false => shared.clone(),
            };
            running.insert(key.clone(), flight);
            claimed.claim.keys.push(key);
            claimed.mine.push(span);
        }
        claimed
    }

    /// Whether a caller waits for one of these spans, which another one pulls.
    pub fn is_awaited(&self, id: &StorageId, spans: &[ChunkSpan]) -> bool {
        let running = self.running.lock();
        spans.iter().any(|span| {
            running
                .get(&(id.clone(), span.oid))
                .is_some_and(|flight| flight.receiver_count() > 0)
        })
    }

    /// Tells those that wait for a large blob how many of its chunks are in the store.
    pub fn arrived(&self, id: &StorageId, oid: &Oid, chunks: u32) {
        if let Some(flight) = self.running.lock().get(&(id.clone(), *oid)) {
            flight.send_if_modified(|stored| std::mem::replace(stored, chunks) != chunks);
        }
    }
}

impl PullClaim {
    /// Follows a blob of this claim.
    pub fn follow(&self, oid: &Oid) -> Option<ChunkArrival> {
        let key = self.keys.iter().find(|(_, claimed)| claimed == oid)?;
        self.flights
            .running
            .lock()
            .get(key)
            .map(|flight| ChunkArrival(flight.subscribe()))
    }
}

impl Drop for PullClaim {
    fn drop(&mut self) {
        let mut running = self.flights.running.lock();
        for key in &self.keys {
            running.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_model::{DisplayPath, ObjectFormat, ObjectKind};

    use super::*;

    fn repository() -> StorageId {
        DisplayPath::new("h/r").expect("a path").storage_id()
    }

    fn small(contents: &[u8]) -> ChunkSpan {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, contents);
        ChunkSpan::whole(oid, contents.len() as u64)
    }

    fn large() -> ChunkSpan {
        let oid = Oid::of(ObjectFormat::Sha1, ObjectKind::Blob, b"long");
        ChunkSpan::whole(oid, 5 * CHUNK_BYTES as u64)
    }

    #[tokio::test]
    async fn a_large_blob_is_claimed_once_and_its_readers_hear_what_has_arrived() {
        let flights = Arc::new(PullFlights::default());
        let id = repository();
        let span = large();
        let leader = flights.claim(&id, vec![span]);
        assert_eq!(leader.mine.len(), 1);
        assert!(leader.others.is_empty());
        let mut own = leader.claim.follow(&span.oid).expect("claimed");

        let mut second = flights.claim(&id, vec![ChunkSpan { first: 3, ..span }]);
        assert!(second.mine.is_empty(), "it is not pulled twice");
        let mut other = second.others.pop().expect("it is being pulled").arrival;
        flights.arrived(&id, &span.oid, 2);
        assert_eq!(own.beyond(0).await, Some(2));
        assert_eq!(other.beyond(1).await, Some(2));
        flights.arrived(&id, &span.oid, 4);
        assert_eq!(other.beyond(3).await, Some(4));

        drop(leader);
        assert_eq!(other.beyond(4).await, None);
        own.ended().await;
        let again = flights.claim(&id, vec![span]);
        assert_eq!(again.mine.len(), 1, "what ended can be claimed again");
    }

    #[tokio::test]
    async fn a_panic_of_the_leader_frees_those_that_wait() {
        let flights = Arc::new(PullFlights::default());
        let id = repository();
        let leader = flights.claim(&id, vec![small(b"a"), large()]);
        let waiting = flights.claim(&id, vec![small(b"a"), large()]).others;
        let led = tokio::spawn(async move {
            let _leader = leader;
            panic!("the leader's work is broken");
        });
        assert!(led.await.expect_err("it panicked").is_panic());
        for mut pull in waiting {
            pull.arrival.ended().await;
        }
        assert_eq!(flights.claim(&id, vec![small(b"a"), large()]).mine.len(), 2);
    }

    #[tokio::test]
    async fn small_blobs_of_one_claim_end_together_and_other_claims_go_on() {
        let flights = Arc::new(PullFlights::default());
        let id = repository();
        let first = flights.claim(&id, vec![small(b"a"), small(b"b")]);
        let second = flights.claim(&id, vec![small(b"b"), small(b"c")]);
        assert_eq!(second.mine, [small(b"c")]);
        let mut reader = flights.claim(&id, vec![small(b"a"), small(b"c")]).others;
        let mut waits_for_c = reader.pop().expect("c is being pulled").arrival;
        let mut waits_for_a = reader.pop().expect("a is being pulled").arrival;
        drop(first);
        waits_for_a.ended().await;
        assert!(waits_for_c.ended().now_or_never().is_none());
        drop(second);
        waits_for_c.ended().await;
    }

    #[test]
    fn repositories_do_not_wait_for_each_other() {
        let flights = Arc::new(PullFlights::default());
        let other = DisplayPath::new("h/other").expect("a path").storage_id();
        let first = flights.claim(&repository(), vec![small(b"a")]);
        let second = flights.claim(&other, vec![small(b"a")]);
        assert_eq!(first.mine, second.mine);
    }

    #[test]
    fn a_pull_knows_whether_another_caller_waits_for_it() {
        let flights = Arc::new(PullFlights::default());
        let id = repository();
        let spans = [small(b"a"), large()];
        let leader = flights.claim(&id, spans.to_vec());
        assert!(!flights.is_awaited(&id, &spans));
        let follower = flights.claim(&id, vec![large()]);
        assert!(flights.is_awaited(&id, &spans));
        assert!(!flights.is_awaited(&id, &[small(b"a")]));
        drop(follower);
        assert!(!flights.is_awaited(&id, &spans));
        drop(leader);
    }

    #[test]
    fn a_blob_named_twice_in_one_request_is_claimed_once() {
        let flights = Arc::new(PullFlights::default());
        let claimed = flights.claim(&repository(), vec![small(b"a"), small(b"a")]);
        assert_eq!(claimed.mine.len(), 1);
        assert_eq!(claimed.others.len(), 1);
    }

    #[tokio::test]
    async fn what_arrived_can_be_taken_back() {
        let flights = Arc::new(PullFlights::default());
        let span = large();
        let leader = flights.claim(&repository(), vec![span]);
        let mut arrival = leader.claim.follow(&span.oid).expect("claimed");
        flights.arrived(&repository(), &span.oid, 3);
        assert_eq!(arrival.beyond(2).await, Some(3));
        flights.arrived(&repository(), &span.oid, 0);
        assert!(arrival.news().await, "the next server begins anew");
        assert!(arrival.beyond(0).now_or_never().is_none());
        drop(leader);
        assert!(!arrival.news().await);
    }
}
