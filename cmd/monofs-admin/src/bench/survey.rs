//! What there is to ask for: repositories and members from the router, directories and files from
//! the trees.
//!
//! Everything kept is bounded, and so is what is asked for: a larger cluster is sampled, and the
//! report says so.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use monofs_launch::exit::{Code, Failure};
use monofs_model::limits::TREE_CLOSURE_BYTES;
use monofs_model::tree::{EntryKind, TreeRecord};
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error, NodeId, Oid, StorageId};
use monofs_proto::v1;
use monofs_rpc::ChannelPool;

use super::call::{Caller, Peers};
use super::mix::{Operation, Rng};
use crate::cluster::{About, explain};
use crate::text::clean;

/// Most repositories that are known at all.
pub const REPOSITORIES_MAX: usize = 100_000;
/// Most repositories whose trees are looked into, drawn at random when there are more.
const SURVEYED_MAX: usize = 1_000;
/// Most directories known, over all repositories.
const DIRECTORIES_MAX: usize = 200_000;
/// Most small and most large files known, over all repositories.
const FILES_MAX: usize = 200_000;
/// Every repository may have this many of each, however many there are.
const SHARE_MIN: usize = 64;
/// Directories asked for in one request.
const OIDS_PER_REQUEST: usize = 1024;
/// Files of a repository whose presence is probed before contents are read.
const PROBES: usize = 8;
/// Largest small file, in bytes.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Large files are larger than this, in bytes.
const LARGE_BYTES_MIN: u64 = 1 << 20;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The holders in HRW order, then the routers, as clients do.
    Nodes,
    /// The routers, which ask the holders.
    Router,
    /// This node alone.
    Node(NodeId),
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "nodes" => Self::Nodes,
            "router" => Self::Router,
            id => Self::Node(NodeId::new(id)?),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => f.write_str("nodes"),
            Self::Router => f.write_str("router"),
            Self::Node(id) => id.fmt(f),
        }
    }
}

/// A repository that can be read.
pub struct Repository {
    pub path: String,
    pub storage_id: String,
    pub origin: v1::Origin,
    /// Whom to ask, best first; indexes into [`Corpus::peers`].
    pub peers: Vec<u32>,
    root: Bytes,
    lazy: bool,
}

/// A directory.
pub struct Directory {
    pub repository: u32,
    pub oid: Oid,
    pub entries: u32,
}

/// A file.
pub struct File {
    pub repository: u32,
    pub oid: Oid,
    pub size: u64,
}

/// All that can be asked for. Directories and files come repository by repository.
#[derive(Default)]
pub struct Corpus {
    /// `host:port`.
    pub peers: Vec<String>,
    /// Indexes into `peers`.
    pub routers: Vec<u32>,
    pub repositories: Vec<Repository>,
    pub directories: Vec<Directory>,
    pub small: Vec<File>,
    pub large: Vec<File>,
    /// A bound was met: not everything that is there is known.
    pub sampled: bool,
}

impl Corpus {
    /// The repositories that `target` can be asked about, without their trees. Errors: there is
    /// none, and why.
    pub fn new(
        repositories: &[v1::Repository],
        status: v1::StatusResponse,
        routers: &[String],
        target: &Target,
    ) -> Result<Self> {
        let mut corpus = Self {
            sampled: repositories.len() >= REPOSITORIES_MAX,
            ..Self::default()
        };
        corpus.routers = routers.iter().map(|router| corpus.peer(router)).collect();
        let view = view(status)?;
        if let Target::Node(id) = target
            && !view.nodes().any(|node| node.id == *id)
        {
            return Err(Failure::new(Code::Failed, format!("no node is called {id}"))
                .hint("`monofs-admin nodes` lists the nodes; --target takes `nodes`, `router` or a \
                 node's id")
                .into());
        }
        for wire in repositories {
            let Some(snapshot) = &wire.snapshot else {
                continue;
            };
            let peers = corpus.whom_to_ask(wire, &view, target)?;
            if peers.is_empty() {
                continue;
            }
            corpus.repositories.push(Repository {
                path: wire.path.clone(),
                storage_id: wire.storage_id.clone(),
                origin: v1::Origin {
                    source: wire.source.clone(),
                    ref_name: wire.ref_name.clone(),
                    commit: snapshot.commit.clone(),
                },
                peers,
                root: snapshot.root.clone(),
                lazy: wire.content() == v1::ContentMode::Lazy,
            });
        }
        if corpus.repositories.is_empty() {
            return Err(nothing_to_ask(repositories, target).into());
        }
        Ok(corpus)
    }

    fn peer(&mut self, address: &str) -> u32 {
        let known = self.peers.iter().position(|peer| peer == address);
        known.unwrap_or_else(|| {
            self.peers.push(address.to_owned());
            self.peers.len() - 1
        }) as u32
    }

    fn whom_to_ask(
        &mut self,
        wire: &v1::Repository,
        view: &ClusterView,
        target: &Target,
    ) -> Result<Vec<u32>> {
        if *target == Target::Router {
            return Ok(self.routers.clone());
        }
        let holders = wire
            .holders
            .iter()
            .map(|id| NodeId::new(id))
            .collect::<Result<Vec<_>, _>>()?;
        let mut peers = Vec::new();
        for member in view.readers(&StorageId::new(&wire.storage_id)?, &holders) {
            if matches!(target, Target::Node(id) if *id != member.id) {
                continue;
            }
            for address in [&member.address, &member.external_address]
                .into_iter()
                .filter(|text| !text.is_empty())
            {
                let peer = self.peer(address);
                if !peers.contains(&peer) {
                    peers.push(peer);
                }
            }
        }
        if *target == Target::Nodes {
            peers.extend(&self.routers);
        }
        Ok(peers)
    }

    /// Learns directories and files from the trees. `tell` hears how many are known.
    pub async fn survey(
        &mut self,
        timeout: Duration,
        rng: &mut Rng,
        mut tell: impl FnMut(&Self),
    ) -> Result<()> {
        let mut order: Vec<u32> = (0..self.repositories.len() as u32).collect();
        rng.shuffle(&mut order);
        self.sampled |= order.len() > SURVEYED_MAX;
        order.truncate(SURVEYED_MAX);
        let servers = Servers {
            peers: Peers::default(),
            channels: ChannelPool::default(),
            timeout,
        };
        let share = |max: usize| (max / order.len()).max(SHARE_MIN);
        for number in &order {
            let mut quota = Quota {
                directories: share(DIRECTORIES_MAX),
                files: share(FILES_MAX),
                large: share(FILES_MAX),
            };
            self.walk(&servers, *number, &mut quota).await?;
            tell(self);
        }
        Ok(())
    }

    async fn walk(&mut self, servers: &Servers, number: u32, quota: &mut Quota) -> Result<()> {
        let repository = &self.repositories[number as usize];
        let root = Oid::from_bytes(&repository.root)?;
        let mut waiting = VecDeque::from([root]);
        let (mut seen, mut files) = (HashSet::from([root]), HashSet::new());
        // What was asked for, or came along with it.
        let mut come = HashSet::new();
        while quota.directories > 0 && !waiting.is_empty() {
            let oids: Vec<Oid> = waiting
                .drain(..waiting.len().min(OIDS_PER_REQUEST))
                .collect();
            let repository = &self.repositories[number as usize];
            let asked = servers
                .caller(self)
                .closure(repository, &oids, TREE_CLOSURE_BYTES)
                .await;
            let records = asked.map_err(|error| {
                let path = clean(&repository.path);
                explain(
                    error.context(format!("looking into {path}")),
                    About::Cluster,
                )
            })?;
            for (oid, record) in records {
                if !come.insert(oid) {
                    continue;
                }
                if quota.directories == 0 {
                    self.sampled = true;
                    break;
                }
                quota.directories -= 1;
                let below = self.learn(number, oid, &record, quota, &mut files);
                waiting.extend(below.into_iter().filter(|oid| seen.insert(*oid)));
            }
            waiting.retain(|oid| !come.contains(oid));
        }
        self.sampled |= !waiting.is_empty();
        Ok(())
    }

    /// Takes a directory and its files; gives the directories below.
    fn learn(
        &mut self,
        repository: u32,
        oid: Oid,
        record: &TreeRecord,
        quota: &mut Quota,
        files: &mut HashSet<Oid>,
    ) -> Vec<Oid> {
        self.directories.push(Directory {
            repository,
            oid,
            entries: record.len() as u32,
        });
        let mut below = Vec::new();
        for entry in record.iter() {
            let (into, left) = match entry.kind {
                EntryKind::Directory => {
                    below.push(entry.oid);
                    continue;
                }
                EntryKind::File | EntryKind::Executable if entry.size <= SMALL_BYTES_MAX => {
                    (&mut self.small, &mut quota.files)
                }
                EntryKind::File | EntryKind::Executable if entry.size > LARGE_BYTES_MIN => {
                    (&mut self.large, &mut quota.large)
                }
                _ => continue,
            };
            if *left == 0 {
                self.sampled = true;
            } else if files.insert(entry.oid) {
                *left -= 1;
                into.push(File {
                    repository,
                    oid: entry.oid,
                    size: entry.size,
                });
            }
        }
        below
    }

    /// Makes sure that contents come from the nodes and not, one by one, from the Git remote.
    /// Errors: a repository's contents are nowhere; those of a lazy one are told apart.
    pub async fn probe(&self, timeout: Duration, operation: Operation) -> Result<()> {
        let chosen = match operation {
            Operation::Resolve | Operation::Lookup | Operation::List => return Ok(()),
            Operation::ReadSmall => &self.small,
            Operation::ReadLarge => &self.large,
        };
        let servers = Servers {
            peers: Peers::default(),
            channels: ChannelPool::default(),
            timeout,
        };
        let caller = servers.caller(self);
        for group in chosen.chunk_by(|a, b| a.repository == b.repository) {
            let mut missing = 0;
            let probes = group
                .iter()
                .step_by((group.len() / PROBES).max(1))
                .take(PROBES);
            let count = probes.len();
            for file in probes {
                let held = caller
                    .holds(file)
                    .await
                    .map_err(|error| explain(error, About::Cluster))?;
                missing += usize::from(!held);
            }
            if missing == count {
                return Err(no_contents(&self.repositories[group[0].repository as usize]).into());
            }
        }
        Ok(())
    }
}

/// Connections for looking around.
struct Servers {
    peers: Peers,
    channels: ChannelPool,
    timeout: Duration,
}

impl Servers {
    fn caller<'a>(&'a self, corpus: &'a Corpus) -> Caller<'a> {
        Caller {
            corpus,
            peers: &self.peers,
            channels: &self.channels,
            timeout: self.timeout,
        }
    }
}

/// How much more of one repository is taken.
struct Quota {
    directories: usize,
    files: usize,
    large: usize,
}

fn view(status: v1::StatusResponse) -> Result<ClusterView> {
    let members = status
        .nodes
        .into_iter()
        .filter_map(|node| node.member)
        .map(|mut member| {
            // The list is one of nodes, whatever the entries say of themselves.
            member.role = v1::Role::from(Role::Node).into();
            member.try_into()
        });
    let members = members.collect::<Result<_, Error>>()?;
    Ok(ClusterView {
        number: status.view_number,
        members,
        replication_factor: status.replication_factor,
    })
}

fn nothing_to_ask(repositories: &[v1::Repository], target: &Target) -> Failure {
    let failure = |what: String| Failure::new(Code::Refused, what);
    if repositories.is_empty() {
        return failure("there is no repository to ask for".to_owned())
            .hint("`monofs-admin ingest` adds one");
    }
    if repositories
        .iter()
        .all(|repository| repository.snapshot.is_none())
    {
        return failure("none of the repositories has a commit yet".to_owned())
            .hint("`monofs-admin repos` shows how their ingest goes");
    }
    failure(format!("node {target} serves none of the repositories"))
        .hint("`monofs-admin repos` shows who holds them; --target=nodes asks all holders")
}

fn no_contents(repository: &Repository) -> Failure {
    let path = clean(&repository.path);
    let why = if repository.lazy {
        " (its contents are lazy: nodes get them on first read)"
    } else {
        ""
    };
    Failure::new(
        Code::Refused,
        format!("no node holds contents of {path} yet{why}"),
    )
    .hint(
        "ingest it with --content=eager --wait, or read it through a mount first; list and lookup \
         need no contents",
    )
}
