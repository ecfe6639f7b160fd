//! What an operator says about members before they can speak for themselves.

use monofs_model::NodeId;
use monofs_model::view::Role;

/// A member named on the command line instead of by its own registration.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticMember {
    pub id: NodeId,
    /// Otherwise `id` stands for it only until it says what it calls itself.
    pub named: bool,
    pub role: Role,
    /// `host:port`.
    pub address: String,
    /// Empty = the same as `address`.
    pub external_address: String,
    pub weight: f64,
    pub zone: String,
}
