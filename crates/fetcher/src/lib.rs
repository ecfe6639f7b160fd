//! The fetcher: the only role that talks to Git remotes and holds credentials for them.
//!
//! A request comes in at [`service`], joins a flight ([`flights`]) that brings the commit into the
//! [`cache`] through a [`source`] (gix, or the installed `git`), walks it once ([`walk`]), and is
//! answered with records and frames ([`content`]). Built by the `monofs-fetcher` binary and by
//! `cluster`.

pub mod cache;
pub mod config;
mod content;
pub mod credentials;
pub mod flights;
pub mod gates;
pub mod git;
pub mod hosts;
pub mod modules;
pub mod objects;
mod operations;
pub mod records;
mod role;
mod service;
pub mod source;
pub mod walk;

pub use config::Config;
pub use credentials::Credentials;
pub use role::{RunningFetcher, spawn, spawn_with};
