//! The whole system: real Git remotes, real listeners, real mounts.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod conformance;
mod failure;
mod http_api;
mod hydration;
mod leader;
mod members;
mod metrics;
mod mount;
mod processes;
mod reconcile;
mod routers;
mod shape;
mod system;
mod update;
mod web;
