//! Which catalogues ask a member: routers say which one they have when they ask for its statistics,
//! and are told of others, so that two routers without a common state are noticed.
//!
//! Invariant: one row for each catalogue, at most [`ASKERS_MAX`], none older than [`ASKED_WITHIN`].
//! Called by the services of node and fetcher.

use std::time::{Duration, Instant};

use monofs_proto::v1::CatalogAsker;
use parking_lot::Mutex;

/// A router that did not ask for this long is no longer told about.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
const ASKERS_MAX: usize = 16;

/// The routers that asked lately, one for each catalogue.
#[derive(Debug, Default)]
pub struct CatalogAskers(Mutex<Vec<(CatalogAsker, Instant)>>);

impl CatalogAskers {
    /// Takes in who asks, and tells who else asked lately for another catalogue. Callers that are
    /// no routers say nothing of themselves and are told nothing.
    pub fn asked(&self, asker: Option<CatalogAsker>) -> Vec<CatalogAsker> {
        self.asked_at(asker, Instant::now())
    }

    fn asked_at(&self, asker: Option<CatalogAsker>, now: Instant) -> Vec<CatalogAsker> {
        let Some(asker) = asker else {
            return Vec::new();
        };
        let mut askers = self.0.lock();
        askers.retain(|(known, at)| known.epoch != asker.epoch && now - *at < ASKED_WITHIN);
        askers.truncate(ASKERS_MAX - 1);
        let others: Vec<CatalogAsker> = askers.iter().map(|(known, _)| known.clone()).collect();
        askers.push((asker, now));
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(epoch: &str, router: &str) -> Option<CatalogAsker> {
        Some(CatalogAsker {
            epoch: epoch.into(),
            router: router.into(),
        })
    }

    #[test]
    fn routers_of_one_catalogue_are_not_told_of_each_other_and_those_of_two_are() {
        let askers = CatalogAskers::default();
        assert!(askers.asked(asker("e1", "r1:9090")).is_empty());
        assert!(askers.asked(asker("e1", "r2:9090")).is_empty());
        let others = askers.asked(asker("e2", "r3:9090"));
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].router, "r2:9090");
        assert_eq!(askers.asked(asker("e1", "r1:9090"))[0].router, "r3:9090");
        assert!(askers.asked(None).is_empty());
    }

    #[test]
    fn one_that_stopped_asking_is_forgotten_and_the_rows_are_bounded() {
        let askers = CatalogAskers::default();
        let start = Instant::now();
        askers.asked_at(asker("old", "r:1"), start);
        let later = start + ASKED_WITHIN;
        assert!(askers.asked_at(asker("new", "r:2"), later).is_empty());
        for number in 0..100 {
            let others = askers.asked_at(asker(&number.to_string(), "r:3"), later);
            assert!(others.len() < ASKERS_MAX);
        }
    }
}
