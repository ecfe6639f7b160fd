//! What to start, and where.

use std::path::PathBuf;
use std::time::Duration;

use monofs_model::{NodeId, Result};

use crate::running::Cluster;

/// Ports to listen on; with 0 for a role, each of its servers gets a free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// gRPC of the first router; the ports of the other routers follow.
    pub router: u16,
    /// HTTP of the first router; the ports of the other routers follow.
    pub http: u16,
    /// gRPC of the first node; the ports of the other nodes follow.
    pub first_node: u16,
    /// gRPC of the first fetcher; the ports of the other fetchers follow.
    pub first_fetcher: u16,
}

impl Ports {
    /// Free ports for everything.
    pub const FREE: Ports = Ports {
        router: 0,
        http: 0,
        first_node: 0,
        first_fetcher: 0,
    };

    /// The documented default ports of the roles.
    pub const DEFAULT: Ports = Ports {
        router: 9090,
        http: 8080,
        first_node: 9001,
        first_fetcher: 9200,
    };
}

/// A change of a role's settings before it starts.
type ConfigChange<T> = Box<dyn Fn(&mut T) + Send + Sync>;

/// Builds a [`Cluster`] below one directory: `<dir>/router` (without etcd), `<dir>/node1`, ...,
/// `<dir>/fetcher1`, ...
pub struct Builder {
    pub(crate) dir: PathBuf,
    pub(crate) host: String,
    pub(crate) ports: Ports,
    pub(crate) routers: usize,
    pub(crate) etcd: Vec<String>,
    pub(crate) nodes: usize,
    pub(crate) fetchers: usize,
    pub(crate) metrics: bool,
    pub(crate) router: ConfigChange<monofs_router::Config>,
    /// Applied after `router`, to a router that is started again.
    pub(crate) router_again: ConfigChange<monofs_router::Config>,
    pub(crate) node: ConfigChange<monofs_node::Config>,
    pub(crate) fetcher: ConfigChange<monofs_fetcher::Config>,
}

impl Builder {
    /// One router, two nodes and one fetcher on loopback, with free ports and the roles' default
    /// settings.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            host: "127.0.0.1".to_owned(),
            ports: Ports::FREE,
            routers: 1,
            etcd: Vec::new(),
            nodes: 2,
            fetchers: 1,
            metrics: false,
            router: Box::new(|_| {}),
            router_again: Box::new(|_| {}),
            node: Box::new(|_| {}),
            fetcher: Box::new(|_| {}),
        }
    }

    /// [`Builder::new`], with times so short that the cluster notices within a second or two what
    /// happens to it, and looks upstream only when asked: for trying things out, and for tests.
    pub fn quick(dir: impl Into<PathBuf>) -> Self {
        Self::new(dir).router(|config| {
            config.health_interval = Duration::from_millis(200);
            config.unhealthy_threshold = Duration::from_millis(1500);
            config.worker_interval = Duration::from_millis(200);
            config.recovery_time = Duration::from_millis(1500);
            config.refresh_interval = Duration::ZERO;
        })
    }

    /// Number of routers, which share the state in the etcd at these `host:port`.
    pub fn routers(mut self, count: usize, etcd: Vec<String>) -> Self {
        self.routers = count;
        self.etcd = etcd;
        self
    }

    /// Number of nodes.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// Number of fetchers.
    pub fn fetchers(mut self, count: usize) -> Self {
        self.fetchers = count;
        self
    }

    /// Serves `/metrics`, `/health` and `/ready` of nodes and fetchers too, each on a free port;
    /// routers always do.
    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    /// Where to listen.
    pub fn listen(mut self, host: impl Into<String>, ports: Ports) -> Self {
        self.host = host.into();
        self.ports = ports;
        self
    }

    /// Changes every router's settings before it starts.
    pub fn router(
        mut self,
        change: impl Fn(&mut monofs_router::Config) + Send + Sync + 'static,
    ) -> Self {
        self.router = Box::new(change);
        self
    }

    /// Changes every node's settings before it starts.
    pub fn node(
        mut self,
        change: impl Fn(&mut monofs_node::Config) + Send + Sync + 'static,
    ) -> Self {
        self.node = Box::new(change);
        self
    }

    /// Changes every fetcher's settings before it starts.
    pub fn fetcher(
        mut self,
        change: impl Fn(&mut monofs_fetcher::Config) + Send + Sync + 'static,
    ) -> Self {
        self.fetcher = Box::new(change);
        self
    }

    /// Starts everything and waits until every member is active. Errors: a port is taken, a
    /// directory cannot be used.
    pub async fn start(self) -> Result<Cluster> {
        Cluster::start(self).await
    }

    pub(crate) fn router_config(&self, number: usize) -> monofs_router::Config {
        let mut config = monofs_router::Config::new(self.dir.join("router"));
        config.router_id = format!("router{number}");
        if !self.etcd.is_empty() {
            config.state = monofs_control::StateLocation::Etcd {
                endpoints: self.etcd.clone(),
                prefix: "monofs".to_owned(),
            };
        }
        (self.router)(&mut config);
        (self.router_again)(&mut config);
        config
    }

    pub(crate) fn node_config(
        &self,
        number: usize,
        routers: Vec<String>,
    ) -> Result<monofs_node::Config> {
        let name = format!("node{number}");
        let mut config = monofs_node::Config::new(NodeId::new(&name)?, self.dir.join(name));
        config.routers = routers;
        (self.node)(&mut config);
        Ok(config)
    }

    pub(crate) fn fetcher_config(
        &self,
        number: usize,
        routers: Vec<String>,
    ) -> monofs_fetcher::Config {
        let name = format!("fetcher{number}");
        let mut config = monofs_fetcher::Config {
            cache_dir: self.dir.join(&name),
            fetcher_id: name,
            routers,
            ..Default::default()
        };
        (self.fetcher)(&mut config);
        config
    }
}
