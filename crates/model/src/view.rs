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
