//! What operators want of the cluster, and the jobs that bring it about.

use monofs_proto::v1;
use serde::Serialize;

use super::{member_state, some};
use crate::text::time;

/// A router that runs, as the routers know each other.
#[derive(Debug, Serialize)]
pub struct Router {
    pub id: String,
    pub address: String,
    pub http_address: Option<String>,
    pub version: String,
    pub started_at: Option<String>,
    pub leader: bool,
}

impl From<&v1::RouterStatus> for Router {
    fn from(wire: &v1::RouterStatus) -> Self {
        Self {
            id: wire.router_id.clone(),
            address: wire.address.clone(),
            http_address: some(&wire.http_address),
            version: wire.version.clone(),
            started_at: time(wire.started_at),
            leader: wire.leader,
        }
    }
}

/// The whole cluster is being worked on.
#[derive(Debug, Serialize)]
pub struct Maintenance {
    pub reason: String,
    pub since: Option<String>,
}

impl From<&v1::Maintenance> for Maintenance {
    fn from(wire: &v1::Maintenance) -> Self {
        Self {
            reason: wire.reason.clone(),
            since: time(wire.since),
        }
    }
}

/// What an operator wants of a node.
#[derive(Debug, Serialize)]
pub struct Intent {
    pub node_id: String,
    pub kind: &'static str,
    pub reason: String,
    pub since: Option<String>,
    pub force: bool,
}

impl From<&v1::NodeIntent> for Intent {
    fn from(wire: &v1::NodeIntent) -> Self {
        Self {
            node_id: wire.node_id.clone(),
            kind: intent_kind(wire.kind()),
            reason: wire.reason.clone(),
            since: time(wire.since),
            force: wire.force,
        }
    }
}

/// The word for what is wanted of a node.
pub fn intent_kind(kind: v1::node_intent::Kind) -> &'static str {
    match kind {
        v1::node_intent::Kind::Drain => "drain",
        v1::node_intent::Kind::Failover => "failover",
        v1::node_intent::Kind::Unspecified => "unknown",
    }
}

/// A node that readers do not ask first, although placement wants it.
#[derive(Debug, Serialize)]
pub struct Failover {
    pub node_id: String,
    pub state: &'static str,
    pub reason: String,
    pub since: Option<String>,
    pub repositories: u64,
    pub targets: Vec<FailoverTarget>,
}

/// Who is asked instead.
#[derive(Debug, Serialize)]
pub struct FailoverTarget {
    pub node_id: String,
    pub repositories: u64,
}

impl From<&v1::Failover> for Failover {
    fn from(wire: &v1::Failover) -> Self {
        let target = |wire: &v1::FailoverTarget| FailoverTarget {
            node_id: wire.node_id.clone(),
            repositories: wire.repositories,
        };
        Self {
            node_id: wire.node_id.clone(),
            state: member_state(wire.state()),
            reason: wire.reason.clone(),
            since: time(wire.since),
            repositories: wire.repositories,
            targets: wire.targets.iter().map(target).collect(),
        }
    }
}

/// One step of a plan.
#[derive(Debug, Serialize)]
pub struct Move {
    pub kind: &'static str,
    pub path: String,
    pub node_id: String,
    /// Whom a copy is taken from, best first; empty = from a fetcher.
    pub from: Vec<String>,
    pub bytes: u64,
    pub reason: String,
}

impl From<&v1::PlannedMove> for Move {
    fn from(wire: &v1::PlannedMove) -> Self {
        Self {
            kind: move_kind(wire.kind()),
            path: wire.path.clone(),
            node_id: wire.node_id.clone(),
            from: wire.from.clone(),
            bytes: wire.bytes,
            reason: wire.reason.clone(),
        }
    }
}

/// The word for a step of a plan.
pub fn move_kind(kind: v1::planned_move::Kind) -> &'static str {
    match kind {
        v1::planned_move::Kind::Copy => "copy",
        v1::planned_move::Kind::Delete => "delete",
        v1::planned_move::Kind::Unspecified => "unknown",
    }
}

/// Work of the reconciler.
#[derive(Debug, Serialize)]
pub struct Job {
    pub id: String,
    pub kind: &'static str,
    pub state: &'static str,
    /// The node or path it is about; null = everything.
    pub subject: Option<String>,
    pub reason: String,
    pub steps_done: u64,
    pub steps_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub started_at: Option<String>,
    pub ended_at: Option<String>,
    pub message: Option<String>,
    pub last_error: Option<String>,
    pub router_id: String,
    /// Cancelled, and what it left is not done until a rebalance is asked for.
    pub held_back: bool,
}

impl From<&v1::Job> for Job {
    fn from(wire: &v1::Job) -> Self {
        Self {
            id: wire.id.clone(),
            kind: wire.kind().word(),
            state: wire.state().word(),
            subject: some(&wire.subject),
            reason: wire.reason.clone(),
            steps_done: wire.steps_done,
            steps_total: wire.steps_total,
            bytes_done: wire.bytes_done,
            bytes_total: wire.bytes_total,
            started_at: time(wire.started_at),
            ended_at: time(wire.ended_at),
            message: some(&wire.message),
            last_error: some(&wire.last_error),
            router_id: wire.router_id.clone(),
            held_back: wire.held_back,
        }
    }
}
