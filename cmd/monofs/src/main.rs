//! `monofs`: a whole cluster in one process, with repositories ingested and mounted; which of them
//! run, and how they end.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod down;
mod leftovers;
mod repository;
mod run_file;
mod runtime;
mod say;
mod status;
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
    /// Show each `monofs up` of yours that runs: where its data and its mount are, its addresses
    Status(status::Args),
    /// End a `monofs up` of yours, and wait until it has unmounted and stopped
    Down(down::Args),
}

fn main() -> ExitCode {
    monofs_launch::session::<Args, _, _>("monofs", |args, context| async move {
        match args.command {
            Command::Up(args) => up::run(args, context).await,
            Command::Status(args) => status::run(args).await,
            Command::Down(args) => down::run(args, context).await,
        }
    })
}
