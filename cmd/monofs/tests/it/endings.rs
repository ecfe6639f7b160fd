//! Whatever ends a run, and whatever becomes of its output: nothing is left of it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use monofs_testkit::process::binary;
use monofs_testkit::{Repo, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::room::{LAST_LINE, Room, SOON, demo, is_mounted, repo_flag};

/// A run whose output the test reads itself.
struct ReadRun {
    child: Child,
    /// `None` once it is closed.
    lines: Option<BufReader<ChildStdout>>,
}

impl ReadRun {
    fn start(room: &Room, repo: &Repo) -> Self {
        let mut child = Command::new(binary("monofs"))
            .args(["up", "--nodes=1", "--temporary"])
            .args([room.mount_flag(), repo_flag(repo)])
            .envs(room.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start monofs");
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines }
    }

    /// Reads up to the line that begins like this.
    #[track_caller]
    fn read_to(&mut self, start: &str) {
        let lines = self.lines.as_mut().expect("it is not closed yet");
        let mut line = String::new();
        while !line.starts_with(start) {
            line.clear();
            let read = lines.read_line(&mut line).expect("lines of UTF-8");
            assert!(read > 0, "it ended before it said {start}");
        }
    }

    /// Closes both outputs, as `head` closes one when it has seen enough.
    fn close_outputs(&mut self) {
        self.lines = None;
        self.child.stderr = None;
    }

    #[track_caller]
    fn end_with(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        self.child.wait().expect("it ends")
    }
}

impl Drop for ReadRun {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_closed_output_does_not_end_a_run() {
    let room = Room::new();
    let repo = demo();
    let mut run = ReadRun::start(&room, &repo);
    run.read_to("cluster: ");
    run.close_outputs();
    let shown = room.path("mount").join("local/repo/README.md");
    wait_until("the repository is mounted", SOON, || shown.exists());
    let status = run.end_with(Signal::TERM);
    assert!(status.success(), "{status}");
    room.assert_nothing_left();
}

#[test]
fn every_signal_to_stop_leaves_nothing_and_the_mount_goes_first() {
    let room = Room::new();
    let repo = demo();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        let mut run = ReadRun::start(&room, &repo);
        run.read_to(LAST_LINE);
        assert!(is_mounted(&room.path("mount")));
        kill_process(Pid::from_child(&run.child), signal).expect("it runs");
        run.read_to("stopping");
        assert!(!is_mounted(&room.path("mount")), "{signal:?}");
        assert!(run.child.wait().expect("it ends").success(), "{signal:?}");
        room.assert_nothing_left();
        assert!(!room.path("mount").exists(), "the mount point that it made");
    }
}

#[test]
fn a_signal_in_the_middle_of_the_start_leaves_nothing() {
    let room = Room::new();
    let repo = demo();
    let mut run = ReadRun::start(&room, &repo);
    run.read_to("cluster: ");
    let status = run.end_with(Signal::INT);
    assert!(status.success(), "{status}");
    room.assert_nothing_left();
}

#[test]
fn the_next_start_clears_what_a_killed_run_left() {
    let room = Room::new();
    let repo = demo();
    let mut first = room.serving(&[&repo]);
    let left = room.names("tmp");
    assert_eq!(left.len(), 1, "{left:?}");
    first.kill();
    let mount = room.path("mount");
    assert!(is_mounted(&mount), "a killed process cannot unmount");
    assert!(rustix::fs::statvfs(&mount).is_err(), "the mount is dead");

    let mut second = room.serving(&[&repo]);
    let log = second.log().join("\n");
    for what in ["cleared the mount", "cleared the temporary directory"] {
        assert!(log.contains(what), "{log}");
    }
    assert!(!room.names("tmp").contains(&left[0]));
    assert!(mount.join("local/repo/README.md").exists());
    assert!(second.terminate(SOON).success());
    room.assert_nothing_left();
}

#[test]
fn a_run_that_goes_on_is_left_alone_by_the_next() {
    let room = Room::new();
    let repo = demo();
    let mut first = room.serving(&[&repo]);
    let mut second = room.up(["--temporary".to_owned(), repo_flag(&repo)]);
    second.wait_line(LAST_LINE, SOON);
    assert!(second.terminate(SOON).success());
    assert!(room.path("mount").join("local/repo/README.md").exists());
    assert!(first.terminate(SOON).success());
    room.assert_nothing_left();
}

#[test]
fn down_clears_what_a_killed_run_left() {
    let room = Room::new();
    let repo = demo();
    let mut first = room.serving(&[&repo]);
    first.kill();
    let ended = room.run(["down"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("cleared the mount"), "{ended:?}");
    room.assert_nothing_left();
}

#[test]
fn a_mount_that_is_taken_away_does_not_end_the_rest() {
    let room = Room::new();
    let repo = demo();
    let mut run = room.serving(&[&repo]);
    rustix::mount::unmount(room.path("mount"), rustix::mount::UnmountFlags::empty())
        .expect("root may unmount");
    run.wait_line("the mount was taken away", SOON);
    assert!(room.run(["status"]).stdout.contains("serves: 1 repository"));
    assert!(run.terminate(SOON).success());
    room.assert_nothing_left();
}
