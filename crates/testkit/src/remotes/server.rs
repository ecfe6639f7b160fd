//! The start of a server on a free port, with the settings of Git that all of them get. The servers
//! of this directory call it.

use std::ffi::OsString;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Process;
use crate::wait::{free_port, wait_until};

/// How long a server may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Ports tried before giving up: another program may take a free one first.
const START_TRIES: usize = 5;

/// Whether this host can be reached by `::1`.
pub fn has_ipv6() -> bool {
    std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| {
        addresses
            .lines()
            .any(|line| line.starts_with(&format!("{:032x}", 1)))
    })
}

/// Starts a server on a free port and waits until it accepts connections.
#[track_caller]
pub(super) fn start(program: &Path, args: impl Fn(u16) -> Vec<OsString>) -> (Process, u16) {
    for _ in 0..START_TRIES {
        let port = free_port();
        let mut process = Process::spawn_with(program.to_owned(), args(port), server_env());
        // It listens, or it has ended because the port was taken meanwhile.
        let mut up = false;
        wait_until(
            &format!("{} listens on port {port}", program.display()),
            START_TIMEOUT,
            || {
                up = TcpStream::connect(("127.0.0.1", port)).is_ok();
                up || !process.is_running()
            },
        );
        if up && process.is_running() {
            return (process, port);
        }
        eprintln!(
            "{} did not start on port {port}:\n{}",
            program.display(),
            process.log().join("\n")
        );
    }
    panic!("{} did not start in {START_TRIES} tries", program.display());
}

/// What servers see of Git's settings: nothing but that test repositories may belong to any user.
pub(super) fn server_env() -> Vec<(OsString, OsString)> {
    let pairs = [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Where git keeps the programs that are not on the path.
#[track_caller]
pub(super) fn git_exec(program: &str) -> PathBuf {
    let dir = crate::git::line(&std::env::temp_dir(), ["--exec-path"]);
    let path = Path::new(&dir).join(program);
    if path.is_file() {
        path
    } else {
        crate::wait::require(program)
    }
}
