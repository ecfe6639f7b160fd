//! Contents on their way to a mount: what is at hand, and how to get what is not.
//!
//! ```text
//! a mount -> cache     records, nodes of generations and chunks: memory, then disk
//!         -> content   single flight, the right replica, a second one when the first is slow
//!                      \-> what arrives is verified, then kept in the cache
//!
//! below them: want (what is asked for), repo and packed (what the catalogue says of a repository),
//! shown, names and times (what directories show, and since when), evidence (what readers did), counters
//! ```
//!
//! Knows neither the kernel nor names: whoever reads contents of a cluster can use it. Invariants:
//! nothing is kept that was not verified; a question ends within its deadline.

pub mod cache;
pub mod content;
pub mod counters;
pub mod evidence;
pub mod names;
pub mod packed;
pub mod repo;
pub mod shown;
pub mod spawner;
pub mod switch_lock;
pub mod times;
pub mod want;
