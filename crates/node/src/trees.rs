//! Answers `GetTrees`: the requested records, each with its generation node where one is asked for,
//! then their closure breadth first while the budget lasts.
//!
//! Callers: `service::content`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{EntryKind, Error, GenerationNode, Oid, Result, TreeRecord};
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
    seen: HashSet<TreeParts>,
    /// Records and nodes that were added to the answer.
    sent: HashSet<Oid>,
    /// Bytes of records below level 1 that may still be added.
    budget: u64,
    depth: u32,
}

/// The record of a directory, its generation node, or both.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct TreeParts {
    record: Option<Oid>,
    node: Option<Oid>,
}

/// A tree of a walk.
struct WalkedTree {
    parts: TreeParts,
    level: u32,
}

impl ClosureWalk {
    /// Checks a request. Errors: `Invalid`.
    pub fn new(request: &v1::GetTreesRequest) -> Result<Self> {
        // Records and nodes are two lists side by side; where one has no item, the other is asked
        // alone.
        let items = request.oids.len().max(request.generations.len());
        if items > CONTENT_REQUEST_ITEMS_MAX {
            return Err(Error::invalid(format!(
                "more than {CONTENT_REQUEST_ITEMS_MAX} trees in one request; ask for fewer at a \
                 time"
            )));
        }
        let records = convert::oids(&request.oids)?;
        let requested = (0..items).map(|item| {
            let node = request.generations.get(item).filter(|id| !id.is_empty());
            let parts = TreeParts {
                record: records.get(item).copied(),
                node: node.map(|id| Oid::from_bytes(id)).transpose()?,
            };
            Ok(WalkedTree { parts, level: 1 })
        });
        let queue = requested.collect::<Result<VecDeque<_>>>()?;

        // What is asked for counts as seen, so that the walk does not queue it again.
        Ok(Self {
            seen: queue.iter().map(|tree| tree.parts).collect(),
            sent: HashSet::new(),
            queue,
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

    /// Whether the budget lasts for what is added; what it lasts for is taken from it.
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

    /// Queues the directories that a record names, each with its node; of a node alone, the nodes
    /// below it.
    fn descend(&mut self, found: &FoundParts<'_>, level: u32) -> Result<()> {
        // A node alone names its nodes without the record's help.
        let node = found.node.map(GenerationNode::decode).transpose()?;
        let Some(record) = found.record else {
            for id in node.iter().flat_map(GenerationNode::children) {
                let parts = TreeParts {
                    record: None,
                    node: Some(id),
                };
                self.queue_below(parts, level);
            }
            return Ok(());
        };

        // With the record, each directory goes down with its own node, if its entries are of
        // several generations.
        let record = TreeRecord::parse(Bytes::copy_from_slice(record))?;
        for (position, entry) in record.iter().enumerate() {
            if entry.kind == EntryKind::Directory {
                let parts = TreeParts {
                    record: Some(entry.oid),
                    node: node.as_ref().and_then(|node| node.get(position).node()),
                };
                self.queue_below(parts, level);
            }
        }
        Ok(())
    }

    fn queue_below(&mut self, parts: TreeParts, level: u32) {
        if self.seen.insert(parts) {
            let level = level + 1;
            self.queue.push_back(WalkedTree { parts, level });
        }
    }

    /// Whether a record or node that was found is not in the answer yet.
    fn is_new(&self, id: Option<Oid>, found: Option<&[u8]>) -> bool {
        found.is_some() && id.is_some_and(|id| !self.sent.contains(&id))
    }
}

/// What the store has of a tree of a walk.
struct FoundParts<'a> {
    record: Option<&'a [u8]>,
    node: Option<&'a [u8]>,
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
            let Some(WalkedTree { parts, level }) = walk.queue.pop_front() else {
                break;
            };
            let record = parts.record.map(|oid| reader.tree(&oid)).transpose()?;
            let node = parts
                .node
                .map(|id| reader.generation_node(&id))
                .transpose()?;
            let found = FoundParts {
                record: record.flatten(),
                node: node.flatten(),
            };
            // Of what is missing only requested trees are named.
            if level == 1 {
                let no_record = parts.record.filter(|_| found.record.is_none());
                message
                    .missing
                    .extend(no_record.iter().map(convert::oid_bytes));
                let no_node = parts.node.filter(|_| found.node.is_none());
                message
                    .missing_generations
                    .extend(no_node.iter().map(convert::oid_bytes));
            }
            // A record may be in the answer already, with another node.
            let record = found
                .record
                .filter(|_| walk.is_new(parts.record, found.record));
            let node = found.node.filter(|_| walk.is_new(parts.node, found.node));
            let added = record.map_or(0, <[u8]>::len) + node.map_or(0, <[u8]>::len);
            if !walk.admits(level, added) {
                continue;
            }
            bytes += added;
            if level < walk.depth && walk.budget > 0 {
                walk.descend(&found, level)?;
            }
            if let (Some(oid), Some(record)) = (parts.record, record) {
                walk.sent.insert(oid);
                message.trees.push(v1::TreeRecord {
                    oid: convert::oid_bytes(&oid),
                    record: Bytes::copy_from_slice(record),
                });
            }
            if let (Some(id), Some(node)) = (parts.node, node) {
                walk.sent.insert(id);
                message.generations.push(v1::GenerationNode {
                    id: convert::oid_bytes(&id),
                    node: Bytes::copy_from_slice(node),
                });
            }
        }
        served.add_trees(message.trees.len(), bytes);
        let is_empty = message == v1::GetTreesResponse::default();
        Ok((!is_empty).then_some(message))
    }
}
