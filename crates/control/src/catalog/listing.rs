//! The full listing that a client gets which cannot resume: encoded once, in pages that all watches
//! share.
//!
//! A listing is as of its position; what changed since is sent after it. So it stays
//! of use while the catalogue changes, and is made again only when that would be a good part of it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use monofs_model::Repository;
use monofs_proto::v1;
use prost::Message;

use super::memory::{CatalogMemory, CatalogPosition};

/// A page ends with the entry that makes it this long.
pub(super) const PAGE_BYTES: usize = 64 << 10;
/// Changes that may always be sent after an old listing, and the part of the catalogue that may be.
const CHANGES_MIN: usize = 1000;
const CHANGES_PART: usize = 8;

/// Everything that readers see, as of `position`.
#[derive(Debug)]
pub struct CatalogListing {
    pub position: CatalogPosition,
    /// Encoded `CatalogPage`s, in the order of paths; at least one.
    pub pages: Vec<Bytes>,
}

impl CatalogListing {
    /// Whether sending it and then what changed since is better than making another.
    pub(super) fn is_useful(&self, memory: &CatalogMemory) -> bool {
        memory
            .age(&self.position)
            .is_some_and(|age| age <= CHANGES_MIN.max(memory.len() / CHANGES_PART))
    }

    /// Encodes `entries`, which are all that readers see at `position`.
    pub fn encode(position: CatalogPosition, entries: &[Arc<Repository>]) -> Self {
        let mut pages = Vec::new();
        let mut page = BytesMut::with_capacity(PAGE_BYTES);
        for entry in entries {
            let one = v1::CatalogPage {
                upserts: vec![for_readers(entry)],
            };
            // Pages of one entry each, end to end, are a page of all of them.
            one.encode(&mut page).expect("a growing buffer has room");
            if page.len() >= PAGE_BYTES {
                pages.push(
                    std::mem::replace(&mut page, BytesMut::with_capacity(PAGE_BYTES)).freeze(),
                );
            }
        }
        if !page.is_empty() || pages.is_empty() {
            pages.push(Bytes::copy_from_slice(&page));
        }
        Self { position, pages }
    }
}

/// An entry without what only operators need, and what a reader derives from the path.
fn for_readers(entry: &Repository) -> v1::Repository {
    v1::Repository {
        path: entry.path.to_string(),
        storage_id: String::new(),
        source: entry.source.to_string(),
        ref_name: entry.ref_name.as_str().to_owned(),
        state: v1::RepositoryState::from(entry.state).into(),
        snapshot: entry.snapshot.as_ref().map(v1::Snapshot::from),
        generation: entry.generation,
        generation_time: entry.generation_time,
        root_time: entry.root_time,
        holders: entry.holders.iter().map(ToString::to_string).collect(),
        content: v1::ContentMode::from(entry.content).into(),
        consistency: v1::Consistency::from(entry.consistency).into(),
        created_at: 0,
        refreshed_at: 0,
        last_error: String::new(),
        shadowed_by: String::new(),
    }
}
