//! Settings of a router.

use std::path::PathBuf;
use std::time::Duration;

use monofs_control::StateLocation;
use monofs_fleet::members::MemberTimes;
use monofs_fleet::settings::StaticMember;
use monofs_members::membership::members::MemberSettings;

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
    /// How long an ingest, or a refresh that was asked for, waits for a remote host that says "not
    /// now".
    pub host_wait: Duration,
    /// How long a replaced snapshot stays readable at least.
    pub snapshot_grace: Duration,
    /// How long a client that left counts, and a router that has just started waits for its clients
    /// before anything is collected; `None` = as long as the grace, 10 to 60 s.
    pub reader_linger: Option<Duration>,
    /// How often the workers that copy and collect look for work.
    pub worker_interval: Duration,
    /// Deadline of one unary call to a member.
    pub call_timeout: Duration,
    /// Longest silence of a member that streams progress.
    pub progress_timeout: Duration,
    /// What is wrong with how this router was started, although it works: logged, and among the
    /// problems of the status for as long as it runs.
    pub notices: Vec<String>,
}

impl Config {
    /// By what members are judged.
    pub(crate) fn member_settings(&self) -> MemberSettings {
        MemberSettings {
            times: MemberTimes {
                threshold: self.unhealthy_threshold,
                recovery_time: self.recovery_time,
                recovery_shares: self.recovery_shares.clone(),
            },
            members: self.members.clone(),
            replication_factor: self.replication_factor,
            rebalance_delay: self.rebalance_delay,
        }
    }

    /// The defaults, with the embedded state in this directory.
    pub fn new(state_dir: PathBuf) -> Self {
        // These times fit each other: the threshold is three probe intervals, so that one lost
        // probe is no outage, and copies move only long after a restart is over.
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
            host_wait: Duration::from_secs(30 * 60),
            snapshot_grace: Duration::from_secs(600),
            reader_linger: None,
            worker_interval: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(120),
            notices: Vec::new(),
        }
    }
}
