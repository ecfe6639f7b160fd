//! Brings copies to where placement wants them: desired (placement over the nodes that should hold
//! copies) against actual (`holders` in the catalogue).
//!
//! ```text
//! catalog, membership, tables --facts--> plan::Planner --commands--> work: Copy | Delete --> catalog (holders) --> plan ...
//!                                            |
//!                                            +--what is pending, by cause--> jobs (rows that all routers see)
//! ```
//!
//! Repair, drain, failover, recovery and rebalance are this one loop with different causes.
//! Invariants:
//! - a copy becomes a holder after its node confirmed all directory records, and stays one while
//!   anything counts on it;
//! - nothing is deleted before as many other copies as are wanted confirmed, asked at that time,
//!   that they hold all that the leaving one holds, contents included: so nothing comes to depend
//!   on upstream that did not before;
//! - a holder leaves the catalogue by compare-and-set, which names the copies that stay, before its
//!   data is dropped;
//! - what is dropped is named commit by commit; what nothing names stays and is told
//!   ([`leftovers::Orphan`]);
//! - nothing is remembered but job rows: the plan follows from what is there, so a router that is
//!   killed costs nothing.

mod facts;
pub mod jobs;
pub(crate) mod leftovers;
pub mod preview;
mod run;
mod work;

pub(crate) use run::run;

#[cfg(test)]
mod tests;
