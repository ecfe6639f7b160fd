//! What the cluster did in the last hour and the last day, in bounded rings: for charts, and for
//! what is true right now.
//!
//! ```text
//! sampler: every STEP asks all members, in parallel  --Sample-->  meter (counters become rates)  --Step-->  rings
//! ```
//!
//! Each router samples for itself and keeps it in memory: a restart begins anew. Invariants: a
//! member that could not be asked adds nothing (its own series has a gap), and where nobody could
//! be asked there is a gap, never a zero; a member that was restarted gives no spike; memory is
//! bounded by `NODES_MAX` of [`rings`] and the lengths of the rings.

mod meter;
mod ring;
pub mod rings;
mod sampler;
mod step;

pub use meter::ClusterSample;
pub use rings::{History, HistoryRange, HistoryTable};
pub(crate) use sampler::run;
pub use step::HistorySeries;

#[cfg(test)]
mod tests;
