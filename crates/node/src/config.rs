//! Settings of a node.

use std::path::PathBuf;
use std::time::Duration;

use monofs_model::{Error, NodeId, Result};
use tokio::net::TcpListener;

/// Settings of a node; the doc of each field is its manual.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique in the cluster, and stable: placement hashes it.
    pub node_id: NodeId,
    /// Holds one LMDB environment per repository, below `repos/`.
    pub db_path: PathBuf,
    /// Routers to register with, `host:port`; none = the routers name this node with `--nodes`.
    pub routers: Vec<String>,
    /// Fetchers to use besides those that the router names, `host:port`.
    pub fetchers: Vec<String>,
    /// Announced address, `host:port`; empty = the listener's own.
    pub advertise: String,
    /// Announced to clients outside the private network; empty = the same as `advertise`.
    pub external_address: String,
    /// Failure domain: copies spread over zones first.
    pub zone: String,
    /// Share of the repositories, relative to other nodes.
    pub weight: f64,
    /// Announced capacity in bytes; 0 = unknown.
    pub capacity_bytes: u64,
    /// Most LMDB environments open at a time.
    pub open_stores_max: usize,
    /// Repositories hydrated at a time.
    pub hydrations_max: usize,
    /// Deadline of one call to a peer or fetcher, and the longest silence on a stream.
    pub upstream_timeout: Duration,
}

impl Config {
    /// The defaults for this id and directory.
    pub fn new(node_id: NodeId, db_path: PathBuf) -> Self {
        Self {
            node_id,
            db_path,
            routers: Vec::new(),
            fetchers: Vec::new(),
            advertise: String::new(),
            external_address: String::new(),
            zone: String::new(),
            weight: 1.0,
            capacity_bytes: 0,
            open_stores_max: 256,
            hydrations_max: 2,
            upstream_timeout: Duration::from_secs(60),
        }
    }

    /// The address to announce.
    pub(crate) fn advertised(&self, listener: &TcpListener) -> Result<String> {
        if !self.advertise.is_empty() {
            return Ok(self.advertise.clone());
        }
        let address = listener
            .local_addr()
            .map_err(|e| Error::internal(format!("address of a listener: {e}")))?;
        Ok(monofs_rpc::server::announced(address))
    }
}
