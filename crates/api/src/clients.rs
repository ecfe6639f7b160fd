//! Clients: the mounts that are connected to a router, and how each is.

use monofs_proto::v1;
use serde::Serialize;
use utoipa::ToSchema;

use crate::page::ListPage;
use crate::reads::hit_ratio;
use crate::tongue::{Time, not_http};
use crate::wire::said;

/// A part of the list of clients of all routers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Clients)]
pub struct ClientList {
    pub clients: Vec<ClientDocument>,
    #[serde(flatten)]
    pub page: ListPage,
    /// Routers that could not be asked: their clients are missing.
    pub missing: Vec<MissingRouter>,
}

/// A router that could not be asked.
#[derive(Debug, Serialize, ToSchema)]
pub struct MissingRouter {
    pub router_id: String,
    pub error: String,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: String,
}

impl MissingRouter {
    /// A router, and why it could not be asked.
    pub fn new(router_id: String, error: String) -> Self {
        Self {
            router: router_id.clone(),
            router_id,
            error,
        }
    }
}

/// A mount that is connected to a router.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Client)]
pub struct ClientDocument {
    pub id: String,
    pub version: String,
    pub mount: String,
    /// The router that it is connected to.
    pub router_id: Option<String>,
    pub connected_at: Option<Time>,
    /// The catalogue as far as it has applied it.
    pub acknowledged_revision: u64,
    /// Revisions that it has not applied yet.
    pub lag_revisions: u64,
    /// When it last said how it is; `null` = not yet.
    pub reported_at: Option<Time>,
    /// `null` = it has not reported yet, or its version does not.
    pub report: Option<ClientReport>,
    /// Replaced by `router_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    router: String,
    /// Replaced by `acknowledged_revision`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    acked_revision: u64,
}

impl ClientDocument {
    /// `revision`: where the catalogue is.
    pub fn new(wire: &v1::ClientStatus, revision: u64) -> Self {
        Self {
            id: wire.client_id.clone(),
            version: wire.version.clone(),
            mount: wire.mount.clone(),
            router_id: said(&wire.router_id),
            connected_at: Time::known(wire.connected_at),
            acknowledged_revision: wire.acked_revision,
            lag_revisions: revision.saturating_sub(wire.acked_revision),
            reported_at: Time::known(wire.reported_at),
            report: wire.report.as_ref().map(Into::into),
            router: wire.router_id.clone(),
            acked_revision: wire.acked_revision,
        }
    }

    /// The mounts of a status.
    pub fn of_status(status: &v1::StatusResponse) -> Vec<Self> {
        let revision = status.position.as_ref().map_or(0, |at| at.revision);
        let clients = status.clients.iter();
        clients.map(|wire| Self::new(wire, revision)).collect()
    }
}

/// What a client says of itself. Counters are since the mount began.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ClientReport)]
pub struct ClientReport {
    pub cache_bytes: u64,
    pub cache_bytes_max: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    /// `null` = nothing was asked for.
    pub cache_hit_ratio: Option<f64>,
    pub bytes_fetched: u64,
    /// Requests of the kernel, and those that failed because content could not be had.
    pub upcalls: u64,
    pub failed: u64,
    /// Repositories shown at an older commit than the catalogue says.
    pub lagging_repositories: u64,
    pub resident_bytes: u64,
    /// Replaced by `bytes_fetched`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    fetched_bytes: u64,
}

impl From<&v1::ClientReport> for ClientReport {
    fn from(report: &v1::ClientReport) -> Self {
        Self {
            cache_bytes: report.cache_bytes,
            cache_bytes_max: report.cache_bytes_max,
            cache_hits: report.cache_hits,
            cache_misses: report.cache_misses,
            cache_hit_ratio: hit_ratio(report.cache_hits, report.cache_misses),
            bytes_fetched: report.bytes_fetched,
            upcalls: report.upcalls,
            failed: report.failed,
            lagging_repositories: report.lagging,
            resident_bytes: report.resident_bytes,
            fetched_bytes: report.bytes_fetched,
        }
    }
}
