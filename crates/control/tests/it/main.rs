//! The control state with its real stores: one suite for all of them.

mod state;
