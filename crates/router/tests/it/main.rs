//! The router as its clients see it: real gRPC over loopback, a real state directory, and no
//! cluster.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod large;
mod leader;
mod lost_state;
mod members;
mod onboarding;
mod placing;
mod reconcile;
mod seeding;

/// How long a change may take to be seen.
pub const SOON: std::time::Duration = std::time::Duration::from_secs(20);
