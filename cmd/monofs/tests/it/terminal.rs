//! A run on a terminal of its own, made by `script` (util-linux): what is left in sight at the end,
//! and what becomes of the run when the terminal is closed.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use monofs_testkit::process::binary;
use monofs_testkit::{require, wait_until};
use parking_lot::Mutex;

use crate::room::{LAST_LINE, Room, SOON, demo, is_mounted, repo_flag};

/// A terminal on which a run shows its lines.
struct Terminal {
    script: Child,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    #[track_caller]
    fn start(room: &Room, args: &[String]) -> Self {
        let words: Vec<String> = args.iter().map(|word| format!("'{word}'")).collect();
        let program = binary("monofs");
        let command = format!(
            "exec '{}' up --nodes=1 {}",
            program.display(),
            words.join(" ")
        );
        let mut script = Command::new(require("script"))
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--command",
                &command,
                "/dev/null",
            ])
            .envs(room.variables())
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start script");
        let mut shown = script.stdout.take().expect("stdout is piped");
        let text = Arc::new(Mutex::new(Vec::new()));
        let filled = Arc::clone(&text);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut piece) {
                filled.lock().extend_from_slice(&piece[..read]);
            }
        });
        Self { script, text }
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.text.lock()).into_owned();
        text.lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[track_caller]
    fn wait_line(&self, start: &str) {
        wait_until(&format!("the terminal shows {start}"), SOON, || {
            self.lines().iter().any(|line| line.starts_with(start))
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its terminal goes with it.
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn a_terminal_that_is_closed_takes_the_mount_and_the_files_with_it() {
    let room = Room::new();
    let repo = demo();
    let args = [
        "--temporary".to_owned(),
        room.mount_flag(),
        repo_flag(&repo),
    ];
    let terminal = Terminal::start(&room, &args);
    terminal.wait_line(LAST_LINE);
    assert!(is_mounted(&room.path("mount")));
    drop(terminal);
    wait_until("the run has ended", SOON, || room.names("run").is_empty());
    room.assert_nothing_left();
}

#[test]
fn the_addresses_are_the_last_of_five_lines() {
    let room = Room::new();
    let repo = demo();
    let args = [
        "--temporary".to_owned(),
        room.mount_flag(),
        repo_flag(&repo),
    ];
    let terminal = Terminal::start(&room, &args);
    terminal.wait_line(LAST_LINE);
    let lines = terminal.lines();
    let last = &lines[lines.len() - 5..];
    let looked_at = room.path("mount").join("local/repo");
    let starts = [
        "serving 1 repository".to_owned(),
        format!("mounted: ls {}", looked_at.display()),
        "Ctrl-C ends it, or `monofs down`".to_owned(),
        "router: 127.0.0.1:".to_owned(),
        LAST_LINE.to_owned(),
    ];
    for (line, start) in last.iter().zip(&starts) {
        assert!(
            line.starts_with(start),
            "{start} is not the start of {line}: {lines:?}"
        );
    }
    // All of it fits on one screen.
    assert!(lines.len() < 10, "{lines:?}");
}

#[test]
fn a_run_without_a_mount_says_so_at_the_end() {
    let room = Room::new();
    let repo = demo();
    let args = [
        format!("--dir={}", room.path("data").display()),
        "--port=0".to_owned(),
        "--http-port=0".to_owned(),
        repo_flag(&repo),
    ];
    let terminal = Terminal::start(&room, &args);
    terminal.wait_line(LAST_LINE);
    let lines = terminal.lines();
    let line = &lines[lines.len() - 4];
    assert!(line.starts_with("nothing is mounted"), "{lines:?}");
    assert!(line.contains("add --mount DIRECTORY"), "{lines:?}");
    assert!(lines.len() < 10, "no listing: {lines:?}");
    drop(terminal);
    wait_until("the run has ended", SOON, || room.names("run").is_empty());
}
