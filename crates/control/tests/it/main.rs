//! The control state with its real stores: one suite for all of them.
#![allow(clippy::unwrap_used)]

mod state;
