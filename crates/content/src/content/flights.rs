//! Single flight: each record and chunk is fetched by one request at a time; other callers that
//! need it wait for that one.
//!
//! A [`FlightClaim`] owns the keys that no other request fetches. It tells the waiters as each key
//! lands; when it is dropped, the rest is released, and the waiters of those look for themselves.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::want::ContentKey;

/// Waits until a key landed or its claim was given up.
pub type Landing = watch::Receiver<()>;

/// All keys in flight.
#[derive(Clone, Default)]
pub struct Flights {
    keys: Arc<Mutex<HashMap<ContentKey, watch::Sender<()>>>>,
}

impl Flights {
    fn keys(&self) -> MutexGuard<'_, HashMap<ContentKey, watch::Sender<()>>> {
        self.keys.lock()
    }

    /// Claims those of `keys` that are not in flight.
    pub fn claim(&self, keys: impl IntoIterator<Item = ContentKey>) -> FlightClaim {
        let mut flying = self.keys();
        let mut claimed = HashSet::new();
        for key in keys {
            if let Entry::Vacant(free) = flying.entry(key) {
                free.insert(watch::channel(()).0);
                claimed.insert(key);
            }
        }
        FlightClaim {
            flights: self.clone(),
            keys: claimed,
        }
    }

    /// Takes these keys out of flight.
    fn release(&self, keys: &[ContentKey]) {
        if keys.is_empty() {
            return;
        }
        let released: Vec<_> = {
            let mut flying = self.keys();
            keys.iter().filter_map(|key| flying.remove(key)).collect()
        };
        // This wakes the waiters, so it is done without the lock.
        drop(released);
    }

    /// A wait for this key, if it is in flight.
    pub fn landing(&self, key: &ContentKey) -> Option<Landing> {
        self.keys().get(key).map(watch::Sender::subscribe)
    }

    /// How many keys are in flight.
    pub fn count(&self) -> usize {
        self.keys().len()
    }
}

/// Keys that the holder of this fetches.
pub struct FlightClaim {
    flights: Flights,
    keys: HashSet<ContentKey>,
}

impl FlightClaim {
    /// Whether this claim owns `key`.
    pub fn contains(&self, key: &ContentKey) -> bool {
        self.keys.contains(key)
    }

    /// Whether everything claimed has landed.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The content of `key` is at hand now. Dropping what is returned wakes those who wait for it;
    /// that is done without a lock.
    #[must_use = "dropping it wakes the waiters"]
    pub fn landed(&mut self, key: &ContentKey) -> Option<watch::Sender<()>> {
        if self.keys.remove(key) {
            self.flights.keys().remove(key)
        } else {
            None
        }
    }

    /// Gives up what is not in `keys`.
    pub fn keep(&mut self, keys: &HashSet<ContentKey>) {
        let given_up: Vec<ContentKey> = self.keys.extract_if(|key| !keys.contains(key)).collect();
        self.flights.release(&given_up);
    }
}

impl Drop for FlightClaim {
    fn drop(&mut self) {
        let given_up: Vec<ContentKey> = self.keys.drain().collect();
        self.flights.release(&given_up);
    }
}

/// Waits for a landing, in whatever way it ends.
pub async fn landed(mut landing: Landing) {
    // The sender never sends: the wait ends when it is dropped.
    let _ = landing.changed().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::Oid;

    use super::*;

    fn key(n: u8) -> ContentKey {
        ContentKey::Chunk(Oid::from_bytes(&[n; 20]).unwrap(), 0)
    }

    #[tokio::test]
    async fn one_claims_and_the_others_wait() {
        let flights = Flights::default();
        let mut first = flights.claim([key(1), key(2)]);
        let second = flights.claim([key(2), key(3)]);
        assert!(first.contains(&key(2)) && !second.contains(&key(2)) && second.contains(&key(3)));
        let waiting = flights.landing(&key(2)).unwrap();
        drop(first.landed(&key(2)));
        landed(waiting).await;
        assert!(flights.landing(&key(2)).is_none());
        assert!(flights.landing(&key(1)).is_some());
    }

    #[tokio::test]
    async fn what_is_not_kept_is_free_for_others() {
        let flights = Flights::default();
        let mut claim = flights.claim([key(1), key(2)]);
        let waiting = flights.landing(&key(1)).unwrap();
        claim.keep(&HashSet::from([key(2), key(3)]));
        landed(waiting).await;
        assert!(!claim.contains(&key(1)) && claim.contains(&key(2)) && !claim.contains(&key(3)));
        assert!(flights.claim([key(1)]).contains(&key(1)));
    }

    #[tokio::test]
    async fn a_dropped_claim_releases_its_waiters() {
        let flights = Flights::default();
        let claim = flights.claim([key(1)]);
        let waiting = flights.landing(&key(1)).unwrap();
        drop(claim);
        landed(waiting).await;
        assert_eq!(flights.count(), 0);
    }
}
