//! `monofs up`: a whole cluster in one process, with repositories ingested and mounted.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod repository;
mod up;

/// MonoFS in one process.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router, nodes and a fetcher, ingest repositories and mount them; Ctrl-C ends it all
    Up(up::Args),
}

fn main() -> ExitCode {
    monofs_launch::session::<Args, _, _>("monofs", |args, context| async move {
        match args.command {
            Command::Up(args) => up::run(args, context).await,
        }
    })
}
