//! `monofs down`: ends a `monofs up` of this user as Ctrl-C does, and waits for its end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use monofs_launch::Context;
use monofs_launch::exit::{Code, Failure};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::run_file::{self, Liveness, RunRecord};
use crate::say::say;
use crate::{leftovers, status};

/// Pause between two looks at whether a process has ended.
const POLL: Duration = Duration::from_millis(50);
/// How long a run may take to end, unless `--shutdown-timeout` of it says more: what its own
/// default allows, and some.
const END_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  monofs down\n  monofs down --dir /srv/monofs\n  monofs down --all"
)]
pub(crate) struct Args {
    /// The one whose data are in this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "all")]
    dir: Option<PathBuf>,
    /// All of yours
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(args: Args, context: Context) -> anyhow::Result<()> {
    let runs = status::chosen(run_file::all()?, args.dir.as_deref());
    // What dead runs left goes too: it is what a user looks for who asks for an end.
    let cleared = leftovers::clear();
    cleared.iter().for_each(|line| say(line));
    if runs.is_empty() {
        if args.all || !cleared.is_empty() {
            say("no `monofs up` of yours runs");
            return Ok(());
        }
        return Err(status::none_runs(args.dir.as_deref()).into());
    }
    if runs.len() > 1 && !args.all {
        return Err(several(&runs).into());
    }

    // All are asked before any is waited for.
    for run in &runs {
        ask_to_end(run)?;
    }
    for run in &runs {
        tokio::select! {
            ended = wait_for_end(run) => ended?,
            () = context.shutdown.cancelled() => return Ok(()),
        }
        say(&format!(
            "ended: process {}, with its data in {}",
            run.process.pid,
            run.directory.display()
        ));
    }
    Ok(())
}

fn several(runs: &[RunRecord]) -> Failure {
    let directories: Vec<String> = runs
        .iter()
        .map(|run| run.directory.display().to_string())
        .collect();
    Failure::new(
        Code::Usage,
        format!(
            "{} `monofs up` of yours run: {}",
            runs.len(),
            directories.join(", ")
        ),
    )
    .hint("say which with --dir DIRECTORY, or end all with --all")
}

/// Sends SIGTERM to the process of a run, and to no other that has its id by now.
fn ask_to_end(run: &RunRecord) -> anyhow::Result<()> {
    let pid = i32::try_from(run.process.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Ok(());
    };
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    // The handle stays with the process that had the id when it was opened.
    if run.process.liveness() != Liveness::Runs {
        return Ok(());
    }
    match pidfd_send_signal(handle, Signal::TERM) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

async fn wait_for_end(run: &RunRecord) -> anyhow::Result<()> {
    let asked = Instant::now();
    while run.process.liveness() == Liveness::Runs {
        if asked.elapsed() > END_WAIT {
            let pid = run.process.pid;
            let failure = format!("process {pid} has not ended within {END_WAIT:?}");
            return Err(Failure::new(Code::Failed, failure)
                .hint(format!(
                    "wait, or kill it with `kill -9 {pid}`: `monofs down` then clears what it left"
                ))
                .into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
