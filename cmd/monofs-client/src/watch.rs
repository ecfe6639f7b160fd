//! `monofs-client watch [PATH]`: a line for each path that changes in a mount.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use monofs_client::changes::PathChange;
use monofs_client::changes::reader::{MountWatch, WatchAnswer};
use tokio_util::sync::CancellationToken;

/// Pause between two questions to the mount.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// Watches a mount.
#[derive(Debug, Parser)]
struct Tool {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a line for each path that is added, modified or removed, until a signal
    ///
    /// Paths come after the mount shows what changed. Whole repositories that come or go are one
    /// line; below a directory that comes or goes every path has one. `reset` says that anything at
    /// or below its path may have changed: lines were missed, the mount was made anew, or too much
    /// changed at once.
    Watch(WatchArgs),
}

#[derive(Debug, clap::Args)]
struct WatchArgs {
    /// What to watch, at or below a mount
    #[arg(default_value = ".")]
    path: PathBuf,
    /// One JSON object a line: {"change", "path", "commit"}, and "path_bytes" where the path is no
    /// UTF-8
    #[arg(long)]
    json: bool,
}

/// How lines are written.
#[derive(Debug, Clone, Copy)]
enum LineFormat {
    Text,
    Json,
}

/// Runs the command and returns what the process ends with.
pub fn main() -> ExitCode {
    monofs_launch::tool::<Tool, _, _>("monofs-client", |tool, context| async move {
        let Command::Watch(args) = tool.command;
        let format = match args.json {
            true => LineFormat::Json,
            false => LineFormat::Text,
        };
        let path = args.path;
        let watch = tokio::task::spawn_blocking(move || MountWatch::begin(&path)).await??;
        eprintln!("watching {}", watch.path().display());
        follow(watch, format, context.shutdown).await
    })
}

/// Prints what changes until `stop`, or until nothing reads the lines any more.
async fn follow(
    mut watch: MountWatch,
    format: LineFormat,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut is_away = false;
    loop {
        // The mount may take its time, which must not hold up a signal.
        let asked = tokio::task::spawn_blocking(move || {
            let answer = watch.poll();
            (watch, answer)
        });
        let answer = tokio::select! {
            asked = asked => {
                let (same, answer) = asked?;
                watch = same;
                answer
            }
            () = stop.cancelled() => return Ok(()),
        };
        // A mount that is away is waited for: what it says first when it is back is a reset.
        let answer = match answer {
            Ok(answer) => {
                is_away = false;
                answer
            }
            Err(error) => {
                if !is_away {
                    eprintln!("the mount does not answer ({error}); waiting for it");
                }
                is_away = true;
                WatchAnswer::default()
            }
        };
        match print(&answer.changes, format) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed?,
        }
        if !answer.has_more {
            tokio::select! {
                () = tokio::time::sleep(POLL_EVERY) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

fn print(changes: &[PathChange], format: LineFormat) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for change in changes {
        match format {
            LineFormat::Json => {
                serde_json::to_writer(&mut out, change)?;
                writeln!(out)?;
            }
            // A name may hold an end of line.
            LineFormat::Text => {
                let path = change.path.escape_debug();
                writeln!(out, "{:<8} {path}", change.change.as_str())?;
            }
        }
    }
    out.flush()
}
