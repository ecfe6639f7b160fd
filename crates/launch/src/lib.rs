//! What every binary does around its role: settings from flags, environment and file, logging, signals, exit codes.
//!
//! A binary is `launch::run::<Args, _, _>("monofs-node", |args, ctx| async move { ... })` and nothing else. `run` adds
//! `--config`, `--log-format` and `--shutdown-timeout` to the binary's own flags, so those need not be declared.
//!
//! Invariants: the process ends with one of the codes of [`exit::Code`]; a failure prints one `error:` line and one
//! `hint:` line; the first SIGTERM, SIGINT or SIGHUP cancels [`Context::shutdown`], the second ends the process at once; a
//! panic anywhere is logged and aborts the process, so that no role limps on with half of its tasks.

pub mod args;
pub mod exit;
pub mod layers;
pub mod logging;
mod panics;
mod signals;
pub mod version;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as _, FromArgMatches, Parser};
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};
use crate::logging::{LogFormat, LogHandle};

/// How long threads that are stuck in a system call may delay the exit of a process that is otherwise done.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

// The flags of every binary. No doc comment: clap would take it for the description of the whole program.
#[derive(Debug, Clone, clap::Args)]
struct Shared {
    /// Settings file (TOML): one key for each flag, a table for each subcommand; flags and environment win
    #[arg(long, global = true, value_name = "FILE", help_heading = "Every command")]
    config: Option<std::path::PathBuf>,
    /// How log lines are written
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", help_heading = "Every command")]
    log_format: LogFormat,
}

// The flags of every server.
#[derive(Debug, Clone, clap::Args)]
struct ServerShared {
    /// How long open work may take to finish after SIGTERM
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = args::duration, help_heading = "Every command")]
    shutdown_timeout: Duration,
}

/// What a role gets from its process.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cancelled by the first SIGTERM, SIGINT or SIGHUP: drain and return.
    pub shutdown: CancellationToken,
    /// From the signal on, the process waits this long for the role to return.
    pub shutdown_timeout: Duration,
    /// Changes the log level at run time.
    pub log: LogHandle,
}

/// Runs a server: logs go to standard output at level `info`, signals drain it. Returns what `main` returns.
pub fn run<A, F, Fut>(name: &'static str, role: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, Style::Server, role)
}

/// Runs an operator's tool: standard output belongs to its answers, so logs go to standard error at level `warn`, and
/// the first signal ends it at once unless it watches [`Context::shutdown`] itself.
pub fn tool<A, F, Fut>(name: &'static str, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, Style::Tool, work)
}

/// Runs a tool that goes on until a signal and then has something to undo: like [`tool`], but drained as a server is.
pub fn session<A, F, Fut>(name: &'static str, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, Style::Session, work)
}

/// Who the process works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Server,
    Tool,
    Session,
}

fn start<A, F, Fut>(name: &'static str, style: Style, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let (args, context) = match prepare::<A>(name, style) {
        Ok(ready) => ready,
        Err(layers::Error::Usage(error)) => return exit::usage(&error),
        Err(layers::Error::File(failure)) => return exit::report(&failure.into()),
    };
    panics::install(name);
    monofs_rpc::metrics::set_commit(version::COMMIT);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("monofs").build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("could not start the runtime")),
    };
    let outcome = runtime.block_on(supervise(name, style, context.clone(), work(args, context)));
    runtime.shutdown_timeout(RUNTIME_STOP);
    match outcome {
        Ok(()) => Code::Done.into(),
        Err(error) => exit::report(&error),
    }
}

/// The whole command line of a tool, for shell completions and manual pages.
pub fn tool_command<A: Parser>(name: &'static str) -> clap::Command {
    command::<A>(name, Style::Tool)
}

fn command<A: Parser>(name: &'static str, style: Style) -> clap::Command {
    let command = Shared::augment_args(A::command().name(name).version(version::LONG));
    match style {
        Style::Server | Style::Session => ServerShared::augment_args(command),
        Style::Tool => command,
    }
}

fn prepare<A: Parser>(name: &'static str, style: Style) -> Result<(A, Context), layers::Error> {
    let mut matches = layers::matches(command::<A>(name, style), std::env::args_os())?;
    let shared = Shared::from_arg_matches(&matches)?;
    let shutdown_timeout = match style {
        Style::Server | Style::Session => ServerShared::from_arg_matches(&matches)?.shutdown_timeout,
        Style::Tool => Duration::ZERO,
    };
    let args = A::from_arg_matches_mut(&mut matches)?;
    let log = logging::init(style, shared.log_format).map_err(layers::Error::File)?;
    Ok((args, Context { shutdown: CancellationToken::new(), shutdown_timeout, log }))
}

/// Drives the role until it returns, a second signal arrives or its time to drain is over.
async fn supervise<Fut>(name: &str, style: Style, context: Context, work: Fut) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut signals = signals::Signals::listen()?;
    signals::follow_log_level(context.log.clone())?;
    tokio::pin!(work);
    let signal = tokio::select! {
        done = &mut work => return done,
        signal = signals.next() => signal,
    };
    context.shutdown.cancel();
    if style == Style::Tool {
        // A tool that watches the token gets one poll's worth of time to say its last word.
        return tokio::select! {
            biased;
            done = &mut work => done,
            () = tokio::task::yield_now() => Err(Failure::new(Code::Failed, format!("interrupted by {signal}")).into()),
        };
    }
    tracing::info!(signal, timeout = ?context.shutdown_timeout, "{name}: draining");
    tokio::select! {
        done = &mut work => done,
        signal = signals.next() => Err(Failure::new(Code::Failed, format!("stopped by a second signal ({signal}) before open work was done"))
            .hint("nothing to do: everything acknowledged is on disk").into()),
        () = tokio::time::sleep(context.shutdown_timeout) => {
            let waited = humantime::format_duration(context.shutdown_timeout);
            Err(Failure::new(Code::Failed, format!("open work was not done within the shutdown timeout of {waited}"))
                .hint("raise --shutdown-timeout, or look in the log for what was still running").into())
        }
    }
}
