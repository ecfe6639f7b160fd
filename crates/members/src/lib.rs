//! Who is in the cluster, and how a router calls them: membership with its probes, the channels to
//! members, and what members said about remote hosts.
//!
//! ```text
//! probes, announcements, reports, shared tables -> membership (one task, the machine of `fleet`)
//!                                                     -> the view -> fleet: calls to members
//! ```
//!
//! Decides nothing about repositories: the router does, with what is here.

pub mod fleet;
pub mod generations_lost;
pub mod hosts;
pub mod membership;
