//! What tests stand on: repositories made by the real git, the reference model of a mounted tree,
//! real remotes, child processes, networks and disks and clocks that fail on demand, and waiting
//! for conditions. A development dependency only.
//!
//! Invariant: everything here panics with the reason when something is missing or wrong; nothing
//! skips silently.

pub mod clock;
pub mod disk;
pub mod etcd;
pub mod git;
pub mod hostile;
pub mod model;
pub mod netns;
pub mod process;
pub mod proxy;
pub mod random;
pub mod remotes;
pub mod repo;
pub mod wait;

pub use etcd::Etcd;
pub use model::{ExpectedTree, assert_matches};
pub use process::Process;
pub use repo::{Changes, Repo};
pub use wait::{free_port, require, wait_until};
