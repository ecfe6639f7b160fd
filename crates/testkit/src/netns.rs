//! Hosts of their own for real processes: network namespaces joined by a bridge, with links that
//! can be cut, slowed down and made lossy.
//!
//! ```text
//!  namespace "router"          namespace "switch"            namespace "node1"
//!  eth0 10.77.0.2/24  =======  port2 - bridge - port3  =======  eth0 10.77.0.3/24
//! ```
//!
//! Invariant: every interface, address, rule and queue is made inside a namespace made here, so
//! nothing else on the machine notices. Dropping [`Net`] kills what still runs inside, and removes
//! the namespaces with all that is in them; that happens after a panic too. Needs root, `ip` and
//! `tc` (iproute2), `iptables` and `nsenter` (util-linux).
//!
//! File systems are shared with the test: a mount made by a process inside is seen outside.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::LinkNameSpaceType;

use crate::process::{Process, binary};
use crate::wait::require;

/// Where `ip netns` keeps the names of namespaces.
const NAMES_DIR: &str = "/run/netns";
/// Most hosts of one network: their number is the last byte of the address.
const HOSTS_MAX: u8 = 250;
/// Distinguishes the networks of one test process.
static NETS: AtomicU32 = AtomicU32::new(0);

/// A switch and the hosts that are plugged into it. Nothing leads out of it.
pub struct Net {
    prefix: String,
    switch: String,
    namespaces: Vec<String>,
}

impl Net {
    /// A switch without hosts.
    #[track_caller]
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run this test as root"
        );
        // The names tell the test that made them; see scripts/leaves-nothing.
        let prefix = format!(
            "monofs-{}-{}",
            std::process::id(),
            NETS.fetch_add(1, Ordering::Relaxed)
        );
        let switch = format!("{prefix}-switch");
        let mut net = Self {
            prefix,
            switch: switch.clone(),
            namespaces: Vec::new(),
        };
        net.add_namespace(&switch);
        ip(&[
            "-n", &switch, "link", "add", "name", "bridge", "type", "bridge",
        ]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        net
    }

    /// A new host on the switch.
    #[track_caller]
    pub fn host(&mut self, name: &str) -> Host {
        let number = u8::try_from(self.namespaces.len() + 1).unwrap_or(u8::MAX);
        assert!(
            number <= HOSTS_MAX,
            "a network has at most {HOSTS_MAX} hosts"
        );
        let namespace = format!("{}-{name}", self.prefix);
        let port = format!("port{number}");
        let switch = self.switch.clone();
        let address = Ipv4Addr::new(10, 77, 0, number);
        self.add_namespace(&namespace);
        // A cable between the two: one end is the host's interface, the other a port of the switch.
        let veth = [
            "link", "add", "name", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch,
        ];
        ip(&[&["-n", &namespace][..], &veth].concat());
        ip(&[
            "-n", &switch, "link", "set", &port, "master", "bridge", "up",
        ]);
        // Its address on the one network.
        ip(&[
            "-n",
            &namespace,
            "address",
            "add",
            &format!("{address}/24"),
            "dev",
            "eth0",
        ]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        Host {
            name: name.to_owned(),
            namespace,
            address,
            port,
            switch,
        }
    }

    fn add_namespace(&mut self, name: &str) {
        ip(&["netns", "add", name]);
        self.namespaces.push(name.to_owned());
        ip(&["-n", name, "link", "set", "lo", "up"]);
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in self.namespaces.iter().rev() {
            // A namespace lives as long as a process in it. If this fails, deleting the namespace
            // fails too and is reported.
            let inside = Command::new(require("ip"))
                .args(["netns", "pids", name])
                .output();
            let pids = inside
                .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
                .unwrap_or_default();
            for pid in pids
                .split_whitespace()
                .filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?))
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let deleted = Command::new(require("ip"))
                .args(["netns", "delete", name])
                .status();
            if !deleted
                .as_ref()
                .is_ok_and(std::process::ExitStatus::success)
            {
                eprintln!("the network namespace {name} is left behind: {deleted:?}");
            }
        }
    }
}

/// A host: one namespace with one address.
#[derive(Debug, Clone)]
pub struct Host {
    name: String,
    namespace: String,
    address: Ipv4Addr,
    port: String,
    switch: String,
}

impl Host {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of its one interface.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Starts one of the workspace's binaries on this host.
    #[track_caller]
    pub fn spawn<A: Into<OsString>>(
        &self,
        name: &str,
        args: impl IntoIterator<Item = A>,
        envs: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Process {
        self.spawn_program(binary(name), args, envs)
    }

    /// Starts any program on this host.
    #[track_caller]
    pub fn spawn_program<A: Into<OsString>>(
        &self,
        program: PathBuf,
        args: impl IntoIterator<Item = A>,
        envs: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Process {
        Process::spawn_through(self.entry(), program, args, envs)
    }

    /// A command that runs on this host.
    #[track_caller]
    pub fn command(&self, program: impl Into<OsString>) -> Command {
        let entry = self.entry();
        let mut command = Command::new(&entry[0]);
        command.args(&entry[1..]).arg(program.into());
        command
    }

    /// Enters the network of the host, and no other namespace of it: mounts stay visible to the
    /// test.
    fn entry(&self) -> Vec<OsString> {
        vec![
            require("nsenter").into(),
            format!("--net={NAMES_DIR}/{}", self.namespace).into(),
        ]
    }

    /// Moves the calling thread to this host: what it opens, and the threads it starts, are there.
    pub fn enter(&self) {
        let name = format!("{NAMES_DIR}/{}", self.namespace);
        let entered = std::fs::File::open(&name).and_then(|file| {
            let network = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(file.as_fd(), network).map_err(Into::into)
        });
        entered.unwrap_or_else(|error| panic!("enter {name}: {error}"));
    }

    /// Bytes that have left this host so far.
    #[track_caller]
    pub fn sent_bytes(&self) -> u64 {
        let out = self
            .command(require("cat"))
            .arg("/proc/net/dev")
            .output()
            .expect("run cat");
        let table = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix("eth0:"))
            .unwrap_or_default();
        // Eight figures of what came in, then what went out.
        line.split_whitespace()
            .nth(8)
            .and_then(|word| word.parse().ok())
            .expect("eth0 counts what it sends")
    }

    /// From now on nothing that `peer` sends arrives here; what this host sends still arrives
    /// there.
    #[track_caller]
    pub fn deafen(&self, peer: &Host) {
        self.iptables(&["-A", "INPUT", "-s", &peer.address.to_string(), "-j", "DROP"]);
    }

    /// Cuts this host off from `peer`, both ways, silently.
    #[track_caller]
    pub fn partition(&self, peer: &Host) {
        self.deafen(peer);
        peer.deafen(self);
    }

    /// Nothing that other hosts send arrives here; connections within the host stay.
    #[track_caller]
    pub fn deafen_all(&self) {
        self.iptables(&["-A", "INPUT", "-i", "eth0", "-j", "DROP"]);
    }

    /// Nothing that this host sends arrives anywhere.
    #[track_caller]
    pub fn mute_all(&self) {
        self.iptables(&["-A", "OUTPUT", "-o", "eth0", "-j", "DROP"]);
    }

    /// Loses this share of the packets that arrive, at random.
    #[track_caller]
    pub fn lose(&self, share: f64) {
        let share = share.to_string();
        let matching = [
            "-m",
            "statistic",
            "--mode",
            "random",
            "--probability",
            &share,
        ];
        self.iptables(
            &[
                &["-A", "INPUT", "-i", "eth0"][..],
                &matching,
                &["-j", "DROP"],
            ]
            .concat(),
        );
    }

    /// Limits the link in both directions to so many kbit/s; a full queue drops what would wait
    /// longer than 100 ms.
    #[track_caller]
    pub fn slow(&self, kbits: u32) {
        // A burst has to hold what the link carries in a tick of the kernel's clock (1 to 10 ms),
        // and one full packet.
        let rate = format!("{kbits}kbit");
        let burst = format!("{}b", (kbits * 1000 / 8 / 100).max(4096));
        for (namespace, device) in [
            (&self.namespace, "eth0"),
            (&self.switch, self.port.as_str()),
        ] {
            let shape = [
                "root", "tbf", "rate", &rate, "burst", &burst, "latency", "100ms",
            ];
            run(
                "tc",
                &[
                    &["-n", namespace, "qdisc", "replace", "dev", device][..],
                    &shape,
                ]
                .concat(),
            );
        }
    }

    /// Undoes every cut and loss of this host; not those that a peer has against it.
    #[track_caller]
    pub fn heal(&self) {
        self.iptables(&["-F", "INPUT"]);
        self.iptables(&["-F", "OUTPUT"]);
    }

    /// Takes the limit of the link away.
    pub fn full_speed(&self) {
        for (namespace, device) in [
            (&self.namespace, "eth0"),
            (&self.switch, self.port.as_str()),
        ] {
            // There may be no limit.
            let mut command = Command::new(require("tc"));
            let _ = command
                .args(["-n", namespace, "qdisc", "delete", "dev", device, "root"])
                .output();
        }
    }

    #[track_caller]
    fn iptables(&self, args: &[&str]) {
        let mut command = self.command(require("iptables"));
        must_succeed(command.arg("--wait").args(args));
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    run("ip", args);
}

#[track_caller]
fn run(program: &str, args: &[&str]) {
    must_succeed(Command::new(require(program)).args(args));
}

#[track_caller]
fn must_succeed(command: &mut Command) {
    let out = command
        .output()
        .unwrap_or_else(|error| panic!("could not run {command:?}: {error}"));
    let mut said = String::from_utf8_lossy(&out.stderr).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&out.stdout));
    assert!(
        out.status.success(),
        "{command:?} failed with {}: {}",
        out.status,
        said.trim()
    );
}
