//! Waiting for conditions instead of sleeping, and looking for what a test needs.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Where servers live that are not on the usual path.
const SERVER_DIRS: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/lib/git-core"];

/// Waits until the condition holds; panics when it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        std::thread::sleep(POLL);
    }
}

/// Waits until the condition gives a value; panics when it does not within `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        std::thread::sleep(POLL);
    }
}

/// Like [`wait_for`] inside a runtime.
pub async fn wait_for_async<T, F: Future<Output = Option<T>>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// Like [`wait_until`] inside a runtime.
pub async fn wait_until_async<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) {
    let start = Instant::now();
    while !condition().await {
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain until {what}"
        );
        tokio::time::sleep(POLL).await;
    }
}

/// A port of the loopback address that nothing listens on now. Prefer port 0 where the program can
/// tell what it got.
pub fn free_port() -> u16 {
    let listener =
        std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback address has a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
        .port()
}

/// The path of a program that a test cannot do without; panics with the package to install when it
/// is missing.
#[track_caller]
pub fn require(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| {
        let package = package_of(program);
        panic!("this test needs {program}: install it with `apt-get install -y {package}`")
    })
}

/// The path of a program, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SERVER_DIRS.map(PathBuf::from));
    dirs.map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

fn package_of(program: &str) -> &str {
    match program {
        "git-http-backend" | "git-daemon" => "git",
        "etcd" => "etcd-server",
        "etcdctl" => "etcd-client",
        "sshd" => "openssh-server",
        "ssh" | "ssh-keygen" => "openssh-client",
        "fusermount3" => "fuse3",
        "ip" | "tc" => "iproute2",
        "nsenter" => "util-linux",
        "setfattr" | "getfattr" => "attr",
        "promtool" => "prometheus",
        "rg" => "ripgrep",
        "spawn-fcgi" => "spawn-fcgi",
        "htpasswd" => "apache2-utils",
        other => other,
    }
}
