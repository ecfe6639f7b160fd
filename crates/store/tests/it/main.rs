//! Integration tests of the store: one binary, one module per concern.
#![allow(clippy::unwrap_used)]

mod cache;
mod crash;
mod damage;
mod disk_full;
mod fixture;
mod pool;
mod repo;
mod sample;
mod state;
