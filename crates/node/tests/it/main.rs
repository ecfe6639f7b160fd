//! The node over loopback, beside peers and fetchers that speak the protocol and do as they are
//! told.

#![allow(clippy::unwrap_used)]

mod adopting;
mod covering;
mod dropping;
mod fake;
mod hydrating;
mod keeping;
mod pulling;
mod rig;
mod serving;
mod stopping;
