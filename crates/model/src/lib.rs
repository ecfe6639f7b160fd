//! The vocabulary of MonoFS: ids, paths, object ids, directory records, snapshots, placement, error
//! kinds and limits.
//!
//! Invariant: no IO, no async runtime, no protobuf. Everything here is a value that can be checked,
//! compared and hashed, so that every role means the same thing by the same word.

pub mod actor;
pub mod catalog;
pub mod error;
pub mod generations;
pub mod limits;
pub mod oid;
pub mod path;
pub mod pause;
pub mod placement;
pub mod source;
pub mod text;
pub mod tree;
pub mod view;

pub use actor::{Actor, Door, PrincipalName, RequestId};
pub use catalog::{Consistency, ContentMode, Repository, RepositoryState, Snapshot, Submodule};
pub use error::{Error, ErrorKind, Result};
pub use generations::{GenerationNode, GenerationRef};
pub use oid::{ObjectFormat, ObjectKind, Oid};
pub use path::{DisplayPath, StorageId};
pub use pause::HostPause;
pub use placement::NodeId;
pub use source::{RefName, SourceUrl};
pub use tree::{EntryKind, TreeRecord};
pub use view::{ClusterView, Member, MemberState};
