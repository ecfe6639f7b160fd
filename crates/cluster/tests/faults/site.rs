//! A cluster of real processes, each on a host of its own, with an operator and a mount.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use monofs_testkit::clock::WallClock;
use monofs_testkit::disk::SmallDisk;
use monofs_testkit::model::xattr;
use monofs_testkit::netns::{Host, Net};
use monofs_testkit::process::binary;
use monofs_testkit::proxy::Proxy;
use monofs_testkit::wait::{require, wait_for};
use monofs_testkit::{Process, wait_until};
use serde_json::Value;

/// How long the cluster may take to be whole again.
pub const SOON: Duration = Duration::from_secs(60);
/// Deadline of one file system call and of one call of the operator.
pub const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Size of each server's disk in bytes.
const DISK_BYTES: u64 = 384 << 20;
/// Speed of the links of nodes and fetchers, so that a full-tree read takes seconds and faults come
/// in the middle of it.
const LINK_KBITS: u32 = 100_000;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Router,
    Node,
    Fetcher,
}

/// A server on its host. The process ends before its disk does.
pub struct Server {
    pub id: String,
    pub host: Host,
    pub process: Process,
    pub disk: SmallDisk,
    pub clock: WallClock,
    /// What stands before it, if the plan says so.
    pub proxy: Option<Proxy>,
    /// Speed of its link when nothing is wrong; `None`: not limited.
    pub link_kbits: Option<u32>,
}

impl Server {
    fn start(plan: &Plan, dir: &Path, id: &str, host: Host, role: Role, args: &[String]) -> Self {
        let at = dir.join(id);
        let (disk, clock) = (SmallDisk::mount(&at, DISK_BYTES), WallClock::new(dir, id));
        let envs: Vec<(OsString, OsString)> = if plan.clocks {
            clock.envs()
        } else {
            Vec::new()
        };
        let (program, port, place) = match role {
            Role::Router => ("monofs-router", 9090, "--state-dir"),
            Role::Node => ("monofs-node", 9000, "--db-path"),
            Role::Fetcher => ("monofs-fetcher", 9200, "--cache-dir"),
        };
        let outside = host.address().to_string();
        let (proxy, ip, inner) = match plan.proxies {
            true => (
                Some(Proxy::on(&host, port, port + 1)),
                "127.0.0.1",
                port + 1,
            ),
            false => (None, outside.as_str(), port),
        };
        let mut all = match role {
            Role::Router => vec![format!("--listen={ip}"), format!("--port={inner}")],
            _ => vec![
                format!("--addr={ip}:{inner}"),
                format!("--advertise={outside}:{port}"),
            ],
        };
        all.push(format!("{place}={}", at.join("data").display()));
        all.extend_from_slice(args);
        let link_kbits = (role != Role::Router).then_some(LINK_KBITS);
        link_kbits.into_iter().for_each(|kbits| host.slow(kbits));
        let process = host.spawn(program, all, envs);
        Self {
            id: id.to_owned(),
            host,
            process,
            disk,
            clock,
            proxy,
            link_kbits,
        }
    }
}

/// The cluster. Fields end in this order: the client before the servers, processes before the
/// network.
pub struct Site {
    pub client: Option<Client>,
    pub routers: Vec<Server>,
    pub nodes: Vec<Server>,
    pub fetchers: Vec<Server>,
    pub client_host: Host,
    pub admin: Admin,
    mounts: usize,
    _front: Option<Front>,
    _net: Net,
    pub dir: tempfile::TempDir,
}

/// The operator's command line on a host of its own. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    host: Host,
    router: String,
}

impl Admin {
    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, to be started by the caller.
    pub fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.host.command(binary("monofs-admin"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MONOFS_"))
        {
            command.env_remove(name);
        }
        let timeout = format!("--rpc-timeout={}s", RPC_TIMEOUT.as_secs());
        command
            .args(["--router", &self.router, &timeout])
            .args(args);
        command
    }
}

/// HAProxy with the settings that are shipped, and the etcd behind the routers.
struct Front {
    /// Where gRPC is taken.
    address: String,
    etcd: String,
    _etcd: Process,
    _haproxy: Process,
}

impl Front {
    #[track_caller]
    fn start(net: &mut Net, dir: &Path, routers: &[Host]) -> Self {
        let host = net.host("etcd");
        let at = |port: u16| format!("http://{}:{port}", host.address());
        let args = [
            "--name=one".to_owned(),
            format!("--data-dir={}", dir.join("etcd").display()),
            format!("--listen-client-urls={}", at(2379)),
            format!("--advertise-client-urls={}", at(2379)),
            format!("--listen-peer-urls={}", at(2380)),
            format!("--initial-advertise-peer-urls={}", at(2380)),
            format!("--initial-cluster=one={}", at(2380)),
        ];
        let etcd = host.spawn_program(require("etcd"), args, []);
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../haproxy/haproxy.cfg");
        let mut text = std::fs::read_to_string(shipped).unwrap();
        for (router, n) in routers.iter().zip(1..) {
            text = text.replace(&format!("router{n}:"), &format!("{}:", router.address()));
        }
        let config = dir.join("haproxy.cfg");
        std::fs::write(&config, text).unwrap();
        let front = net.host("front");
        let haproxy = front.spawn_program(
            require("haproxy"),
            ["-db".into(), "-f".into(), config.into_os_string()],
            [],
        );
        let (address, etcd_address) = (
            format!("{}:9090", front.address()),
            format!("{}:2379", host.address()),
        );
        Self {
            address,
            etcd: etcd_address,
            _etcd: etcd,
            _haproxy: haproxy,
        }
    }

    /// Waits until HAProxy has found a router that is ready.
    #[track_caller]
    fn wait_ready(&self, operator: &Host) {
        wait_until("a router is ready behind HAProxy", SOON, || {
            let mut status = operator.command(binary("monofs-admin"));
            status.args(["--router", &self.address, "status", "--format=json"]);
            status.output().unwrap().status.success()
        });
    }
}

/// A mount by a process on the client's host.
pub struct Client {
    pub process: Process,
    pub root: PathBuf,
    cache: PathBuf,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Its cache takes space that later mounts of a long run need.
        self.process.kill();
        let _ = std::fs::remove_dir_all(&self.cache);
    }
}

/// What a site is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub nodes: usize,
    pub fetchers: usize,
    /// Every process sees a wall clock that can jump.
    pub clocks: bool,
    /// Every server is behind a proxy that can break its connections.
    pub proxies: bool,
    /// Two routers share an etcd and stand behind HAProxy, which clients and the operator use.
    pub balanced: bool,
    /// The routers' `--rebalance-delay`.
    pub rebalance_delay: &'static str,
    /// The routers' `--snapshot-grace`: a copy that is one too many stays as long as a replaced
    /// snapshot counts on it.
    pub snapshot_grace: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            nodes: 3,
            fetchers: 2,
            clocks: false,
            proxies: false,
            balanced: false,
            rebalance_delay: "10m",
            snapshot_grace: "10m",
        }
    }
}

impl Site {
    /// Starts everything and waits until all members are active.
    #[track_caller]
    pub fn start(plan: Plan) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "this test mounts: it needs /dev/fuse"
        );
        let dir = tempfile::Builder::new()
            .prefix("monofs-site-")
            .tempdir()
            .unwrap();
        let mut net = Net::new();
        let server = |id: &str, host: Host, role: Role, args: Vec<String>| {
            Server::start(&plan, dir.path(), id, host, role, &args)
        };
        let hosts: Vec<Host> = (1..=if plan.balanced { 2 } else { 1 })
            .map(|n| net.host(&format!("router{n}")))
            .collect();
        let addresses: Vec<String> = hosts
            .iter()
            .map(|host| format!("{}:9090", host.address()))
            .collect();
        let front = plan
            .balanced
            .then(|| Front::start(&mut net, dir.path(), &hosts));
        let routers = hosts.into_iter().zip(1..).map(|(host, n)| {
            let id = format!("router{n}");
            let mut args = vec![
                "--health-interval=200ms".to_owned(),
                "--unhealthy-threshold=1500ms".to_owned(),
            ];
            args.push("--refresh-interval=0s".to_owned());
            args.push(format!("--rebalance-delay={}", plan.rebalance_delay));
            args.push(format!("--snapshot-grace={}", plan.snapshot_grace));
            if let Some(front) = &front {
                args.extend([
                    format!("--router-id={id}"),
                    format!("--advertise={}:9090", host.address()),
                ]);
                args.push(format!("--state=etcd://{}/test", front.etcd));
            }
            server(&id, host, Role::Router, args)
        });
        let routers = routers.collect();
        let join = [format!("--router={}", addresses.join(","))];
        let router = front
            .as_ref()
            .map_or(addresses.join(","), |front| front.address.clone());
        let nodes = (1..=plan.nodes).map(|n| {
            let (id, host) = (format!("node{n}"), net.host(&format!("node{n}")));
            server(
                &id,
                host,
                Role::Node,
                [&join[..], &[format!("--node-id={id}")]].concat(),
            )
        });
        let nodes = nodes.collect();
        let fetchers = (1..=plan.fetchers).map(|n| {
            let (id, host) = (format!("fetcher{n}"), net.host(&format!("fetcher{n}")));
            server(
                &id,
                host,
                Role::Fetcher,
                [&join[..], &[format!("--fetcher-id={id}")]].concat(),
            )
        });
        let fetchers = fetchers.collect();
        let client_host = net.host("client");
        let admin = Admin {
            host: net.host("operator"),
            router,
        };
        if let Some(front) = &front {
            front.wait_ready(&admin.host);
        }
        let client = None;
        let site = Self {
            client,
            routers,
            nodes,
            fetchers,
            client_host,
            admin,
            mounts: 0,
            _front: front,
            _net: net,
            dir,
        };
        site.wait_whole();
        site
    }

    /// A server of a role.
    pub fn server(&mut self, role: Role, index: usize) -> &mut Server {
        match role {
            Role::Router => &mut self.routers[index],
            Role::Node => &mut self.nodes[index],
            Role::Fetcher => &mut self.fetchers[index],
        }
    }

    /// What each server of a role has sent so far, in bytes.
    #[track_caller]
    pub fn sent_bytes(&self, role: Role) -> Vec<u64> {
        let servers = match role {
            Role::Router => &self.routers,
            Role::Node => &self.nodes,
            Role::Fetcher => &self.fetchers,
        };
        servers
            .iter()
            .map(|server| server.host.sent_bytes())
            .collect()
    }

    /// The index of the server of a role that has sent most since `before`: the one that is in use.
    #[track_caller]
    pub fn busiest(&self, role: Role, before: &[u64]) -> usize {
        let now = self.sent_bytes(role);
        let grown = now.iter().zip(before).map(|(now, before)| now - before);
        grown
            .enumerate()
            .max_by_key(|(_, grown)| *grown)
            .expect("a site has one of each role")
            .0
    }

    /// The nodes that the catalogue says hold `path`; `None` when no router answers or it is not
    /// there.
    pub fn holders(&self, path: &str) -> Option<Vec<String>> {
        let repository = self.repository(path)?;
        Some(
            repository["holders"]
                .as_array()?
                .iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect(),
        )
    }

    /// The nodes that themselves say that they hold `path` at this commit; at any for an empty one.
    pub fn copies(&self, path: &str, commit: &str) -> Vec<String> {
        let Some(answer) = self.admin_json(&["node-files", "--node-id=all", "--path", path]) else {
            return Vec::new();
        };
        let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
        let holds = |node: &&Value| {
            let held = node["repositories"].as_array().into_iter().flatten();
            held.filter_map(|held| held["commits"].as_array())
                .flatten()
                .any(|held| commit.is_empty() || held == commit)
        };
        nodes
            .iter()
            .filter(holds)
            .filter_map(|node| node["node_id"].as_str().map(str::to_owned))
            .collect()
    }

    /// The catalogue's entry.
    pub fn repository(&self, path: &str) -> Option<Value> {
        let answer = self.admin_json(&["repo", path])?;
        Some(answer["repository"].clone())
    }

    /// Runs the operator's command line.
    pub fn admin(&self, args: &[&str]) -> Output {
        self.admin.run(args)
    }

    /// Its answer; `None` when it fails.
    pub fn admin_json(&self, args: &[&str]) -> Option<Value> {
        let out = self.admin(&[args, &["--format=json"]].concat());
        out.status
            .success()
            .then(|| serde_json::from_slice(&out.stdout).ok())?
    }

    /// Runs it and panics with what it says when it fails.
    #[track_caller]
    pub fn must(&self, args: &[&str]) {
        let out = self.admin(args);
        assert!(out.status.success(), "{args:?}: {}", said(&out));
    }

    /// Adds a repository and waits until every replica holds it, contents too unless it is lazy.
    #[track_caller]
    pub fn ingest(&self, url: &str, path: &str, content: &str) {
        let content = format!("--content={content}");
        let wait: &[&str] = if content.ends_with("eager") {
            &["--wait"]
        } else {
            &[]
        };
        let args = [
            "ingest",
            "--source",
            url,
            "--ref",
            "main",
            "--path",
            path,
            "--consistency=strong",
            &content,
        ];
        self.must(&[&args[..], wait].concat());
    }

    /// Waits until every member is active.
    #[track_caller]
    pub fn wait_whole(&self) {
        let wanted = self.nodes.len() + self.fetchers.len();
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            let active = self.admin_json(&["status"]).map(|status| {
                last = status;
                last.to_string().matches("\"active\"").count()
            });
            if active.is_some_and(|active| active >= wanted) {
                return;
            }
            assert!(
                start.elapsed() < SOON,
                "not all {wanted} members are active within {SOON:?}: {last}"
            );
        }
    }

    /// Waits until `path` has as many holders as it should.
    #[track_caller]
    pub fn wait_replicated(&self, path: &str) {
        wait_until("both replicas hold the commit", SOON, || {
            self.repository(path).is_some_and(|entry| {
                entry["holders"]
                    .as_array()
                    .is_some_and(|all| all.len() >= 2)
            })
        });
    }

    /// Ends the mount, if there is one, and makes one with an empty cache.
    #[track_caller]
    pub fn remount(&mut self) {
        self.client = None;
        self.mounts += 1;
        let root = self.dir.path().join(format!("mount{}", self.mounts));
        let cache = self.dir.path().join(format!("client-cache{}", self.mounts));
        std::fs::create_dir(&root).unwrap();
        let args = [
            format!("--mount={}", root.display()),
            format!("--cache={}", cache.display()),
            format!("--router={}", self.admin.router),
            format!("--rpc-timeout={}s", RPC_TIMEOUT.as_secs()),
        ];
        let process = self.client_host.spawn("monofs-client", args, []);
        let process = process.mounting_at(&root);
        self.client = Some(Client {
            process,
            root,
            cache,
        });
    }

    /// Where a repository is mounted, once it shows `commit`.
    #[track_caller]
    pub fn shown(&self, path: &str, commit: &str) -> PathBuf {
        let at = self
            .client
            .as_ref()
            .expect("there is a mount")
            .root
            .join(path);
        wait_until("the mount shows the commit", SOON, || {
            xattr(&at, "user.monofs.commit").is_ok_and(|shown| shown == commit.as_bytes())
        });
        at
    }

    /// What the mount says of itself.
    #[track_caller]
    pub fn mount_status(&self) -> Value {
        let file = self
            .client
            .as_ref()
            .expect("there is a mount")
            .root
            .join(".monofs/status");
        wait_for("the mount tells its status", SOON, || {
            serde_json::from_slice(&std::fs::read(&file).ok()?).ok()
        })
    }
}

/// What a command said.
pub fn said(out: &Output) -> String {
    let both = [&out.stderr[..], &out.stdout[..]].concat();
    format!("{}: {}", out.status, String::from_utf8_lossy(&both).trim())
}
