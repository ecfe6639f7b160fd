//! Real processes, each on a host of its own (a network namespace), broken while they are read from
//! and written to.
//!
//! Needs root, /dev/fuse and what `make test` installs; nothing here skips. Scenarios run one after
//! the other (`.config/nextest.toml`): they measure pauses. Those that together take longer than
//! five minutes are `#[ignore]`d and run by `make test-long`.
#![allow(clippy::unwrap_used)]

mod balanced;
mod chaos;
mod fault;
mod ingesting;
mod moving;
mod reader;
mod reading;
mod rolling;
mod site;
