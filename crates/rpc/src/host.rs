//! What a server calls the machine that it runs on, and the address that it announces. Used by nodes and fetchers.
//!
//! The name comes from the system call: under a hardened unit (`ProcSubset=pid`) there is no `/proc/sys`.

use std::net::SocketAddr;

/// This host's name; empty where it has none.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_owned()
}

/// The address to announce: `given` if there is one, else where it listens, with the host's name for "every address".
pub fn advertised(given: &str, listening: SocketAddr) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    if !listening.ip().is_unspecified() {
        return listening.to_string();
    }
    let host = name();
    let host = if host.is_empty() { "127.0.0.1" } else { &host };
    format!("{host}:{}", listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_can_be_reached_by_others() {
        let listening = |text: &str| text.parse::<SocketAddr>().expect("an address");
        assert_eq!(advertised("node1:9000", listening("[::]:1")), "node1:9000");
        assert_eq!(advertised("", listening("10.0.0.1:9000")), "10.0.0.1:9000");
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("not hidden here");
        assert_eq!(advertised("", listening("[::]:9000")), format!("{}:9000", kernel.trim()));
    }
}
