//! The client against peers that speak the protocol over loopback, through a real mount.
#![allow(clippy::unwrap_used)]

mod fake;
mod mounting;
