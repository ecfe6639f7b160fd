//! The operator's verbs: each takes the actor that asks for it, is checked here and handed to the
//! part that does it. The gRPC `Admin` service and the HTTP API call the same functions.
//!
//! Invariant: whatever is changed is changed on behalf of that actor, which goes with the change
//! down to the state store.

mod asked;
pub mod failovers;
pub mod ingests;
pub mod jobs;
pub mod members;
pub mod progress;
pub mod removal;
pub mod reports;
pub mod repositories;
pub mod verification;

#[cfg(test)]
mod tests;
