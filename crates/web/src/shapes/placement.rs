//! Which node holds how much, and what the loss of one would do.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::members::State;

/// What is asked of the placement.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct WantedPlacement {
    /// What would the loss of this node do?
    #[param(max_length = 64)]
    pub without: Option<String>,
}

/// Which node holds how much.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Placement {
    pub replication_factor: u32,
    /// Published repositories.
    pub repositories: u64,
    /// Copies of them that are recorded, and the sum of their sizes.
    pub copies: u64,
    pub bytes: u64,
    pub nodes: Vec<NodeShare>,
    pub zones: Vec<ZoneShare>,
    pub without: Option<Loss>,
}

/// What one node holds of all copies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeShare {
    pub node: String,
    pub zone: Option<String>,
    pub weight: f64,
    pub state: State,
    /// Copies that are recorded on it, and the sum of their sizes.
    pub copies: u64,
    pub bytes: u64,
    /// Its part of all copies.
    pub share: f64,
    /// The part that its weight gives it of the nodes that should hold copies; 0 = it should hold
    /// none.
    pub share_wanted: f64,
    pub disk_used_bytes: u64,
    /// What it announced; `null` = it did not.
    pub capacity_bytes: Option<u64>,
}

/// What the nodes of one zone hold.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ZoneShare {
    /// `null` = nodes without a zone.
    pub zone: Option<String>,
    pub nodes: usize,
    pub copies: u64,
    pub bytes: u64,
}

/// What the loss of a node would do, as things are now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Loss {
    pub node: String,
    /// Copies that it holds.
    pub copies: u64,
    /// Repositories that would have fewer copies than are wanted.
    pub below_copies: u64,
    /// Repositories that would have no copy that serves; a fetcher would have to get them again.
    pub without_copy: u64,
    /// What would have to be copied so that all have as many copies again as the nodes that are
    /// left allow.
    pub bytes_to_copy: u64,
    /// Where to, the most bytes first.
    pub targets: Vec<LossTarget>,
}

/// What a node would be given.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LossTarget {
    pub node: String,
    pub copies: u64,
    pub bytes: u64,
}
