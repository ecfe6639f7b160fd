//! What an operator says about members before they can speak for themselves.

use monofs_model::view::Role;
use monofs_model::{Member, MemberState, NodeId};

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

impl StaticMember {
    /// What is known of it before it was heard of.
    pub fn member(&self) -> Member {
        Member {
            id: self.id.clone(),
            role: self.role,
            address: self.address.clone(),
            external_address: self.external_address.clone(),
            weight: self.weight,
            zone: self.zone.clone(),
            state: MemberState::Joining,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 0,
            share_percent: 100,
            failed_over: false,
        }
    }

    /// Puts what the command line says in place of what the member says.
    pub(crate) fn overrule(&self, member: &mut Member) {
        member.address.clone_from(&self.address);
        if member.external_address.is_empty() {
            member.external_address.clone_from(&self.external_address);
        }
        if self.weight != 1.0 {
            member.weight = self.weight;
        }
        if !self.zone.is_empty() {
            member.zone.clone_from(&self.zone);
        }
    }
}
