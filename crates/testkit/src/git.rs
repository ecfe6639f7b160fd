//! The real git binary in an environment of its own: no system or user settings, fixed identity and
//! dates.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Committer time of the first commit a generator makes; every later one is a minute younger.
pub const EPOCH: i64 = 1_700_000_000;
/// Name and address of every author and committer.
pub const IDENTITY: &str = "Test <test@example.com>";

/// `git` that sees nothing but `dir` (a repository or an empty directory) and its arguments.
pub fn command(dir: &Path) -> Command {
    let mut command = Command::new(crate::wait::require("git"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_"))
    {
        command.env_remove(name);
    }
    // The same identity and date everywhere, so that commits have the same ids in every run.
    let date = format!("{EPOCH} +0000");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("HOME", dir)
        .env("XDG_CONFIG_HOME", dir)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Test")
        .env("GIT_AUTHOR_EMAIL", "test@example.com")
        .env("GIT_COMMITTER_NAME", "Test")
        .env("GIT_COMMITTER_EMAIL", "test@example.com")
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date)
        .env("LC_ALL", "C");
    command
}

/// Runs git and gives its standard output; panics with everything it said when it fails.
pub fn run<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> Vec<u8> {
    feed(dir, args, b"")
}

/// Like [`run`], with `input` on standard input.
pub fn feed<A: AsRef<OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Vec<u8> {
    let mut command = command(dir);
    command.args(args);
    output(&mut command, input)
}

/// Like [`run`], as one line of text.
pub fn line<A: AsRef<OsStr>>(dir: &Path, args: impl IntoIterator<Item = A>) -> String {
    String::from_utf8_lossy(&run(dir, args))
        .trim_end()
        .to_owned()
}

/// Runs a prepared git command; panics with everything it said when it fails.
pub fn output(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let said = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("could not start {said}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let Output {
        status,
        stdout,
        stderr,
    } = std::thread::scope(|scope| {
        // A command that fails early closes its input; what it says about that follows below.
        scope.spawn(move || drop(stdin.write_all(input)));
        child
            .wait_with_output()
            .unwrap_or_else(|error| panic!("could not wait for {said}: {error}"))
    });
    assert!(
        status.success(),
        "{said} failed with {status}: {}",
        String::from_utf8_lossy(&stderr).trim()
    );
    stdout
}
