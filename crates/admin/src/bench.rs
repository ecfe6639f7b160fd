//! The load generator behind `monofs-admin bench`.
//!
//! ```text
//! corpus, survey (what is there) -> mix (what is asked) -> pace (when) -> load (threads, clients)
//!                                                                             |
//!                                                  call (one operation) <-----+
//!                                                         |
//!                                                         v
//!                                                  tally -> report
//! ```
//!
//! Invariants: in an open loop the schedule is fixed before the first request and a latency counts
//! from the scheduled time, so a server that stalls is charged for every request that should have
//! been sent meanwhile (no coordinated omission); everything that grows with the cluster is bounded
//! by a constant of `survey`, everything that grows with the rate by the bound on requests under
//! way.

pub mod call;
pub mod corpus;
pub mod load;
pub mod mix;
pub mod operation;
pub mod pace;
pub mod peers;
pub mod report;
pub mod rng;
pub mod survey;
pub mod tally;
