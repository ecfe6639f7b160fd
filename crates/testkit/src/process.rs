//! Built binaries as child processes: start, read the log, kill -9, start again.
//!
//! Invariant: a dropped [`Process`] leaves nothing on the machine: it is killed with what it
//! started, and what it mounted is unmounted.

mod remains;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{wait_for, wait_until};

/// Log lines kept for [`Process::log`]; older ones are dropped.
const LOG_LINES_MAX: usize = 20_000;

/// The path of one of the workspace's binaries: in `MONOFS_BIN_DIR`, else next to the running test.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("MONOFS_BIN_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            let exe = std::env::current_exe().expect("the test's own path");
            let dir = exe.parent().expect("a file has a directory").to_owned();
            if dir.ends_with("deps") {
                dir.parent()
                    .expect("deps lies in the target directory")
                    .to_owned()
            } else {
                dir
            }
        });
    // Built by the same command as the tests, or by the caller.
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is missing: build the binaries first (`cargo build --workspace --bins`)",
        path.display()
    );
    path
}

/// A running binary. When it is dropped it is killed, with the processes that it started, and what
/// it mounted is unmounted.
pub struct Process {
    /// What starts the program; empty: the test itself.
    entry: Vec<OsString>,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Where it mounts, if it does.
    mount_point: Option<PathBuf>,
}

impl Process {
    /// Starts one of the workspace's binaries. Variables `MONOFS_*` and `RUST_LOG` of the test do
    /// not reach it.
    #[track_caller]
    pub fn spawn<A: Into<OsString>>(name: &str, args: impl IntoIterator<Item = A>) -> Self {
        Self::spawn_with(binary(name), args, [])
    }

    /// Starts any program with variables of its own.
    #[track_caller]
    pub fn spawn_with<A: Into<OsString>>(
        program: PathBuf,
        args: impl IntoIterator<Item = A>,
        envs: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        Self::spawn_through(Vec::new(), program, args, envs)
    }

    /// Like [`Process::spawn_with`], through a command that sets something up and then becomes the
    /// program (`nsenter`).
    #[track_caller]
    pub(crate) fn spawn_through<A: Into<OsString>>(
        entry: Vec<OsString>,
        program: PathBuf,
        args: impl IntoIterator<Item = A>,
        envs: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let envs: Vec<(OsString, OsString)> = envs.into_iter().collect();
        let log = Arc::default();
        let child = start(&entry, &program, &args, &envs, &log);
        Self {
            entry,
            program,
            args,
            envs,
            child,
            log,
            mount_point: None,
        }
    }

    /// Says where the process mounts. A killed client leaves a dead mount, which is taken away when
    /// this value is dropped; between a kill and a restart it stays, as it would on a real machine.
    pub fn mounting_at(mut self, mount_point: &Path) -> Self {
        self.mount_point = Some(mount_point.to_owned());
        self
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Everything it wrote to standard output and error, oldest first, across restarts.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().iter().cloned().collect()
    }

    /// Forgets what it wrote so far.
    pub fn clear_log(&self) {
        self.log.lock().clear();
    }

    /// Waits until a line of its log holds `word` and gives the line; panics with the log when the
    /// process ends first or the time is over.
    #[track_caller]
    pub fn wait_line(&mut self, word: &str, limit: Duration) -> String {
        self.line_or_end(word, limit).unwrap_or_else(|status| {
            panic!(
                "{} ended with {status} before it said '{word}':\n{}",
                self.program.display(),
                self.log().join("\n")
            )
        })
    }

    /// Like [`Process::wait_line`], but an end of the process that comes first is given as the
    /// error.
    #[track_caller]
    pub fn line_or_end(&mut self, word: &str, limit: Duration) -> Result<String, ExitStatus> {
        let what = format!("{} says '{word}'", self.program.display());
        wait_for(&what, limit, || {
            let ended = self.child.try_wait().ok().flatten();
            let found = self.log().into_iter().find(|line| line.contains(word));
            found.map(Ok).or(ended.map(Err))
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// kill -9 to this process alone, and waits until it is gone.
    pub fn kill(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // A process that has ended needs no signal.
        let _ = kill_process(self.pid(), signal);
    }

    /// SIGTERM, and its status when it has ended; panics with the log when it does not within
    /// `limit`.
    #[track_caller]
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Its status when it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait_until(&format!("{} ends", self.program.display()), limit, || {
            !self.is_running()
        });
        self.child.wait().expect("an ended child has a status")
    }

    /// Starts it again with the same arguments (killing it if it still runs).
    pub fn restart(&mut self) {
        self.kill();
        self.child = start(
            &self.entry,
            &self.program,
            &self.args,
            &self.envs,
            &self.log,
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The children are looked for while their parent runs: the id of one that has ended may
        // belong to another process by now.
        let children = match self.is_running() {
            true => remains::descendants(self.pid()),
            false => Vec::new(),
        };
        self.kill();
        remains::kill_all(&children);
        if let Some(mount_point) = &self.mount_point {
            remains::unmount_all(mount_point);
        }
        if std::thread::panicking() {
            eprintln!(
                "--- log of {}:\n{}",
                self.program.display(),
                self.log().join("\n")
            );
        }
    }
}

/// Starts a program with a clean environment; its output goes to `log`.
#[track_caller]
fn start(
    entry: &[OsString],
    program: &PathBuf,
    args: &[OsString],
    envs: &[(OsString, OsString)],
    log: &Arc<Mutex<VecDeque<String>>>,
) -> Child {
    // Settings of the test's own environment must not reach it.
    let mut command = match entry {
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
        [] => Command::new(program),
    };
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MONOFS_"))
    {
        command.env_remove(name);
    }
    command
        .env_remove("RUST_LOG")
        .env("NO_COLOR", "1")
        .args(args)
        .envs(envs.iter().cloned());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Its output is read from the start, or it would wait with a full pipe.
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("could not start {}: {error}", program.display()));
    follow(
        child.stdout.take().expect("stdout is piped"),
        Arc::clone(log),
    );
    follow(
        child.stderr.take().expect("stderr is piped"),
        Arc::clone(log),
    );
    child
}

/// Copies lines into the log until the writer is gone.
fn follow(source: impl Read + Send + 'static, log: Arc<Mutex<VecDeque<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock();
            log.push_back(String::from_utf8_lossy(&line).into_owned());
            if log.len() > LOG_LINES_MAX {
                log.pop_front();
            }
        }
    });
}
