//! The client: mounts the tree of all repositories with FUSE, reads from nodes, and keeps what it
//! read on disk.
//!
//! ```text
//! kernel -> fuse (decode, reply) -> fs (names, attributes, bytes: synchronous) -> content::cache
//!             |  misses                                                               ^
//!             +--> prefetch -> content::content -------------------------- verified --+
//!             +--> fill: what is at hand into the page cache, when a listing ends
//! router -> catalog (watch, apply) -> fs::switch (one step) -> invalidate (a thread) -> kernel
//!                                      \-> changes: which paths, for those who watch the mount
//!
//! below them: want (what a request found missing), and the crate `content`
//! ```
//!
//! Invariants: opens are never seen (the kernel keeps its caches until it is told); bytes behind an
//! inode never change; every request of the kernel is answered within the deadline; nothing is kept
//! that was not verified; the switch lock is taken once by a thread and nothing is called under it
//! that waits.

pub mod catalog;
pub mod changes;
pub mod config;
pub mod errno;
pub mod fill;
pub mod fs;
pub mod fuse;
pub mod invalidate;
mod memory;
pub mod mount;
mod operations;
pub mod prefetch;
pub mod status;
pub mod want;

pub use config::{AddressChoice, Config};
pub use mount::{Mounted, mount};
pub use status::Status;
