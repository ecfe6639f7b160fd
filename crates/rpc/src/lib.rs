//! How roles talk: servers, channels, deadlines, the request context and the mapping of error kinds
//! to gRPC statuses.
//!
//! Invariants: every channel and every server of the system is made here, so that TLS and
//! authentication become one layer; every call has a deadline; every message has the size limit of
//! `model::limits`.

pub mod alive;
pub mod backoff;
pub mod catalogs;
pub mod channel;
pub mod content;
pub mod context;
pub mod deadline;
pub mod host;
pub mod measure;
pub mod metrics;
pub mod operations;
pub mod register;
pub mod server;
pub mod status;

pub use alive::{while_alive, while_heard};
pub use backoff::Backoff;
pub use channel::ChannelPool;
pub use context::Context;
pub use deadline::within;
pub use measure::Channel;
pub use server::{RunningServer, serve};
pub use status::{from_status, to_status};
