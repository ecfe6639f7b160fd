//! Answers `GetTrees`: the requested records, then their closure breadth first while the budget
//! lasts.
//!
//! Callers: `service::content`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{EntryKind, Error, Oid, Result, TreeRecord};
use monofs_proto::{convert, v1};
use monofs_store::repo::RepoStore;

use crate::answer::{AnswerPieces, MessageBytes};
use crate::served::ServedCounters;
use crate::turns::RequestSize;

/// Most records of a small request.
const SMALL_TREES: usize = 4;

/// What to walk: requested trees at level 1, then downwards.
pub(crate) struct ClosureWalk {
    queue: VecDeque<WalkedTree>,
    seen: HashSet<Oid>,
    /// Bytes of records below level 1 that may still be added.
    budget: u64,
    depth: u32,
}

/// A tree of a walk.
struct WalkedTree {
    oid: Oid,
    level: u32,
}

impl ClosureWalk {
    /// Checks a request. Errors: `Invalid`.
    pub fn new(request: &v1::GetTreesRequest) -> Result<Self> {
        if request.oids.len() > CONTENT_REQUEST_ITEMS_MAX {
            return Err(Error::invalid(format!(
                "more than {CONTENT_REQUEST_ITEMS_MAX} trees in one request; ask for fewer at a \
                 time"
            )));
        }
        let oids = convert::oids(&request.oids)?;
        Ok(Self {
            seen: oids.iter().copied().collect(),
            queue: oids
                .into_iter()
                .map(|oid| WalkedTree { oid, level: 1 })
                .collect(),
            budget: request.byte_budget,
            depth: match request.depth {
                0 => u32::MAX,
                depth => depth,
            },
        })
    }

    /// How much work its answer is.
    pub fn size(&self) -> RequestSize {
        let is_level = self.budget == 0 || self.depth == 1;
        match self.queue.len() <= SMALL_TREES && is_level {
            true => RequestSize::Small,
            false => RequestSize::Large,
        }
    }

    /// Whether the budget lasts for a record; one that it lasts for is taken from it.
    fn admits(&mut self, level: u32, bytes: usize) -> bool {
        if level == 1 {
            return true;
        }
        match self.budget.checked_sub(bytes as u64) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => {
                // Breadth first: what is next would be deeper still.
                self.queue.retain(|tree| tree.level == 1);
                self.budget = 0;
                false
            }
        }
    }

    /// Queues the directories that a record names.
    fn descend(&mut self, record: &TreeRecord, level: u32) {
        for entry in record
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
        {
            if self.seen.insert(entry.oid) {
                self.queue.push_back(WalkedTree {
                    oid: entry.oid,
                    level: level + 1,
                });
            }
        }
    }
}

/// A walk over a store, message by message. Blocking; holds an LMDB snapshot only while it fills
/// one.
pub(crate) struct TreePieces {
    store: Arc<RepoStore>,
    walk: ClosureWalk,
    message_bytes: MessageBytes,
}

impl TreePieces {
    /// Walks `store`.
    pub fn new(store: Arc<RepoStore>, walk: ClosureWalk) -> Self {
        Self {
            store,
            walk,
            message_bytes: MessageBytes::default(),
        }
    }
}

impl AnswerPieces for TreePieces {
    type Message = v1::GetTreesResponse;

    fn is_done(&self) -> bool {
        self.walk.queue.is_empty()
    }

    fn next(&mut self, served: &ServedCounters) -> Result<Option<v1::GetTreesResponse>> {
        let walk = &mut self.walk;
        let mut message = v1::GetTreesResponse::default();
        let mut bytes = 0;
        let bytes_max = self.message_bytes.next();
        let reader = self.store.read()?;
        while bytes < bytes_max {
            let Some(WalkedTree { oid, level }) = walk.queue.pop_front() else {
                break;
            };
            // Of what is missing only requested trees are named.
            let Some(found) = reader.tree(&oid)? else {
                if level == 1 {
                    message.missing.push(convert::oid_bytes(&oid));
                }
                continue;
            };
            if !walk.admits(level, found.len()) {
                continue;
            }
            let record = Bytes::copy_from_slice(found);
            bytes += record.len();
            if level < walk.depth && walk.budget > 0 {
                walk.descend(&TreeRecord::parse(record.clone())?, level);
            }
            message.trees.push(v1::TreeRecord {
                oid: convert::oid_bytes(&oid),
                record,
            });
        }
        served.add_trees(message.trees.len(), bytes);
        let is_empty = message.trees.is_empty() && message.missing.is_empty();
        Ok((!is_empty).then_some(message))
    }
}
