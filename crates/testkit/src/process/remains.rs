//! What a killed process leaves on the machine: children that it started, and a dead mount.

use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// The processes that `pid` started, those that they started, and so on. A process whose parent has
/// ended is not found: the kernel gives it to another parent.
pub(super) fn descendants(pid: Pid) -> Vec<Pid> {
    let mut found = children(pid);
    let mut looked_at = 0;
    while let Some(&next) = found.get(looked_at) {
        found.extend(children(next));
        looked_at += 1;
    }
    found
}

/// The children of all threads of a process; none once it has ended.
fn children(pid: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|line| parse_pids(&line))
        .collect()
}

/// Process ids between blanks, as `/proc/PID/task/TID/children` lists them.
fn parse_pids(line: &str) -> Vec<Pid> {
    let words = line.split_ascii_whitespace();
    words
        .filter_map(|word| Pid::from_raw(word.parse().ok()?))
        .collect()
}

/// kill -9 to each.
pub(super) fn kill_all(pids: &[Pid]) {
    for &pid in pids {
        // One that has ended needs no signal.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Takes away every mount at exactly `at`, dead ones and those in use too. Does nothing when
/// nothing is mounted there.
pub(super) fn unmount_all(at: &Path) {
    // Mounts at one place lie on top of each other, and each call takes the uppermost.
    while detach(at) {}
}

/// Whether a mount was taken away.
fn detach(at: &Path) -> bool {
    match unmount(at, UnmountFlags::DETACH) {
        // Only root may; other users ask the helper that mounted it.
        Err(Errno::PERM) => {
            let mut command = Command::new(crate::wait::require("fusermount3"));
            let done = command.args(["-u", "-z", "--"]).arg(at).output();
            done.is_ok_and(|done| done.status.success())
        }
        result => result.is_ok(),
    }
}
