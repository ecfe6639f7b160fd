//! A real etcd: Debian's `etcd`, one member, on free ports of the loopback address.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::wait::{free_port, require, wait_until};

/// How long it may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running etcd with a data directory of its own, both gone when it is dropped.
pub struct Etcd {
    dir: tempfile::TempDir,
    port: u16,
    process: Process,
}

impl Etcd {
    /// Starts an empty one and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", free_port());
        let args = [
            format!("--data-dir={}", dir.path().join("data").display()),
            "--name=one".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=one={peer}"),
        ];
        // It may have to start twice, should its ports be taken meanwhile.
        let mut etcd = Self {
            dir,
            port,
            process: Process::spawn_with(require("etcd"), args, []),
        };
        etcd.wait_ready();
        etcd
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again with what it has on disk, and waits until it answers.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.process.restart();
        self.wait_ready();
    }

    /// Loses everything; to be called while it does not run.
    #[track_caller]
    pub fn erase(&mut self) {
        assert!(!self.process.is_running(), "kill it first");
        std::fs::remove_dir_all(self.data_dir())
            .expect("the data of an etcd that does not run can be removed");
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Forgets the history before `revision`.
    #[track_caller]
    pub fn compact(&self, revision: u64) {
        let done = self
            .control(&["compact", &revision.to_string()])
            .output()
            .expect("etcdctl runs");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Starts it again when it ended: while it did not run, another program's connection may
    /// have had its port.
    #[track_caller]
    fn wait_ready(&mut self) {
        wait_until("etcd answers", START_TIMEOUT, || {
            if !self.process.is_running() {
                self.process.restart();
            }
            self.control(&["get", "ready"])
                .output()
                .is_ok_and(|done| done.status.success())
        });
    }

    fn control(&self, args: &[&str]) -> Command {
        let mut command = Command::new(require("etcdctl"));
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint(), "--command-timeout=2s"])
            .args(args);
        command
    }
}
