//! The commands, one file each: what it takes, what it asks, what it prints. None of them knows
//! another one but by what that exports, nor the list of them, which is in `cli`.

mod accepted;
pub mod bench;
pub mod cat;
pub mod clear_failover;
pub mod completions;
pub mod delete;
pub mod drain;
pub mod failover;
pub mod fetchers;
mod follow;
pub mod ingest;
pub mod jobs;
pub mod ls;
pub mod man;
pub mod node_files;
pub mod nodes;
pub mod rebalance;
pub mod refresh;
pub mod remove_member;
pub mod repo;
pub mod repos;
pub mod stat;
pub mod stats;
pub mod status;
pub mod top;
pub mod trigger_failover;
pub mod undrain;
pub mod verify;
