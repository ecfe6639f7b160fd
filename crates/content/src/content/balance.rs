//! How loaded each peer is, as seen from here: requests under way times a moving average of
//! latency.
//!
//! The average is "peak EWMA" (Finagle's `aperture` balancer, `tower::load::PeakEwma`): a slower
//! answer counts at once, a faster one by `w = exp(-elapsed / DECAY)`, and without answers the
//! estimate decays towards zero, so that a peer that was slow is tried again. tower's own wraps a
//! service with one latency; here a peer has one for each class of requests, and requests that are
//! given up count too. A peer that says nothing to any of its requests is at least as slow as it
//! has been silent, and hangs in the end: else a walk would go on asking it, each time at the price
//! of a hedge. Time is passed in, so that tests need no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::hedge::{REQUEST_CLASSES, RequestClass};

/// How long it takes an estimate to fall to a third. Short, since asking a slow peer again costs
/// one hedge, while a peak that was chance turns requests away from a good peer.
const DECAY: Duration = Duration::from_secs(2);
/// What a peer is taken for that was not asked lately; no estimate is lower, or requests under way
/// would not count.
const LATENCY_MIN: Duration = Duration::from_micros(100);
/// No estimate is higher.
const LATENCY_MAX: Duration = Duration::from_secs(10);
/// A peer that is silent this long hangs: others are asked before it. Less than a caller waits for
/// another's request, so that it asks another peer when it has waited in vain.
pub const SILENCE_MAX: Duration = Duration::from_millis(200);
/// A peer that hung while another one answered is taken for hanging for this long.
const HANGS_FOR: Duration = Duration::from_secs(5);
/// Most peers that are remembered.
const PEERS_MAX: usize = 4096;

/// Why a request was given up without any message of its peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// Another peer was quicker. How much slower this one is is not known, so it counts as twice as
    /// slow as it was taken for; if it hangs, it goes on to count as hanging.
    Overtaken,
    /// It was the second of two requests, and the first was answered.
    Unneeded,
}

/// The loads of all peers by address.
#[derive(Default)]
pub struct PeerLoads(Mutex<HashMap<String, PeerLoad>>);

#[derive(Default)]
struct PeerLoad {
    under_way: u32,
    /// Since when it has said nothing, while requests are under way.
    silent_since: Option<Instant>,
    /// When it was found hanging, unless something came from it since.
    hung_at: Option<Instant>,
    latencies: [Option<LatencyEstimate>; REQUEST_CLASSES],
}

impl PeerLoad {
    fn silence(&self, now: Instant) -> Duration {
        self.silent_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    fn hangs(&self, now: Instant) -> bool {
        let hung = self
            .hung_at
            .is_some_and(|at| now.saturating_duration_since(at) < HANGS_FOR);
        hung || self.silence(now) >= SILENCE_MAX
    }
}

#[derive(Clone, Copy)]
struct LatencyEstimate {
    seconds: f64,
    at: Instant,
}

impl LatencyEstimate {
    fn decayed(&self, now: Instant) -> f64 {
        self.seconds
            * (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// The peak, else the weighted mean of what was and what is.
    fn update(&self, took: f64, now: Instant) -> f64 {
        if took > self.seconds {
            return took;
        }
        let weight =
            (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp();
        self.seconds * weight + took * (1.0 - weight)
    }
}

impl PeerLoads {
    fn peers(&self) -> MutexGuard<'_, HashMap<String, PeerLoad>> {
        self.0.lock()
    }

    /// Expected seconds until this peer answers one more request of this class.
    pub fn of(&self, address: &str, class: RequestClass, now: Instant) -> f64 {
        let peers = self.peers();
        let Some(peer) = peers.get(address) else {
            return LATENCY_MIN.as_secs_f64();
        };
        let latency = peer.latencies[class as usize].map_or(0.0, |estimate| estimate.decayed(now));
        let latency = latency
            .max(peer.silence(now).as_secs_f64())
            .max(LATENCY_MIN.as_secs_f64());
        latency * f64::from(peer.under_way + 1)
    }

    /// Whether it answers no request: silent for [`SILENCE_MAX`], now or when another one was
    /// quicker lately.
    pub fn hangs(&self, address: &str, now: Instant) -> bool {
        self.peers()
            .get(address)
            .is_some_and(|peer| peer.hangs(now))
    }

    /// A request to this peer begins; ends with [`PeerLoads::end`].
    pub fn begin(&self, address: &str, now: Instant) {
        let mut peers = self.peers();
        if peers.len() >= PEERS_MAX && !peers.contains_key(address) {
            peers.retain(|_, peer| peer.under_way > 0);
        }
        let peer = peers.entry(address.to_owned()).or_default();
        peer.under_way += 1;
        peer.silent_since.get_or_insert(now);
    }

    /// Something came from this peer.
    pub fn heard(&self, address: &str, now: Instant) {
        if let Some(peer) = self.peers().get_mut(address) {
            peer.silent_since = Some(now);
            peer.hung_at = None;
        }
    }

    /// A request to this peer ended.
    pub fn end(&self, address: &str) {
        if let Some(peer) = self.peers().get_mut(address) {
            peer.under_way = peer.under_way.saturating_sub(1);
            peer.silent_since = peer.silent_since.filter(|_| peer.under_way > 0);
        }
    }

    /// The first message of this peer came after `took`.
    pub fn observe(&self, address: &str, class: RequestClass, took: Duration, now: Instant) {
        if let Some(peer) = self.peers().get_mut(address) {
            let latency = &mut peer.latencies[class as usize];
            let took = took.as_secs_f64();
            let seconds = latency.map_or(took, |estimate| estimate.update(took, now));
            *latency = Some(LatencyEstimate { seconds, at: now });
        }
    }

    /// A request was given up after `took` without any message, so the peer is at least that slow.
    /// Comes before [`PeerLoads::end`].
    pub fn given_up(
        &self,
        address: &str,
        class: RequestClass,
        took: Duration,
        why: GivenUp,
        now: Instant,
    ) {
        let is_overtaken = why == GivenUp::Overtaken;
        if let Some(peer) = self.peers().get_mut(address) {
            if is_overtaken && peer.silence(now) >= SILENCE_MAX {
                peer.hung_at = Some(now);
            }
            let latency = &mut peer.latencies[class as usize];
            let before = latency.map_or(0.0, |estimate| estimate.decayed(now));
            let at_least = if is_overtaken { 2.0 * before } else { before };
            let seconds = took
                .as_secs_f64()
                .max(at_least)
                .min(LATENCY_MAX.as_secs_f64());
            *latency = Some(LatencyEstimate { seconds, at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(loads: &PeerLoads, address: &str, took: Duration, now: Instant) {
        loads.begin(address, now);
        loads.observe(address, RequestClass::Blobs, took, now);
        loads.end(address);
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let (loads, start) = (PeerLoads::default(), Instant::now());
        asked(&loads, "a", MS, start);
        asked(&loads, "a", 50 * MS, start);
        assert!((loads.of("a", RequestClass::Blobs, start) - 0.050).abs() < 1e-6);
        asked(&loads, "a", MS, start + DECAY / 10);
        let second = loads.of("a", RequestClass::Blobs, start + DECAY / 10);
        assert!(second > 0.044 && second < 0.046, "{second}");
        let later = loads.of("a", RequestClass::Blobs, start + DECAY / 10 + DECAY);
        assert!(
            later < second / 2.7 && later > second / 2.8,
            "without answers it decays: {later}"
        );
        assert!(
            (loads.of("a", RequestClass::Blobs, start + Duration::from_secs(1000)) - 0.0001).abs()
                < 1e-9
        );
    }

    #[test]
    fn requests_under_way_multiply_and_classes_are_apart() {
        let (loads, now) = (PeerLoads::default(), Instant::now());
        asked(&loads, "a", 2 * MS, now);
        (0..3).for_each(|_| loads.begin("a", now));
        assert!((loads.of("a", RequestClass::Blobs, now) - 0.008).abs() < 1e-9);
        assert!((loads.of("a", RequestClass::Bulk, now) - 0.0004).abs() < 1e-9);
        assert!((loads.of("unknown", RequestClass::Blobs, now) - 0.0001).abs() < 1e-9);
    }

    #[test]
    fn a_request_given_up_makes_its_peer_at_least_that_slow() {
        let (loads, now) = (PeerLoads::default(), Instant::now());
        asked(&loads, "a", 2 * MS, now);
        let given_up = |took: Duration, why| {
            loads.given_up("a", RequestClass::Blobs, took, why, now);
            (loads.of("a", RequestClass::Blobs, now) * 1e6).round()
        };
        assert_eq!(given_up(MS, GivenUp::Unneeded), 2000.0);
        assert_eq!(given_up(9 * MS, GivenUp::Unneeded), 9000.0);
        assert_eq!(
            given_up(MS, GivenUp::Overtaken),
            18_000.0,
            "twice as slow as thought"
        );
        (0..20).for_each(|_| assert!(given_up(MS, GivenUp::Overtaken) > 0.0));
        assert_eq!(
            given_up(MS, GivenUp::Overtaken),
            LATENCY_MAX.as_micros() as f64
        );
    }

    #[test]
    fn a_peer_is_as_slow_as_it_is_silent() {
        let (loads, start) = (PeerLoads::default(), Instant::now());
        let load = |ms| loads.of("a", RequestClass::Trees, start + ms * MS);
        asked(&loads, "a", MS, start);
        assert!(load(1000) < 0.001, "nobody waits for it");
        loads.begin("a", start);
        loads.begin("a", start + 40 * MS);
        assert!(
            (load(50) - 3.0 * 0.050).abs() < 1e-9,
            "for any class, since the first that waits"
        );
        loads.heard("a", start + 60 * MS);
        assert!((load(70) - 3.0 * 0.010).abs() < 1e-9);
        loads.end("a");
        assert!((load(80) - 2.0 * 0.020).abs() < 1e-9, "the other one waits");
        loads.end("a");
        assert!(load(1000) < 0.001);
    }

    #[test]
    fn a_peer_that_hangs_is_left_alone_for_a_while() {
        let (loads, start) = (PeerLoads::default(), Instant::now());
        let after = SILENCE_MAX;
        loads.begin("a", start);
        assert!(!loads.hangs("a", start + after - MS) && loads.hangs("a", start + after));
        loads.heard("a", start + after);
        assert!(!loads.hangs("a", start + after));
        loads.given_up(
            "a",
            RequestClass::Bulk,
            after,
            GivenUp::Overtaken,
            start + after + MS,
        );
        loads.end("a");
        assert!(
            !loads.hangs("a", start + after + MS),
            "slow with one request, not with another"
        );
        loads.begin("a", start);
        let found = start + 2 * after;
        loads.given_up(
            "a",
            RequestClass::Bulk,
            2 * after,
            GivenUp::Overtaken,
            found,
        );
        loads.end("a");
        assert!(loads.hangs("a", found + HANGS_FOR - MS) && !loads.hangs("a", found + HANGS_FOR));
        loads.begin("a", found);
        loads.heard("a", found);
        assert!(!loads.hangs("a", found), "it answers");
    }

    #[test]
    fn peers_are_bounded() {
        let (loads, now) = (PeerLoads::default(), Instant::now());
        loads.begin("busy", now);
        for n in 0..2 * PEERS_MAX {
            asked(&loads, &n.to_string(), MS, now);
        }
        let peers = loads.peers();
        assert!(peers.len() <= PEERS_MAX && peers.contains_key("busy"));
    }
}
