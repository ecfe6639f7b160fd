//! What tests leave on the machine: nothing, and what is left all the same is named.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use monofs_testkit::Process;
use monofs_testkit::disk::SmallDisk;
use monofs_testkit::wait::{require, wait_until};
use rustix::process::{Pid, test_kill_process};

const LIMIT: Duration = Duration::from_secs(20);
/// The check at the end of the suite.
const CHECK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/leaves-nothing");

/// Runs a shell script below the check; its temporary files are made below `dir`.
fn checked(dir: &Path, script: &str) -> Output {
    let mut command = Command::new(CHECK);
    command.args(["sh", "-c", script]).env("TMPDIR", dir);
    command.stdin(Stdio::null()).output().unwrap()
}

/// What the check names as left, a line each; it has failed because of that.
#[track_caller]
fn named(dir: &Path, script: &str) -> String {
    let out = checked(dir, script);
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{said}");
    // The line above names the command, and so whatever the script names.
    let (above, list) = said.split_once('\n').unwrap();
    assert!(above.starts_with("left behind by: sh"), "{said}");
    list.to_owned()
}

fn is_mount_point(path: &Path) -> bool {
    let path = path.to_str().unwrap();
    std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .any(|line| line.split(' ').nth(4) == Some(path))
}

/// A shell that starts a child, which outlives it, and tells the child's id.
fn parent_of_sleeper() -> (Process, Pid) {
    let script = "sleep 1000 & echo child $!; wait";
    let mut parent = Process::spawn_with(require("sh"), ["-c", script], []);
    let line = parent.wait_line("child", LIMIT);
    let id = line.rsplit(' ').next().unwrap().parse().unwrap();
    (parent, Pid::from_raw(id).unwrap())
}

/// Whether it runs or waits for its end to be noticed.
fn exists(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    test_kill_process(pid).is_ok() && !status.contains("State:\tZ")
}

#[test]
fn a_dropped_process_takes_its_children_with_it() {
    let (parent, child) = parent_of_sleeper();
    assert!(exists(child));
    drop(parent);
    wait_until("the child has ended too", LIMIT, || !exists(child));
}

#[test]
fn a_killed_process_leaves_its_children_as_on_a_real_machine() {
    let (mut parent, child) = parent_of_sleeper();
    parent.kill();
    assert!(exists(child));
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn what_a_process_mounted_is_unmounted_when_it_is_dropped_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mount");
    // Two mounts on top of each other, the upper one in use.
    let lower = SmallDisk::mount(&at, 1 << 20);
    let upper = SmallDisk::mount(&at, 1 << 20);
    let in_use = std::fs::File::create(at.join("file")).unwrap();
    std::mem::forget((lower, upper));
    let process = Process::spawn_with(require("sleep"), ["1000"], []);
    let mut process = process.mounting_at(&at);
    process.restart();
    assert!(is_mount_point(&at));
    drop(process);
    assert!(!is_mount_point(&at));
    drop(in_use);
}

#[test]
fn a_command_that_leaves_nothing_passes_with_its_own_status() {
    let dir = tempfile::tempdir().unwrap();
    let tidy = checked(dir.path(), "d=$(mktemp -d); sleep 0.2 & rmdir \"$d\"");
    assert!(tidy.status.success(), "{tidy:?}");
    let failed = checked(dir.path(), "exit 7");
    assert_eq!(failed.status.code(), Some(7));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_temporary_file_that_is_left_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = named(dir.path(), "touch \"$TMPDIR/forgotten\"");
    assert!(said.contains("/forgotten\n"), "{said}");
}

#[test]
fn a_mount_that_is_left_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = named(
        dir.path(),
        "mkdir \"$TMPDIR/a mount\" && mount -t tmpfs none \"$TMPDIR/a mount\"",
    );
    let line = said.lines().find(|line| line.contains("  mount ")).unwrap();
    let (_, hint) = line.split_once("take it away with ").unwrap();
    let done = Command::new("sh").args(["-c", hint]).status().unwrap();
    assert!(done.success(), "{said}");
}

#[test]
fn a_process_that_is_left_is_named_and_one_of_another_suite_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let _other = Process::spawn_with(require("sleep"), ["1001"], []);
    // Its output would keep this test waiting for it.
    let said = named(dir.path(), "sleep 1002 >/dev/null 2>&1 &");
    assert!(!said.contains("sleep 1001"), "{said}");
    let line = said.lines().find(|line| line.contains("sleep 1002"));
    let (_, rest) = line.unwrap().split_once("process ").unwrap();
    let id = rest.split(':').next().unwrap().parse().unwrap();
    let pid = Pid::from_raw(id).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_network_namespace_that_is_left_is_named_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    // That of a test which runs at the same time.
    let script = format!(
        "ip netns add monofs-{}-check-used; ip netns add monofs-$$-check-left",
        std::process::id()
    );
    let said = named(dir.path(), &script);
    assert!(!said.contains("check-used"), "{said}");
    let line = said.lines().find(|line| line.contains("check-left"));
    let (_, hint) = line.unwrap().split_once("delete it with ").unwrap();
    let used = format!("monofs-{}-check-used", std::process::id());
    for delete in [hint, &format!("ip netns delete {used}")] {
        let done = Command::new("sh").args(["-c", delete]).status().unwrap();
        assert!(done.success(), "{delete}");
    }
}
