//! Who listens on a port of this machine, for the message of the process that finds it taken.
//!
//! Linux tells it in two steps: `/proc/net/tcp` names the inode of the listening socket, and the
//! process that has it open has a link to it in `/proc/PID/fd`. Those of other users' processes
//! can be read by root alone, so the answer may be that nobody is known.

use std::fs;
use std::path::Path;

/// Tables of sockets, for IPv4 and IPv6.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of a listening socket in those tables.
const LISTENING: &str = "0A";
/// How the names of all binaries of MonoFS begin.
const OURS: &str = "monofs";

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    pub pid: u32,
    /// The name of its program, at most 15 bytes of it.
    pub program: String,
}

impl PortHolder {
    /// The process that listens on this port, of any address. `None`: no process does, or its
    /// owner is another user.
    pub fn of(port: u16) -> Option<Self> {
        // The tables name the sockets that listen on the port by their inodes.
        let inodes: Vec<String> = TABLES
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listening_inodes(&table, port))
            .collect();
        if inodes.is_empty() {
            return None;
        }
        let links: Vec<String> = inodes
            .iter()
            .map(|inode| format!("socket:[{inode}]"))
            .collect();

        // The holder is the process that has one of them open. A process that cannot be looked into
        // is passed over.
        let processes = fs::read_dir("/proc").ok()?;
        let pids = processes.flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
            Some((pid, entry.path()))
        });
        for (pid, process) in pids {
            if has_open(&process, &links) {
                let program = fs::read_to_string(process.join("comm")).unwrap_or_default();
                return Some(Self {
                    pid,
                    program: program.trim().to_owned(),
                });
            }
        }
        None
    }

    /// Whether it is a process of MonoFS.
    pub fn is_ours(&self) -> bool {
        self.program.starts_with(OURS)
    }
}

/// What to do about an address that is taken; `flag` is the one that gives another.
pub fn advice(holder: Option<&PortHolder>, flag: &str) -> String {
    match holder {
        Some(holder) if holder.program == OURS => format!(
            "another `monofs up` runs here: `monofs status` shows it, `monofs down` ends it; or \
             give this one another with {flag}"
        ),
        Some(holder) if holder.is_ours() => format!(
            "another MonoFS runs here: use that one, end it with `kill {}`, or give this one \
             another with {flag}",
            holder.pid
        ),
        Some(holder) => format!(
            "another program has that port: end it with `kill {}`, or give this one another with \
             {flag}",
            holder.pid
        ),
        None => format!(
            "another MonoFS, or another program, has that port (`ss -ltnp`, as root, says which): \
             end it, or give this one another with {flag}"
        ),
    }
}

/// Inodes of the sockets of a table that listen on this port. Its columns are number, local
/// address (`HEX:PORT`), remote address, state, three of queues and timers, user, timeout, inode.
/// Source: proc(5), `/proc/net/tcp`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1);
    rows.filter_map(|row| {
        let columns: Vec<&str> = row.split_ascii_whitespace().collect();
        let listens = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == LISTENING;
        listens
            .then(|| columns.get(9).map(|inode| (*inode).to_owned()))
            .flatten()
    })
    .collect()
}

/// Whether a process has one of these open.
fn has_open(process: &Path, links: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    open.flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_is_found_until_it_stops() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = PortHolder::of(port).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.program.is_empty());
        drop(listener);
        assert_eq!(PortHolder::of(port), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "sl local rem st tx tr rn uid timeout inode\n \
             0: 0100007F:2382 00000000:0000 0A 0:0 0:0 0 0 0 11 1 x\n \
             1: 0100007F:2382 0100007F:9999 01 0:0 0:0 0 0 0 12 1 x\n \
             2: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 13 1 x\n";
        assert_eq!(listening_inodes(table, 9090), ["11"]);
    }

    #[test]
    fn the_advice_fits_what_has_the_port() {
        let holder = |program: &str| PortHolder {
            pid: 12,
            program: program.to_owned(),
        };
        let up = advice(Some(&holder("monofs")), "--port");
        assert!(up.contains("monofs down") && up.contains("--port"), "{up}");
        let node = advice(Some(&holder("monofs-node")), "--addr");
        assert!(node.contains("another MonoFS runs here") && node.contains("kill 12"));
        let other = advice(Some(&holder("nginx")), "--addr");
        assert!(other.contains("another program") && !other.contains("MonoFS"));
        assert!(advice(None, "--addr").contains("ss -ltnp"));
    }
}
