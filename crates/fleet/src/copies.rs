//! Where copies of repositories are to be. [`Planner`] compares what placement wants with what is
//! recorded and gives commands.
//!
//! From the bottom: [`facts`] (what is told), `nodes` (numbers, and placement over them),
//! `repository`, [`steps`] (what one repository needs, and why), [`event`] (what is heard and
//! answered), `inputs` (what steps follow from), `pending` (what is counted), [`plan`].

mod event;
mod facts;
mod inputs;
mod nodes;
mod pending;
mod plan;
#[cfg(test)]
mod properties;
mod repository;
#[cfg(test)]
mod simulation;
mod steps;
mod tally;
#[cfg(test)]
mod tests;

pub use event::{CommandOutcome, PlanAction, PlanCommand, PlanEvent};
pub use facts::{Departure, NodeFacts, NodePlace, NodeStanding, RepositoryFacts, StorageKey};
pub use plan::Planner;
pub use steps::{CopyFault, CopyStep, PlanCause, StepWait};
pub use tally::StepTally;
