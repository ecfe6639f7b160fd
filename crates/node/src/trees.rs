//! Answers `GetTrees`: the requested records, then their closure breadth first while the budget
//! lasts.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use monofs_model::limits::CONTENT_REQUEST_ITEMS_MAX;
use monofs_model::{EntryKind, Error, Oid, Result, TreeRecord};
use monofs_proto::v1;
use monofs_store::repo::RepoStore;

use crate::service::{MessageBytes, Pieces};
use crate::state::Served;

/// Most records of a small request.
const SMALL_TREES: usize = 4;

/// What to walk: requested oids at level 1, then downwards.
pub(crate) struct Walk {
    queue: VecDeque<(Oid, u32)>,
    seen: HashSet<Oid>,
    budget: u64,
    depth: u32,
}

impl Walk {
    pub fn new(request: &v1::GetTreesRequest) -> Result<Self> {
        if request.oids.len() > CONTENT_REQUEST_ITEMS_MAX {
            return Err(Error::invalid(format!(
                "more than {CONTENT_REQUEST_ITEMS_MAX} trees in one request"
            )));
        }
        let oids = monofs_proto::convert::oids(&request.oids)?;
        let seen = oids.iter().copied().collect();
        let queue = oids.into_iter().map(|oid| (oid, 1)).collect();
        let depth = if request.depth == 0 {
            u32::MAX
        } else {
            request.depth
        };
        Ok(Self {
            queue,
            seen,
            budget: request.byte_budget,
            depth,
        })
    }

    /// Whether its answer is little work.
    pub fn is_small(&self) -> bool {
        self.queue.len() <= SMALL_TREES && (self.budget == 0 || self.depth == 1)
    }

    fn descend(&mut self, record: &TreeRecord, level: u32) {
        if level >= self.depth || self.budget == 0 {
            return;
        }
        for entry in record
            .iter()
            .filter(|entry| entry.kind == EntryKind::Directory)
        {
            if self.seen.insert(entry.oid) {
                self.queue.push_back((entry.oid, level + 1));
            }
        }
    }
}

/// A walk over a store, message by message. Blocking; holds an LMDB snapshot only while it fills
/// one.
pub(crate) struct Trees {
    store: Arc<RepoStore>,
    walk: Walk,
    message_bytes: MessageBytes,
}

impl Trees {
    pub fn new(store: Arc<RepoStore>, walk: Walk) -> Self {
        Self {
            store,
            walk,
            message_bytes: MessageBytes::default(),
        }
    }
}

impl Pieces for Trees {
    type Message = v1::GetTreesResponse;

    fn is_done(&self) -> bool {
        self.walk.queue.is_empty()
    }

    fn next(&mut self, served: &Served) -> Result<Option<v1::GetTreesResponse>> {
        let walk = &mut self.walk;
        let mut message = v1::GetTreesResponse::default();
        let (mut bytes, bytes_max) = (0, self.message_bytes.next());
        let reader = self.store.read()?;
        while bytes < bytes_max {
            let Some((oid, level)) = walk.queue.pop_front() else {
                break;
            };
            let Some(found) = reader.tree(&oid)? else {
                if level == 1 {
                    message.missing.push(monofs_proto::convert::oid_bytes(&oid));
                }
                continue;
            };
            if level > 1 && found.len() as u64 > walk.budget {
                // Breadth first: what is next would be deeper still.
                walk.queue.retain(|(_, level)| *level == 1);
                walk.budget = 0;
                continue;
            }
            walk.budget -= if level > 1 { found.len() as u64 } else { 0 };
            let record = Bytes::copy_from_slice(found);
            bytes += record.len();
            if level < walk.depth && walk.budget > 0 {
                walk.descend(&TreeRecord::parse(record.clone())?, level);
            }
            message.trees.push(v1::TreeRecord {
                oid: monofs_proto::convert::oid_bytes(&oid),
                record,
            });
        }
        served.trees(message.trees.len(), bytes);
        Ok(
            Some(message)
                .filter(|message| !message.trees.is_empty() || !message.missing.is_empty()),
        )
    }
}
