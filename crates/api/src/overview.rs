//! The state of the cluster on one screen, and its history.

use std::collections::BTreeMap;

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::findings::{Finding, Health};
use crate::hosts::HostPauseDocument;
use crate::jobs::JobDocument;
use crate::members::{MemberCondition, RouterDocument};
use crate::reads::ReadRates;
use crate::tongue::{Time, not_http};
use crate::wire::said;

/// The state of the cluster on one screen.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Overview {
    pub health: Health,
    /// What is wrong and what to do, most important first.
    pub findings: Vec<Finding>,
    /// The router that answers.
    pub router_id: String,
    pub version: String,
    pub started_at: Time,
    /// All that run; none = the state store cannot be asked.
    pub routers_known: Vec<RouterDocument>,
    /// The whole cluster is being worked on.
    pub maintenance: Option<MaintenanceDocument>,
    pub nodes: MemberCounts,
    pub fetchers: MemberCounts,
    pub repositories: RepositoryCounts,
    pub replication_factor: u32,
    /// Clients connected to this router.
    pub clients: usize,
    pub rates: OverviewRates,
    /// Those that have not ended, at most 100.
    pub jobs: Vec<JobDocument>,
    /// Number of those.
    pub jobs_running: usize,
    pub ingests_running: usize,
    pub view_number: u64,
    pub revision: u64,
    /// Remote hosts that said "not now", as this router heard.
    pub hosts_paused: Vec<HostPauseDocument>,
    #[serde(flatten)]
    pub replaced: OverviewReplaced,
}

/// Words of the overview that were replaced.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct OverviewReplaced {
    /// Replaced by `findings`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    reasons: Vec<OverviewReason>,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: String,
    /// Replaced by `routers_known`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    routers: Vec<RouterDocument>,
    /// Replaced by `view_number`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    view: u64,
}

impl OverviewReplaced {
    /// The same as the fields that replaced them.
    pub fn new(
        findings: &[Finding],
        router_id: &str,
        routers: &[RouterDocument],
        view_number: u64,
    ) -> Self {
        Self {
            reasons: findings.iter().map(Into::into).collect(),
            router: router_id.to_owned(),
            routers: routers.to_vec(),
            view: view_number,
        }
    }
}

/// Something that is wrong, in the words before [`Finding`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Reason)]
pub struct OverviewReason {
    /// The router cannot do its work.
    critical: bool,
    /// One line that ends with what to do.
    message: String,
}

impl From<&Finding> for OverviewReason {
    fn from(finding: &Finding) -> Self {
        Self {
            critical: finding.critical == Some(true),
            message: finding.problem.clone(),
        }
    }
}

/// The whole cluster is being worked on: no reader fails over and nothing moves.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Maintenance)]
pub struct MaintenanceDocument {
    pub reason: Option<String>,
    pub since: Option<Time>,
}

impl From<&v1::Maintenance> for MaintenanceDocument {
    fn from(wire: &v1::Maintenance) -> Self {
        Self {
            reason: said(&wire.reason),
            since: Time::known(wire.since),
        }
    }
}

/// Members of one role.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MemberCounts {
    pub total: usize,
    /// Only the states that some are in.
    pub by_state: BTreeMap<MemberCondition, usize>,
}

/// Repositories by their state.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RepositoryCounts {
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
#[schema(as = Rates)]
pub struct OverviewRates {
    /// When those seconds ended.
    pub at: Option<Time>,
    #[serde(flatten)]
    pub reads: ReadRates,
    pub node_hit_ratio: Option<f64>,
    pub fetcher_hit_ratio: Option<f64>,
    pub client_hit_ratio: Option<f64>,
    pub disk_used_bytes: Option<f64>,
    #[serde(flatten)]
    pub replaced: RatesReplaced,
}

/// Words of the rates that were replaced.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct RatesReplaced {
    /// Replaced by `requests_per_second`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    reads_per_second: Option<f64>,
    /// Replaced by `failed_per_second`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    errors_per_second: Option<f64>,
    /// Replaced by `p50_seconds`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    latency_p50_seconds: Option<f64>,
    /// Replaced by `p99_seconds`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    latency_p99_seconds: Option<f64>,
}

impl From<&ReadRates> for RatesReplaced {
    fn from(reads: &ReadRates) -> Self {
        Self {
            reads_per_second: reads.requests_per_second,
            errors_per_second: reads.failed_per_second,
            latency_p50_seconds: reads.p50_seconds,
            latency_p99_seconds: reads.p99_seconds,
        }
    }
}

/// Series over time. Each router keeps them for itself, since it was started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = History)]
pub struct HistoryDocument {
    pub step_seconds: i64,
    /// When each step ended; a step in which nothing could be sampled is missing.
    pub at: Vec<Time>,
    /// For each series one value for each time in `at`; `null` = not known.
    pub series: BTreeMap<String, Vec<Option<f64>>>,
}
