//! Which node holds how much, and what the loss of one would do.

use serde::Serialize;
use utoipa::ToSchema;

use crate::members::MemberCondition;
use crate::tongue::not_http;

/// Which node holds how much.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Placement)]
pub struct PlacementDocument {
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
pub struct NodeShare {
    #[serde(flatten)]
    pub node: NamedNode,
    pub zone: Option<String>,
    pub weight: f64,
    pub state: MemberCondition,
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
pub struct ZoneShare {
    /// `null` = nodes without a zone.
    pub zone: Option<String>,
    pub nodes: usize,
    pub copies: u64,
    pub bytes: u64,
}

/// What the loss of a node would do, as things are now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Loss {
    #[serde(flatten)]
    pub node: NamedNode,
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
pub struct LossTarget {
    #[serde(flatten)]
    pub node: NamedNode,
    pub copies: u64,
    pub bytes: u64,
}

/// The node that a document is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct NamedNode {
    pub node_id: String,
    /// Replaced by `node_id`.
    #[serde(skip_serializing_if = "not_http")]
    #[schema(deprecated)]
    node: String,
}

impl NamedNode {
    /// The node with this id.
    pub fn new(node_id: impl Into<String>) -> Self {
        let node_id = node_id.into();
        Self {
            node: node_id.clone(),
            node_id,
        }
    }
}
