//! The cluster as the router sees it and as it pushes it to clients.

use crate::path::StorageId;
use crate::placement::{Candidate, NodeId, rank, spread};

/// The state of a member; a router decides it (see its `membership`).
///
/// ```text
///  joining -> active -> suspect -> down -> recovering -> active
///                |                              (caught up)
///                +-> draining -> drained
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    Joining,
    Active,
    Suspect,
    Down,
    Recovering,
    Draining,
    Drained,
}

impl MemberState {
    /// Whether reads may be sent there: what it is a recorded holder of, it can serve, also while
    /// it catches up or is emptied.
    pub fn serves(self) -> bool {
        matches!(
            self,
            Self::Active | Self::Suspect | Self::Draining | Self::Drained | Self::Recovering
        )
    }

    /// Whether it can be given new copies.
    pub fn accepts(self) -> bool {
        matches!(self, Self::Active | Self::Recovering)
    }

    /// The word used in tables, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Recovering => "recovering",
            Self::Draining => "draining",
            Self::Drained => "drained",
        }
    }
}

/// What a member does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Node,
    Fetcher,
}

impl Role {
    /// The word used in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Fetcher => "fetcher",
        }
    }
}

/// A node or fetcher.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub id: NodeId,
    pub role: Role,
    /// `host:port` inside the cluster.
    pub address: String,
    /// `host:port` for clients outside; empty = the same.
    pub external_address: String,
    pub weight: f64,
    pub zone: String,
    pub state: MemberState,
    pub version: String,
    /// 0 = unknown.
    pub capacity_bytes: u64,
    pub used_bytes: u64,
    /// Another number at every start of the member; 0 = not announced.
    pub incarnation: u64,
    /// Percent of its repositories that readers ask it first about: rises to 100 after a recovery.
    pub share_percent: u32,
    /// An operator moved reads and copies off it: readers ask it last.
    pub failed_over: bool,
}

/// Members, their states and what placement needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterView {
    /// Grows at every change that one router shows; numbers of different routers do not compare.
    pub number: u64,
    pub members: Vec<Member>,
    pub replication_factor: u32,
}

impl ClusterView {
    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.role == Role::Node)
    }

    /// The fetchers.
    pub fn fetchers(&self) -> impl Iterator<Item = &Member> {
        self.members
            .iter()
            .filter(|member| member.role == Role::Fetcher)
    }

    /// Copies that each repository should have: nodes that are too few want no more than one each.
    pub fn copies_wanted(&self) -> usize {
        (self.replication_factor as usize).min(self.nodes().count())
    }

    /// The holders of `key` that serve reads, in the order in which to ask them: those whose turn
    /// it is, then those that should rather not be asked (recovering, suspect, failed over).
    pub fn readers(&self, key: &StorageId, holders: &[NodeId]) -> Vec<&Member> {
        let mut serving = ranked(
            key,
            self.nodes()
                .filter(|m| m.state.serves() && holders.contains(&m.id)),
        );
        serving.sort_by_key(|member| match member.state {
            MemberState::Active | MemberState::Draining
                if !member.failed_over && member.has_share_of(key) =>
            {
                0
            }
            MemberState::Suspect => 2,
            _ => 1,
        });
        serving
    }

    /// The fetchers in the order in which to ask them about `key`, so that one keeps its cache
    /// warm.
    pub fn fetchers_for(&self, key: &StorageId) -> Vec<&Member> {
        let mut ranked = ranked(key, self.fetchers());
        ranked.sort_by_key(|member| !matches!(member.state, MemberState::Active));
        ranked
    }
}

impl Member {
    /// Whether `key` is in the share of repositories that it is asked first about: a growing share
    /// only gains keys.
    pub fn has_share_of(&self, key: &StorageId) -> bool {
        self.share_percent >= 100 || spread(key, &self.id) % 100 < u64::from(self.share_percent)
    }
}

impl From<&Member> for Candidate {
    fn from(member: &Member) -> Candidate {
        Candidate {
            id: member.id.clone(),
            weight: member.weight,
            zone: member.zone.clone(),
        }
    }
}

fn ranked<'a>(key: &StorageId, members: impl Iterator<Item = &'a Member>) -> Vec<&'a Member> {
    let members: Vec<&Member> = members.collect();
    let candidates: Vec<Candidate> = members
        .iter()
        .map(|member| Candidate::from(*member))
        .collect();
    rank(key, &candidates)
        .iter()
        .filter_map(|id| members.iter().find(|m| m.id == *id).copied())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(id: &str) -> Member {
        Member {
            id: NodeId::new(id).unwrap(),
            role: Role::Node,
            address: format!("{id}:9000"),
            external_address: String::new(),
            weight: 1.0,
            zone: String::new(),
            state: MemberState::Active,
            version: String::new(),
            capacity_bytes: 0,
            used_bytes: 0,
            incarnation: 1,
            share_percent: 100,
            failed_over: false,
        }
    }

    fn view(members: impl IntoIterator<Item = Member>) -> ClusterView {
        ClusterView {
            number: 1,
            members: members.into_iter().collect(),
            replication_factor: 3,
        }
    }

    fn keys() -> impl Iterator<Item = StorageId> {
        (0..200).map(|n| {
            crate::DisplayPath::new(&format!("h/repo-{n}"))
                .unwrap()
                .storage_id()
        })
    }

    fn names(members: &[&Member]) -> Vec<String> {
        members.iter().map(|member| member.id.to_string()).collect()
    }

    #[test]
    fn readers_ask_healthy_holders_first_and_only_holders_that_serve() {
        let cluster = view([
            Member {
                state: MemberState::Suspect,
                ..node("suspect")
            },
            Member {
                state: MemberState::Down,
                ..node("down")
            },
            Member {
                state: MemberState::Joining,
                ..node("joining")
            },
            Member {
                failed_over: true,
                ..node("emptied")
            },
            Member {
                role: Role::Fetcher,
                ..node("fetcher")
            },
            node("stranger"),
            node("healthy"),
        ]);
        let holders: Vec<NodeId> = cluster
            .members
            .iter()
            .filter(|member| member.id.as_str() != "stranger")
            .map(|member| member.id.clone())
            .collect();
        for key in keys() {
            let asked = names(&cluster.readers(&key, &holders));
            assert_eq!(asked, ["healthy", "emptied", "suspect"]);
        }
    }

    #[test]
    fn healthy_holders_are_asked_in_an_order_that_spreads_repositories() {
        let cluster = view([node("a"), node("b"), node("c")]);
        let holders: Vec<NodeId> = cluster.members.iter().map(|m| m.id.clone()).collect();
        let firsts: std::collections::BTreeSet<String> = keys()
            .map(|key| names(&cluster.readers(&key, &holders)).remove(0))
            .collect();
        assert_eq!(firsts.len(), 3, "each is first for some repositories");
    }

    #[test]
    fn a_growing_share_only_gains_repositories() {
        let mut recovering = node("back");
        for key in keys() {
            let mut had = false;
            for percent in [0, 5, 25, 50, 99, 100] {
                recovering.share_percent = percent;
                let has = recovering.has_share_of(&key);
                assert!(has || !had, "{key} was lost at {percent} %");
                had = has;
            }
            assert!(had, "at 100 % it has every repository");
        }
    }

    #[test]
    fn a_node_with_a_small_share_is_asked_last_of_the_healthy() {
        let cluster = view([
            node("whole"),
            Member {
                share_percent: 0,
                ..node("back")
            },
        ]);
        let holders: Vec<NodeId> = cluster.members.iter().map(|m| m.id.clone()).collect();
        for key in keys() {
            assert_eq!(
                names(&cluster.readers(&key, &holders)),
                ["whole", "back"],
                "it stays a replica that can be asked"
            );
        }
    }

    #[test]
    fn fewer_nodes_than_the_replication_factor_want_a_copy_each() {
        assert_eq!(view([]).copies_wanted(), 0);
        let fetcher = Member {
            role: Role::Fetcher,
            ..node("f")
        };
        assert_eq!(view([node("a"), fetcher]).copies_wanted(), 1);
        let many = ["a", "b", "c", "d"].map(node);
        assert_eq!(view(many).copies_wanted(), 3);
    }

    #[test]
    fn the_same_active_fetcher_is_asked_about_a_repository_each_time() {
        let fetcher = |id, state| Member {
            role: Role::Fetcher,
            state,
            ..node(id)
        };
        let cluster = view([
            fetcher("suspect", MemberState::Suspect),
            fetcher("one", MemberState::Active),
            fetcher("two", MemberState::Active),
            node("node"),
        ]);
        for key in keys() {
            let order = names(&cluster.fetchers_for(&key));
            assert_eq!(order, names(&cluster.fetchers_for(&key)));
            assert_eq!(order.len(), 3);
            assert_eq!(order[2], "suspect");
        }
    }

    #[test]
    fn states_in_which_copies_are_made_are_states_that_serve() {
        use MemberState::*;
        for state in [
            Joining, Active, Suspect, Down, Recovering, Draining, Drained,
        ] {
            assert!(state.serves() || !state.accepts(), "{}", state.as_str());
        }
        assert!(!Joining.serves() && !Down.serves());
        assert!(!Draining.accepts() && !Suspect.accepts());
    }
}
