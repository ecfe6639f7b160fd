//! Settings of a router.

use std::path::PathBuf;
use std::time::Duration;

use monofs_model::view::Role;
use monofs_model::{Error, NodeId, Result};

/// A member named on the command line instead of by its own registration.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticMember {
    pub id: NodeId,
    /// Otherwise `id` stands for it only until it says what it calls itself.
    pub named: bool,
    pub role: Role,
    /// `host:port`.
    pub address: String,
    /// Empty = the same as `address`.
    pub external_address: String,
    pub weight: f64,
    pub zone: String,
}

/// Where the control state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateLocation {
    /// LMDB in this directory: one router.
    Embedded(PathBuf),
    /// Shared by any number of routers: etcd at these `host:port`, below a prefix of its keys.
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
    },
}

/// Below which keys of etcd a cluster keeps its state, unless it is said otherwise.
const ETCD_PREFIX: &str = "monofs";

impl StateLocation {
    /// Understands `embedded:DIRECTORY` and `etcd://HOST:PORT,HOST:PORT/PREFIX`. Errors: `Invalid`,
    /// with how to write it.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(dir) = text.strip_prefix("embedded:").filter(|dir| !dir.is_empty()) {
            return Ok(Self::Embedded(dir.into()));
        }
        let write = "write embedded:DIRECTORY or etcd://HOST:PORT,HOST:PORT/PREFIX";
        let wrong = || Error::invalid(format!("--state '{}': {write}", text.escape_debug()));
        let rest = text.strip_prefix("etcd://").ok_or_else(wrong)?;
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ETCD_PREFIX));
        let endpoints: Vec<String> = hosts
            .split(',')
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
            .collect();
        let prefix = prefix.trim_matches('/');
        if endpoints.is_empty() {
            return Err(wrong());
        }
        Ok(Self::Etcd {
            endpoints,
            prefix: if prefix.is_empty() {
                ETCD_PREFIX
            } else {
                prefix
            }
            .to_owned(),
        })
    }
}

/// Half of what a gigabit link carries.
pub const REBALANCE_BANDWIDTH: u64 = 64 << 20;

/// Settings of a router; the doc of each field is its manual.
#[derive(Debug, Clone)]
pub struct Config {
    pub state: StateLocation,
    /// Names this router among those of the cluster; empty = `advertise`.
    pub router_id: String,
    /// `host:port` that the other routers reach this one at; empty = where it listens.
    pub advertise: String,
    /// Other routers that must be there, `host:port` as they advertise it: it is told when one is
    /// missing.
    pub peer_routers: Vec<String>,
    /// After how long of silence what a router held is free for others: the leadership, its
    /// ingests. Whole seconds.
    pub lease: Duration,
    /// Members known from the start; others register themselves.
    pub members: Vec<StaticMember>,
    /// Copies of each repository.
    pub replication_factor: u32,
    /// How often every member is probed.
    pub health_interval: Duration,
    /// Silence after which a member is down.
    pub unhealthy_threshold: Duration,
    /// How long copies on a node that is down still count: then they are made elsewhere.
    pub rebalance_delay: Duration,
    /// Bytes of contents a second that all copies which are being moved or repaired may take
    /// together; 0 = no limit.
    pub rebalance_bandwidth: u64,
    /// How long reads take to return to a node that recovered.
    pub recovery_time: Duration,
    /// Percent of its repositories that it is asked first about, for equal parts of that time; then
    /// it is 100.
    pub recovery_shares: Vec<u32>,
    /// How often branches are looked up upstream; zero = never.
    pub refresh_interval: Duration,
    /// How long a replaced snapshot stays readable at least.
    pub snapshot_grace: Duration,
    /// How often the workers that copy and collect look for work.
    pub worker_interval: Duration,
    /// Deadline of one unary call to a member.
    pub call_timeout: Duration,
    /// Longest silence of a member that streams progress.
    pub progress_timeout: Duration,
}

impl Config {
    /// The defaults, with the embedded state in this directory.
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state: StateLocation::Embedded(state_dir),
            router_id: String::new(),
            advertise: String::new(),
            peer_routers: Vec::new(),
            lease: Duration::from_secs(5),
            members: Vec::new(),
            replication_factor: 2,
            health_interval: Duration::from_secs(2),
            unhealthy_threshold: Duration::from_secs(6),
            rebalance_delay: Duration::from_secs(600),
            rebalance_bandwidth: REBALANCE_BANDWIDTH,
            recovery_time: Duration::from_secs(30),
            recovery_shares: vec![10, 25, 50, 75],
            refresh_interval: Duration::from_secs(300),
            snapshot_grace: Duration::from_secs(600),
            worker_interval: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(120),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_told_by_their_scheme() {
        let etcd = |endpoints: &[&str], prefix: &str| StateLocation::Etcd {
            endpoints: endpoints
                .iter()
                .map(|endpoint| (*endpoint).to_owned())
                .collect(),
            prefix: prefix.to_owned(),
        };
        let parsed = |text| StateLocation::parse(text).expect("well written");
        assert_eq!(
            parsed("embedded:/var/lib/x"),
            StateLocation::Embedded("/var/lib/x".into())
        );
        assert_eq!(parsed("etcd://a:2379"), etcd(&["a:2379"], "monofs"));
        assert_eq!(
            parsed("etcd://a:2379,b:2379/prod/one"),
            etcd(&["a:2379", "b:2379"], "prod/one")
        );
        for wrong in [
            "",
            "embedded:",
            "etcd://",
            "etcd:///x",
            "/var/lib/x",
            "redis://a:1",
        ] {
            let error = StateLocation::parse(wrong).expect_err(wrong);
            assert!(
                error
                    .message
                    .contains("write embedded:DIRECTORY or etcd://"),
                "{error}"
            );
        }
    }
}
