//! Where copies of repositories are to be: [`plan`] compares what placement wants with what is
//! recorded and gives commands; [`steps`] says what one repository needs and why.

pub mod plan;
#[cfg(test)]
mod simulation;
pub mod steps;
#[cfg(test)]
mod tests;

pub use plan::{
    CommandOutcome, NodeFacts, NodeStanding, PlanAction, PlanCommand, PlanEvent, Planner,
    RepositoryFacts, StorageKey,
};
pub use steps::{CopyFault, CopyStep, PlanCause, StepTally, StepWait};
