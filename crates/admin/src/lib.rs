//! The operator's commands behind `monofs-admin`. They talk to any router and, apart from `bench`,
//! to nothing else.
//!
//! ```text
//! cli (what was typed) -> commands/* -> session, cluster (a router that answers) -> text, JSON
//! ```
//!
//! Invariants: answers go to standard output, progress and complaints to standard error; every text
//! that came from the cluster is stripped of control characters before it reaches a terminal; the
//! exit code tells what happened. No role of the cluster is linked here: what a command knows, a
//! router told it.

mod bench;
mod cli;
mod cluster;
mod commands;
mod display_path;
mod findings;
mod mood;
mod nearest;
mod output;
mod place;
mod progress;
mod session;
mod text;
mod top;

pub use cli::{Args, NAME, run};
