//! `monofs-router`: flags -> config -> spawn -> drain. The role itself is the library
//! `monofs-router`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use monofs_control::StateLocation;
use monofs_fleet::settings::StaticMember;
use monofs_launch::args::{self, Keyed, Listen, Peers};
use monofs_model::view::Role;
use monofs_model::{NodeId, Result};
use monofs_router::Config;
use tokio::net::TcpListener;

/// The catalogue, placement, health and admin API of a MonoFS cluster.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  monofs-router --nodes node1=10.0.0.1:9000,node2=10.0.0.2:9000")]
struct Args {
    /// gRPC port
    #[arg(long, default_value_t = 9090)]
    port: u16,
    /// Port of the HTTP API
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Address to listen on, for both ports (empty: every address)
    #[arg(long, default_value = "")]
    listen: String,
    /// Nodes, `id=host:port,...`; nodes may also register themselves
    #[arg(long, default_value = "", value_name = "ID=HOST:PORT,...")]
    nodes: Peers,
    /// Addresses of nodes for clients outside the private network, `id=host:port,...`
    #[arg(long, default_value = "", value_name = "ID=HOST:PORT,...")]
    external_addrs: Peers,
    /// Fetchers, `host:port,...`; fetchers may also register themselves
    #[arg(long, default_value = "", value_name = "HOST:PORT,...")]
    fetcher_addrs: Peers,
    /// Shares of nodes, `id=2.0,...`
    #[arg(long, default_value = "", value_name = "ID=WEIGHT,...")]
    weights: Keyed<f64>,
    /// Failure domains of nodes, `id=zone,...`
    #[arg(long, default_value = "", value_name = "ID=ZONE,...")]
    zones: Keyed<String>,
    /// Copies of each repository
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    replication_factor: u32,
    /// How often members are probed
    #[arg(long, default_value = "2s", value_parser = args::duration)]
    health_interval: Duration,
    /// Silence after which a member is down
    #[arg(long, default_value = "6s", value_parser = args::duration)]
    unhealthy_threshold: Duration,
    /// Down this long: the copies of a node are made elsewhere
    #[arg(long, default_value = "10m", value_parser = args::duration)]
    rebalance_delay: Duration,
    /// What all copies that are moved or repaired may take a second, together; 0 = no limit
    #[arg(long, default_value = "64MB", value_parser = args::bytes)]
    rebalance_bandwidth: u64,
    /// How often branches are checked upstream, 0s = never
    #[arg(long, default_value = "5m", value_parser = args::duration)]
    refresh_interval: Duration,
    /// How long an ingest waits for a host that says "not now" (HTTP 429 and 5xx)
    #[arg(long, default_value = "30m", value_parser = args::duration)]
    host_wait: Duration,
    /// How long a replaced snapshot stays readable
    #[arg(long, default_value = "10m", value_parser = args::duration)]
    snapshot_grace: Duration,
    /// Where the catalogue lives: `embedded:DIRECTORY` (one router) or
    /// `etcd://HOST:PORT,.../PREFIX` (any number of them); empty: embedded in --state-dir
    #[arg(long, default_value = "")]
    state: String,
    /// Name of this router among several (default: the address that it announces)
    #[arg(long, default_value = "", hide_default_value = true)]
    router_id: String,
    /// Address that other routers reach this one at (default: the host's name and the gRPC port)
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "HOST:PORT"
    )]
    advertise: String,
    /// The other routers, as they announce themselves: it is told when one is missing. Needs
    /// --state etcd://
    #[arg(long, value_delimiter = ',', value_parser = args::address, value_name = "HOST:PORT,...")]
    peer_routers: Vec<String>,
    /// Code search, which does not exist yet: accepted and not used
    #[arg(long, value_name = "HOST:PORT")]
    search_addr: Option<String>,
    /// Directory of the embedded state
    #[arg(long, default_value = "/var/lib/monofs/router")]
    state_dir: PathBuf,
}

impl Args {
    fn config(&self) -> Result<Config> {
        // No word about the state means the embedded one, in its own directory.
        let state = match self.state.as_str() {
            "" => StateLocation::Embedded(self.state_dir.clone()),
            state => StateLocation::parse(state)?,
        };

        // What has no flag stays at its default.
        Ok(Config {
            router_id: self.router_id.clone(),
            advertise: self.advertise.clone(),
            peer_routers: self.peer_routers.clone(),
            members: self.members()?,
            replication_factor: self.replication_factor,
            health_interval: self.health_interval,
            unhealthy_threshold: self.unhealthy_threshold,
            rebalance_delay: self.rebalance_delay,
            rebalance_bandwidth: self.rebalance_bandwidth,
            refresh_interval: self.refresh_interval,
            host_wait: self.host_wait,
            snapshot_grace: self.snapshot_grace,
            notices: alone_in_kubernetes(&state).into_iter().collect(),
            state,
            ..Config::new(self.state_dir.clone())
        })
    }

    fn members(&self) -> Result<Vec<StaticMember>> {
        let all = self.nodes.iter().map(|node| (node, Role::Node));
        let all = all.chain(
            self.fetcher_addrs
                .iter()
                .map(|fetcher| (fetcher, Role::Fetcher)),
        );
        all.map(|(peer, role)| self.member(peer, role)).collect()
    }

    fn member(&self, peer: &args::Peer, role: Role) -> Result<StaticMember> {
        let external = self
            .external_addrs
            .iter()
            .find(|external| external.id == peer.id);
        Ok(StaticMember {
            id: NodeId::new(&peer.id)?,
            named: peer.named,
            role,
            address: peer.address.clone(),
            external_address: external.map_or(String::new(), |external| external.address.clone()),
            weight: self.weights.0.get(&peer.id).copied().unwrap_or(1.0),
            zone: self.zones.0.get(&peer.id).cloned().unwrap_or_default(),
        })
    }

    /// Where one of the two ports is listened on.
    fn listen(&self, port: u16) -> Listen {
        Listen {
            host: self.listen.clone(),
            port,
        }
    }
}

/// What is wrong with an embedded state in a pod: a Deployment with two replicas of it is two
/// clusters.
fn alone_in_kubernetes(state: &StateLocation) -> Option<String> {
    let StateLocation::Embedded(directory) = state else {
        return None;
    };
    // Kubernetes tells every pod where its API is.
    std::env::var_os("KUBERNETES_SERVICE_HOST")?;
    Some(format!(
        "this router keeps the catalogue in its own pod, at {}: every replica has another catalogue, \
         and without a volume it is lost with the pod; give all routers the same --state \
         etcd://HOST:PORT,.../PREFIX (deploy/k8s has them all)",
        directory.display()
    ))
}

fn main() -> ExitCode {
    monofs_launch::run::<Args, _, _>("monofs-router", |args, context| async move {
        if args.search_addr.is_some() {
            tracing::warn!("--search-addr is accepted and ignored: there is no code search yet");
        }
        if args.state.is_empty()
            && let Some(warning) = args::temporary("--state-dir", &args.state_dir, "the catalogue")
        {
            tracing::warn!("{warning}");
        }
        let grpc = TcpListener::from_std(args.listen(args.port).bind("--port")?)?;
        let http = TcpListener::from_std(args.listen(args.http_port).bind("--http-port")?)?;
        if args.state.is_empty() {
            args::data_directory("--state-dir", &args.state_dir)?;
        }
        let router = monofs_web::spawn(args.config()?, grpc, http).await?;
        context.shutdown.cancelled().await;
        router.shutdown(context.shutdown_timeout).await;
        Ok(())
    })
}
