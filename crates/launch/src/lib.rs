//! What every binary does around its role: settings from flags, environment and file, logging,
//! signals, exit codes.
//!
//! A binary is `launch::run::<Args, _, _>("monofs-node", |args, ctx| async move { ... })` and
//! nothing else. `run` adds `--config`, `--log-format`, `--shutdown-timeout` and `--otlp-endpoint`
//! to the binary's own flags, so those need not be declared.
//!
//! Invariants: the process ends with one of the codes of [`exit::Code`]; a failure prints one
//! `error:` line and one `hint:` line; the first SIGTERM, SIGINT or SIGHUP cancels
//! [`Context::shutdown`], the second ends the process at once; a panic anywhere is logged and
//! aborts the process, so that no role limps on with half of its tasks.

pub mod args;
pub mod colour;
pub mod exit;
pub mod holder;
pub mod layers;
pub mod logging;
mod manual;
mod panics;
mod signals;
mod spans;
mod style;
pub mod version;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args as _, FromArgMatches, Parser};
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};
use crate::logging::{LogFormat, LogHandle};
use crate::style::ProcessStyle;

/// Address space for the stack of a thread of the runtime; only what is used becomes memory. In
/// builds without optimisation each future is copied into the frame of its caller, and 2 MiB, the
/// default, are too few.
const WORKER_STACK_BYTES: usize = 8 << 20;

/// How long threads that are stuck in a system call may delay the exit of a process that is
/// otherwise done.
const RUNTIME_STOP: Duration = Duration::from_secs(1);

// The flags of every binary. No doc comment: clap would take it for the description of the whole
// program.
#[derive(Debug, Clone, clap::Args)]
struct CommonFlags {
    /// Settings file (TOML): one key for each flag, a table for each subcommand; flags and
    /// environment win
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Every command"
    )]
    config: Option<std::path::PathBuf>,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        help_heading = "Every command"
    )]
    log_format: LogFormat,
}

// The flags of every server.
#[derive(Debug, Clone, clap::Args)]
struct ServerFlags {
    /// How long open work may take to finish after SIGTERM
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = args::duration, help_heading = "Every command")]
    shutdown_timeout: Duration,
    /// OpenTelemetry collector that gets the spans of this process (OTLP over gRPC), such as
    /// http://localhost:4317; only in builds with `--features otlp`
    #[arg(long, global = true, value_name = "URL", value_parser = spans::collector, help_heading = "Every command")]
    otlp_endpoint: Option<String>,
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

/// Runs a server: logs go to standard output at level `info`, signals drain it. Returns what `main`
/// returns.
pub fn run<A, F, Fut>(name: &'static str, role: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, ProcessStyle::Server, role)
}

/// Runs an operator's tool: standard output belongs to its answers, so logs go to standard error at
/// level `warn`, and the first signal ends it at once unless it watches [`Context::shutdown`]
/// itself.
pub fn tool<A, F, Fut>(name: &'static str, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, ProcessStyle::Tool, work)
}

/// Runs a tool that goes on until a signal and then has something to undo: like [`tool`], but
/// drained as a server is.
pub fn session<A, F, Fut>(name: &'static str, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    start(name, ProcessStyle::Session, work)
}

fn start<A, F, Fut>(name: &'static str, style: ProcessStyle, work: F) -> ExitCode
where
    A: Parser,
    F: FnOnce(A, Context) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    // ProcessSettings first: what is wrong with them is said before anything starts.
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(generated) = manual::generate(command::<A>(name, style), style, &argv) {
        return generated.map_or_else(|error| exit::report(&error), |()| Code::Done.into());
    }
    let (args, settings) = match prepare::<A>(name, style, argv) {
        Ok(ready) => ready,
        Err(layers::SettingsError::Usage(error)) => return exit::usage(&error),
        Err(layers::SettingsError::File(failure)) => return exit::report(&failure.into()),
    };
    // The log and the export of spans need the runtime.
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .thread_name("monofs")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return exit::report(&anyhow::Error::new(error).context("could not start the runtime"));
        }
    };
    let (export, context) = match observe(style, &settings, &runtime) {
        Ok(ready) => ready,
        Err(failure) => return exit::report(&failure.into()),
    };
    // The role runs until it ends, or until it has drained after a signal.
    panics::install(name);
    monofs_rpc::metrics::set_commit(version::COMMIT);
    let outcome = runtime.block_on(supervise(name, style, context.clone(), work(args, context)));
    // What it logged last is exported too, and threads that are stuck do not keep the process.
    if let Some(export) = export {
        export.end();
    }
    runtime.shutdown_timeout(RUNTIME_STOP);
    match outcome {
        Ok(()) => Code::Done.into(),
        Err(error) => exit::report(&error),
    }
}

/// The whole command line of a tool.
pub fn tool_command<A: Parser>(name: &'static str) -> clap::Command {
    command::<A>(name, ProcessStyle::Tool)
}

/// Manual pages of a tool and its subcommands, as file names and texts; the one of the tool itself
/// is first.
pub fn tool_pages<A: Parser>(name: &'static str) -> Vec<(String, Vec<u8>)> {
    manual::pages(tool_command::<A>(name), ProcessStyle::Tool)
}

/// What a shell needs to complete the command line of a tool.
pub fn tool_completions<A: Parser>(name: &'static str, shell: clap_complete::Shell) -> Vec<u8> {
    manual::completions(&mut tool_command::<A>(name), shell)
}

fn command<A: Parser>(name: &'static str, style: ProcessStyle) -> clap::Command {
    let command = CommonFlags::augment_args(A::command().name(name).version(version::LONG));
    match style {
        ProcessStyle::Server | ProcessStyle::Session => ServerFlags::augment_args(command),
        ProcessStyle::Tool => command,
    }
}

/// What `start` itself takes from the command line.
struct ProcessSettings {
    log_format: LogFormat,
    shutdown_timeout: Duration,
    otlp_endpoint: Option<String>,
    service: spans::SpanService,
}

/// The flags of the binary and those of every process, from command line, environment and file.
fn prepare<A: Parser>(
    name: &'static str,
    style: ProcessStyle,
    argv: Vec<std::ffi::OsString>,
) -> Result<(A, ProcessSettings), layers::SettingsError> {
    // The flags that every process has are not part of the binary's own `A`.
    let mut matches = layers::matches(command::<A>(name, style), argv)?;
    let log_format = CommonFlags::from_arg_matches(&matches)?.log_format;
    let (shutdown_timeout, otlp_endpoint) = match style {
        ProcessStyle::Server | ProcessStyle::Session => {
            let server = ServerFlags::from_arg_matches(&matches)?;
            (server.shutdown_timeout, server.otlp_endpoint)
        }
        ProcessStyle::Tool => (Duration::ZERO, None),
    };
    let service = spans::SpanService::new(name, &matches);
    let args = A::from_arg_matches_mut(&mut matches)?;
    Ok((
        args,
        ProcessSettings {
            log_format,
            shutdown_timeout,
            otlp_endpoint,
            service,
        },
    ))
}

/// Starts the log, and the export of spans where one is asked for.
fn observe(
    style: ProcessStyle,
    settings: &ProcessSettings,
    runtime: &tokio::runtime::Runtime,
) -> Result<(Option<spans::SpanExport>, Context), Failure> {
    let _inside = runtime.enter();
    let endpoint = settings.otlp_endpoint.as_deref();
    let export = endpoint
        .map(|endpoint| spans::SpanExport::start(&settings.service, endpoint))
        .transpose()?;
    let (export, layer) = export.unzip();
    let log = logging::init(style, settings.log_format, layer)?;
    let shutdown_timeout = settings.shutdown_timeout;
    Ok((
        export,
        Context {
            shutdown: CancellationToken::new(),
            shutdown_timeout,
            log,
        },
    ))
}

/// Drives the role until it returns, a second signal arrives or its time to drain is over.
async fn supervise<Fut>(
    name: &str,
    style: ProcessStyle,
    context: Context,
    work: Fut,
) -> anyhow::Result<()>
where
    Fut: Future<Output = anyhow::Result<()>>,
{
    // Until the first signal the role has the process to itself.
    let mut signals = signals::StopSignals::listen()?;
    signals::follow_log_level(context.log.clone())?;
    tokio::pin!(work);
    let signal = tokio::select! {
        done = &mut work => return done,
        signal = signals.next() => signal,
    };
    // From the first signal on it drains, for as long as the next signal and the timeout let it.
    context.shutdown.cancel();
    if style == ProcessStyle::Tool {
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
        signal = signals.next() => Err(Failure::new(Code::Failed, format!("stopped by a second \
         signal ({signal}) before open work was done"))
            .hint("nothing to do: everything acknowledged is on disk").into()),
        () = tokio::time::sleep(context.shutdown_timeout) => {
            let waited = humantime::format_duration(context.shutdown_timeout);
            Err(Failure::new(Code::Failed, format!("open work was not done within the shutdown \
             timeout of {waited}"))
                .hint("raise --shutdown-timeout, or look in the log for what was still running").into())
        }
    }
}
