//! The whole system: real Git remotes, real listeners, real mounts.
#![allow(clippy::unwrap_used)]

mod conformance;
mod failure;
mod hosts;
mod hydration;
mod in_use;
mod metrics;
mod mount;
mod nested;
mod outsiders;
mod processes;
mod routers;
mod starting;
mod system;
mod times;
mod tls;
mod update;
