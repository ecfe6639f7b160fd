//! What the HTTP API is asked for: queries and bodies. A word that was replaced is still
//! understood.

use monofs_proto::v1;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::jobs::PlanMode;
use crate::repos::{ContentTiming, PublishRule, RepositoryCondition};

/// By what a list of repositories is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Sort)]
pub enum RepositorySort {
    #[default]
    Path,
    State,
    Bytes,
    Files,
    /// Number of holders.
    Copies,
    Created,
    Refreshed,
    /// Time of the commit.
    Committed,
}

/// The direction of a sort.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Order)]
pub enum SortOrder {
    #[default]
    Asc,
    Desc,
}

/// Which repositories are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WantedRepositories {
    /// Words that all are part of the path or the source, without regard to case.
    #[param(max_length = 200)]
    pub q: String,
    #[param(inline)]
    pub state: Option<RepositoryCondition>,
    /// Only those with fewer copies than are wanted, or whose last refresh failed.
    pub troubled: bool,
    #[param(inline)]
    pub sort: RepositorySort,
    #[param(inline)]
    pub order: SortOrder,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// What is to be ingested.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Ingest)]
pub struct IngestRequest {
    /// URL of the repository.
    #[schema(
        example = "https://github.com/org/repo",
        min_length = 1,
        max_length = 2048
    )]
    pub source: String,
    /// A branch, a tag or a commit; without one, the remote's HEAD.
    #[serde(rename = "ref", default)]
    pub ref_name: Option<String>,
    /// Where it appears in the tree; without one, as the source says.
    #[serde(default)]
    pub path: Option<String>,
    #[serde(default)]
    pub consistency: Option<PublishRule>,
    #[serde(default)]
    pub content: Option<ContentTiming>,
}

impl From<IngestRequest> for v1::IngestRequest {
    fn from(asked: IngestRequest) -> Self {
        let consistency = match asked.consistency {
            None => v1::Consistency::Unspecified,
            Some(PublishRule::Eventual) => v1::Consistency::Eventual,
            Some(PublishRule::Strong) => v1::Consistency::Strong,
        };
        let content = match asked.content {
            None => v1::ContentMode::Unspecified,
            Some(ContentTiming::Eager) => v1::ContentMode::Eager,
            Some(ContentTiming::Lazy) => v1::ContentMode::Lazy,
        };
        Self {
            source: asked.source,
            ref_name: asked.ref_name.unwrap_or_default(),
            path: asked.path.unwrap_or_default(),
            consistency: consistency.into(),
            content: content.into(),
            wait_hydrated: false,
        }
    }
}

/// Which jobs are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WantedJobs {
    /// Also those that have ended; the last 100 of them are kept.
    pub all: bool,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which clients are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WantedClients {
    /// A part of the id, the mount or the router.
    #[param(max_length = 200)]
    pub q: String,
    /// Items passed over.
    #[param(minimum = 0, maximum = 10_000_000)]
    pub offset: Option<u32>,
    /// Items in the answer.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// How far back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = Range)]
pub enum WantedRange {
    #[default]
    #[serde(rename = "1h")]
    Hour,
    #[serde(rename = "24h")]
    Day,
}

/// Which history is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WantedHistory {
    /// The last hour in steps of ten seconds, or the last day in steps of five minutes.
    #[param(inline)]
    pub range: WantedRange,
    /// Of this node instead of the cluster.
    #[param(max_length = 64)]
    pub node: Option<String>,
}

/// What is asked of the placement.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WantedPlacement {
    /// What would the loss of this node do?
    #[param(max_length = 64)]
    pub without: Option<String>,
}

/// What is to be drained.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Drain)]
pub struct DrainRequest {
    /// Without one, the whole cluster: no reader fails over and nothing moves.
    #[serde(alias = "node")]
    pub node_id: Option<String>,
    #[schema(max_length = 1000)]
    pub reason: String,
    /// Of one node: also if fewer copies than are wanted will be left.
    pub force: bool,
}

/// What is to be drained no more.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Undrain)]
pub struct UndrainRequest {
    /// Without one, the whole cluster.
    #[serde(alias = "node")]
    pub node_id: Option<String>,
}

/// Which node is to be failed over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FailOver)]
pub struct FailoverRequest {
    #[serde(alias = "node")]
    pub node_id: String,
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
#[schema(as = LetBack)]
pub struct LetBackRequest {
    #[serde(alias = "node")]
    pub node_id: String,
}

/// What is to be rebalanced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Rebalance)]
pub struct RebalanceRequest {
    /// One of the two, or none = everything.
    pub path: Option<String>,
    pub storage_id: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl RebalanceRequest {
    /// What its plan is made for.
    pub fn mode(&self) -> PlanMode {
        match self.dry_run {
            true => PlanMode::DryRun,
            false => PlanMode::Started,
        }
    }
}

/// Whether one repository is really to be rebalanced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RebalanceOne)]
pub struct RebalanceOneRequest {
    /// Only say what would be done.
    pub dry_run: bool,
}

impl RebalanceOneRequest {
    /// What its plan is made for.
    pub fn mode(&self) -> PlanMode {
        match self.dry_run {
            true => PlanMode::DryRun,
            false => PlanMode::Started,
        }
    }
}
