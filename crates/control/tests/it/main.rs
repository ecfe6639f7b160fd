//! The control state with its real stores: one suite for all of them, and routers that share one.
#![allow(clippy::unwrap_used)]

mod catalog;
mod creating;
mod faulty;
mod follow;
mod lead;
mod path_lease;
mod retained;
mod rig;
mod state;
mod table;
mod times;
