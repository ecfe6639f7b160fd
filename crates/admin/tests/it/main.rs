//! The binary against a router that only pretends: exit codes, JSON shapes, what reaches a
//! terminal. `bench` runs against real clusters.
#![allow(clippy::unwrap_used)]

mod bench;
mod errors;
mod fake;
mod jobs;
mod operations;
mod pty;
mod routers;
mod schema;
mod shells;
mod terminal;
mod tree;
mod verbs;

use std::process::{Command, Output, Stdio};

use monofs_testkit::process::binary;

use crate::fake::Fake;

/// What one run of the binary did.
struct Ran {
    code: i32,
    out: Vec<u8>,
    err: String,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("{error} in {:?}, {}", self.text(), self.err))
    }

    /// The run failed with this code, one `error:` line that holds `word`, and one `hint:` line.
    #[track_caller]
    fn failed(&self, code: i32, word: &str) {
        let lines: Vec<&str> = self
            .err
            .lines()
            .filter(|line| line.starts_with("error: ") || line.starts_with("hint: "))
            .collect();
        assert_eq!(self.code, code, "{}", self.err);
        assert!(
            lines.len() == 2 && lines[0].contains(word) && lines[1].starts_with("hint: "),
            "{}",
            self.err
        );
    }

    #[track_caller]
    fn done(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        assert!(!self.err.contains("error: "), "{}", self.err);
        self
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(binary("monofs-admin"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"MONOFS_"))
    {
        command.env_remove(name);
    }
    command
        .env_remove("RUST_LOG")
        .args(args)
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command(args).output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: stdout,
        err: String::from_utf8(stderr).unwrap(),
    }
}

impl Fake {
    /// Runs the binary against this router.
    fn admin(&self, args: &[&str]) -> Ran {
        let router = format!("--router={}", self.address());
        run(&[args, &[&router]].concat())
    }
}
