//! The order in which peers are asked: of the first two holders of a repository in HRW order that
//! take part fully the less loaded one, then the others in that order, then those that hang, then
//! the routers' proxy; those that failed lately last.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use monofs_model::{ClusterView, Member, MemberState, NodeId, Repository};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::balance::PeerLoads;
use super::hedge::RequestClass;

/// A peer that failed is asked last for this long.
const SUSPECT_FOR: Duration = Duration::from_secs(5);
/// A member is reported to the router at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// Most peers whose failures are remembered.
const PEERS_MAX: usize = 4096;

/// Which of a node's two addresses to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressChoice {
    /// The internal address, and the external one where that does not answer.
    #[default]
    Auto,
    Internal,
    External,
}

/// One server that may have the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaCandidate {
    /// `host:port`.
    pub address: String,
    /// The node; `None` for a router.
    pub node: Option<NodeId>,
}

/// The peers that content is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentPath {
    /// Nodes, and the routers' proxy where no node delivers.
    NodesFirst,
    RoutersOnly,
}

/// Peers and what is known about them.
pub struct Replicas {
    routers: Vec<String>,
    addresses: AddressChoice,
    path: ContentPath,
    view: RwLock<Arc<ClusterView>>,
    suspects: Mutex<HashMap<String, Instant>>,
    reported: Mutex<HashMap<NodeId, Instant>>,
    /// Index of the router that took the last report.
    reporter: AtomicUsize,
    loads: PeerLoads,
}

impl Replicas {
    /// No members are known yet: routers only.
    pub fn new(routers: Vec<String>, addresses: AddressChoice, path: ContentPath) -> Self {
        Self {
            routers,
            addresses,
            path,
            view: RwLock::default(),
            suspects: Mutex::default(),
            reported: Mutex::default(),
            reporter: AtomicUsize::new(0),
            loads: PeerLoads::default(),
        }
    }

    /// The view of the router that this client is connected to now. It replaces the one before
    /// whatever its number is: each router counts for itself, and a client follows one router at a
    /// time, whose views come in their order.
    pub fn set_view(&self, view: ClusterView) {
        *self.view.write() = Arc::new(view);
    }

    /// The view in use.
    pub fn view(&self) -> Arc<ClusterView> {
        self.view.read().clone()
    }

    /// How loaded the peers are.
    pub fn loads(&self) -> &PeerLoads {
        &self.loads
    }

    /// The peers to ask for this repository in a request of this class, best first. A node's second
    /// address comes after the first addresses of all nodes, since it leads to the node that has
    /// just failed or been slow.
    pub fn candidates(
        &self,
        entry: &Repository,
        class: RequestClass,
        now: Instant,
    ) -> Vec<ReplicaCandidate> {
        let view = self.view();
        let suspects = self.suspects.lock();
        let is_suspect = |address: &str| suspects.get(address).is_some_and(|until| *until > now);
        let mut all = Vec::new();
        let mut second_addresses = Vec::new();
        if self.path == ContentPath::NodesFirst {
            // The less loaded one of the first two. What counts is the load of the address that
            // would be asked; one that failed is sorted last below, whatever its load.
            let load = |member: &Member| {
                let address = self
                    .addresses_of(member)
                    .into_iter()
                    .flatten()
                    .find(|address| !is_suspect(address));
                address.map_or(f64::INFINITY, |address| self.loads.of(address, class, now))
            };
            let mut readers = view.readers(&entry.storage_id(), &entry.holders);
            if let [first, next, ..] = &mut readers[..]
                && takes_part_fully(first)
                && takes_part_fully(next)
                && load(next) < load(first)
            {
                std::mem::swap(first, next);
            }
            for member in readers {
                let node = Some(member.id.clone());
                let [first, other] = self.addresses_of(member);
                all.extend(first.map(|a| ReplicaCandidate {
                    address: a.clone(),
                    node: node.clone(),
                }));
                second_addresses.extend(other.map(|a| ReplicaCandidate {
                    address: a.clone(),
                    node: node.clone(),
                }));
            }
            all.append(&mut second_addresses);
        }
        all.extend(self.routers.iter().map(|router| ReplicaCandidate {
            address: router.clone(),
            node: None,
        }));
        // Those that failed last; before them the routers, before these the nodes that hang.
        all.sort_by_key(|candidate| {
            let is_node = candidate.node.is_some();
            (
                is_suspect(&candidate.address),
                !is_node,
                is_node && self.loads.hangs(&candidate.address, now),
            )
        });
        all
    }

    fn addresses_of<'a>(&self, member: &'a Member) -> [Option<&'a String>; 2] {
        let internal = Some(&member.address).filter(|a| !a.is_empty());
        let external = Some(&member.external_address).filter(|a| !a.is_empty());
        match self.addresses {
            AddressChoice::Internal => [internal, None],
            AddressChoice::External => [external.or(internal), None],
            AddressChoice::Auto => [internal, external.filter(|e| Some(*e) != internal)],
        }
    }

    /// This peer failed or was too slow. Returns the member to report to the router, if it is time
    /// to.
    pub fn failed(&self, candidate: &ReplicaCandidate) -> Option<NodeId> {
        let now = Instant::now();
        {
            let mut suspects = self.suspects.lock();
            if suspects.len() >= PEERS_MAX {
                suspects.clear();
            }
            suspects.insert(candidate.address.clone(), now + SUSPECT_FOR);
        }
        let node = candidate.node.clone()?;
        let mut reported = self.reported.lock();
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
    pub fn answered(&self, candidate: &ReplicaCandidate) {
        self.suspects.lock().remove(&candidate.address);
    }

    /// The routers.
    pub fn routers(&self) -> &[String] {
        &self.routers
    }

    /// The routers, from the one that took the last report on.
    pub fn reporters(&self) -> Vec<String> {
        let mut routers = self.routers.clone();
        routers.rotate_left(self.reporter.load(Ordering::Relaxed) % self.routers.len().max(1));
        routers
    }

    /// This router took a report.
    pub fn reported_to(&self, router: &str) {
        if let Some(at) = self.routers.iter().position(|known| known == router) {
            self.reporter.store(at, Ordering::Relaxed);
        }
    }
}

/// Whether reads may be given to it and taken from it by load: not while they return to it
/// gradually.
fn takes_part_fully(member: &Member) -> bool {
    member.state == MemberState::Active && member.share_percent >= 100 && !member.failed_over
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::view::{Member, Role};
    use monofs_model::{
        Consistency, ContentMode, DisplayPath, MemberState, RefName, RepositoryState, SourceUrl,
    };

    use super::super::balance::SILENCE_MAX;
    use super::*;

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
            share_percent: 100,
            failed_over: false,
        }
    }

    fn repository(holders: &[&str]) -> Repository {
        Repository {
            path: DisplayPath::new("h/x").unwrap(),
            source: SourceUrl::new("https://example.org/x.git").unwrap(),
            ref_name: RefName::new("main").unwrap(),
            state: RepositoryState::Ready,
            snapshot: None,
            generation: 1,
            generation_time: None,
            root_time: None,
            holders: holders.iter().map(|id| NodeId::new(id).unwrap()).collect(),
            content: ContentMode::Eager,
            consistency: Consistency::Eventual,
            created_at: 0,
            refreshed_at: 0,
            last_error: String::new(),
            shadowed_by: None,
        }
    }

    fn candidates(replicas: &Replicas, entry: &Repository) -> Vec<ReplicaCandidate> {
        replicas.candidates(entry, RequestClass::Blobs, Instant::now())
    }

    fn addresses(replicas: &Replicas, entry: &Repository) -> Vec<String> {
        candidates(replicas, entry)
            .into_iter()
            .map(|c| c.address)
            .collect()
    }

    fn view(members: Vec<Member>) -> ClusterView {
        ClusterView {
            number: 1,
            members,
            replication_factor: 2,
        }
    }

    #[test]
    fn holders_are_asked_first_and_routers_last() {
        let replicas = Replicas::new(
            vec!["r:1".into()],
            AddressChoice::Auto,
            ContentPath::NodesFirst,
        );
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
        let replicas = Replicas::new(
            vec!["r:1".into()],
            AddressChoice::Auto,
            ContentPath::NodesFirst,
        );
        replicas.set_view(view(vec![node("a", ""), node("b", "")]));
        let entry = repository(&["a", "b"]);
        let first = candidates(&replicas, &entry)[0].clone();
        assert!(replicas.failed(&first).is_some());
        assert!(
            replicas.failed(&first).is_none(),
            "one report is enough for now"
        );
        assert_eq!(candidates(&replicas, &entry)[2], first);
        replicas.answered(&first);
        assert_eq!(candidates(&replicas, &entry)[0], first);
    }

    #[test]
    fn a_second_address_comes_after_every_nodes_first() {
        let replicas = Replicas::new(
            vec!["r:1".into()],
            AddressChoice::Auto,
            ContentPath::NodesFirst,
        );
        replicas.set_view(view(vec![node("a", "a-out:1"), node("b", "b-out:1")]));
        let order = addresses(&replicas, &repository(&["a", "b"]));
        assert!(
            order[..2].iter().all(|a| !a.contains("out"))
                && order[2..4].iter().all(|a| a.contains("out")),
            "{order:?}"
        );
    }

    #[test]
    fn the_less_loaded_of_the_first_two_active_holders_is_asked_first() {
        const MS: Duration = Duration::from_millis(1);
        let replicas = Replicas::new(vec![], AddressChoice::Auto, ContentPath::NodesFirst);
        let members = vec![node("a", ""), node("b", ""), node("c", "")];
        replicas.set_view(view(members.clone()));
        let (entry, now) = (repository(&["a", "b", "c"]), Instant::now());
        let order = |class| -> Vec<String> {
            replicas
                .candidates(&entry, class, now)
                .into_iter()
                .map(|candidate| candidate.address)
                .collect()
        };
        let ranked = order(RequestClass::Blobs);
        let swapped = vec![ranked[1].clone(), ranked[0].clone(), ranked[2].clone()];
        let loads = replicas.loads();
        ranked[..2]
            .iter()
            .for_each(|address| loads.begin(address, now));
        assert_eq!(
            order(RequestClass::Blobs),
            ranked,
            "equally loaded: in HRW order"
        );
        loads.observe(&ranked[0], RequestClass::Blobs, 50 * MS, now);
        loads.observe(&ranked[1], RequestClass::Blobs, 2 * MS, now);
        assert_eq!(order(RequestClass::Blobs), swapped);
        assert_eq!(order(RequestClass::Trees), ranked, "classes are apart");
        (0..60).for_each(|_| loads.begin(&ranked[1], now));
        assert_eq!(
            order(RequestClass::Blobs),
            ranked,
            "a fast one with much to do is not better"
        );
        (0..60).for_each(|_| loads.end(&ranked[1]));
        assert_eq!(order(RequestClass::Blobs), swapped);
        let with_second = |change: fn(&mut Member)| {
            let mut members = members.clone();
            members
                .iter_mut()
                .filter(|member| member.address == ranked[1])
                .for_each(change);
            view(members)
        };
        replicas.set_view(with_second(|member| member.state = MemberState::Draining));
        assert_eq!(
            order(RequestClass::Blobs),
            ranked,
            "the second one is not active"
        );
        replicas.set_view(with_second(|member| member.share_percent = 99));
        assert_eq!(
            order(RequestClass::Blobs)[0],
            ranked[0],
            "reads return to the second one gradually"
        );
        replicas.set_view(with_second(|member| member.failed_over = true));
        assert_eq!(
            order(RequestClass::Blobs)[2],
            ranked[1],
            "asked last, whatever its load"
        );
        replicas.set_view(view(members));
        replicas.failed(&ReplicaCandidate {
            address: ranked[1].clone(),
            node: None,
        });
        let order: Vec<_> = replicas
            .candidates(&entry, RequestClass::Blobs, now)
            .into_iter()
            .map(|c| c.address)
            .collect();
        assert_eq!(
            order,
            [ranked[0].clone(), ranked[2].clone(), ranked[1].clone()]
        );
    }

    #[test]
    fn a_holder_that_hangs_is_asked_after_the_others_whoever_they_are() {
        let replicas = Replicas::new(
            vec!["r:1".into()],
            AddressChoice::Auto,
            ContentPath::NodesFirst,
        );
        let (entry, now) = (repository(&["a", "b"]), Instant::now());
        replicas.set_view(view(vec![node("a", ""), node("b", "")]));
        let ranked = addresses(&replicas, &entry);
        let mut members = vec![node("a", ""), node("b", "")];
        members
            .iter_mut()
            .filter(|member| member.address == ranked[1])
            .for_each(|member| member.share_percent = 5);
        replicas.set_view(view(members));
        let first = addresses(&replicas, &entry)[0].clone();
        let [other] = ranked[..2]
            .iter()
            .filter(|address| **address != first)
            .collect::<Vec<_>>()[..]
        else {
            panic!()
        };
        replicas.loads().begin(&first, now);
        let order: Vec<_> = replicas
            .candidates(&entry, RequestClass::Trees, now + SILENCE_MAX)
            .into_iter()
            .map(|c| c.address)
            .collect();
        assert_eq!(order, [other.clone(), first, "r:1".into()]);
    }

    #[test]
    fn reports_go_to_the_router_that_took_the_last_one() {
        let replicas = Replicas::new(
            vec!["r:1".into(), "r:2".into(), "r:3".into()],
            AddressChoice::Auto,
            ContentPath::NodesFirst,
        );
        assert_eq!(replicas.reporters(), ["r:1", "r:2", "r:3"]);
        replicas.reported_to("r:2");
        assert_eq!(replicas.reporters(), ["r:2", "r:3", "r:1"]);
    }

    #[test]
    fn addresses_follow_the_choice() {
        let entry = repository(&["a"]);
        for (choice, expected) in [
            (AddressChoice::Auto, vec!["a:1", "out:1", "r:1"]),
            (AddressChoice::Internal, vec!["a:1", "r:1"]),
            (AddressChoice::External, vec!["out:1", "r:1"]),
        ] {
            let replicas = Replicas::new(vec!["r:1".into()], choice, ContentPath::NodesFirst);
            replicas.set_view(view(vec![node("a", "out:1")]));
            assert_eq!(addresses(&replicas, &entry), expected);
        }
        let proxied = Replicas::new(
            vec!["r:1".into(), "r:2".into()],
            AddressChoice::Auto,
            ContentPath::RoutersOnly,
        );
        proxied.set_view(view(vec![node("a", "")]));
        assert_eq!(addresses(&proxied, &entry), ["r:1", "r:2"]);
    }
}
