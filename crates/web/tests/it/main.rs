//! The listeners of a router, as a load balancer sees them.
#![allow(clippy::unwrap_used)]

mod probes;
