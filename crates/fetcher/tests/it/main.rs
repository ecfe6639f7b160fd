//! The fetcher against real Git servers, over its gRPC interface.
#![allow(clippy::unwrap_used)]

mod cache;
mod content;
mod diagnosis;
mod fallback;
mod faults;
mod flights;
mod hostile;
mod ladder;
mod names;
mod pausing;
mod protocols;
mod refresh;
mod rig;
mod secrets;
mod urls;
