//! Any number of roles in one process, wired as separate binaries would be: real listeners, real
//! gRPC.
//!
//! The builder behind `monofs up`, the whole-system tests and the benchmarks. Invariant: nothing
//! here is test-only wiring; a role is started through the same `spawn` as its binary uses.

mod builder;
mod operator;
mod running;

pub use builder::{Builder, Ports};
pub use operator::{Ingest, repositories_of};
pub use running::Cluster;

pub use monofs_client as client;
pub use monofs_fetcher as fetcher;
pub use monofs_node as node;
pub use monofs_router as router;
