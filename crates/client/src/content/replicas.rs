//! Whom to ask: the holders of a repository in HRW order, then the routers' proxy; those that failed lately last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use monofs_model::{ClusterView, NodeId, Repository};

use crate::config::AddressChoice;

/// A peer that failed is asked last for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(5);
/// A member is reported to the router at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Most peers whose failures are remembered.
const PEERS_MAX: usize = 4096;

/// One server that may have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `host:port`.
    pub address: String,
    /// The node; `None` for a router.
    pub node: Option<NodeId>,
}

/// Peers and what is known about them.
pub struct Replicas {
    routers: Vec<String>,
    addresses: AddressChoice,
    via_router: bool,
    view: RwLock<Arc<ClusterView>>,
    suspects: Mutex<HashMap<String, Instant>>,
    reported: Mutex<HashMap<NodeId, Instant>>,
}

impl Replicas {
    /// No members are known yet: routers only.
    pub fn new(routers: Vec<String>, addresses: AddressChoice, via_router: bool) -> Self {
        Self {
            routers,
            addresses,
            via_router,
            view: RwLock::default(),
            suspects: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    /// The routers' newest view. A member's failures of before do not count any more once the router says it serves again.
    pub fn set_view(&self, view: ClusterView) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }

    /// The view in use.
    pub fn view(&self) -> Arc<ClusterView> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whom to ask about this repository, best first.
    pub fn candidates(&self, entry: &Repository) -> Vec<Candidate> {
        let view = self.view();
        let mut all = Vec::new();
        if !self.via_router {
            for member in view.readers(&entry.storage_id(), &entry.holders) {
                let internal = Some(&member.address).filter(|a| !a.is_empty());
                let external = Some(&member.external_address).filter(|a| !a.is_empty());
                let chosen = match self.addresses {
                    AddressChoice::Internal => [internal, None],
                    AddressChoice::External => [external.or(internal), None],
                    AddressChoice::Auto => [internal, external.filter(|e| Some(*e) != internal)],
                };
                let node = Some(member.id.clone());
                all.extend(chosen.into_iter().flatten().map(|a| Candidate { address: a.clone(), node: node.clone() }));
            }
        }
        all.extend(self.routers.iter().map(|router| Candidate { address: router.clone(), node: None }));
        let suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.sort_by_key(|candidate| suspects.get(&candidate.address).is_some_and(|until| *until > now));
        all
    }

    /// This peer failed or was too slow. Returns the member to report to the router, if it is time to.
    pub fn failed(&self, candidate: &Candidate) -> Option<NodeId> {
        let now = Instant::now();
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() >= PEERS_MAX {
            suspects.clear();
        }
        suspects.insert(candidate.address.clone(), now + SUSPECT_FOR);
        let node = candidate.node.clone()?;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= PEERS_MAX {
            reported.clear();
        }
        match reported.get(&node) {
            Some(last) if now.duration_since(*last) < REPORT_EVERY => None,
            _ => {
                reported.insert(node.clone(), now);
                Some(node)
            }
        }
    }

    /// This peer answered.
    pub fn answered(&self, candidate: &Candidate) {
        self.suspects.lock().unwrap_or_else(PoisonError::into_inner).remove(&candidate.address);
    }

    /// The routers.
    pub fn routers(&self) -> &[String] {
        &self.routers
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::view::{Member, Role};
    use monofs_model::{MemberState, Oid};

    use super::*;
    use crate::fs::namespace::tests::entry;

    fn node(id: &str, external: &str) -> Member {
        Member {
            id: NodeId::new(id).unwrap(),
            role: Role::Node,
            address: format!("{id}:1"),
            external_address: external.to_owned(),
            weight: 1.0,
            zone: String::new(),
            state: MemberState::Active,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 0,
        }
    }

    fn repository(holders: &[&str]) -> Repository {
        let mut entry = (*entry("h/x", Oid::from_bytes(&[1; 20]).unwrap(), 1)).clone();
        entry.holders = holders.iter().map(|id| NodeId::new(id).unwrap()).collect();
        entry
    }

    fn addresses(replicas: &Replicas, entry: &Repository) -> Vec<String> {
        replicas.candidates(entry).into_iter().map(|c| c.address).collect()
    }

    fn view(members: Vec<Member>) -> ClusterView {
        ClusterView { number: 1, members, replication_factor: 2 }
    }

    #[test]
    fn holders_are_asked_first_and_routers_last() {
        let replicas = Replicas::new(vec!["r:1".into()], AddressChoice::Auto, false);
        let entry = repository(&["a", "b"]);
        assert_eq!(addresses(&replicas, &entry), ["r:1"]);
        replicas.set_view(view(vec![node("a", ""), node("b", ""), node("c", "")]));
        let order = addresses(&replicas, &entry);
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], "r:1");
        assert!(!order.contains(&"c:1".to_owned()), "c holds nothing");
    }

    #[test]
    fn a_peer_that_failed_is_asked_last_until_it_answers() {
        let replicas = Replicas::new(vec!["r:1".into()], AddressChoice::Auto, false);
        replicas.set_view(view(vec![node("a", ""), node("b", "")]));
        let entry = repository(&["a", "b"]);
        let first = replicas.candidates(&entry)[0].clone();
        assert!(replicas.failed(&first).is_some());
        assert!(replicas.failed(&first).is_none(), "one report is enough for now");
        assert_eq!(replicas.candidates(&entry)[2], first);
        replicas.answered(&first);
        assert_eq!(replicas.candidates(&entry)[0], first);
    }

    #[test]
    fn addresses_follow_the_choice() {
        let entry = repository(&["a"]);
        for (choice, expected) in [
            (AddressChoice::Auto, vec!["a:1", "out:1", "r:1"]),
            (AddressChoice::Internal, vec!["a:1", "r:1"]),
            (AddressChoice::External, vec!["out:1", "r:1"]),
        ] {
            let replicas = Replicas::new(vec!["r:1".into()], choice, false);
            replicas.set_view(view(vec![node("a", "out:1")]));
            assert_eq!(addresses(&replicas, &entry), expected);
        }
        let proxied = Replicas::new(vec!["r:1".into(), "r:2".into()], AddressChoice::Auto, true);
        proxied.set_view(view(vec![node("a", "")]));
        assert_eq!(addresses(&proxied, &entry), ["r:1", "r:2"]);
    }
}
