//! Child processes that talk Git: `ssh`, `git upload-pack` and the `git` command line.
//!
//! Invariants: a child runs in its own process group and dies with its [`GitChild`]; it reads no
//! configuration of the user or the system, runs no hooks, never asks for input, and is killed when
//! it neither takes nor gives a byte for the idle timeout or its task is cancelled.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use monofs_model::{Error, Result};
use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process_group};

use super::layout;
use crate::source::FetchTask;

/// Most bytes of a child's error output that are kept: the last ones.
const STDERR_BYTES_MAX: usize = 16 << 10;
/// How often the directory that a child writes to is measured.
const MEASURE_PERIOD: Duration = Duration::from_secs(1);
/// How often a waiting child is looked at: bounds how late a cancelled task stops.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// Settings that keep `git` from running or reading anything that we did not choose.
pub const GIT_SAFETY: [&str; 12] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "protocol.ext.allow=never",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "safe.directory=*",
    "-c",
    "gc.auto=0",
    "-c",
    "maintenance.auto=false",
];

/// A command whose environment holds nothing of the user's Git configuration.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("GIT_")) {
            command.env_remove(name);
        }
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS", "/bin/false")
        .env("GIT_PROTOCOL_FROM_USER", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C");
    command
}

/// `git` with [`GIT_SAFETY`] in front of whatever follows.
pub fn git() -> Command {
    let mut command = command("git");
    command.args(GIT_SAFETY);
    command
}

/// What the threads around one child share.
struct ChildState {
    group: Pid,
    began: Instant,
    /// Milliseconds after `began` at which a byte last moved.
    moved_at: AtomicU64,
    timed_out: AtomicBool,
    ended: Mutex<bool>,
    wake: Condvar,
}

impl ChildState {
    fn touch(&self) {
        self.moved_at
            .store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn kill(&self) {
        // It may be gone already: that is what we want.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// A running child.
pub struct GitChild {
    inner: std::process::Child,
    shared: Arc<ChildState>,
    stderr: Option<JoinHandle<String>>,
    watch: Option<JoinHandle<()>>,
}

impl GitChild {
    /// Starts `command`. `on_line` sees each line of the error output (also those that end in a
    /// carriage return).
    pub fn spawn(
        command: Command,
        task: &Arc<FetchTask>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        Self::spawn_into(command, task, None, on_line)
    }

    /// [`GitChild::spawn`] of a child that writes what it receives to the directory `into`: it may
    /// grow by what its task may receive, and its growth counts as a sign of life.
    pub fn spawn_into(
        mut command: Command,
        task: &Arc<FetchTask>,
        into: Option<PathBuf>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        // The child leads a process group, so that all it starts can be killed with it.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut inner = command.spawn().map_err(|e| {
            Error::internal(format!(
                "cannot run '{program}': {e}; install it, or add its directory to PATH"
            ))
        })?;
        let shared = Arc::new(ChildState {
            group: Pid::from_child(&inner),
            began: Instant::now(),
            moved_at: AtomicU64::new(0),
            timed_out: AtomicBool::new(false),
            ended: Mutex::new(false),
            wake: Condvar::new(),
        });
        // One thread takes its error output, another one watches the time.
        let stderr = inner.stderr.take().map(|pipe| {
            let shared = shared.clone();
            std::thread::spawn(move || drain_stderr(pipe, &shared, on_line))
        });
        let watch = Some(std::thread::spawn({
            let shared = shared.clone();
            let task = task.clone();
            move || watch(&shared, &task, into.as_deref())
        }));
        Ok(Self {
            inner,
            shared,
            stderr,
            watch,
        })
    }

    /// Both ends of the child's pipes.
    pub fn take_pipes(&mut self) -> (ChildReader, ChildWriter) {
        let stdout = self
            .inner
            .stdout
            .take()
            .expect("asked for once, and piped at spawn");
        let stdin = self
            .inner
            .stdin
            .take()
            .expect("asked for once, and piped at spawn");
        (
            ChildReader {
                pipe: stdout,
                shared: self.shared.clone(),
            },
            ChildWriter {
                pipe: stdin,
                shared: self.shared.clone(),
            },
        )
    }

    /// Waits for the end and returns how it ended, and the last of the error output.
    pub fn finish(mut self) -> Result<(ExitStatus, String)> {
        drop(self.inner.stdin.take());
        let status = self
            .inner
            .wait()
            .map_err(|e| Error::internal(format!("wait for a child process: {e}")))?;
        Ok((status, self.reap()))
    }

    /// Kills whatever is left and returns the last of the error output.
    pub fn abort(mut self) -> String {
        self.shared.kill();
        let _ = self.inner.wait();
        self.reap()
    }

    /// Whether it was killed for being silent too long.
    pub fn timed_out(&self) -> bool {
        self.shared.timed_out.load(Ordering::Relaxed)
    }

    /// Ends the threads around a child that was waited for.
    fn reap(&mut self) -> String {
        *self.shared.ended.lock() = true;
        self.shared.wake.notify_all();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
        self.stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for GitChild {
    fn drop(&mut self) {
        if self.watch.is_some() {
            self.shared.kill();
            let _ = self.inner.wait();
            self.reap();
        }
    }
}

fn watch(shared: &ChildState, task: &FetchTask, into: Option<&Path>) {
    let before = into.map_or(0, layout::disk_bytes);
    let mut seen = before;
    let mut measured = Instant::now();
    let mut ended = shared.ended.lock();
    while !*ended {
        // Data that arrives moves the child on, too, even when it says nothing. Measuring a
        // directory costs a walk over it, so that is done less often.
        if let Some(into) = into
            && measured.elapsed() >= MEASURE_PERIOD
        {
            measured = Instant::now();
            let bytes = layout::disk_bytes(into);
            if bytes != seen {
                shared.touch();
            }
            seen = bytes;
            task.bound_bytes(bytes.saturating_sub(before));
        }

        // The child ends early for one of three reasons: too many bytes, too long a silence, or a
        // cancelled fetch. Only the silence is noted here; the task knows the other two.
        if task.over_limit() {
            shared.kill();
            return;
        }
        let idle = shared.began.elapsed().saturating_sub(Duration::from_millis(
            shared.moved_at.load(Ordering::Relaxed),
        ));
        let silent = idle > task.limits.idle_timeout;
        if silent || task.check().is_err() {
            shared.timed_out.store(silent, Ordering::Relaxed);
            shared.kill();
            return;
        }
        shared.wake.wait_for(&mut ended, WATCH_PERIOD);
    }
}

fn drain_stderr(mut pipe: impl Read, shared: &ChildState, mut on_line: impl FnMut(&str)) -> String {
    let mut tail = VecDeque::with_capacity(STDERR_BYTES_MAX);
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer) {
        shared.touch();
        for &byte in &buffer[..count] {
            if byte == b'\n' || byte == b'\r' {
                on_line(&String::from_utf8_lossy(&line));
                line.clear();
            } else if line.len() < STDERR_BYTES_MAX {
                line.push(byte);
            }
            if tail.len() == STDERR_BYTES_MAX {
                tail.pop_front();
            }
            tail.push_back(byte);
        }
    }
    String::from_utf8_lossy(tail.make_contiguous()).into_owned()
}

/// What the child writes.
pub struct ChildReader {
    pipe: ChildStdout,
    shared: Arc<ChildState>,
}

impl Read for ChildReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(buffer)?;
        self.shared.touch();
        if count == 0 && self.shared.timed_out.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the remote was silent for too long",
            ));
        }
        Ok(count)
    }
}

/// What the child reads.
pub struct ChildWriter {
    pipe: ChildStdin,
    shared: Arc<ChildState>,
}

impl Write for ChildWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.pipe.write(buffer)?;
        self.shared.touch();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::source::FetchLimits;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = command("sh");
        shell.args(["-c", script]);
        shell
    }

    fn task(idle_timeout: Duration) -> Arc<FetchTask> {
        FetchTask::new(FetchLimits {
            idle_timeout,
            ..FetchLimits::default()
        })
    }

    fn output(command: Command, task: &Arc<FetchTask>) -> (String, ExitStatus, String) {
        let mut child = GitChild::spawn(command, task, |_| {}).unwrap();
        let (mut reader, writer) = child.take_pipes();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (status, said) = child.finish().unwrap();
        (text, status, said)
    }

    #[test]
    fn a_child_sees_no_configuration_of_the_user() {
        let task = task(Duration::from_secs(60));
        let (variables, status, _) = output(shell("env"), &task);
        assert!(status.success());
        let set = |line: &str| variables.lines().any(|one| one == line);
        assert!(set("GIT_CONFIG_NOSYSTEM=1") && set("GIT_CONFIG_GLOBAL=/dev/null"));
        assert!(set("GIT_TERMINAL_PROMPT=0") && set("LC_ALL=C"));

        let mut config = git();
        config.args(["config", "--list"]);
        let (settings, ..) = output(config, &task);
        let safe = |line: &str| settings.lines().any(|one| one == line);
        assert!(safe("core.hookspath=/dev/null") && safe("protocol.ext.allow=never"));
        assert!(!settings.contains("user.name="), "{settings}");
    }

    #[test]
    fn its_last_words_are_kept_and_lines_are_seen_as_they_come() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = lines.clone();
        let script = "printf 'one\\rtwo\\nthree\\n' >&2; yes x | head -c 100000 >&2; echo last >&2";
        let mut child = GitChild::spawn(shell(script), &task(Duration::from_secs(60)), {
            move |line| seen.lock().push(line.to_owned())
        })
        .unwrap();
        drop(child.take_pipes());
        let (status, said) = child.finish().unwrap();
        assert!(status.success());
        assert_eq!(lines.lock()[..3], ["one", "two", "three"]);
        assert_eq!(said.len(), STDERR_BYTES_MAX);
        assert!(said.ends_with("last\n"));
    }

    #[test]
    fn a_child_that_is_silent_too_long_is_killed_with_all_that_it_started() {
        let mut child = GitChild::spawn(
            shell("sleep 1000 & sleep 1000"),
            &task(Duration::from_millis(200)),
            |_| {},
        )
        .unwrap();
        let (mut reader, _writer) = child.take_pipes();
        let error = reader.read_to_string(&mut String::new()).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::TimedOut,
            "the pipe ends only when both processes are gone"
        );
        assert!(child.timed_out());
        let (status, _) = child.finish().unwrap();
        assert!(!status.success());
    }

    #[test]
    fn a_cancelled_task_stops_its_child_without_calling_it_silent() {
        let task = task(Duration::from_secs(60));
        let mut child = GitChild::spawn(shell("sleep 1000"), &task, |_| {}).unwrap();
        let (mut reader, _writer) = child.take_pipes();
        task.cancel();
        assert_eq!(reader.read(&mut [0; 16]).unwrap(), 0);
        assert!(!child.timed_out());
        assert!(!child.finish().unwrap().0.success());
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let mut child =
            GitChild::spawn(shell("sleep 1000"), &task(Duration::from_secs(60)), |_| {}).unwrap();
        let (mut reader, _writer) = child.take_pipes();
        drop(child);
        assert_eq!(reader.read(&mut [0; 16]).unwrap(), 0);
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_what_to_do() {
        let missing = command("no-such-program");
        let error = match GitChild::spawn(missing, &task(Duration::from_secs(60)), |_| {}) {
            Ok(_) => panic!("there is no such program"),
            Err(error) => error,
        };
        assert!(error.message.contains("'no-such-program'"), "{error}");
        assert!(error.message.contains("install it"), "{error}");
    }
}
