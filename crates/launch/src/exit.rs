//! How a process ends: the exit codes, and the `error:` and `hint:` lines. The only place that maps
//! an error kind to a code.
//!
//! A tool that knows better than the kind which code or hint fits returns a [`Failure`]; everything
//! else is mapped by looking for a `monofs_model::Error` or an `std::io::Error` in the chain.

use std::fmt;
use std::io::{ErrorKind as IoKind, IsTerminal, Write};
use std::process::ExitCode;

use monofs_model::{Error, ErrorKind};

use crate::colour;

/// The exit codes of every binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Done = 0,
    Failed = 1,
    /// The command line, the settings or another input is wrong.
    Usage = 2,
    /// No router, or what it needs, could be reached.
    Unreachable = 3,
    /// The state of the cluster or missing rights forbid it.
    Refused = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// The code for a kind of error.
pub const fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::Usage,
        ErrorKind::Unavailable => Code::Unreachable,
        ErrorKind::Refused => Code::Refused,
        ErrorKind::NotFound
        | ErrorKind::NotHeld
        | ErrorKind::Corrupt
        | ErrorKind::Full
        | ErrorKind::Internal => Code::Failed,
    }
}

/// What to do about a kind of error when the error itself does not say.
pub const fn hint_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "check the spelling of the name; it does not exist there",
        ErrorKind::NotHeld => "ask another replica, or wait until this one has caught up",
        ErrorKind::Invalid => {
            "correct the value that the message names and try again; --help shows what is accepted"
        }
        ErrorKind::Refused => "change first what the message says is in the way, then try again",
        ErrorKind::Unavailable => {
            "check the address and that the other side is running, then try again"
        }
        ErrorKind::Corrupt => {
            "the stored bytes are damaged: `monofs-admin verify` shows what is, and how a copy is \
             made again"
        }
        ErrorKind::Full => "make room on the disk, or raise the bound that the message names",
        ErrorKind::Internal => {
            "this is a defect; please report it together with the log and the output of --version"
        }
    }
}

/// An error that knows its exit code and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint of its own.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same, saying what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What a process says when it fails: exit code, error line and hint line.
pub fn describe(error: &anyhow::Error) -> Failure {
    let message = one_line(&format!("{error:#}"));
    // An error that knows its own code and hint.
    if let Some(failure) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>())
    {
        let hint = failure
            .hint
            .clone()
            .unwrap_or_else(|| "try again, or see --help".to_owned());
        return Failure {
            code: failure.code,
            message,
            hint: Some(one_line(&hint)),
        };
    }
    // An error of the model: its kind decides.
    if let Some(kind) = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Error>())
        .map(|error| error.kind)
    {
        return Failure {
            code: code_of(kind),
            message,
            hint: Some(hint_of(kind).to_owned()),
        };
    }
    // An error of the operating system has a hint only where one is known.
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let hint = match io.map(std::io::Error::kind) {
        Some(IoKind::AddrInUse) => {
            "another process listens on that address; stop it or choose another port"
        }
        Some(IoKind::AddrNotAvailable) => {
            "this machine has no such address; give one of its own, or only `:port`"
        }
        Some(IoKind::PermissionDenied) => {
            "run it as a user with the right to do that, or choose another path or port"
        }
        Some(IoKind::NotFound) => "check that the path exists and is spelt right",
        Some(IoKind::StorageFull) => hint_of(ErrorKind::Full),
        _ => "see the log above; RUST_LOG=debug says more",
    };
    Failure {
        code: Code::Failed,
        message,
        hint: Some(hint.to_owned()),
    }
}

/// Prints the two lines and gives the code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let failure = describe(error);
    let mut stderr = std::io::stderr().lock();
    let (red, bold, plain) = if colour::wanted(&stderr) {
        ("\x1b[1;31m", "\x1b[1m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    // Standard error may be closed; the exit code still says how it ended.
    let _ = writeln!(stderr, "{red}error:{plain} {}", failure.message);
    if let Some(hint) = &failure.hint {
        let _ = writeln!(stderr, "{bold}hint:{plain} {hint}");
    }
    failure.code.into()
}

/// Prints a message of the command line parser (or the help or version text) and gives the code.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        print(std::io::stderr().lock(), error);
        Code::Usage.into()
    } else {
        print(std::io::stdout().lock(), error);
        Code::Done.into()
    }
}

/// Writes a message of the parser. Not by clap itself: it would also colour what is not a terminal
/// when CLICOLOR_FORCE is set.
fn print(mut stream: impl Write + IsTerminal, error: &clap::Error) {
    let text = error.render();
    // The stream may be closed; the exit code still says how it ended.
    let _ = if colour::wanted(&stream) {
        write!(stream, "{}", text.ansi())
    } else {
        write!(stream, "{text}")
    };
    let _ = stream.flush();
}

/// Text from anywhere on one line, with control characters made visible.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn kinds_decide_the_code_through_any_context() {
        let error = anyhow::Error::new(Error::refused("the path is taken")).context("ingest");
        let said = describe(&error);
        assert_eq!(
            (said.code, said.message.as_str()),
            (Code::Refused, "ingest: the path is taken")
        );
        let expected = [
            (ErrorKind::NotFound, Code::Failed),
            (ErrorKind::Invalid, Code::Usage),
            (ErrorKind::Unavailable, Code::Unreachable),
            (ErrorKind::Refused, Code::Refused),
            (ErrorKind::Internal, Code::Failed),
        ];
        for (kind, code) in expected {
            assert_eq!(code_of(kind), code);
            assert!(!hint_of(kind).is_empty());
        }
    }

    #[test]
    fn a_failure_keeps_its_own_code_and_hint() {
        let error =
            anyhow::Error::new(Failure::new(Code::Unreachable, "no router").hint("start one"))
                .context("status");
        let said = describe(&error);
        assert_eq!(said.code, Code::Unreachable);
        assert_eq!(said.message, "status: no router");
        assert_eq!(said.hint.as_deref(), Some("start one"));
    }

    #[test]
    fn messages_are_one_line_without_control_characters() {
        let error = anyhow::anyhow!("first\nsecond \u{1b}[31mred");
        assert_eq!(describe(&error).message, "first second \\u{1b}[31mred");
        let io = anyhow::Error::new(std::io::Error::from(IoKind::AddrInUse))
            .context("listening on :9000");
        assert!(describe(&io).hint.unwrap().contains("another port"));
    }
}
