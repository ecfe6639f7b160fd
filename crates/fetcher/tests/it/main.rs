//! The fetcher against real Git servers, over its gRPC interface.
#![allow(clippy::unwrap_used)]

mod protocols;
mod rig;
