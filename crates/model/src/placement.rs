//! Where copies of a repository should be: weighted rendezvous hashing (HRW) over (node id,
//! weight), zones respected.
//!
//! Invariants: the answer depends only on the ids and weights given, never on their order; taking a
//! node away moves only the keys that it held. The hash ("hrw-v1": xxh3 of key and node id) is part
//! of the on-disk contract: golden vectors guard it. HRW says where copies *should* be and in which
//! order to ask; who *has* one is recorded in the catalogue.

mod placer;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use rendezvous_hash::{Capacity, IdNode, NodeHasher, RendezvousNodes, WeightedNode};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::path::StorageId;
pub use placer::{Placed, PlacementKey, Placer, Ranked};

/// Of the ranking.
const HRW_SEED: u64 = 0x6d6f_6e6f_6673_0001;
/// Sets [`spread`] apart from the ranking.
const SPREAD_SEED: u64 = 0x0073_6861_7265;

/// The unique name of a node or fetcher: 1..=64 of `[A-Za-z0-9._:-]`, not starting with `-` or `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(String);

impl NodeId {
    /// Checks an id.
    pub fn new(text: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
        if text.is_empty()
            || text.len() > 64
            || text.starts_with(['-', '.'])
            || !text.bytes().all(allowed)
        {
            let shown = text.escape_debug();
            return Err(Error::invalid(format!(
                "'{shown}' is not a node id (1 to 64 of letters, digits, '.', '_', ':' and '-')"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Hash for NodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Not the derived hash: std adds a length marker that is not specified.
        state.write(self.0.as_bytes());
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for NodeId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::new(&text)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.0
    }
}

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub id: NodeId,
    /// Relative share of keys; must be positive and normal, anything else counts as 1.
    pub weight: f64,
    /// Copies spread over zones first; empty = no zone.
    pub zone: String,
}

/// The hasher "hrw-v1": xxh3-64 over key bytes, a zero byte, node id bytes.
struct HrwV1;

impl NodeHasher<NodeId> for HrwV1 {
    fn hash<T: Hash>(&self, node: &NodeId, item: &T) -> u64 {
        let mut hasher = Xxh3::with_seed(HRW_SEED);
        item.hash(&mut hasher);
        hasher.write(&[0]);
        node.hash(&mut hasher);
        hasher.finish()
    }
}

/// A key whose hash feeds its bytes and nothing else.
struct HashedKey<'a>(&'a [u8]);

impl Hash for HashedKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

/// All candidates in the order of preference for `key`.
pub fn rank(key: &StorageId, candidates: &[Candidate]) -> Vec<NodeId> {
    let one = Capacity::new(1.0).expect("1.0 is normal and positive");
    let mut nodes = RendezvousNodes::new(HrwV1);
    for candidate in candidates {
        let capacity = Capacity::new(candidate.weight).unwrap_or(one);
        nodes.insert(WeightedNode::new(
            IdNode::new(candidate.id.clone()),
            capacity,
        ));
    }
    nodes
        .calc_candidates(&HashedKey(key.as_str().as_bytes()))
        .map(|node| (*node.node).clone())
        .collect()
}

/// A stable number for this pair that does not depend on the ranking: which repositories a growing
/// share takes in first.
pub fn spread(key: &StorageId, node: &NodeId) -> u64 {
    let mut hasher = Xxh3::with_seed(SPREAD_SEED);
    hasher.write(key.as_str().as_bytes());
    hasher.write(node.as_str().as_bytes());
    hasher.finish()
}

/// Where the `count` copies of `key` should be, most preferred first: the ranking, but a zone is
/// used a second time only after every zone was used once (candidates without a zone are a zone of
/// their own each).
pub fn replicas(key: &StorageId, candidates: &[Candidate], count: usize) -> Vec<NodeId> {
    let zone_of = |id: &NodeId| {
        candidates
            .iter()
            .find(|c| c.id == *id)
            .map_or("", |c| c.zone.as_str())
    };
    // Each round takes one candidate of every zone that is left.
    let mut waiting = rank(key, candidates);
    let mut chosen = Vec::with_capacity(count.min(waiting.len()));
    while chosen.len() < count && !waiting.is_empty() {
        let mut used: Vec<&str> = Vec::new();
        let mut later = Vec::new();
        for id in waiting {
            let zone = zone_of(&id);
            if chosen.len() == count || (!zone.is_empty() && used.contains(&zone)) {
                later.push(id);
            } else {
                used.push(zone);
                chosen.push(id);
            }
        }
        waiting = later;
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::path::DisplayPath;

    fn key(n: usize) -> StorageId {
        DisplayPath::new(&format!("github.com/org/repo-{n}"))
            .unwrap()
            .storage_id()
    }

    fn nodes(weights: &[f64]) -> Vec<Candidate> {
        let node = |(n, &weight): (usize, &f64)| Candidate {
            id: NodeId::new(&format!("node{n}")).unwrap(),
            weight,
            zone: String::new(),
        };
        weights.iter().enumerate().map(node).collect()
    }

    #[test]
    fn golden_vectors_of_hrw_v1() {
        let four = nodes(&[1.0, 2.0, 1.0, 0.5]);
        let ranked: Vec<String> = (0..4)
            .map(|n| {
                rank(&key(n), &four)
                    .iter()
                    .map(|id| id.as_str().trim_start_matches("node"))
                    .collect()
            })
            .collect();
        assert_eq!(
            ranked, GOLDEN,
            "placement moved: every cluster would copy everything"
        );
    }

    const GOLDEN: [&str; 4] = ["1302", "2013", "3102", "1320"];

    #[test]
    fn every_node_gets_its_weights_share_within_three_percent() {
        let weights = [1.0, 2.0, 1.0, 4.0, 0.5];
        let candidates = nodes(&weights);
        let mut firsts = [0usize; 5];
        let keys = 100_000;
        for n in 0..keys {
            let first = rank(&key(n), &candidates)[0].as_str()[4..]
                .parse::<usize>()
                .unwrap();
            firsts[first] += 1;
        }
        let total: f64 = weights.iter().sum();
        for (node, (&weight, &count)) in weights.iter().zip(&firsts).enumerate() {
            let ratio = count as f64 / (keys as f64 * weight / total);
            assert!(
                (0.97..=1.03).contains(&ratio),
                "node{node} holds {ratio:.3} of its share"
            );
        }
    }

    #[test]
    fn zones_are_used_once_before_any_is_used_twice() {
        let mut candidates = nodes(&[1.0; 6]);
        for (n, candidate) in candidates.iter_mut().enumerate() {
            candidate.zone = ["a", "b"][n % 2].to_owned();
        }
        for n in 0..200 {
            let two = replicas(&key(n), &candidates, 2);
            let zone = |id: &NodeId| {
                candidates
                    .iter()
                    .find(|c| c.id == *id)
                    .unwrap()
                    .zone
                    .clone()
            };
            assert_ne!(zone(&two[0]), zone(&two[1]));
            assert_eq!(replicas(&key(n), &candidates, 9).len(), 6);
            assert_eq!(two[0], rank(&key(n), &candidates)[0]);
        }
    }

    proptest! {
        #[test]
        fn order_is_irrelevant_and_removal_moves_only_the_removed_nodes_keys(
            weights in prop::collection::vec(0.1f64..8.0, 2..12), seed in 0usize..1_000_000, gone in 0usize..12
        ) {
            let candidates = nodes(&weights);
            let mut reversed = candidates.clone();
            reversed.reverse();
            let before = rank(&key(seed), &candidates);
            prop_assert_eq!(&before, &rank(&key(seed), &reversed));
            let gone = &candidates[gone % candidates.len()].id;
            let rest: Vec<Candidate> = candidates.iter().filter(|c| c.id != *gone).cloned().collect();
            let without: Vec<NodeId> = before.into_iter().filter(|id| id != gone).collect();
            prop_assert_eq!(without, rank(&key(seed), &rest));
        }
    }

    #[test]
    fn a_node_id_is_a_word_that_is_safe_in_files_and_arguments() {
        for good in [
            "node1",
            "fetcher-host-9200",
            "a.b_c",
            "10.0.0.1:9000",
            &"n".repeat(64),
        ] {
            assert_eq!(NodeId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-x", ".x", "a/b", "a b", "a\n", "é", &"n".repeat(65)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_weight_that_makes_no_sense_counts_as_one() {
        let sane = nodes(&[1.0, 1.0, 1.0]);
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let mut odd = sane.clone();
            odd[1].weight = weight;
            for n in 0..50 {
                assert_eq!(rank(&key(n), &odd), rank(&key(n), &sane), "{weight}");
            }
        }
    }

    #[test]
    fn no_candidates_and_no_copies_are_no_replicas() {
        assert!(rank(&key(1), &[]).is_empty());
        assert!(replicas(&key(1), &[], 3).is_empty());
        assert!(replicas(&key(1), &nodes(&[1.0, 1.0]), 0).is_empty());
    }

    #[test]
    fn the_hash_of_a_repository_and_a_node_spreads_evenly() {
        let node = NodeId::new("node1").unwrap();
        let below_half = (0..2000)
            .filter(|n| spread(&key(*n), &node) % 100 < 50)
            .count();
        assert!((900..1100).contains(&below_half), "{below_half} of 2000");
    }
}
