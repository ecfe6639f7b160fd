//! The state of the cluster on one screen, and its history.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::jobs::Job;
use super::members::{Router, State};
use monofs_router::history;

/// How well the cluster does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Healthy,
    /// It works; something is wrong or held back.
    Degraded,
    /// It cannot do its work.
    Unhealthy,
}

/// The state of the cluster on one screen.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Overview {
    pub health: Health,
    /// What is wrong and what to do, most important first.
    pub reasons: Vec<Reason>,
    /// The router that answers.
    pub router: String,
    pub version: String,
    pub started_at: i64,
    /// All that run; none = the state store cannot be asked.
    pub routers: Vec<Router>,
    /// The whole cluster is being worked on.
    pub maintenance: Option<Maintenance>,
    pub nodes: MemberCounts,
    pub fetchers: MemberCounts,
    pub repositories: RepositoryCounts,
    pub replication_factor: u32,
    /// Clients connected to this router.
    pub clients: usize,
    pub rates: Rates,
    /// Those that have not ended, at most 100.
    pub jobs: Vec<Job>,
    /// Number of those.
    pub jobs_running: usize,
    pub ingests_running: usize,
    pub view: u64,
    pub revision: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Reason {
    /// The router cannot do its work.
    pub critical: bool,
    /// One line that ends with what to do.
    pub message: String,
}

/// The whole cluster is being worked on: nobody fails over and nothing moves.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Maintenance {
    pub reason: Option<String>,
    pub since: i64,
}

/// Members of one role.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct MemberCounts {
    pub total: usize,
    /// Only the states that some are in.
    pub by_state: BTreeMap<State, usize>,
}

/// Repositories by their state.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct RepositoryCounts {
    pub total: usize,
    pub ready: usize,
    pub ingesting: usize,
    pub failed: usize,
    /// Ready, with fewer copies than are wanted.
    pub below_copies: usize,
    /// Ready, and the last refresh failed.
    pub refresh_failing: usize,
}

/// What the cluster did in the last ten seconds; `null` = not known (yet), or nothing was asked
/// for.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct Rates {
    /// When those seconds ended.
    pub at: Option<i64>,
    pub reads_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    pub errors_per_second: Option<f64>,
    pub latency_p50_seconds: Option<f64>,
    pub latency_p99_seconds: Option<f64>,
    pub node_hit_ratio: Option<f64>,
    pub fetcher_hit_ratio: Option<f64>,
    pub client_hit_ratio: Option<f64>,
    pub disk_used_bytes: Option<f64>,
}

/// How far back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub(crate) enum Range {
    #[default]
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
}

impl From<Range> for history::HistoryRange {
    fn from(range: Range) -> Self {
        match range {
            Range::Hour => Self::Hour,
            Range::Day => Self::Day,
        }
    }
}

/// Which history is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WantedHistory {
    /// The last hour in steps of ten seconds, or the last day in steps of five minutes.
    #[param(inline)]
    pub range: Range,
    /// Of this node instead of the cluster.
    #[param(max_length = 64)]
    pub node: Option<String>,
}

/// Series over time. Each router keeps them for itself, since it was started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    pub step_seconds: i64,
    /// When each step ended; a step in which nothing could be sampled is missing.
    pub at: Vec<i64>,
    /// For each series one value for each time in `at`; `null` = not known.
    pub series: BTreeMap<String, Vec<Option<f64>>>,
}

impl From<history::HistoryTable> for History {
    fn from(table: history::HistoryTable) -> Self {
        let series = table
            .series
            .into_iter()
            .map(|(name, values)| (name.to_owned(), values))
            .collect();
        Self {
            step_seconds: table.step_seconds,
            at: table.at,
            series,
        }
    }
}
