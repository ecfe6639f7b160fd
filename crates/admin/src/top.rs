//! `top`: the cluster live. A sample of the status becomes figures (differences of counters as
//! rates), those become tables, and `LiveView` decides by events what is drawn and what
//! happens next.
//!
//! Invariants: `view` and `draw` do no IO and know no clock; whatever ends the process, the
//! terminal is as it was before; every text that came from the cluster is cleaned before it is
//! drawn; nothing grows with the time it runs.

pub mod draw;
pub mod figures;
pub mod grid;
pub mod live;
pub mod panels;
pub mod terminal;
pub mod view;

#[cfg(test)]
mod tests;
