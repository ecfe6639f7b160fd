//! What a caller needs, and the request that gets it.

use std::collections::HashSet;

use monofs_model::limits::{CONTENT_REQUEST_ITEMS_MAX, TREE_CLOSURE_BYTES};

use super::flights::{FlightClaim, Flights};
use super::hedge::RequestClass;
use crate::cache::Cache;
use crate::shown::DirectoryKey;
use crate::want::{ContentKey, Demand, Span};

/// Content up to this size is one small read: a node answers it with one message.
const SMALL_BYTES_MAX: u64 = 256 << 10;

/// What a caller waits for, and what is asked for in the same request and not waited for.
pub(super) enum ContentNeed {
    Trees {
        wanted: Vec<DirectoryKey>,
        ahead: Vec<DirectoryKey>,
        /// Bytes of records below these that may come too.
        budget: u64,
    },
    Chunks {
        wanted: Span,
        ahead: Vec<Span>,
    },
}

impl ContentNeed {
    /// The keys that are waited for.
    pub fn wanted(&self) -> Vec<ContentKey> {
        match self {
            Self::Trees { wanted, .. } => {
                wanted.iter().flat_map(ContentKey::of_directory).collect()
            }
            Self::Chunks { wanted, .. } => wanted.keys().collect(),
        }
    }

    /// Claims all keys that are not in flight.
    pub fn claim(&self, flights: &Flights) -> FlightClaim {
        match self {
            Self::Trees { wanted, ahead, .. } => flights.claim(
                wanted
                    .iter()
                    .chain(ahead)
                    .flat_map(ContentKey::of_directory),
            ),
            Self::Chunks { wanted, ahead } => {
                flights.claim(std::iter::once(wanted).chain(ahead).flat_map(Span::keys))
            }
        }
    }

    /// The keys that are not at hand. Those not waited for were looked at a moment ago, when they
    /// were chosen.
    pub fn absent(&self, cache: &Cache) -> HashSet<ContentKey> {
        match self {
            Self::Trees { wanted, ahead, .. } => {
                let wanted = wanted.iter().flat_map(ContentKey::of_directory);
                let missing = wanted.filter(|key| match key {
                    ContentKey::Tree(tree) => !cache.has_record(tree),
                    ContentKey::Generations(id) => cache.generations(id).is_none(),
                    ContentKey::Chunk(..) => false,
                });
                missing
                    .chain(ahead.iter().flat_map(ContentKey::of_directory))
                    .collect()
            }
            Self::Chunks { wanted, ahead } => {
                let mut absent = absent_chunks(cache, std::slice::from_ref(wanted));
                absent.extend(ahead.iter().flat_map(Span::keys));
                absent
            }
        }
    }

    /// The request that brings `asked`, which is waited for, and what else is claimed.
    pub fn request(&self, asked: &[ContentKey], claim: &FlightClaim) -> ContentRequest {
        match self {
            // What is waited for comes first.
            Self::Trees {
                wanted,
                ahead,
                budget,
            } => {
                let wanted = wanted.iter().filter(|directory| {
                    ContentKey::of_directory(directory).any(|key| asked.contains(&key))
                });
                let ahead = ahead.iter().filter(|directory| {
                    ContentKey::of_directory(directory).any(|key| claim.contains(&key))
                });
                ContentRequest::Trees {
                    trees: wanted
                        .chain(ahead)
                        .copied()
                        .take(CONTENT_REQUEST_ITEMS_MAX)
                        .collect(),
                    budget: *budget,
                }
            }
            Self::Chunks { wanted, ahead } => {
                let ahead = ahead
                    .iter()
                    .filter(|span| span.keys().any(|key| claim.contains(&key)));
                ContentRequest::Chunks(
                    std::iter::once(wanted)
                        .chain(ahead)
                        .copied()
                        .take(CONTENT_REQUEST_ITEMS_MAX)
                        .collect(),
                )
            }
        }
    }
}

/// The keys of the chunks that are not at hand.
pub(super) fn absent_chunks(cache: &Cache, spans: &[Span]) -> HashSet<ContentKey> {
    let missing = cache.missing_frames(spans.iter().flat_map(Span::chunks));
    missing
        .into_iter()
        .map(|(blob, index)| ContentKey::Chunk(blob, index))
        .collect()
}

/// What a replica is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ContentRequest {
    Trees {
        trees: Vec<DirectoryKey>,
        /// Bytes of records below these that may come too.
        budget: u64,
    },
    Chunks(Vec<Span>),
}

impl ContentRequest {
    /// Whether it asks for all records of a repository.
    pub fn is_closure(&self) -> bool {
        matches!(self, Self::Trees { budget, .. } if *budget >= TREE_CLOSURE_BYTES)
    }

    /// The requests with which its time to the first message can be compared.
    pub fn class(&self, demand: Demand) -> RequestClass {
        match self {
            _ if demand == Demand::Ahead || self.is_closure() => RequestClass::Bulk,
            Self::Trees { .. } => RequestClass::Trees,
            Self::Chunks(spans) if total_bytes(spans) <= SMALL_BYTES_MAX => RequestClass::Blobs,
            Self::Chunks(_) => RequestClass::Bulk,
        }
    }
}

fn total_bytes(spans: &[Span]) -> u64 {
    spans.iter().map(Span::bytes).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use monofs_model::Oid;
    use monofs_model::limits::CHUNK_BYTES;
    use monofs_store::frame;

    use super::*;

    fn oid(n: u8) -> Oid {
        Oid::from_bytes(&[n; 20]).unwrap()
    }

    fn directory(n: u8) -> DirectoryKey {
        DirectoryKey {
            tree: oid(n),
            node: None,
        }
    }

    fn small(n: u8) -> Span {
        Span {
            blob: oid(n),
            size: 1,
            first: 0,
            count: 1,
        }
    }

    #[test]
    fn a_request_asks_for_what_is_waited_for_and_what_else_was_claimed() {
        let flights = Flights::default();
        let need = ContentNeed::Chunks {
            wanted: small(1),
            ahead: vec![small(2), small(3)],
        };
        let other = flights.claim(small(2).keys());
        let claim = need.claim(&flights);
        let request = need.request(&need.wanted(), &claim);
        assert_eq!(request, ContentRequest::Chunks(vec![small(1), small(3)]));
        drop(other);

        let need = ContentNeed::Trees {
            wanted: vec![directory(1)],
            ahead: vec![directory(2), directory(3)],
            budget: 7,
        };
        let _other = flights.claim([ContentKey::Tree(oid(1)), ContentKey::Tree(oid(3))]);
        let claim = need.claim(&flights);
        let request = need.request(&need.wanted(), &claim);
        let trees = vec![directory(1), directory(2)];
        assert_eq!(request, ContentRequest::Trees { trees, budget: 7 });
    }

    #[test]
    fn what_is_at_hand_is_not_absent() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 64 << 20, Arc::default()).unwrap();
        let raw = bytes::Bytes::from_static(b"1");
        cache.put_frame(oid(1), 0, frame::encode(&raw), raw);
        let need = ContentNeed::Chunks {
            wanted: small(1),
            ahead: vec![small(2)],
        };
        let absent = need.absent(&cache);
        assert_eq!(absent, HashSet::from([ContentKey::Chunk(oid(2), 0)]));
    }

    #[test]
    fn requests_are_compared_with_those_of_their_size_that_are_waited_for() {
        let trees = |budget| ContentRequest::Trees {
            trees: vec![directory(1)],
            budget,
        };
        let large = Span {
            size: CHUNK_BYTES as u64,
            ..small(1)
        };
        for (request, demand, class) in [
            (trees(0), Demand::Awaited, RequestClass::Trees),
            (
                trees(TREE_CLOSURE_BYTES),
                Demand::Awaited,
                RequestClass::Bulk,
            ),
            (
                ContentRequest::Chunks(vec![small(1)]),
                Demand::Awaited,
                RequestClass::Blobs,
            ),
            (
                ContentRequest::Chunks(vec![small(1)]),
                Demand::Ahead,
                RequestClass::Bulk,
            ),
            (
                ContentRequest::Chunks(vec![large]),
                Demand::Awaited,
                RequestClass::Bulk,
            ),
        ] {
            assert_eq!(request.class(demand), class, "{request:?} {demand:?}");
        }
    }
}
