//! Documents that only `monofs-admin` prints: what a command did, and the cluster as it shows it.

use monofs_proto::v1;
use serde::Serialize;

use crate::clients::ClientDocument;
use crate::findings::{Finding, Health};
use crate::guide::RepositoriesByState;
use crate::hosts::HostPauseDocument;
use crate::jobs::{Accepted, JobDocument, RebalancePlan};
use crate::members::{
    FetcherDocument, IntentDocument, MemberCondition, NodeDocument, RouterDocument,
};
use crate::overview::MaintenanceDocument;
use crate::reads::ReadRates;
use crate::repos::HeldRepository;
use crate::tongue::Time;
use crate::wire::hex;

/// The cluster on one screen, with every router of the command line asked.
#[derive(Debug, Serialize)]
pub struct ClusterStatus {
    pub health: Health,
    pub healthy: bool,
    /// The findings' lines alone.
    pub problems: Vec<String>,
    /// What is wrong, each with the command to type next.
    pub findings: Vec<Finding>,
    /// Command lines that lead on from here, each once.
    pub next: Vec<String>,
    /// The routers of the command line.
    pub routers: Vec<RouterAsked>,
    /// All routers that run, as they know each other; empty = their state store cannot be asked.
    pub routers_known: Vec<RouterDocument>,
    pub maintenance: Option<MaintenanceDocument>,
    pub intents: Vec<IntentDocument>,
    pub jobs: Vec<JobDocument>,
    pub view_number: u64,
    pub revision: u64,
    pub replication_factor: u32,
    pub repositories: RepositoriesByState,
    pub nodes: Vec<NodeDocument>,
    pub fetchers: Vec<FetcherDocument>,
    pub clients: Vec<ClientDocument>,
    /// Remote hosts that said "not now".
    pub hosts_paused: Vec<HostPauseDocument>,
    /// Replaced commits that are kept beyond the grace for readers, the oldest first, at most 100.
    pub kept_snapshots: Vec<KeptSnapshotDocument>,
    /// Number of those.
    pub kept_snapshots_total: u64,
}

impl ClusterStatus {
    /// What a router said, with what follows from it.
    pub fn new(
        status: &v1::StatusResponse,
        health: Health,
        findings: Vec<Finding>,
        next: Vec<String>,
        routers: Vec<RouterAsked>,
    ) -> Self {
        // What the router said, in the words of the other documents.
        let known = status.routers.iter();
        let problems = findings.iter().map(|finding| finding.problem.clone());
        Self {
            health,
            healthy: health == Health::Healthy,
            problems: problems.collect(),
            findings,
            next,
            routers,
            routers_known: known
                .map(|router| RouterDocument::new(router, &status.router_id))
                .collect(),
            maintenance: status.maintenance.as_ref().map(Into::into),
            intents: status.intents.iter().map(Into::into).collect(),
            jobs: status.jobs.iter().map(Into::into).collect(),
            view_number: status.view_number,
            revision: status.position.as_ref().map_or(0, |at| at.revision),
            replication_factor: status.replication_factor,
            repositories: status.into(),
            nodes: NodeDocument::of_status(status),
            fetchers: FetcherDocument::of_status(status),
            clients: ClientDocument::of_status(status),
            hosts_paused: status.hosts_paused.iter().map(Into::into).collect(),
            kept_snapshots: status.kept_snapshots.iter().map(Into::into).collect(),
            kept_snapshots_total: status.kept_snapshots_total,
        }
    }
}

/// A replaced commit that is kept for readers.
#[derive(Debug, Serialize)]
pub struct KeptSnapshotDocument {
    pub path: String,
    pub commit: String,
    pub replaced_at: Option<Time>,
    /// When it goes at the latest.
    pub until: Option<Time>,
    /// A client that it is kept for.
    pub client_id: String,
    /// Why: `in_use` = the client holds files or directories of it, `not_applied` = it has not taken
    /// over what replaced it.
    pub reason: &'static str,
}

impl From<&v1::KeptSnapshot> for KeptSnapshotDocument {
    fn from(wire: &v1::KeptSnapshot) -> Self {
        Self {
            path: wire.path.clone(),
            commit: hex(&wire.commit),
            replaced_at: Time::known(wire.replaced_at),
            until: Time::known(wire.until),
            client_id: wire.client_id.clone(),
            reason: match wire.not_applied {
                true => "not_applied",
                false => "in_use",
            },
        }
    }
}

/// A router that was asked.
#[derive(Debug, Serialize)]
pub struct RouterAsked {
    pub address: String,
    pub reachable: bool,
    pub id: Option<String>,
    pub version: Option<String>,
    pub started_at: Option<Time>,
    pub error: Option<String>,
}

/// A repository that was taken out of the tree.
#[derive(Debug, Serialize)]
pub struct Deleted {
    /// Its path.
    pub deleted: String,
}

/// A member that was forgotten.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// Its id.
    pub removed: String,
}

/// Manual pages that were written.
#[derive(Debug, Serialize)]
pub struct PagesWritten {
    /// Names of the files.
    pub written: Vec<String>,
}

/// What became of a request of an operator, and the command line that leads on.
#[derive(Debug, Serialize)]
pub struct AcceptedCommand {
    #[serde(flatten)]
    pub accepted: Accepted,
    pub next: String,
}

/// A plan, and how its job ended.
#[derive(Debug, Serialize)]
pub struct Rebalanced {
    #[serde(flatten)]
    pub plan: RebalancePlan,
    /// `null` unless it was waited for.
    pub job: Option<JobDocument>,
}

/// One job.
#[derive(Debug, Serialize)]
pub struct OneJob {
    pub job: JobDocument,
}

/// What nodes hold.
#[derive(Debug, Serialize)]
pub struct NodeFiles {
    pub nodes: Vec<FilesOfNode>,
}

/// What one node holds.
#[derive(Debug, Serialize)]
pub struct FilesOfNode {
    pub node_id: String,
    /// Of the repositories, those with commits that the catalogue does not name.
    pub orphaned_repositories: usize,
    pub repositories: Vec<HeldFiles>,
    pub error: Option<String>,
}

/// A repository on a node, and what of it is in the catalogue.
#[derive(Debug, Serialize)]
pub struct HeldFiles {
    #[serde(flatten)]
    pub held: HeldRepository,
    /// Of the commits, those that neither the catalogue nor its history names.
    pub orphaned_commits: Vec<String>,
}

/// Repositories that were looked at upstream.
#[derive(Debug, Serialize)]
pub struct Refreshed {
    pub refreshed: Vec<RefreshOutcome>,
}

/// How a refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshResult {
    Updated,
    Unchanged,
    Failed,
}

/// What became of one repository.
#[derive(Debug, Serialize)]
pub struct RefreshOutcome {
    pub path: String,
    pub result: RefreshResult,
    pub commit: Option<String>,
    pub error: Option<String>,
}

/// Whether all objects are what their ids say.
#[derive(Debug, Serialize)]
pub struct Verified {
    pub ok: bool,
    pub replicas: Vec<VerifiedReplica>,
}

/// One replica, checked.
#[derive(Debug, Default, Serialize)]
pub struct VerifiedReplica {
    pub node_id: String,
    pub path: String,
    pub objects: u64,
    pub bytes: u64,
    pub finished: bool,
    /// Damaged objects, of which `errors` names the first.
    pub damaged: u64,
    pub errors: Vec<String>,
}

/// The cluster between two samples.
#[derive(Debug, Serialize)]
pub struct LiveFigures {
    pub health: Health,
    pub findings: Vec<Finding>,
    /// Address of the router that answered.
    pub router: String,
    /// Id of the router that leads.
    pub leader: Option<String>,
    /// Seconds between the two samples; `null` = there is only one.
    pub interval_seconds: Option<f64>,
    pub repositories_ready: u64,
    pub repositories_ingesting: u64,
    pub repositories_failed: u64,
    pub view_number: u64,
    pub reads: ReadRates,
    pub nodes: Vec<LiveNode>,
    pub fetchers: Vec<LiveFetcher>,
    pub jobs: Vec<JobDocument>,
    pub clients: Vec<LiveClient>,
}

/// A node between two samples.
#[derive(Debug, Serialize)]
pub struct LiveNode {
    pub id: String,
    pub state: MemberCondition,
    /// The member as the router told it.
    #[serde(skip)]
    pub member: v1::Member,
    #[serde(flatten)]
    pub reads: ReadRates,
    /// Of the chunks asked for, those that were on the node.
    pub node_hit_ratio: Option<f64>,
    /// The same in per cent. Replaced by `node_hit_ratio`.
    pub chunks_here_percent: Option<f64>,
    pub repositories: Option<u64>,
    pub disk_used_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub hydrations_running: Option<u64>,
    pub hydrations_queued: Option<u64>,
    pub error: Option<String>,
}

/// A fetcher between two samples.
#[derive(Debug, Serialize)]
pub struct LiveFetcher {
    pub id: String,
    pub state: MemberCondition,
    /// The member as the router told it.
    #[serde(skip)]
    pub member: v1::Member,
    pub bytes_per_second: Option<f64>,
    pub fetches_per_second: Option<f64>,
    pub fetches_running: Option<u64>,
    pub fetches_waiting: Option<u64>,
    pub fetches_failed: Option<u64>,
    pub cache_bytes: Option<u64>,
    pub cache_bytes_max: Option<u64>,
    /// Since it started.
    pub cache_hit_ratio: Option<f64>,
    /// The same in per cent. Replaced by `cache_hit_ratio`.
    pub cache_hits_percent: Option<f64>,
    pub error: Option<String>,
}

/// A mount between its last two reports.
#[derive(Debug, Serialize)]
pub struct LiveClient {
    pub id: String,
    pub mount: String,
    pub router_id: Option<String>,
    pub upcalls_per_second: Option<f64>,
    pub bytes_per_second: Option<f64>,
    /// Since it was mounted.
    pub cache_hit_ratio: Option<f64>,
    /// The same in per cent. Replaced by `cache_hit_ratio`.
    pub cache_hits_percent: Option<f64>,
    pub cache_bytes: Option<u64>,
    pub cache_bytes_max: Option<u64>,
    pub failed: Option<u64>,
    pub lagging_repositories: Option<u64>,
    pub resident_bytes: Option<u64>,
    pub version: String,
}
