//! [`replicas`](super::replicas) for many keys: what depends on the candidates alone is worked out
//! once, and of the ranking only the part that is asked for.
//!
//! Invariant: the same answer as [`replicas`](super::replicas), which the tests compare; so the
//! scores are those of `rendezvous_hash`: "Weighted Distributed Hash Tables", `ln(hash / 2^64) /
//! weight`, the highest first.

use std::cmp::Ordering;

use rendezvous_hash::Capacity;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Candidate, HRW_SEED, NodeId};
use crate::path::StorageId;

/// Longest key and node id that are hashed, and the zero byte between them.
const HASHED_MAX: usize = 32 + 1 + 64;

/// A key, ready to be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementKey([u8; 32]);

impl PlacementKey {
    /// Of the repository whose storage id has this value.
    pub fn of_number(id: u128) -> Self {
        let mut digits = [0; 32];
        for (at, digit) in digits.iter_mut().enumerate() {
            let nibble = (id >> (124 - 4 * at)) as u8 & 15;
            *digit = if nibble < 10 {
                b'0' + nibble
            } else {
                b'a' + nibble - 10
            };
        }
        Self(digits)
    }
}

impl From<&StorageId> for PlacementKey {
    fn from(id: &StorageId) -> Self {
        Self::of_number(id.number())
    }
}

/// A candidate and how it ranks for one key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The number that the candidate was given with.
    pub tag: u32,
    pub score: f64,
    /// Of the zone; those without one have one of their own each.
    zone: u32,
}

struct RankSpot {
    tag: u32,
    id: NodeId,
    weight: f64,
    zone: u32,
}

/// Places keys on a fixed set of candidates.
pub struct Placer {
    spots: Vec<RankSpot>,
}

impl Placer {
    /// Each candidate has a number by which answers name it.
    pub fn new<'a>(candidates: impl IntoIterator<Item = (u32, &'a Candidate)>) -> Self {
        let one = Capacity::new(1.0).expect("1.0 is normal and positive");
        let mut zones: Vec<&str> = Vec::new();
        let mut spots = Vec::new();
        for (tag, candidate) in candidates {
            // Candidates of one zone share its number; one without a zone is a zone by itself.
            let zone = match zones
                .iter()
                .position(|zone| !zone.is_empty() && *zone == candidate.zone)
            {
                Some(known) => known,
                None => {
                    zones.push(&candidate.zone);
                    zones.len() - 1
                }
            };

            // A weight that cannot be used counts as one, as it does in `replicas`.
            let weight = Capacity::new(candidate.weight).unwrap_or(one).value();
            spots.push(RankSpot {
                tag,
                id: candidate.id.clone(),
                weight,
                zone: zone as u32,
            });
        }
        Self { spots }
    }

    /// Where the `count` copies of `key` should be, most preferred first.
    pub fn replicas(&self, key: &PlacementKey, count: usize) -> Vec<Ranked> {
        let mut best: Vec<(Ranked, &RankSpot)> =
            Vec::with_capacity(count.min(self.spots.len()) + 1);
        for spot in &self.spots {
            let ranked = rank(key, spot);

            // A candidate behind the last of a full set cannot enter, which spares the look at its
            // zone.
            if best.len() == count
                && best
                    .last()
                    .is_none_or(|last| before(&last.0, last.1, &ranked, spot))
            {
                continue;
            }

            // A zone gives its best candidate only.
            if let Some(same) = best.iter().position(|(other, _)| other.zone == ranked.zone) {
                if before(&best[same].0, best[same].1, &ranked, spot) {
                    continue;
                }
                best.remove(same);
            }
            let at = best.partition_point(|(other, at)| before(other, at, &ranked, spot));
            best.insert(at, (ranked, spot));
            best.truncate(count);
        }

        // There are fewer zones than copies: zones have to be used again.
        if best.len() < count.min(self.spots.len()) {
            return self.by_rounds(key, count);
        }
        best.into_iter().map(|(ranked, _)| ranked).collect()
    }

    /// With fewer zones than copies, zones are used again, round by round.
    fn by_rounds(&self, key: &PlacementKey, count: usize) -> Vec<Ranked> {
        let mut waiting: Vec<(Ranked, &RankSpot)> = self
            .spots
            .iter()
            .map(|spot| (rank(key, spot), spot))
            .collect();

        // The order is that of preference over all candidates, whatever their zones.
        waiting.sort_by(|a, b| {
            if before(&a.0, a.1, &b.0, b.1) {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        });
        let mut chosen: Vec<Ranked> = Vec::with_capacity(count);

        // Each round takes one candidate of each zone; the rest waits for the next round.
        while chosen.len() < count && !waiting.is_empty() {
            let round = chosen.len();
            waiting.retain(|(ranked, _)| {
                let used = chosen[round..]
                    .iter()
                    .any(|other| other.zone == ranked.zone);
                if chosen.len() == count || used {
                    return true;
                }
                chosen.push(*ranked);
                false
            });
        }
        chosen
    }

    /// The candidate with this number.
    pub fn candidate(&self, tag: u32) -> Option<Placed<'_>> {
        self.spots.iter().find(|spot| spot.tag == tag).map(Placed)
    }
}

/// One of a [`Placer`]'s candidates.
pub struct Placed<'a>(&'a RankSpot);

impl Placed<'_> {
    /// Whether it could be among the `count` of `key`, given those that were chosen without it.
    pub fn may_enter(&self, key: &PlacementKey, chosen: &[Ranked], count: usize) -> bool {
        // Each zone once, and it ranks behind all of them: nothing changes.
        let once = |at: usize| {
            !chosen[..at]
                .iter()
                .any(|other| other.zone == chosen[at].zone)
        };
        let lowest = chosen
            .iter()
            .map(|ranked| ranked.score)
            .fold(f64::INFINITY, f64::min);
        chosen.len() < count || rank(key, self.0).score >= lowest || !(0..chosen.len()).all(once)
    }
}

fn rank(key: &PlacementKey, spot: &RankSpot) -> Ranked {
    let id = spot.id.as_str().as_bytes();
    let mut hashed = [0; HASHED_MAX];
    hashed[..32].copy_from_slice(&key.0);
    hashed[33..33 + id.len()].copy_from_slice(id);
    let hash = xxh3_64_with_seed(&hashed[..33 + id.len()], HRW_SEED);
    let score = (hash as f64 / u64::MAX as f64).ln() / spot.weight;
    Ranked {
        tag: spot.tag,
        score,
        zone: spot.zone,
    }
}

/// Whether the first is preferred.
fn before(a: &Ranked, a_spot: &RankSpot, b: &Ranked, b_spot: &RankSpot) -> bool {
    match a.score.total_cmp(&b.score) {
        Ordering::Equal => a_spot.id > b_spot.id,
        order => order == Ordering::Greater,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::replicas;
    use super::*;
    use crate::path::DisplayPath;

    fn candidates(facts: &[(f64, u8)]) -> Vec<Candidate> {
        let zone = |zone: u8| {
            if zone == 0 {
                String::new()
            } else {
                format!("zone{zone}")
            }
        };
        let candidate = |(n, &(weight, z)): (usize, &(f64, u8))| Candidate {
            id: NodeId::new(&format!("node{n}")).unwrap(),
            weight,
            zone: zone(z),
        };
        facts.iter().enumerate().map(candidate).collect()
    }

    fn chosen(placer: &Placer, key: &PlacementKey, all: &[Candidate], count: usize) -> Vec<NodeId> {
        placer
            .replicas(key, count)
            .iter()
            .map(|ranked| all[ranked.tag as usize].id.clone())
            .collect()
    }

    proptest! {
        #[test]
        fn it_says_what_replicas_says(
            facts in prop::collection::vec((prop_oneof![Just(0.0), 0.1f64..8.0], 0u8..4), 0..12),
            seed in 0usize..1_000_000, count in 1usize..6,
        ) {
            let id = DisplayPath::new(&format!("h/repo-{seed}")).unwrap().storage_id();
            let all = candidates(&facts);
            let placer = Placer::new((0..).zip(&all));
            let key = PlacementKey::from(&id);
            prop_assert_eq!(chosen(&placer, &key, &all, count), replicas(&id, &all, count));
        }

        #[test]
        fn who_cannot_enter_changes_nothing(
            facts in prop::collection::vec((0.1f64..8.0, 0u8..4), 2..12), seed in 0usize..1_000_000, count in 1usize..4,
        ) {
            let id = DisplayPath::new(&format!("h/repo-{seed}")).unwrap().storage_id();
            let all = candidates(&facts);
            let last = all.len() - 1;
            let key = PlacementKey::from(&id);
            let with = Placer::new((0..).zip(&all));
            // The same zone numbers: the last candidate is left out by asking the others only.
            let without: Vec<NodeId> = replicas(&id, &all[..last], count);
            let ranked: Vec<Ranked> = without
                .iter()
                .map(|id| rank(&key, with.spots.iter().find(|spot| spot.id == *id).unwrap()))
                .collect();
            if !with.candidate(last as u32).unwrap().may_enter(&key, &ranked, count) {
                prop_assert_eq!(replicas(&id, &all, count), without);
            }
        }
    }
}
