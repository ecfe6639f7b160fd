//! What has arrived of one request, shared by the attempts that serve it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use monofs_model::Result;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::flights::FlightClaim;
use crate::want::ContentKey;

/// What is still to arrive of a request, and how much has.
pub(super) struct RequestProgress {
    pending: Mutex<PendingKeys>,
    arrivals: AtomicU64,
}

struct PendingKeys {
    /// Keys that the caller waits for.
    needed: HashSet<ContentKey>,
    /// Keys that other callers may wait for, or that are fetched ahead.
    claim: FlightClaim,
    /// Tells the caller that all needed is at hand, or why it will not be.
    caller: Option<oneshot::Sender<Result<()>>>,
}

impl RequestProgress {
    /// A request that must bring `needed` and holds `claim` until it ends. The receiver hears when
    /// all needed is at hand, or why it will not be.
    pub fn new(
        needed: HashSet<ContentKey>,
        claim: FlightClaim,
    ) -> (Self, oneshot::Receiver<Result<()>>) {
        let (caller, arrived) = oneshot::channel();
        let progress = Self {
            pending: Mutex::new(PendingKeys {
                needed,
                claim,
                caller: Some(caller),
            }),
            arrivals: AtomicU64::new(0),
        };
        (progress, arrived)
    }

    /// The content of `key` is at hand.
    pub fn landed(&self, key: &ContentKey) {
        let (landed, caller) = {
            let mut pending = self.pending.lock();
            let landed = pending.claim.landed(key);
            let is_last = pending.needed.remove(key) && pending.needed.is_empty();
            (landed, pending.caller.take_if(|_| is_last))
        };
        // Both wake tasks, so they are told without the lock.
        drop(landed);
        if let Some(caller) = caller {
            // It fails when the caller has gone.
            let _ = caller.send(Ok(()));
        }
    }

    /// Whether all that the caller waits for is at hand.
    pub fn is_complete(&self) -> bool {
        self.pending.lock().needed.is_empty()
    }

    /// Whether nothing more is to be had by going on.
    pub fn is_exhausted(&self) -> bool {
        let pending = self.pending.lock();
        pending.needed.is_empty() && pending.claim.is_empty()
    }

    /// Whether this key is still to arrive.
    pub fn lacks(&self, key: &ContentKey) -> bool {
        let pending = self.pending.lock();
        pending.needed.contains(key) || pending.claim.contains(key)
    }

    /// How many records and chunks have arrived.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    /// So many more records and chunks have arrived. Returns how many had before.
    pub fn add_arrivals(&self, count: u64) -> u64 {
        self.arrivals.fetch_add(count, Ordering::Relaxed)
    }

    /// The request is over.
    pub fn finish(&self, result: Result<()>) {
        let caller = self.pending.lock().caller.take();
        if let Some(caller) = caller {
            // It fails when the caller has gone.
            let _ = caller.send(result);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::{Error, Oid};

    use super::super::flights::Flights;
    use super::*;

    fn key(n: u8) -> ContentKey {
        ContentKey::Chunk(Oid::from_bytes(&[n; 20]).unwrap(), 0)
    }

    #[tokio::test]
    async fn the_caller_hears_when_all_it_needs_is_here_and_the_rest_goes_on() {
        let flights = Flights::default();
        let claim = flights.claim([key(1), key(2), key(3)]);
        let (progress, mut arrived) = RequestProgress::new(HashSet::from([key(1), key(2)]), claim);
        progress.landed(&key(1));
        assert!(arrived.try_recv().is_err(), "one is missing");
        assert!(!progress.is_complete() && progress.lacks(&key(2)) && !progress.lacks(&key(1)));
        progress.landed(&key(2));
        assert!(arrived.await.unwrap().is_ok());
        assert!(progress.is_complete() && !progress.is_exhausted());
        progress.landed(&key(3));
        assert!(progress.is_exhausted());
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn the_caller_hears_why_what_it_needs_will_not_come() {
        let claim = Flights::default().claim([key(1)]);
        let (progress, arrived) = RequestProgress::new(HashSet::from([key(1)]), claim);
        progress.finish(Err(Error::unavailable("down")));
        // Only the first news counts.
        progress.finish(Ok(()));
        assert!(arrived.await.unwrap().is_err());
    }
}
