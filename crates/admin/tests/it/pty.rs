//! The binary on a terminal of its own, made by `script` (util-linux).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use monofs_testkit::process::binary;
use monofs_testkit::wait::wait_for;
use monofs_testkit::wait_until;
use parking_lot::Mutex;

/// How long anything on the terminal may take.
pub const SOON: Duration = Duration::from_secs(20);
/// How often the screen is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A run of the binary on a terminal of 24 lines and 80 columns.
pub struct Pty {
    child: Child,
    keys: Option<ChildStdin>,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Pty {
    /// Starts the binary; `settings` are words for `env`, such as `NO_COLOR=1`. At the end the
    /// terminal says `code=` and, if its settings are what they were, `restored`.
    pub fn start(settings: &[&str], args: &[&str]) -> Self {
        let program = binary("monofs-admin");
        let program = program.to_str().expect("the target directory is UTF-8");
        let words: Vec<String> = [settings, &[program], args]
            .concat()
            .iter()
            .map(quoted)
            .collect();
        let script = format!(
            "stty rows 24 cols 80; before=$(stty -g); \
             sh -c 'echo \"pid=$$ tty=$(tty);\"; exec env -u NO_COLOR -u CLICOLOR_FORCE \
              TERM=xterm-256color \"$@\"' sh {}; \
             echo \"code=$?;\"; test \"$before\" = \"$(stty -g)\" && echo 'restored;'",
            words.join(" ")
        );
        let mut child = Command::new(monofs_testkit::require("script"))
            .args([
                "--quiet",
                "--flush",
                "--return",
                "--command",
                &script,
                "/dev/null",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        let filled = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = stdout.read(&mut piece) {
                filled.lock().extend_from_slice(&piece[..read]);
            }
        });
        let keys = child.stdin.take();
        Self {
            child,
            keys,
            output,
            reader: Some(reader),
        }
    }

    /// Everything that was written to the terminal so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock()).into_owned()
    }

    /// Waits until the terminal was told this; all that it was told.
    #[track_caller]
    pub fn until(&self, part: &str) -> String {
        wait_until(
            &format!("the terminal says {part:?}: {:?}", self.text()),
            SOON,
            || self.text().contains(part),
        );
        self.text()
    }

    /// What stands behind `name=` up to a semicolon or blank.
    #[track_caller]
    fn told(&self, name: &str) -> String {
        wait_for(&format!("the terminal says {name}"), SOON, || {
            let text = self.text();
            let (_, rest) = text.split_once(&format!("{name}="))?;
            rest.find([';', ' ']).map(|end| rest[..end].to_owned())
        })
    }

    /// What the terminal shows, line by line.
    pub fn screen(&self) -> String {
        shown(&self.text())
    }

    /// Waits until the screen shows this.
    #[track_caller]
    pub fn shows(&self, part: &str) {
        let start = Instant::now();
        while !self.screen().contains(part) {
            assert!(
                start.elapsed() < SOON,
                "the screen does not show {part:?}:\n{}",
                self.screen()
            );
            std::thread::sleep(POLL);
        }
    }

    /// Types keys.
    pub fn press(&mut self, keys: &str) {
        let stdin = self.keys.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Sends a signal to the binary.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args(["-s", name, &self.told("pid")])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Where the system tells about the binary while it runs.
    pub fn process(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.told("pid")))
    }

    /// Gives the terminal another size, as a window manager does.
    pub fn resize(&self, lines: u16, columns: u16) {
        let (lines, columns) = (lines.to_string(), columns.to_string());
        let done = Command::new("stty")
            .args(["-F", &self.told("tty"), "rows", &lines, "cols", &columns])
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Waits for its end: the exit code, whether the terminal is as it was, and all that it was
    /// told.
    #[track_caller]
    pub fn ended(mut self) -> (i32, bool, String) {
        let code = self.told("code").parse().unwrap();
        // `script` ends with what it runs, which ends with its last echo.
        drop(self.keys.take());
        self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let text = self.text();
        (code, text.contains("restored;"), text)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal shows that was told this. Knows what `top` uses: cursor addresses, line ends,
/// clearing.
fn shown(text: &str) -> String {
    let mut cells: BTreeMap<(usize, usize), char> = BTreeMap::new();
    let (mut row, mut column) = (1, 1);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\r' => column = 1,
            '\n' => row += 1,
            '\u{1b}' if chars.next() == Some('[') => {
                let mut codes = String::new();
                let end = chars.by_ref().find(|c| {
                    codes.push(*c);
                    c.is_ascii_alphabetic()
                });
                match end {
                    Some('H') => {
                        let mut numbers = codes
                            .trim_end_matches('H')
                            .split(';')
                            .map(|n| n.parse().unwrap_or(1));
                        (row, column) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
                    }
                    Some('J') => cells.clear(),
                    _ => {}
                }
            }
            c => {
                cells.insert((row, column), c);
                column += 1;
            }
        }
    }
    let mut lines = String::new();
    let (mut row, mut column) = (1, 1);
    for ((r, c), cell) in cells {
        while row < r {
            lines.push('\n');
            (row, column) = (row + 1, 1);
        }
        while column < c {
            lines.push(' ');
            column += 1;
        }
        lines.push(cell);
        column += 1;
    }
    lines
}

fn quoted(word: &&str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
