//! `jobs`: the reconciler's work: what runs, how far it is, and stopping it.

use anyhow::Result;
use clap::Subcommand;
use monofs_api::ListPage;
use monofs_api::commands::OneJob;
use monofs_api::jobs::JobList;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::follow;
use crate::mood::{Mood, plain};
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::{ago, clean, size};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin jobs
  monofs-admin jobs --all --format=json
  monofs-admin jobs watch ID
  monofs-admin jobs cancel ID";

const WATCH_AFTER_HELP: &str = "\
Examples:
  monofs-admin jobs watch ID

Exit codes: 0 the job is done, 1 it failed or was cancelled.";

const CANCEL_AFTER_HELP: &str = "\
Examples:
  monofs-admin jobs cancel ID";

/// List the work that keeps copies where they belong; watch or cancel it
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct JobsArgs {
    /// Also jobs that have ended; the last 100 of them are kept
    #[arg(long)]
    all: bool,
    #[command(subcommand)]
    verb: Option<JobsVerb>,
}

#[derive(Debug, Subcommand)]
enum JobsVerb {
    /// Show the progress of a job until it has ended
    #[command(after_help = WATCH_AFTER_HELP)]
    Watch(OneJobArgs),
    /// Stop a job; copies that it has made stay
    #[command(after_help = CANCEL_AFTER_HELP)]
    Cancel(OneJobArgs),
}

#[derive(Debug, clap::Args)]
struct OneJobArgs {
    /// Which job: `monofs-admin jobs` lists them
    #[arg(value_name = "ID")]
    id: String,
}

pub async fn run(args: JobsArgs, session: &CommandSession) -> Result<()> {
    match (args.verb, args.all) {
        (None, all) => list(session, all).await,
        (Some(_), true) => Err(Failure::new(Code::Usage, "--all is for the list of jobs")
            .hint("leave it away, or the ID")
            .into()),
        (Some(JobsVerb::Watch(one)), false) => watch(session, &one.id).await,
        (Some(JobsVerb::Cancel(one)), false) => cancel(session, &one.id).await,
    }
}

async fn list(session: &CommandSession, all: bool) -> Result<()> {
    let call = |router: RouterClient| {
        let request = router.request(v1::ListJobsRequest { all });
        async move { router.admin().list_jobs(request).await }
    };
    let answer: v1::ListJobsResponse = session.cluster.ask_about(CallSubject::Job, call).await?;
    if session.json() {
        return emit_json(&JobList {
            jobs: answer.jobs.iter().map(Into::into).collect(),
            page: ListPage::whole(answer.jobs.len()),
        });
    }
    match (answer.jobs.is_empty(), all) {
        (false, _) => emit(&table(&answer.jobs)),
        (true, false) => {
            emit("no job runs; `monofs-admin jobs --all` lists those that have ended\n")
        }
        (true, true) => emit("no jobs\n"),
    }
}

/// Jobs as a table.
pub fn table(jobs: &[v1::Job]) -> String {
    let mut rows = TextTable::new(&[
        "JOB", "KIND", "STATE", "ABOUT", ">STEPS", ">BYTES", "STARTED", "ENDED", "NOW", "REASON",
    ]);
    // What a job does now gives way to its last error.
    for job in jobs {
        let subject = if job.subject.is_empty() {
            "everything"
        } else {
            &job.subject
        };
        let now = if job.last_error.is_empty() {
            plain(job.message.clone())
        } else {
            troubled(job)
        };
        rows.row_with([
            plain(job.id.clone()),
            plain(job.kind().word().to_owned()),
            (state(job), mood(job.state())),
            plain(subject.to_owned()),
            plain(format!("{}/{}", job.steps_done, job.steps_total)),
            plain(format!(
                "{} of {}",
                size(job.bytes_done),
                size(job.bytes_total)
            )),
            plain(ago(job.started_at)),
            plain(ago(job.ended_at)),
            now,
            plain(job.reason.clone()),
        ]);
    }
    rows.render()
}

/// How far a job is and what it does, in one line.
pub fn figures(job: &v1::Job) -> String {
    let steps = format!("{}/{} steps", job.steps_done, job.steps_total);
    let bytes = (job.bytes_total > 0)
        .then(|| format!("{} of {}", size(job.bytes_done), size(job.bytes_total)));
    let message = (!job.message.is_empty()).then(|| job.message.clone());
    let error = (!job.last_error.is_empty()).then(|| format!("last error: {}", job.last_error));
    [Some(steps), bytes, message, error]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

/// What a job with an error does now.
fn troubled(job: &v1::Job) -> (String, Mood) {
    let gap = if job.message.is_empty() { "" } else { "; " };
    (
        format!("{}{gap}last error: {}", job.message, job.last_error),
        Mood::Bad,
    )
}

/// The state of a job in words.
fn state(job: &v1::Job) -> String {
    let word = job.state().word();
    if job.held_back {
        format!("{word}, held back")
    } else {
        word.to_owned()
    }
}

/// How good a job's state is.
pub fn mood(state: v1::job::State) -> Mood {
    match state {
        v1::job::State::Done => Mood::Good,
        v1::job::State::Failed => Mood::Bad,
        v1::job::State::Running => Mood::Plain,
        v1::job::State::Waiting | v1::job::State::Cancelled | v1::job::State::Unspecified => {
            Mood::Uneasy
        }
    }
}

async fn watch(session: &CommandSession, id: &str) -> Result<()> {
    let job = follow::to_the_end(session, id).await?;
    if session.json() {
        emit_json(&OneJob { job: (&job).into() })?;
    } else if job.state() == v1::job::State::Done {
        emit(&follow::summary(&job))?;
    }
    Ok(follow::verdict(&job)?)
}

async fn cancel(session: &CommandSession, id: &str) -> Result<()> {
    let call = |router: RouterClient| {
        let request = router.request(v1::CancelJobRequest { id: id.to_owned() });
        async move { router.admin().cancel_job(request).await }
    };
    let answer: v1::CancelJobResponse = session.cluster.ask_about(CallSubject::Job, call).await?;
    // A router of an older version does not tell the job.
    let job = answer.job.unwrap_or_else(|| v1::Job {
        id: id.to_owned(),
        ..Default::default()
    });
    if session.json() {
        return emit_json(&OneJob { job: (&job).into() });
    }
    let id = clean(&job.id);
    if job.state() == v1::job::State::Cancelled {
        let steps = format!("{}/{} steps were done", job.steps_done, job.steps_total);
        emit(&format!(
            "job {id} is cancelled; {steps} and stay so\nwhat is left to do: monofs-admin \
             rebalance --dry-run\n"
        ))
    } else {
        emit(&format!(
            "job {id} is being cancelled\nsee it end: monofs-admin jobs watch {id}\n"
        ))
    }
}
