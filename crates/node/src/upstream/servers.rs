//! The servers that this node can ask for what it lacks, and waiting for their answers.
//!
//! Invariants: peers come before fetchers, and servers that failed lately come last; a peer is
//! asked only for what it holds, so replicas cannot ask in circles.
//!
//! Callers: `adopt`, `cover` and `upstream::pull` ask; `service::node` names fetchers.

use std::future::Future;
use std::time::{Duration, Instant};

use monofs_model::{ClusterView, ErrorKind, NodeId, Oid, Result, StorageId};
use monofs_proto::{convert, v1};
use monofs_rpc::{Channel, ChannelPool, Context, while_alive};
use monofs_store::repo::RepoMeta;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::suspects::SuspectServers;

/// What a server is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpstreamKind {
    /// Another replica: answers from what it holds.
    Peer,
    /// Can get what it does not hold from the repository's source.
    Fetcher,
}

/// A server to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamServer {
    /// `host:port`
    pub address: String,
    pub kind: UpstreamKind,
}

impl UpstreamServer {
    /// A peer replica at `address`.
    pub fn peer(address: String) -> Self {
        Self {
            address,
            kind: UpstreamKind::Peer,
        }
    }

    /// A fetcher at `address`.
    pub fn fetcher(address: String) -> Self {
        Self {
            address,
            kind: UpstreamKind::Fetcher,
        }
    }

    /// Whether it must answer from what it holds.
    pub fn held_only(&self) -> bool {
        self.kind == UpstreamKind::Peer
    }

    /// Where a fetcher gets the repository from; peers are not told.
    pub fn origin(&self, meta: &RepoMeta, commit: Option<Oid>) -> Option<v1::Origin> {
        match self.kind {
            UpstreamKind::Peer => None,
            UpstreamKind::Fetcher => Some(v1::Origin {
                source: meta.source.to_string(),
                ref_name: meta.ref_name.as_str().to_owned(),
                commit: commit
                    .map(|oid| convert::oid_bytes(&oid))
                    .unwrap_or_default(),
            }),
        }
    }
}

/// A server that is being asked, and whether there is another one to ask instead.
#[derive(Clone, Copy)]
pub(crate) struct ServerAttempt<'a> {
    pub server: &'a UpstreamServer,
    has_alternative: bool,
}

impl<'a> ServerAttempt<'a> {
    /// The servers one after the other.
    pub fn each(servers: &'a [UpstreamServer]) -> impl Iterator<Item = Self> {
        let last = servers.len().saturating_sub(1);
        servers.iter().enumerate().map(move |(index, server)| Self {
            server,
            has_alternative: index < last,
        })
    }
}

/// All servers that this node knows.
pub(crate) struct Upstreams {
    node_id: NodeId,
    /// Fetchers of the settings.
    configured_fetchers: Vec<String>,
    /// Fetchers that the router named last: known before the next heartbeat brings the view that
    /// has them.
    named_fetchers: RwLock<Vec<String>>,
    /// The cluster as last seen.
    view: watch::Receiver<ClusterView>,
    channels: ChannelPool,
    /// Connections over which silent servers are asked whether they are there.
    probes: ChannelPool,
    suspects: SuspectServers,
    timeout: Duration,
}

impl Upstreams {
    /// For the node `node_id`; `timeout` bounds a call and each silence on a stream.
    pub fn new(
        node_id: NodeId,
        configured_fetchers: Vec<String>,
        view: watch::Receiver<ClusterView>,
        channels: ChannelPool,
        timeout: Duration,
    ) -> Self {
        Self {
            node_id,
            configured_fetchers,
            named_fetchers: RwLock::default(),
            view,
            probes: channels.apart(),
            channels,
            suspects: SuspectServers::default(),
            timeout,
        }
    }

    /// The longest silence that is waited for.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The context of a call that is made for the request of the calling task.
    pub fn context(&self) -> Context {
        Context::new(self.timeout)
    }

    /// The channel to a server. Errors: `Invalid` for what is no address.
    pub fn channel(&self, server: &UpstreamServer) -> Result<Channel> {
        self.channels.get(&server.address)
    }

    /// The router named these fetchers. A router that knows none at the moment does not make the
    /// last ones useless.
    pub fn name_fetchers(&self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            *self.named_fetchers.write() = addresses;
        }
    }

    /// Peers that may hold the repository, then fetchers; those that failed lately last.
    pub fn servers(&self, id: &StorageId) -> Vec<UpstreamServer> {
        let view = self.view.borrow().clone();
        let nodes: Vec<_> = view.nodes().map(|member| member.id.clone()).collect();

        // Placement tells which peers hold the repository, as far as that can be guessed.
        let mut servers: Vec<UpstreamServer> = view
            .readers(id, &nodes)
            .into_iter()
            .filter(|member| member.id != self.node_id)
            .take(view.replication_factor.max(1) as usize)
            .map(|member| UpstreamServer::peer(member.address.clone()))
            .collect();

        // Fetchers follow, each once: of the view, of the router's last request, of the settings.
        let seen: Vec<String> = view
            .fetchers_for(id)
            .into_iter()
            .map(|member| member.address.clone())
            .collect();
        let named = self.named_fetchers.read().clone();
        for address in seen
            .into_iter()
            .chain(named)
            .chain(self.configured_fetchers.iter().cloned())
        {
            if !servers.iter().any(|server| server.address == address) {
                servers.push(UpstreamServer::fetcher(address));
            }
        }

        let now = Instant::now();
        servers.sort_by_key(|server| self.suspects.contains(&server.address, now));
        servers
    }

    /// Waits for an answer. A server that has gone silently is given up soon where there is
    /// another, else at the deadline of `answer`.
    pub async fn wait<T>(
        &self,
        attempt: ServerAttempt<'_>,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let address = &attempt.server.address;
        let answer = match attempt.has_alternative {
            true => while_alive(&self.probes, address, answer).await,
            false => answer.await,
        };
        match &answer {
            Err(error) if error.kind == ErrorKind::Unavailable => {
                self.suspects.failed(address, Instant::now())
            }
            _ => self.suspects.answered(address),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use monofs_model::view::Role;
    use monofs_model::{DisplayPath, Error, Member, MemberState};

    use super::*;

    fn member(id: &str, role: Role) -> Member {
        Member {
            id: NodeId::new(id).expect("an id"),
            role,
            address: format!("{id}:1"),
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

    fn upstreams(members: Vec<Member>, replication_factor: u32) -> Upstreams {
        let view = ClusterView {
            number: 1,
            members,
            replication_factor,
        };
        Upstreams::new(
            NodeId::new("me").expect("an id"),
            vec!["configured:1".to_owned()],
            watch::channel(view).1,
            ChannelPool::default(),
            Duration::from_secs(1),
        )
    }

    fn repository() -> StorageId {
        DisplayPath::new("h/r").expect("a path").storage_id()
    }

    fn addresses(servers: &[UpstreamServer]) -> Vec<&str> {
        servers
            .iter()
            .map(|server| server.address.as_str())
            .collect()
    }

    #[tokio::test]
    async fn peers_come_before_fetchers_and_the_node_never_asks_itself() {
        let upstreams = upstreams(
            vec![
                member("me", Role::Node),
                member("peer", Role::Node),
                member("fetcher", Role::Fetcher),
            ],
            2,
        );
        upstreams.name_fetchers(vec!["named:1".to_owned(), "fetcher:1".to_owned()]);
        let servers = upstreams.servers(&repository());
        assert_eq!(
            addresses(&servers),
            ["peer:1", "fetcher:1", "named:1", "configured:1"]
        );
        assert!(servers[0].held_only());
        assert!(servers[1..].iter().all(|server| !server.held_only()));
    }

    #[tokio::test]
    async fn as_many_peers_are_asked_as_there_are_copies() {
        let nodes = ["a", "b", "c", "d"].map(|id| member(id, Role::Node));
        let upstreams = upstreams(nodes.to_vec(), 2);
        let servers = upstreams.servers(&repository());
        let peers = servers.iter().filter(|server| server.held_only()).count();
        assert_eq!(peers, 2);
    }

    #[tokio::test]
    async fn a_server_that_failed_is_asked_last_until_it_answers() {
        let upstreams = upstreams(vec![member("peer", Role::Node)], 1);
        let peer = UpstreamServer::peer("peer:1".to_owned());
        let attempt = ServerAttempt {
            server: &peer,
            has_alternative: false,
        };
        let refused = std::future::ready(Err::<(), _>(Error::unavailable("gone")));
        upstreams
            .wait(attempt, refused)
            .await
            .expect_err("it fails");
        assert_eq!(
            addresses(&upstreams.servers(&repository())),
            ["configured:1", "peer:1"]
        );
        // A server that says that it does not hold something works.
        let lacking = std::future::ready(Err::<(), _>(Error::not_held("no")));
        upstreams
            .wait(attempt, lacking)
            .await
            .expect_err("it lacks");
        assert_eq!(
            addresses(&upstreams.servers(&repository())),
            ["peer:1", "configured:1"]
        );
    }

    #[test]
    fn only_the_last_server_has_no_alternative() {
        let servers = ["a:1", "b:1", "c:1"].map(|address| UpstreamServer::peer(address.to_owned()));
        let alternatives: Vec<bool> = ServerAttempt::each(&servers)
            .map(|attempt| attempt.has_alternative)
            .collect();
        assert_eq!(alternatives, [true, true, false]);
        assert_eq!(ServerAttempt::each(&[]).count(), 0);
    }
}
