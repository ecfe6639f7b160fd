//! One repository of a node: an LMDB environment with directory records, contents and snapshots.
//!
//! ```text
//! table      key                      value
//! meta       format-version, kind     u32; "repository"
//! facts      "meta"                   RepoMeta
//! trees      tree oid                 directory record
//! blobs      blob oid + u32 chunk     frame
//! pending    blob oid                 u64 size: a long blob that is being written
//! snapshots  commit oid               Snapshot
//! generations node id                 generation node
//! shown      commit oid + u64         GenerationRef: the commit's in that generation
//! ```
//!
//! Invariants:
//! - a row in `snapshots` is written only when every directory record of its closure is present,
//!   and records are removed only when no snapshot reaches them, so that row is what "durable"
//!   means;
//! - a blob counts as held when its first chunk is present and it is not `pending`; what was
//!   pending at a crash is removed at open;
//! - generation nodes go with the last snapshot whose generations name them;
//! - nothing here verifies oids on the way in: callers do, before they put.
//!
//! Callers: a node's adopt, hydrate and service; the pool opens and closes.

mod blob_walk;
mod blobs;
mod check;
mod gc;
mod generations;
mod meta;
mod snapshots;
mod store;
mod trees;

pub use blob_walk::BlobWalk;
pub(crate) use blobs::ChunkKey;
pub use blobs::LargeWriter;
pub use check::{CheckProgress, CheckReport, PROBLEMS_MAX};
pub use gc::GcReport;
pub use meta::RepoMeta;
pub use store::{ObjectCounts, RepoReader, RepoStore};
