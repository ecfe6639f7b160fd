//! What there is to ask for: the repositories with the servers that have them, and the directories
//! and files that the survey found.

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use bytes::Bytes;
use monofs_launch::exit::{Code, Failure};
use monofs_model::view::Role;
use monofs_model::{ClusterView, Error, NodeId, Oid, StorageId};
use monofs_proto::v1;

/// Most repositories that are known at all.
pub const REPOSITORIES_MAX: usize = 100_000;

/// Which servers are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadTarget {
    /// The holders in HRW order, then the routers, as clients do.
    Nodes,
    /// The routers, which ask the holders.
    Router,
    /// This node alone.
    Node(NodeId),
}

impl FromStr for LoadTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "nodes" => Self::Nodes,
            "router" => Self::Router,
            id => Self::Node(NodeId::new(id)?),
        })
    }
}

impl fmt::Display for LoadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => f.write_str("nodes"),
            Self::Router => f.write_str("router"),
            Self::Node(id) => id.fmt(f),
        }
    }
}

/// A repository that can be read.
pub struct KnownRepository {
    pub path: String,
    pub storage_id: String,
    pub origin: v1::Origin,
    /// The servers to ask, best first; indexes into [`Corpus::peers`].
    pub peers: Vec<u32>,
    /// Its root directory, as bytes of an oid.
    pub root: Bytes,
    /// Nodes get its contents when they are first read.
    pub lazy: bool,
}

/// A directory.
pub struct KnownDirectory {
    pub repository: u32,
    pub oid: Oid,
    pub entries: u32,
}

/// A file.
pub struct KnownFile {
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
    pub repositories: Vec<KnownRepository>,
    pub directories: Vec<KnownDirectory>,
    pub small: Vec<KnownFile>,
    pub large: Vec<KnownFile>,
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
        target: &LoadTarget,
    ) -> Result<Self> {
        let mut corpus = Self {
            sampled: repositories.len() >= REPOSITORIES_MAX,
            ..Self::default()
        };
        corpus.routers = routers.iter().map(|router| corpus.peer(router)).collect();
        // A node that is named must be one.
        let view = view(status)?;
        if let LoadTarget::Node(id) = target
            && !view.nodes().any(|node| node.id == *id)
        {
            return Err(Failure::new(Code::Failed, format!("no node is called {id}"))
                .hint("`monofs-admin nodes` lists the nodes; --target takes `nodes`, `router` or a \
                 node's id")
                .into());
        }
        // What has no commit or no server is left out.
        for wire in repositories {
            let Some(snapshot) = &wire.snapshot else {
                continue;
            };
            let peers = corpus.servers_of(wire, &view, target)?;
            if peers.is_empty() {
                continue;
            }
            corpus.repositories.push(KnownRepository {
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

    /// The repository that a file lies in.
    pub fn repository_of(&self, file: &KnownFile) -> &KnownRepository {
        &self.repositories[file.repository as usize]
    }

    fn peer(&mut self, address: &str) -> u32 {
        let known = self.peers.iter().position(|peer| peer == address);
        known.unwrap_or_else(|| {
            self.peers.push(address.to_owned());
            self.peers.len() - 1
        }) as u32
    }

    fn servers_of(
        &mut self,
        wire: &v1::Repository,
        view: &ClusterView,
        target: &LoadTarget,
    ) -> Result<Vec<u32>> {
        if *target == LoadTarget::Router {
            return Ok(self.routers.clone());
        }
        // Holders in the order of placement, each by all of its addresses.
        let holders = wire
            .holders
            .iter()
            .map(|id| NodeId::new(id))
            .collect::<Result<Vec<_>, _>>()?;
        let mut peers = Vec::new();
        for member in view.readers(&StorageId::new(&wire.storage_id)?, &holders) {
            if matches!(target, LoadTarget::Node(id) if *id != member.id) {
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
        // Routers come last: they pass requests on.
        if *target == LoadTarget::Nodes {
            peers.extend(&self.routers);
        }
        Ok(peers)
    }
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

fn nothing_to_ask(repositories: &[v1::Repository], target: &LoadTarget) -> Failure {
    if repositories.is_empty() {
        return Failure::new(Code::Refused, "there is no repository to ask for")
            .hint("`monofs-admin ingest` adds one");
    }
    if repositories
        .iter()
        .all(|repository| repository.snapshot.is_none())
    {
        return Failure::new(Code::Refused, "none of the repositories has a commit yet")
            .hint("`monofs-admin repos` shows how their ingest goes");
    }
    Failure::new(
        Code::Refused,
        format!("node {target} serves none of the repositories"),
    )
    .hint("`monofs-admin repos` shows who holds them; --target=nodes asks all holders")
}
