//! `monofs-admin`: the operator's command line. It talks to any router and, apart from `bench`, to
//! nothing else.
//!
//! Invariants: answers go to standard output, progress and complaints to standard error; every text
//! that came from the cluster is stripped of control characters before it reaches a terminal; the
//! exit code tells what happened.

mod bench;
mod cli;
mod cluster;
mod commands;
mod nearest;
mod output;
mod place;
mod progress;
mod shapes;
mod text;
mod top;

use std::process::ExitCode;

use crate::cli::Args;

fn main() -> ExitCode {
    monofs_launch::tool::<Args, _, _>(cli::NAME, |args, context| async move {
        let outcome = commands::run(args, context.shutdown).await;
        match &outcome {
            Err(error) if output::reader_is_gone(error) => Ok(()),
            _ => outcome,
        }
    })
}
