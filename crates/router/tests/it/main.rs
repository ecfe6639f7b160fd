//! The router as its clients see it: real gRPC over loopback, a real state directory, and no
//! cluster.
#![allow(clippy::unwrap_used)]

mod large;
mod members;
mod seeding;
