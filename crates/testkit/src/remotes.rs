//! Real Git servers for tests: `git daemon`, nginx with git-http-backend (with a login, with a
//! private CA), sshd.
//!
//! Each listens on a free port of the loopback address, keeps its files in a temporary directory
//! and is gone when dropped. What is missing on the machine is a panic that names the package.

mod certs;
mod daemon;
mod http;
mod old_daemon;
mod server;
mod ssh;
mod web;

pub use certs::Authority;
pub use daemon::GitDaemon;
pub use http::{HttpOptions, HttpRemote};
pub use old_daemon::OldDaemon;
pub use server::has_ipv6;
pub use ssh::SshRemote;
pub use web::{WebAnswer, WebHost, WebRequest};
