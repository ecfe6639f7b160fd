//! How loaded each peer is, as seen from here: requests under way times a moving average of
//! latency.
//!
//! The average is "peak EWMA" (Finagle's `aperture` balancer, `tower::load::PeakEwma`): a slower
//! answer counts at once, a faster one by `w = exp(-elapsed / DECAY)`, and without answers the
//! estimate decays towards zero, so that a peer that was slow is tried again. tower's own wraps a
//! service with one latency; here a peer has one for each kind of request, and requests that are
//! given up count too. A peer that says nothing to any of its requests is at least as slow as it
//! has been silent, and hangs in the end: else a walk would go on asking it, each time at the price
//! of a hedge. Time is passed in, so that tests need no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::hedge::{KINDS, Kind};

/// How long it takes an estimate to fall to a third. Short, since asking a slow peer again costs
/// one hedge, while a peak that was chance turns requests away from a good peer.
const DECAY: Duration = Duration::from_secs(2);
/// What a peer is taken for that was not asked lately; no estimate is lower, or requests under way
/// would not count.
const LATENCY_MIN: Duration = Duration::from_micros(100);
/// No estimate is higher.
const LATENCY_MAX: Duration = Duration::from_secs(10);
/// A peer that is silent this long hangs: others are asked before it. Less than anybody waits for
/// another's request, so that who waited in vain asks somebody else.
pub const SILENCE_MAX: Duration = Duration::from_millis(200);
/// A peer that hung while another one answered is taken for hanging for this long.
const HANGS_FOR: Duration = Duration::from_secs(5);
/// Most peers that are remembered.
const PEERS_MAX: usize = 4096;

/// The loads of all peers by address.
#[derive(Default)]
pub struct Loads(Mutex<HashMap<String, Peer>>);

#[derive(Default)]
struct Peer {
    under_way: u32,
    /// Since when it has said nothing, while requests are under way.
    silent_since: Option<Instant>,
    /// When it was found hanging, unless something came from it since.
    hung_at: Option<Instant>,
    latencies: [Option<Estimate>; KINDS],
}

impl Peer {
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
struct Estimate {
    seconds: f64,
    at: Instant,
}

impl Estimate {
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

impl Loads {
    fn peers(&self) -> MutexGuard<'_, HashMap<String, Peer>> {
        self.0.lock()
    }

    /// Expected seconds until this peer answers one more request of this kind.
    pub fn of(&self, address: &str, kind: Kind, now: Instant) -> f64 {
        let peers = self.peers();
        let Some(peer) = peers.get(address) else {
            return LATENCY_MIN.as_secs_f64();
        };
        let latency = peer.latencies[kind as usize].map_or(0.0, |estimate| estimate.decayed(now));
        let latency = latency
            .max(peer.silence(now).as_secs_f64())
            .max(LATENCY_MIN.as_secs_f64());
        latency * f64::from(peer.under_way + 1)
    }

    /// Whether it answers nobody: silent for [`SILENCE_MAX`], now or when another one was quicker
    /// lately.
    pub fn hangs(&self, address: &str, now: Instant) -> bool {
        self.peers()
            .get(address)
            .is_some_and(|peer| peer.hangs(now))
    }

    /// A request to this peer begins; ends with [`Loads::end`].
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
            (peer.silent_since, peer.hung_at) = (Some(now), None);
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
    pub fn observe(&self, address: &str, kind: Kind, took: Duration, now: Instant) {
        if let Some(peer) = self.peers().get_mut(address) {
            let latency = &mut peer.latencies[kind as usize];
            let took = took.as_secs_f64();
            let seconds = latency.map_or(took, |estimate| estimate.update(took, now));
            *latency = Some(Estimate { seconds, at: now });
        }
    }

    /// A request was given up after `took` without any message, so the peer is at least that slow.
    /// `lost`: because another was quicker; how much slower it is nobody knows, so it counts as
    /// twice as slow as it was taken for; if it hangs, it goes on to count as hanging. Comes before
    /// [`Loads::end`].
    pub fn given_up(&self, address: &str, kind: Kind, took: Duration, lost: bool, now: Instant) {
        if let Some(peer) = self.peers().get_mut(address) {
            if lost && peer.silence(now) >= SILENCE_MAX {
                peer.hung_at = Some(now);
            }
            let latency = &mut peer.latencies[kind as usize];
            let (took, before) = (
                took.as_secs_f64(),
                latency.map_or(0.0, |estimate| estimate.decayed(now)),
            );
            let seconds = took
                .max(if lost { 2.0 * before } else { before })
                .min(LATENCY_MAX.as_secs_f64());
            *latency = Some(Estimate { seconds, at: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn asked(loads: &Loads, address: &str, took: Duration, now: Instant) {
        loads.begin(address, now);
        loads.observe(address, Kind::Blobs, took, now);
        loads.end(address);
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let (loads, start) = (Loads::default(), Instant::now());
        asked(&loads, "a", MS, start);
        asked(&loads, "a", 50 * MS, start);
        assert!((loads.of("a", Kind::Blobs, start) - 0.050).abs() < 1e-6);
        asked(&loads, "a", MS, start + DECAY / 10);
        let second = loads.of("a", Kind::Blobs, start + DECAY / 10);
        assert!(second > 0.044 && second < 0.046, "{second}");
        let later = loads.of("a", Kind::Blobs, start + DECAY / 10 + DECAY);
        assert!(
            later < second / 2.7 && later > second / 2.8,
            "without answers it decays: {later}"
        );
        assert!(
            (loads.of("a", Kind::Blobs, start + Duration::from_secs(1000)) - 0.0001).abs() < 1e-9
        );
    }

    #[test]
    fn requests_under_way_multiply_and_kinds_are_apart() {
        let (loads, now) = (Loads::default(), Instant::now());
        asked(&loads, "a", 2 * MS, now);
        (0..3).for_each(|_| loads.begin("a", now));
        assert!((loads.of("a", Kind::Blobs, now) - 0.008).abs() < 1e-9);
        assert!((loads.of("a", Kind::Bulk, now) - 0.0004).abs() < 1e-9);
        assert!((loads.of("unknown", Kind::Blobs, now) - 0.0001).abs() < 1e-9);
    }

    #[test]
    fn a_request_given_up_makes_its_peer_at_least_that_slow() {
        let (loads, now) = (Loads::default(), Instant::now());
        asked(&loads, "a", 2 * MS, now);
        let given_up = |took: Duration, lost| {
            loads.given_up("a", Kind::Blobs, took, lost, now);
            (loads.of("a", Kind::Blobs, now) * 1e6).round()
        };
        assert_eq!(given_up(MS, false), 2000.0);
        assert_eq!(given_up(9 * MS, false), 9000.0);
        assert_eq!(given_up(MS, true), 18_000.0, "twice as slow as thought");
        (0..20).for_each(|_| assert!(given_up(MS, true) > 0.0));
        assert_eq!(given_up(MS, true), LATENCY_MAX.as_micros() as f64);
    }

    #[test]
    fn a_peer_is_as_slow_as_it_is_silent() {
        let (loads, start) = (Loads::default(), Instant::now());
        let load = |ms| loads.of("a", Kind::Trees, start + ms * MS);
        asked(&loads, "a", MS, start);
        assert!(load(1000) < 0.001, "nobody waits for it");
        loads.begin("a", start);
        loads.begin("a", start + 40 * MS);
        assert!(
            (load(50) - 3.0 * 0.050).abs() < 1e-9,
            "for any kind, since the first that waits"
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
        let (loads, start) = (Loads::default(), Instant::now());
        let after = SILENCE_MAX;
        loads.begin("a", start);
        assert!(!loads.hangs("a", start + after - MS) && loads.hangs("a", start + after));
        loads.heard("a", start + after);
        assert!(!loads.hangs("a", start + after));
        loads.given_up("a", Kind::Bulk, after, true, start + after + MS);
        loads.end("a");
        assert!(
            !loads.hangs("a", start + after + MS),
            "slow with one request, not with another"
        );
        loads.begin("a", start);
        let found = start + 2 * after;
        loads.given_up("a", Kind::Bulk, 2 * after, true, found);
        loads.end("a");
        assert!(loads.hangs("a", found + HANGS_FOR - MS) && !loads.hangs("a", found + HANGS_FOR));
        loads.begin("a", found);
        loads.heard("a", found);
        assert!(!loads.hangs("a", found), "it answers");
    }

    #[test]
    fn peers_are_bounded() {
        let (loads, now) = (Loads::default(), Instant::now());
        loads.begin("busy", now);
        for n in 0..2 * PEERS_MAX {
            asked(&loads, &n.to_string(), MS, now);
        }
        let peers = loads.peers();
        assert!(peers.len() <= PEERS_MAX && peers.contains_key("busy"));
    }
}
