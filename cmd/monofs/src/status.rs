//! `monofs status`: which `monofs up` of this user run, and what each serves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use monofs_launch::exit::{Code, Failure};

use crate::run_file::{self, RunRecord};
use crate::say::say;

/// How long a run may take to say what it serves.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  monofs status\n  monofs status --dir /srv/monofs")]
pub(crate) struct Args {
    /// Only the one whose data are in this directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let runs = chosen(run_file::all()?, args.dir.as_deref());
    if runs.is_empty() {
        return Err(none_runs(args.dir.as_deref()).into());
    }
    for (number, run) in runs.iter().enumerate() {
        if number > 0 {
            say("");
        }
        show(run).await;
    }
    Ok(())
}

/// The runs that go on, or the one of them whose data are in `dir`.
pub(crate) fn chosen(found: Vec<run_file::FoundRun>, dir: Option<&Path>) -> Vec<RunRecord> {
    // Run files have directories in full.
    let dir = dir.map(|dir| {
        dir.canonicalize()
            .or_else(|_| std::path::absolute(dir))
            .unwrap_or_else(|_| dir.to_owned())
    });
    found
        .into_iter()
        .filter(|run| run.liveness == run_file::Liveness::Runs)
        .map(|run| run.record)
        .filter(|run| dir.as_ref().is_none_or(|dir| *dir == run.directory))
        .collect()
}

/// Nothing runs, said as a failure.
pub(crate) fn none_runs(dir: Option<&Path>) -> Failure {
    let (place, hint) = match dir {
        Some(dir) => (
            format!(" with its data in {}", dir.display()),
            "`monofs status` without --dir shows all of yours",
        ),
        None => (
            String::new(),
            "start one with `monofs up`; those of other users and separate binaries are not shown",
        ),
    };
    Failure::new(Code::Failed, format!("no `monofs up` of yours runs{place}")).hint(hint)
}

async fn show(run: &RunRecord) {
    let age = humantime::format_duration(run.age());
    say(&format!(
        "monofs up, process {}, for {age}",
        run.process.pid
    ));
    say(&format!("  data:   {}", run.directory.display()));
    let mount = match &run.mount {
        Some(mount) => mount.display().to_string(),
        None => "none".to_owned(),
    };
    say(&format!("  mount:  {mount}"));
    if run.router.is_empty() {
        say("  it is starting");
        return;
    }
    say(&format!("  serves: {}", served(&run.router).await));
    say(&format!("  router: {}", run.router));
    say(&format!("  page:   http://{}/", run.http));
}

/// What a run says that it serves.
async fn served(router: &str) -> String {
    match monofs_cluster::repositories_of(router, ANSWER_WAIT).await {
        Ok(1) => "1 repository".to_owned(),
        Ok(ready) => format!("{ready} repositories"),
        Err(error) => format!("it does not answer: {}", error.message),
    }
}
