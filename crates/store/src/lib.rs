//! What MonoFS keeps on disk: the repositories of a node, the cache of a client, the state of a
//! router.
//!
//! Everything is LMDB and synchronous; async callers go through `spawn_blocking` for writes and
//! keep read transactions short. This is the only crate that names heed.
//!
//! - [`frame`]: how one chunk of contents is encoded at rest and on the wire.
//! - [`repo`]: one environment per repository: directory records, contents, snapshots, `gc`,
//!   `check`.
//! - [`pool`]: the repositories of a node, a bounded number of them open.
//! - [`cache`]: the client's bounded cache.
//! - [`state`]: ordered keys with revisions and compare-and-set, for the router's embedded state.
//!
//! Invariant: a row in a repository's `snapshots` table means that every directory record of its
//! closure is present.

pub mod cache;
mod descriptor;
mod encoding;
mod env;
mod fault;
pub mod frame;
mod lock;
pub mod pool;
pub mod repo;
pub mod state;
mod structure;

pub use cache::{CacheOptions, CacheReader, CacheStats, CacheStore};
pub use env::{Durability, EnvOptions, EnvUsage};
pub use pool::RepoPool;
pub use repo::{
    BlobWalk, CheckProgress, CheckReport, GcReport, LargeWriter, ObjectCounts, RepoMeta,
    RepoReader, RepoStore,
};
pub use state::{CommitOutcome, Compare, Scan, StateEnv, Versioned, Write};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<RepoStore>();
        shared::<RepoPool>();
        shared::<CacheStore>();
        shared::<StateEnv>();
    }
}
