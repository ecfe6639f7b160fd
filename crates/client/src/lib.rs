//! The client: mounts the tree of all repositories with FUSE, reads from nodes, and keeps what it
//! read on disk.
//!
//! ```text
//! kernel -> fuse (decode, reply) -> fs (names, attributes, bytes: synchronous) -> cache (memory, pending, disk)
//!             |  misses                                                              ^ verified content
//!             +--> prefetch -> content (single flight, replicas, hedging, deadline) -+
//!             +--> fill: what is at hand into the page cache, when a listing ends
//! router -> catalog (watch, apply) -> fs::switch (one step) -> invalidate (a thread of its own) -> kernel
//! ```
//!
//! Invariants: opens are never seen (the kernel keeps its caches until it is told); bytes behind an
//! inode never change; every request of the kernel is answered within the deadline; nothing is kept
//! that was not verified.

pub mod cache;
pub mod catalog;
pub mod config;
pub mod content;
pub mod counters;
pub mod errno;
pub mod evidence;
pub mod fill;
pub mod fs;
pub mod fuse;
pub mod invalidate;
mod memory;
pub mod mount;
mod operations;
pub mod packed;
pub mod prefetch;
pub mod repo;
mod spawner;
pub mod status;
mod switch_lock;
pub mod want;

pub use config::{AddressChoice, Config};
pub use mount::{Mounted, mount};
pub use status::Status;
