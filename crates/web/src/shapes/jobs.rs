//! Jobs of the reconciler, and what operators ask for: drain, failover, rebalance.

use monofs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::members::State;
use super::{Page, known, said};

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobKind {
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
pub(crate) enum JobState {
    Running,
    /// It cannot go on now; `message` says why.
    Waiting,
    Done,
    Failed,
    Cancelled,
    /// Of a newer version.
    Unknown,
}

/// Work of the reconciler with one cause.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Job {
    pub id: String,
    pub kind: JobKind,
    pub state: JobState,
    /// The node or the path that it is about; `null` = everything.
    pub subject: Option<String>,
    pub reason: String,
    pub steps_done: u64,
    pub steps_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// What it does or waits for now.
    pub message: Option<String>,
    pub last_error: Option<String>,
    /// The router that runs it.
    pub router: Option<String>,
    /// Cancelled, and what it left is not done until a rebalance is asked for.
    pub held_back: bool,
}

impl From<v1::Job> for Job {
    fn from(job: v1::Job) -> Self {
        let kind = match job.kind() {
            v1::job::Kind::Repair => JobKind::Repair,
            v1::job::Kind::Rebalance => JobKind::Rebalance,
            v1::job::Kind::Drain => JobKind::Drain,
            v1::job::Kind::Failover => JobKind::Failover,
            v1::job::Kind::Recover => JobKind::Recover,
            v1::job::Kind::Unspecified => JobKind::Unknown,
        };
        let state = match job.state() {
            v1::job::State::Running => JobState::Running,
            v1::job::State::Waiting => JobState::Waiting,
            v1::job::State::Done => JobState::Done,
            v1::job::State::Failed => JobState::Failed,
            v1::job::State::Cancelled => JobState::Cancelled,
            v1::job::State::Unspecified => JobState::Unknown,
        };
        Self {
            kind,
            state,
            subject: said(&job.subject),
            ended_at: known(job.ended_at),
            message: said(&job.message),
            last_error: said(&job.last_error),
            router: said(&job.router_id),
            id: job.id,
            reason: job.reason,
            steps_done: job.steps_done,
            steps_total: job.steps_total,
            bytes_done: job.bytes_done,
            bytes_total: job.bytes_total,
            started_at: job.started_at,
            held_back: job.held_back,
        }
    }
}

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WantedJobs {
    /// Also those that have ended; the last 100 of them are kept.
    pub all: bool,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// A part of the list of jobs: those that run, then those that ended last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Jobs {
    pub jobs: Vec<Job>,
    #[serde(flatten)]
    pub page: Page,
}

/// What is to be drained.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    /// Without one, the whole cluster: nobody fails over and nothing moves.
    pub node: Option<String>,
    #[schema(max_length = 1000)]
    pub reason: String,
    /// Of one node: also if fewer copies than are wanted will be left.
    pub force: bool,
}

/// What is to be drained no more.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Undrain {
    /// Without one, the whole cluster.
    pub node: Option<String>,
}

/// Which node is to be failed over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailOver {
    pub node: String,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub reason: String,
    /// Also if fewer copies than are wanted will be left.
    #[serde(default)]
    pub force: bool,
}

/// Which node is to be let back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LetBack {
    pub node: String,
}

/// What became of a request of an operator.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// It was so already.
    pub unchanged: bool,
    /// The job that moves copies.
    pub job: Option<String>,
}

/// Where reads go instead of where placement wants them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failover {
    pub node: String,
    pub state: State,
    pub reason: String,
    pub since: Option<i64>,
    /// Repositories that it would be asked first about.
    pub repositories: u64,
    /// Who is asked instead.
    pub targets: Vec<FailoverTarget>,
}

/// Who is asked instead of a node.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailoverTarget {
    pub node: String,
    pub repositories: u64,
}

/// All failovers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Failovers {
    pub failovers: Vec<Failover>,
}

impl TryFrom<v1::Failover> for Failover {
    type Error = monofs_model::Error;

    fn try_from(failover: v1::Failover) -> Result<Self, Self::Error> {
        let target = |target: v1::FailoverTarget| FailoverTarget {
            node: target.node_id,
            repositories: target.repositories,
        };
        Ok(Self {
            state: monofs_model::MemberState::try_from(failover.state())?.into(),
            since: known(failover.since),
            node: failover.node_id,
            reason: failover.reason,
            repositories: failover.repositories,
            targets: failover.targets.into_iter().map(target).collect(),
        })
    }
}

/// What is to be rebalanced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rebalance {
    /// One of the two, or none = everything.
    pub path: Option<String>,
    pub storage_id: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Whether one repository is really to be rebalanced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RebalanceOne {
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a rebalance does, or would do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The first of them, at most 10,000.
    pub moves: Vec<Move>,
    pub copies_total: u64,
    pub deletes_total: u64,
    pub bytes_total: u64,
    /// `null` for a dry run, and when nothing is to be done.
    pub job: Option<String>,
}

/// One step of a plan.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Move {
    /// `copy` or `delete`.
    pub kind: String,
    pub path: String,
    pub node: String,
    /// A copy: whom from, best first; none = from a fetcher.
    pub from: Vec<String>,
    pub bytes: u64,
    pub reason: String,
}

impl From<v1::RebalanceResponse> for Plan {
    fn from(plan: v1::RebalanceResponse) -> Self {
        let step = |step: v1::PlannedMove| Move {
            kind: step
                .kind()
                .as_str_name()
                .trim_start_matches("KIND_")
                .to_ascii_lowercase(),
            path: step.path,
            node: step.node_id,
            from: step.from,
            bytes: step.bytes,
            reason: step.reason,
        };
        Self {
            moves: plan.moves.into_iter().map(step).collect(),
            copies_total: plan.copies_total,
            deletes_total: plan.deletes_total,
            bytes_total: plan.bytes_total,
            job: said(&plan.job_id),
        }
    }
}
