//! Jobs of the reconciler, and what became of what operators ask for: drain, failover, rebalance.

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::members::MemberCondition;
use crate::page::ListPage;
use crate::tongue::{Time, not_http};
use crate::wire::said;

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    Repair,
    Rebalance,
    Drain,
    Failover,
    Recover,
    /// Of a newer version.
    Unknown,
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = JobState)]
pub enum JobCondition {
    Running,
    /// It cannot go on now; `message` says why.
    Waiting,
    Done,
    Failed,
    Cancelled,
    /// Of a newer version.
    Unknown,
}

impl From<v1::job::Kind> for JobKind {
    fn from(kind: v1::job::Kind) -> Self {
        match kind {
            v1::job::Kind::Repair => Self::Repair,
            v1::job::Kind::Rebalance => Self::Rebalance,
            v1::job::Kind::Drain => Self::Drain,
            v1::job::Kind::Failover => Self::Failover,
            v1::job::Kind::Recover => Self::Recover,
            v1::job::Kind::Unspecified => Self::Unknown,
        }
    }
}

impl From<v1::job::State> for JobCondition {
    fn from(state: v1::job::State) -> Self {
        match state {
            v1::job::State::Running => Self::Running,
            v1::job::State::Waiting => Self::Waiting,
            v1::job::State::Done => Self::Done,
            v1::job::State::Failed => Self::Failed,
            v1::job::State::Cancelled => Self::Cancelled,
            v1::job::State::Unspecified => Self::Unknown,
        }
    }
}

impl JobCondition {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

/// Work of the reconciler with one cause.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobDocument {
    pub id: String,
    pub kind: JobKind,
    pub state: JobCondition,
    /// The node or the path that it is about; `null` = everything.
    pub subject: Option<String>,
    pub reason: String,
    pub steps_done: u64,
    pub steps_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub started_at: Option<Time>,
    pub ended_at: Option<Time>,
    /// What it does or waits for now.
    pub message: Option<String>,
    pub last_error: Option<String>,
    /// The router that runs it.
    pub router_id: Option<String>,
    /// Cancelled, and what it left is not done until a rebalance is asked for.
    pub held_back: bool,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: Option<String>,
}

impl From<&v1::Job> for JobDocument {
    fn from(wire: &v1::Job) -> Self {
        Self {
            id: wire.id.clone(),
            kind: wire.kind().into(),
            state: wire.state().into(),
            subject: said(&wire.subject),
            reason: wire.reason.clone(),
            steps_done: wire.steps_done,
            steps_total: wire.steps_total,
            bytes_done: wire.bytes_done,
            bytes_total: wire.bytes_total,
            started_at: Time::known(wire.started_at),
            ended_at: Time::known(wire.ended_at),
            message: said(&wire.message),
            last_error: said(&wire.last_error),
            router_id: said(&wire.router_id),
            held_back: wire.held_back,
            router: said(&wire.router_id),
        }
    }
}

/// A part of the list of jobs: those that run, then those that ended last.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Jobs)]
pub struct JobList {
    pub jobs: Vec<JobDocument>,
    #[serde(flatten)]
    pub page: ListPage,
}

/// What became of a request of an operator.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Accepted {
    /// The command of `monofs-admin` that asks for the same.
    pub action: &'static str,
    /// `null` = the whole cluster.
    pub node_id: Option<String>,
    /// It was so already.
    pub unchanged: bool,
    /// The job that moves copies; `null` = there is nothing to move.
    pub job_id: Option<String>,
    /// Replaced by `job_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    job: Option<String>,
}

/// What a router answered to a request of an operator.
#[derive(Debug, Clone, Copy)]
pub struct RequestOutcome<'a> {
    /// The command of `monofs-admin` that asks for the same.
    pub action: &'static str,
    /// Empty = the whole cluster.
    pub node_id: &'a str,
    /// It was so already.
    pub unchanged: bool,
    /// Empty = nothing moves.
    pub job_id: &'a str,
}

impl From<RequestOutcome<'_>> for Accepted {
    fn from(outcome: RequestOutcome<'_>) -> Self {
        Self {
            action: outcome.action,
            node_id: said(outcome.node_id),
            unchanged: outcome.unchanged,
            job_id: said(outcome.job_id),
            job: said(outcome.job_id),
        }
    }
}

/// Where reads go instead of where placement wants them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failover)]
pub struct FailoverDocument {
    pub node_id: String,
    pub state: MemberCondition,
    pub reason: String,
    pub since: Option<Time>,
    /// Repositories that it would be asked first about.
    pub repositories: u64,
    /// The nodes that are asked instead.
    pub targets: Vec<FailoverTarget>,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
}

/// A node that is asked instead of another one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FailoverTarget)]
pub struct FailoverTarget {
    pub node_id: String,
    pub repositories: u64,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
}

impl From<&v1::FailoverTarget> for FailoverTarget {
    fn from(wire: &v1::FailoverTarget) -> Self {
        Self {
            node_id: wire.node_id.clone(),
            repositories: wire.repositories,
            node: wire.node_id.clone(),
        }
    }
}

impl From<&v1::Failover> for FailoverDocument {
    fn from(wire: &v1::Failover) -> Self {
        Self {
            node_id: wire.node_id.clone(),
            state: wire.state().into(),
            reason: wire.reason.clone(),
            since: Time::known(wire.since),
            repositories: wire.repositories,
            targets: wire.targets.iter().map(Into::into).collect(),
            node: wire.node_id.clone(),
        }
    }
}

/// All failovers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failovers)]
pub struct FailoverList {
    pub failovers: Vec<FailoverDocument>,
}

/// What a plan was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanMode {
    /// Only to say what would be done.
    DryRun,
    Started,
}

/// What a rebalance does, or would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub struct RebalancePlan {
    /// Nothing was started.
    pub dry_run: bool,
    /// The first of them, at most 10,000.
    pub moves: Vec<MoveDocument>,
    pub copies_total: u64,
    pub deletes_total: u64,
    pub bytes_total: u64,
    /// `null` for a dry run, and when nothing is to be done.
    pub job_id: Option<String>,
    /// Replaced by `job_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    job: Option<String>,
}

impl RebalancePlan {
    /// What the router answered, and whether it began.
    pub fn new(wire: &v1::RebalanceResponse, mode: PlanMode) -> Self {
        Self {
            dry_run: mode == PlanMode::DryRun,
            moves: wire.moves.iter().map(Into::into).collect(),
            copies_total: wire.copies_total,
            deletes_total: wire.deletes_total,
            bytes_total: wire.bytes_total,
            job_id: said(&wire.job_id),
            job: said(&wire.job_id),
        }
    }
}

/// What is done with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MoveKind {
    Copy,
    Delete,
    /// Of a newer version.
    Unknown,
}

impl MoveKind {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Delete => "delete",
            Self::Unknown => "unknown",
        }
    }
}

impl From<v1::planned_move::Kind> for MoveKind {
    fn from(kind: v1::planned_move::Kind) -> Self {
        match kind {
            v1::planned_move::Kind::Copy => Self::Copy,
            v1::planned_move::Kind::Delete => Self::Delete,
            v1::planned_move::Kind::Unspecified => Self::Unknown,
        }
    }
}

/// One step of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Move)]
pub struct MoveDocument {
    pub kind: MoveKind,
    pub path: String,
    pub node_id: String,
    /// The nodes that a copy is taken from, best first; none = from a fetcher.
    pub from: Vec<String>,
    pub bytes: u64,
    pub reason: String,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
}

impl From<&v1::PlannedMove> for MoveDocument {
    fn from(wire: &v1::PlannedMove) -> Self {
        Self {
            kind: wire.kind().into(),
            path: wire.path.clone(),
            node_id: wire.node_id.clone(),
            from: wire.from.clone(),
            bytes: wire.bytes,
            reason: wire.reason.clone(),
            node: wire.node_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_states_are_those_of_the_wire() {
        for state in v1::job::State::ALL {
            assert_eq!(JobCondition::from(state).word(), state.word());
        }
        for kind in v1::job::Kind::ALL {
            let word = serde_json::to_value(JobKind::from(kind)).expect("a word is plain JSON");
            assert_eq!(word, kind.word());
        }
    }
}
