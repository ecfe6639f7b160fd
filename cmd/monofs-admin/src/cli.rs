//! The command line: global flags and the list of commands. What a command takes stands in its own file.

use std::time::Duration;

use clap::{Parser, Subcommand};
use monofs_launch::args;

use crate::commands;
use crate::output::Format;

/// The name of the binary.
pub const NAME: &str = "monofs-admin";

const AFTER_HELP: &str = "\
Examples:
  monofs-admin status --router=localhost:9090
  monofs-admin top
  monofs-admin ingest --source=https://github.com/org/repo.git --wait
  monofs-admin ls github.com/org/repo
  monofs-admin drain --reason=\"Scheduled maintenance\"

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cluster unreachable, 4 refused by the state of the cluster.";

/// Operate a MonoFS cluster: add repositories, look into them, see what is wrong
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Routers, comma-separated; the next is tried when one is unreachable
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        default_value = "localhost:9090",
        value_delimiter = ',',
        value_parser = args::address,
        help_heading = "Every command"
    )]
    pub router: Vec<String>,
    /// How answers are printed
    #[arg(long, global = true, default_value = "table", help_heading = "Every command")]
    pub format: Format,
    /// How long a router may take to answer one call
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = args::duration,
        help_heading = "Every command"
    )]
    pub rpc_timeout: Duration,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Ingest(commands::ingest::Args),
    Repos(commands::repos::Args),
    Repo(commands::repo::Args),
    Refresh(commands::refresh::Args),
    Delete(commands::delete::Args),
    Status(commands::status::Args),
    Top(commands::top::Args),
    Stats(commands::stats::Args),
    Nodes(commands::nodes::Args),
    Fetchers(commands::fetchers::Args),
    Drain(commands::drain::Args),
    Undrain(commands::undrain::Args),
    Failover(commands::failover::Args),
    TriggerFailover(commands::trigger_failover::Args),
    ClearFailover(commands::clear_failover::Args),
    Rebalance(commands::rebalance::Args),
    Jobs(commands::jobs::Args),
    #[command(alias = "remove")]
    RemoveMember(commands::remove_member::Args),
    NodeFiles(commands::node_files::Args),
    Ls(commands::ls::Args),
    Cat(commands::cat::Args),
    Stat(commands::stat::Args),
    Verify(commands::verify::Args),
    Bench(commands::bench::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}
