//! Which member is at which address.
//!
//! Invariants: an address is that of one member, the last one that said to be there; a member that
//! the command line named by its address alone is known by a placeholder until the process at that
//! address says what it calls itself.

use std::collections::HashMap;

use monofs_model::{Member, NodeId};

#[derive(Default)]
pub(super) struct MemberAddresses {
    /// By address.
    members: HashMap<String, NodeId>,
    /// Members that the command line named without an id, by address: at first a placeholder.
    unnamed: HashMap<String, NodeId>,
}

impl MemberAddresses {
    /// A member of the command line is there, unless another one of it is.
    pub fn reserve(&mut self, address: &str, id: &NodeId) {
        let members = &mut self.members;
        members
            .entry(address.to_owned())
            .or_insert_with(|| id.clone());
    }

    /// What is there was named by its address alone, and `placeholder` stands for it.
    pub fn await_name(&mut self, address: &str, placeholder: &NodeId) {
        let unnamed = &mut self.unnamed;
        unnamed.insert(address.to_owned(), placeholder.clone());
    }

    /// The member at this address.
    pub fn at(&self, address: &str) -> Option<&NodeId> {
        self.members.get(address)
    }

    /// `member` says to be at its address; returns the other one that was thought to be there.
    pub fn claim(&mut self, member: &Member) -> Option<NodeId> {
        let address = member.address.clone();
        let before = self.members.insert(address, member.id.clone());
        before.filter(|before| *before != member.id)
    }

    /// `id` is not at this address any more.
    pub fn leave(&mut self, address: &str, id: &NodeId) {
        if self.at(address) == Some(id) {
            self.members.remove(address);
        }
    }

    /// `member` is the one at an address that the command line named; returns the one that stood
    /// for it until now, if that is another.
    pub fn take_name(&mut self, member: &Member) -> Option<NodeId> {
        let holder = self
            .unnamed
            .get_mut(&member.address)
            .filter(|holder| **holder != member.id)?;
        Some(std::mem::replace(holder, member.id.clone()))
    }
}
