//! The control state of a cluster: its store, the catalogue, the tables, which router leads, and
//! which router works on which path.
//!
//! Owns the one mutable thing of the system, *path -> commit*, and everything else that routers
//! share. Invariants:
//! - the state store's copy is the only authority; memory is a copy of it that changes after the
//!   store did, through one watch ([`state`]);
//! - a flip (a new commit, or its removal) is one compare-and-set ([`catalog`]);
//! - what must be done once in a cluster is done by the router that holds the leader's lease
//!   ([`lead`]), and work on a path by the router that holds the lease on it ([`path_lease`]).
//!
//! Nothing here calls a node or serves HTTP. Callers: the loops and services of `router`.

pub mod catalog;
pub mod clock;
mod control;
pub mod lead;
mod location;
pub mod path_lease;
pub mod state;

pub use catalog::seed_catalogue;
pub use control::Control;
pub use location::StateLocation;
