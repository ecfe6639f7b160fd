//! The listeners of a router, as a load balancer sees them.
#![allow(clippy::unwrap_used)]

mod actor;
mod api;
mod http_api;
mod live;
mod pages;
mod probes;
mod shape;
mod site;
mod web;

/// How long a change may take to be seen.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(20);
