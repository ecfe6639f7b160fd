//! The process as its supervisor sees it: exit codes, signals, layers of settings, log lines.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "otlp")]
mod otlp;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// The example `role`, which cargo builds next to this test.
fn role() -> Command {
    let deps: PathBuf = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    let path = deps.with_file_name("examples").join("role");
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build --examples -p monofs-launch`",
        path.display()
    );
    let mut command = Command::new(path);
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MONOFS_"))
    {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

fn output(command: &mut Command) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads on until a line holds `word`.
    fn until(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "the log ended before '{word}'");
            if line.contains(word) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    fn end(mut self) -> (i32, String) {
        let mut said = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), said)
    }
}

#[test]
fn a_signal_drains_and_ends_with_zero() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut running = Running::start(&mut role());
        running.until("ready");
        running.signal(signal);
        running.until("drained");
        assert_eq!(running.end(), (0, String::new()));
    }
}

#[test]
fn a_second_signal_ends_a_role_that_hangs_at_once() {
    let mut running = Running::start(role().args(["--deed=hang", "--shutdown-timeout=1h"]));
    running.until("ready");
    running.signal("TERM");
    running.until("draining");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.starts_with("error: ") && said.contains("\nhint: "),
        "{said}"
    );
}

#[test]
fn a_role_that_hangs_is_given_up_after_the_shutdown_timeout() {
    let mut running = Running::start(role().args(["--deed=hang", "--shutdown-timeout=50ms"]));
    running.until("ready");
    running.signal("TERM");
    let (code, said) = running.end();
    assert_eq!(code, 1);
    assert!(
        said.contains("within the shutdown timeout of 50ms"),
        "{said}"
    );
}

#[test]
fn failures_have_their_codes_and_two_lines() {
    let cases = [
        ("refuse", 4, "error: the path is taken\n"),
        ("unreachable", 3, "error: router localhost:1"),
    ];
    for (deed, expected, line) in cases {
        let (code, _, said) = output(role().args(["--deed", deed]));
        assert_eq!(code, expected);
        assert!(said.starts_with(line), "{said}");
        assert!(said.lines().nth(1).unwrap().starts_with("hint: "), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

#[test]
fn wrong_usage_is_code_two_and_help_is_code_zero() {
    let (code, _, said) = output(role().arg("--adr=:1"));
    assert_eq!(code, 2);
    assert!(said.contains("--adr") && said.contains("--help"), "{said}");
    let (code, said, _) = output(role().arg("--help"));
    assert_eq!(code, 0);
    assert!(
        said.starts_with("A role that does as it is told\n"),
        "{said}"
    );
    for part in [
        "[env: MONOFS_ADDR]",
        "[default: :9000]",
        "[default: 10s]",
        "--config",
        "--log-format",
    ] {
        assert!(said.contains(part), "{part} is missing in {said}");
    }
    let (code, said, _) = output(role().arg("--version"));
    assert_eq!(code, 0);
    assert!(
        said.starts_with(&format!("role {} (", env!("CARGO_PKG_VERSION"))),
        "{said}"
    );
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("role.toml");
    std::fs::write(&file, "addr = ':1'\ndeed = 'refuse'\nlog_format = 'json'\n").unwrap();
    let ready = |command: &mut Command| {
        output(command)
            .1
            .lines()
            .find(|line| line.contains("ready"))
            .unwrap()
            .to_owned()
    };
    assert!(ready(role().arg("--config").arg(&file)).contains(r#""addr":":1""#));
    assert!(
        ready(role().env("MONOFS_CONFIG", &file).env("MONOFS_ADDR", ":2"))
            .contains(r#""addr":":2""#)
    );
    assert!(
        ready(role().env("MONOFS_CONFIG", &file).env("MONOFS_ADDR", "")).contains(r#""addr":":1""#)
    );
    let line = ready(
        role()
            .env("MONOFS_CONFIG", &file)
            .env("MONOFS_ADDR", ":2")
            .args(["--addr=:3", "--log-format=text"]),
    );
    assert!(line.contains(":3") && !line.starts_with('{'), "{line}");
}

#[test]
fn wrong_settings_are_named_with_where_they_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("role.toml");
    std::fs::write(&file, "adress = ':1'\n").unwrap();
    let (code, _, said) = output(role().arg("--config").arg(&file));
    assert_eq!(code, 2);
    assert!(
        said.contains("unknown key 'adress'")
            && said.contains("role.toml")
            && said.contains("hint: known keys: addr"),
        "{said}"
    );
    let (code, _, said) = output(role().env("MONOFS_ADDR", "nowhere"));
    assert_eq!(code, 2);
    assert!(said.contains("MONOFS_ADDR"), "{said}");
    let (code, _, said) = output(role().env("RUST_LOG", "role=loud"));
    assert_eq!(code, 2);
    assert!(said.contains("RUST_LOG"), "{said}");
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let mut running = Running::start(role().arg("--log-format=json"));
    running.until("ready");
    running.signal("USR1");
    assert!(running.until("log level changed").contains("debug"));
    running.signal("USR2");
    assert!(running.until("log level restored").contains("info"));
    running.signal("TERM");
    running.until("drained");
    assert_eq!(running.end().0, 0);
}

#[test]
fn a_panic_is_logged_with_version_and_backtrace_and_aborts() {
    let (code, log, said) = output(role().args(["--deed=panic", "--log-format=json"]));
    assert_eq!(code, -1, "ended by SIGABRT");
    let line = log.lines().find(|line| line.contains("a defect")).unwrap();
    assert!(
        line.contains(r#""version":""#) && line.contains(r#""backtrace":""#),
        "{line}"
    );
    assert!(
        said.contains("error: role") && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn every_binary_writes_its_manual_page_and_its_completions() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man8");
    let (code, _, said) = output(role().arg("--generate-man").arg(&pages));
    assert_eq!(code, 0, "{said}");
    let page = std::fs::read_to_string(pages.join("role.8")).unwrap();
    for part in [
        ".TH role 8",
        "A role that does as it is told",
        "shutdown",
        "MONOFS_ADDR",
    ] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    let (code, completions, _) = output(role().args(["--generate-completions", "bash"]));
    assert!(
        code == 0 && completions.contains("--shutdown-timeout"),
        "{completions}"
    );
    let (code, _, said) = output(role().args(["--generate-completions", "tcsh"]));
    assert!(
        code == 2 && said.contains("tcsh") && said.contains("hint: "),
        "{said}"
    );
}

#[cfg(not(feature = "otlp"))]
#[test]
fn a_build_that_cannot_export_spans_says_how_to_make_one_that_can() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("role.toml");
    std::fs::write(&file, "otlp_endpoint = 'http://localhost:4317'\n").unwrap();
    let (flag, variable) = (
        "--otlp-endpoint=http://localhost:4317",
        "MONOFS_OTLP_ENDPOINT",
    );
    for command in [
        role().arg(flag),
        role().env(variable, "http://localhost:4317"),
        role().arg("--config").arg(&file),
    ] {
        let (code, _, said) = output(command);
        assert_eq!(code, 2, "{said}");
        assert!(
            said.contains("cargo build --release --features otlp"),
            "{said}"
        );
    }
    assert!(
        output(role().arg("--help")).1.contains("--otlp-endpoint"),
        "every build has the flag"
    );
}
