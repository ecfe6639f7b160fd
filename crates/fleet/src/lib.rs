//! The decisions about the fleet, as machines without IO: who is a member and in what state, and
//! which copies are to be made or deleted.
//!
//! Owns no task, no clock, no store and no connection: time comes in with each event, and what is
//! to be done goes out as commands. So weeks of joins, losses and drains are simulated in seconds,
//! and a failing seed replays. Callers: the loops of `router`, which feed the machines and carry
//! out what they say; the simulation (`make simulate`).

pub mod copies;
pub mod members;
pub mod settings;
