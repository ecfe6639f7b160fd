//! A cluster that runs: its addresses, its parts, and how to stop and start each of them.

use std::net::SocketAddr;
use std::time::Duration;

use monofs_fetcher::RunningFetcher;
use monofs_model::{Error, MemberState, Result};
use monofs_node::RunningNode;
use monofs_proto::v1;
use monofs_proto::v1::admin_client::AdminClient;
use monofs_rpc::{Channel, ChannelPool, Context, from_status, within};
use monofs_web::RunningRouter;
use tokio::net::TcpListener;

use crate::builder::{Builder, Ports};

/// How long members may take to become active.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a role may drain when it is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// A part of the cluster, and the address that it keeps over restarts.
struct MemberSlot<T> {
    address: SocketAddr,
    /// Where its metrics are, if they are served; another place after a restart.
    metrics: Option<SocketAddr>,
    running: Option<T>,
}

/// A role that was started, and where its metrics are.
type StartedMember<T> = (T, Option<SocketAddr>);

/// A running cluster. Stop it with [`Cluster::shutdown`]; dropping it leaves its tasks to the
/// runtime.
pub struct Cluster {
    builder: Builder,
    routers: Vec<MemberSlot<RunningRouter>>,
    /// Addresses of the routers' HTTP, in their order.
    http: Vec<SocketAddr>,
    nodes: Vec<MemberSlot<RunningNode>>,
    fetchers: Vec<MemberSlot<RunningFetcher>>,
    channels: ChannelPool,
}

impl Cluster {
    pub(crate) async fn start(builder: Builder) -> Result<Self> {
        let mut cluster = Self {
            http: Vec::new(),
            routers: Vec::new(),
            nodes: Vec::new(),
            fetchers: Vec::new(),
            channels: ChannelPool::default(),
            builder,
        };
        for number in 0..cluster.builder.routers {
            let Ports { router, http, .. } = cluster.builder.ports;
            let at = |first| format!("{}:{}", cluster.builder.host, nth(first, number));
            let running = cluster.spawn_router(number, &at(router), &at(http)).await?;
            cluster.http.push(running.http_address());
            cluster.routers.push(MemberSlot {
                address: running.address(),
                metrics: None,
                running: Some(running),
            });
        }
        // Fetchers and nodes join the routers; a member keeps its address for as long as the cluster.
        for number in 0..cluster.builder.fetchers {
            let port = nth(cluster.builder.ports.first_fetcher, number);
            let (running, metrics) = cluster.spawn_fetcher(number, port).await?;
            cluster.fetchers.push(MemberSlot {
                address: running.address(),
                metrics,
                running: Some(running),
            });
        }
        for number in 0..cluster.builder.nodes {
            let port = nth(cluster.builder.ports.first_node, number);
            let (running, metrics) = cluster.spawn_node(number, port).await?;
            cluster.nodes.push(MemberSlot {
                address: running.address(),
                metrics,
                running: Some(running),
            });
        }
        cluster
            .wait_members(cluster.builder.nodes, cluster.builder.fetchers)
            .await?;
        Ok(cluster)
    }

    /// The first router that runs; the first if none does.
    fn any_router(&self) -> usize {
        self.routers
            .iter()
            .position(|router| router.running.is_some())
            .unwrap_or(0)
    }

    /// `host:port` of the gRPC of a router that runs.
    pub fn router_address(&self) -> String {
        self.router_address_of(self.any_router())
    }

    /// `host:port` of a router's gRPC, counted from 0.
    pub fn router_address_of(&self, number: usize) -> String {
        reachable(self.routers[number].address)
    }

    /// `host:port` of every router's gRPC.
    pub fn router_addresses(&self) -> Vec<String> {
        (0..self.routers.len())
            .map(|number| self.router_address_of(number))
            .collect()
    }

    /// `host:port` of the HTTP of a router that runs.
    pub fn http_address(&self) -> String {
        self.http_address_of(self.any_router())
    }

    /// `host:port` of a router's HTTP, counted from 0.
    pub fn http_address_of(&self, number: usize) -> String {
        reachable(self.http[number])
    }

    /// `host:port` of a node, counted from 0.
    pub fn node_address(&self, number: usize) -> String {
        reachable(self.nodes[number].address)
    }

    /// `host:port` of a node's metrics, counted from 0. `None` unless the builder was told
    /// [`Builder::metrics`].
    pub fn node_metrics(&self, number: usize) -> Option<String> {
        self.nodes[number].metrics.map(reachable)
    }

    /// `host:port` of a fetcher's metrics, counted from 0. `None` unless the builder was told
    /// [`Builder::metrics`].
    pub fn fetcher_metrics(&self, number: usize) -> Option<String> {
        self.fetchers[number].metrics.map(reachable)
    }

    /// Where each role tells its metrics, by its name.
    pub fn metrics_addresses(&self) -> Vec<(String, String)> {
        let routers = self.http.iter().copied().map(Some);
        let nodes = self.nodes.iter().map(|node| node.metrics);
        let fetchers = self.fetchers.iter().map(|fetcher| fetcher.metrics);
        named_addresses("router", routers)
            .chain(named_addresses("node", nodes))
            .chain(named_addresses("fetcher", fetchers))
            .collect()
    }

    /// An admin client of a router that runs.
    pub fn admin(&self) -> Result<AdminClient<Channel>> {
        self.admin_of(self.any_router())
    }

    /// An admin client of a router, counted from 0.
    pub fn admin_of(&self, number: usize) -> Result<AdminClient<Channel>> {
        Ok(AdminClient::new(
            self.channels.get(&self.router_address_of(number))?,
        ))
    }

    /// The status that a running router tells.
    pub async fn status(&self) -> Result<v1::StatusResponse> {
        self.status_of(self.any_router()).await
    }

    /// The status that a router tells, counted from 0.
    pub async fn status_of(&self, number: usize) -> Result<v1::StatusResponse> {
        let limit = Duration::from_secs(10);
        let mut admin = self.admin_of(number)?;
        let request = Context::new(limit).request(v1::StatusRequest::default());
        within(limit, "status", async {
            admin.status(request).await.map_err(from_status)
        })
        .await
        .map(|answer| answer.into_inner())
    }

    /// Waits until this many nodes and fetchers are active. Errors: `Unavailable`, saying how many
    /// are.
    pub async fn wait_members(&self, nodes: usize, fetchers: usize) -> Result<()> {
        // What was seen last is told when the time is over.
        let mut seen = (0, 0);
        let wait = async {
            loop {
                if let Ok(status) = self.status().await {
                    let of_nodes = status.nodes.iter().map(|node| node.member.as_ref());
                    let of_fetchers = status.fetchers.iter().map(|one| one.member.as_ref());
                    seen = (count_active(of_nodes), count_active(of_fetchers));
                    if seen == (nodes, fetchers) {
                        return;
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(START_TIMEOUT, wait).await.is_ok() {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "after {START_TIMEOUT:?} {} of {nodes} nodes and {} of {fetchers} fetchers are active",
            seen.0, seen.1
        )))
    }

    /// Settings for a mount of this cluster; the caller sets the mount point.
    pub fn client_config(&self, cache: &str) -> monofs_client::Config {
        monofs_client::Config {
            routers: self.router_addresses(),
            cache_dir: self.builder.dir.join(cache),
            ..Default::default()
        }
    }

    /// Changes the routers' settings for when they start next, on top of those they were built
    /// with.
    pub fn change_router(
        &mut self,
        change: impl Fn(&mut monofs_router::Config) + Send + Sync + 'static,
    ) {
        self.builder.router_again = Box::new(change);
    }

    /// Starts one more node; returns its number, counted from 0.
    pub async fn add_node(&mut self) -> Result<usize> {
        let number = self.nodes.len();
        let (running, metrics) = self.spawn_node(number, 0).await?;
        self.nodes.push(MemberSlot {
            address: running.address(),
            metrics,
            running: Some(running),
        });
        Ok(number)
    }

    /// Stops a node, counted from 0.
    pub async fn stop_node(&mut self, number: usize) {
        if let Some(running) = self.nodes[number].running.take() {
            running.shutdown(STOP_TIMEOUT).await;
        }
    }

    /// Starts a stopped node again at its old address.
    pub async fn start_node(&mut self, number: usize) -> Result<()> {
        let port = self.nodes[number].address.port();
        let (running, metrics) = self.spawn_node(number, port).await?;
        self.nodes[number].running = Some(running);
        self.nodes[number].metrics = metrics;
        Ok(())
    }

    /// Stops a fetcher, counted from 0.
    pub async fn stop_fetcher(&mut self, number: usize) {
        if let Some(running) = self.fetchers[number].running.take() {
            running.shutdown(STOP_TIMEOUT).await;
        }
    }

    /// Starts a stopped fetcher again at its old address.
    pub async fn start_fetcher(&mut self, number: usize) -> Result<()> {
        let port = self.fetchers[number].address.port();
        let (running, metrics) = self.spawn_fetcher(number, port).await?;
        self.fetchers[number].running = Some(running);
        self.fetchers[number].metrics = metrics;
        Ok(())
    }

    /// Stops a router, counted from 0.
    pub async fn stop_router(&mut self, number: usize) {
        if let Some(running) = self.routers[number].running.take() {
            running.shutdown(STOP_TIMEOUT).await;
        }
    }

    /// Starts a stopped router again at its old addresses.
    pub async fn start_router(&mut self, number: usize) -> Result<()> {
        let (grpc, http) = (
            self.routers[number].address.to_string(),
            self.http[number].to_string(),
        );
        self.routers[number].running = Some(self.spawn_router(number, &grpc, &http).await?);
        Ok(())
    }

    /// Stops everything.
    pub async fn shutdown(mut self) {
        for number in 0..self.nodes.len() {
            self.stop_node(number).await;
        }
        for number in 0..self.fetchers.len() {
            self.stop_fetcher(number).await;
        }
        for number in 0..self.routers.len() {
            self.stop_router(number).await;
        }
    }

    async fn spawn_router(&self, number: usize, grpc: &str, http: &str) -> Result<RunningRouter> {
        let (grpc, http) = (
            monofs_rpc::server::bind(grpc).await?,
            monofs_rpc::server::bind(http).await?,
        );
        monofs_web::spawn(self.builder.router_config(number + 1), grpc, http).await
    }

    async fn spawn_node(&self, number: usize, port: u16) -> Result<StartedMember<RunningNode>> {
        let (listener, http) = self.listeners(port).await?;
        let node = monofs_node::spawn(
            self.builder
                .node_config(number + 1, self.router_addresses())?,
            listener,
        )
        .await?;
        let metrics = http.map(|http| node.serve_http(http)).transpose()?;
        Ok((node, metrics))
    }

    async fn spawn_fetcher(
        &self,
        number: usize,
        port: u16,
    ) -> Result<StartedMember<RunningFetcher>> {
        let (listener, http) = self.listeners(port).await?;
        let config = self
            .builder
            .fetcher_config(number + 1, self.router_addresses());
        let fetcher = monofs_fetcher::spawn(config, listener).await?;
        let metrics = http.map(|http| fetcher.serve_http(http)).transpose()?;
        Ok((fetcher, metrics))
    }

    /// A listener for gRPC, and one for metrics if the builder was told to serve them.
    async fn listeners(&self, port: u16) -> Result<(TcpListener, Option<TcpListener>)> {
        let host = &self.builder.host;
        let grpc = monofs_rpc::server::bind(&format!("{host}:{port}")).await?;
        let http = match self.builder.metrics {
            true => Some(monofs_rpc::server::bind(&format!("{host}:0")).await?),
            false => None,
        };
        Ok((grpc, http))
    }
}

/// The addresses of one role's servers that have metrics, each with the server's name.
fn named_addresses(
    role: &str,
    addresses: impl Iterator<Item = Option<SocketAddr>>,
) -> impl Iterator<Item = (String, String)> {
    addresses
        .zip(1..)
        .filter_map(move |(at, number)| Some((format!("{role}{number}"), reachable(at?))))
}

/// How many of these members are active.
fn count_active<'m>(members: impl Iterator<Item = Option<&'m v1::Member>>) -> usize {
    let active = v1::MemberState::from(MemberState::Active);
    members
        .flatten()
        .filter(|member| member.state() == active)
        .count()
}

/// The port of a server, counted from 0, when the first one has port `first`.
fn nth(first: u16, number: usize) -> u16 {
    if first == 0 { 0 } else { first + number as u16 }
}

/// The address to dial for one that was listened on.
fn reachable(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    }
}
