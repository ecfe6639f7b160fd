//! The command line: global flags, the list of commands, and running the one that was typed. What a
//! command takes stands in its own file.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use monofs_launch::args;
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterClient;
use crate::commands;
use crate::output::{OutputFormat, reader_is_gone};
use crate::session::CommandSession;

/// The name of the binary.
pub const NAME: &str = "monofs-admin";

const AFTER_HELP: &str = "\
Examples:
  monofs-admin status --router=localhost:9090
  monofs-admin top
  monofs-admin ingest --source=https://github.com/org/repo.git --wait
  monofs-admin ls github.com/org/repo
  monofs-admin drain --reason=\"Scheduled maintenance\"

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 cluster unreachable, 4 refused by the state of the
cluster.";

/// Operate a MonoFS cluster: add repositories, look into them, see what is wrong
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// What every command understands.
#[derive(Debug, Clone, clap::Args)]
pub struct GlobalArgs {
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
    #[arg(
        long,
        global = true,
        default_value = "table",
        help_heading = "Every command"
    )]
    pub format: OutputFormat,
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
pub enum AdminCommand {
    Ingest(commands::ingest::IngestArgs),
    Repos(commands::repos::ReposArgs),
    Repo(commands::repo::RepoArgs),
    Refresh(commands::refresh::RefreshArgs),
    Delete(commands::delete::DeleteArgs),
    Status(commands::status::StatusArgs),
    Top(commands::top::TopArgs),
    Stats(commands::stats::StatsArgs),
    Nodes(commands::nodes::NodesArgs),
    Fetchers(commands::fetchers::FetchersArgs),
    Drain(commands::drain::DrainArgs),
    Undrain(commands::undrain::UndrainArgs),
    Failover(commands::failover::FailoverArgs),
    TriggerFailover(commands::trigger_failover::TriggerFailoverArgs),
    ClearFailover(commands::clear_failover::ClearFailoverArgs),
    Rebalance(commands::rebalance::RebalanceArgs),
    Jobs(commands::jobs::JobsArgs),
    #[command(alias = "remove")]
    RemoveMember(commands::remove_member::RemoveMemberArgs),
    NodeFiles(commands::node_files::NodeFilesArgs),
    Ls(commands::ls::LsArgs),
    Cat(commands::cat::CatArgs),
    Stat(commands::stat::StatArgs),
    Verify(commands::verify::VerifyArgs),
    Bench(commands::bench::BenchArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
}

/// Runs what the command line asks for, until it is done or `interrupt` is cancelled. That its
/// output is read no further (`| head`) is no failure.
pub async fn run(args: Args, interrupt: CancellationToken) -> Result<()> {
    let session = CommandSession {
        cluster: ClusterClient::new(args.global.router, args.global.rpc_timeout),
        format: args.global.format,
        interrupt,
    };
    match dispatch(args.command, &session).await {
        Err(error) if reader_is_gone(&error) => Ok(()),
        outcome => outcome,
    }
}

async fn dispatch(command: AdminCommand, session: &CommandSession) -> Result<()> {
    // Each command is in the file of its name.
    match command {
        AdminCommand::Ingest(args) => commands::ingest::run(args, session).await,
        AdminCommand::Repos(args) => commands::repos::run(args, session).await,
        AdminCommand::Repo(args) => commands::repo::run(args, session).await,
        AdminCommand::Refresh(args) => commands::refresh::run(args, session).await,
        AdminCommand::Delete(args) => commands::delete::run(args, session).await,
        AdminCommand::Status(args) => commands::status::run(args, session).await,
        AdminCommand::Stats(args) => commands::stats::run(args, session).await,
        AdminCommand::Top(args) => commands::top::run(args, session).await,
        AdminCommand::Nodes(args) => commands::nodes::run(args, session).await,
        AdminCommand::Fetchers(args) => commands::fetchers::run(args, session).await,
        AdminCommand::Drain(args) => commands::drain::run(args, session).await,
        AdminCommand::Undrain(args) => commands::undrain::run(args, session).await,
        AdminCommand::Failover(args) => commands::failover::run(args, session).await,
        AdminCommand::TriggerFailover(args) => commands::trigger_failover::run(args, session).await,
        AdminCommand::ClearFailover(args) => commands::clear_failover::run(args, session).await,
        AdminCommand::Rebalance(args) => commands::rebalance::run(args, session).await,
        AdminCommand::Jobs(args) => commands::jobs::run(args, session).await,
        AdminCommand::RemoveMember(args) => commands::remove_member::run(args, session).await,
        AdminCommand::NodeFiles(args) => commands::node_files::run(args, session).await,
        AdminCommand::Ls(args) => commands::ls::run(args, session).await,
        AdminCommand::Cat(args) => commands::cat::run(args, session).await,
        AdminCommand::Stat(args) => commands::stat::run(args, session).await,
        AdminCommand::Verify(args) => commands::verify::run(args, session).await,
        AdminCommand::Bench(args) => commands::bench::run(args, session).await,
        AdminCommand::Completions(args) => commands::completions::run::<Args>(args, NAME),
        AdminCommand::Man(args) => commands::man::run::<Args>(args, NAME, session),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::ffi::OsString;

    use clap::FromArgMatches;

    use super::*;

    /// Every command and subcommand, with the words that lead to it.
    fn commands() -> Vec<(String, clap::Command)> {
        fn add(path: String, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
            for sub in command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
            {
                add(format!("{path} {}", sub.get_name()), sub, all);
            }
            all.push((path, command.clone()));
        }
        let mut all = Vec::new();
        add(
            NAME.to_owned(),
            &monofs_launch::tool_command::<Args>(NAME),
            &mut all,
        );
        all
    }

    /// The command lines below `Example:` or `Examples:`.
    fn examples(command: &clap::Command) -> Vec<String> {
        let text = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let below = text
            .lines()
            .skip_while(|line| !matches!(*line, "Example:" | "Examples:"))
            .skip(1);
        below
            .take_while(|line| line.starts_with("  "))
            .map(|line| line.trim().to_owned())
            .collect()
    }

    /// The words of a shell command line up to a pipe, a redirection or another command.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                '|' | '>' | '<' | ';' | '&' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_command_has_an_example_of_itself() {
        let all = commands();
        assert!(all.len() > 25, "{}", all.len());
        for (path, command) in all {
            let examples = examples(&command);
            assert!(
                examples.iter().any(|line| line.starts_with(&path)),
                "--help of `{path}` has no example of it: {examples:?}"
            );
            assert!(
                command.get_about().is_some(),
                "`{path}` does not say what it does"
            );
        }
    }

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        for (path, command) in commands() {
            for line in examples(&command)
                .iter()
                .filter(|line| line.starts_with(NAME))
            {
                let argv = words(line).into_iter().map(OsString::from);
                let parsed =
                    monofs_launch::layers::matches(monofs_launch::tool_command::<Args>(NAME), argv)
                        .and_then(|matches| Ok(Args::from_arg_matches(&matches)?));
                assert!(
                    parsed.is_ok(),
                    "`{line}` in the help of `{path}`: {}",
                    parsed.unwrap_err()
                );
            }
        }
    }
}
