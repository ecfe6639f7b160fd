//! Contents and records that this node lacks come from other servers: peer replicas, then fetchers.
//!
//! `servers` knows which ones there are and waits for their answers, `pull` asks one after the
//! other for contents, `receive` verifies and stores what arrives.

pub(crate) mod pull;
pub(crate) mod receive;
pub(crate) mod servers;
