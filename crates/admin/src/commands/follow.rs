//! Following a job to its end: shared by `jobs watch` and `rebalance --wait`.
//!
//! The stream of one router may break or fall silent without the job being any worse off: the next
//! router that can answer is asked for the job as it is now.

use std::time::Duration;

use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;
use monofs_proto::v1::job::State;

use crate::cluster::{CallSubject, RouterClient};
use crate::progress::{ProgressDisplay, ProgressStep};
use crate::session::CommandSession;
use crate::text::{clean, shell_word, size};

/// A job that did not change for this long is asked for again: a router that hangs cannot be told
/// from a job that waits.
const SILENCE: Duration = Duration::from_secs(30);
/// Tries in a row that may bring no word about the job: with the pauses, time for a router to be
/// started again.
const TRIES_MAX: u32 = 10;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How the stream of one router ended.
enum StreamEnd {
    /// The job has ended.
    Ended(Box<v1::Job>),
    /// The job goes on; the stream does not.
    Open,
    /// The stream told nothing about the job.
    Silent,
}

/// Shows the progress of a job until it has ended; the last that was said of it. Errors: `Failed`
/// on Ctrl-C, `Unreachable` when no router tells about it any more.
pub async fn to_the_end(session: &CommandSession, id: &str) -> Result<v1::Job, Failure> {
    let mut progress = ProgressDisplay::new(id);
    let mut known = false;
    let mut tries = 0;
    loop {
        // A stream that broke says nothing about the job.
        match until_it_breaks(session, id, &mut progress).await {
            Ok(StreamEnd::Ended(job)) => return Ok(*job),
            Ok(StreamEnd::Open) => {
                known = true;
                tries = 0;
            }
            Ok(StreamEnd::Silent) => tries += 1,
            Err(failure) if known && failure.code == Code::Unreachable => tries += 1,
            Err(failure) => return Err(failure),
        }
        // After too many silent routers it is given up.
        if tries >= TRIES_MAX {
            let message = format!("the routers tell nothing more about job {}", clean(id));
            return Err(Failure::new(Code::Unreachable, message).hint(format!(
                "the job does not need this command; `monofs-admin jobs watch {}` asks again",
                shell_word(id)
            )));
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = session.interrupt.cancelled() => return Err(interrupted(id)),
        }
    }
}

/// Shows what one stream tells.
async fn until_it_breaks(
    session: &CommandSession,
    id: &str,
    progress: &mut ProgressDisplay,
) -> Result<StreamEnd, Failure> {
    let call = |router: RouterClient| {
        let request = router.stream(v1::WatchJobRequest { id: id.to_owned() });
        async move { router.admin().watch_job(request).await }
    };
    // The stream of one router, unless the user ends it first.
    let mut answers = tokio::select! {
        answers = session.cluster.follow(CallSubject::Job, SILENCE, call) => answers?,
        () = session.interrupt.cancelled() => return Err(interrupted(id)),
    };
    // Progress until the job or the stream has ended.
    let mut told = StreamEnd::Silent;
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer,
            () = session.interrupt.cancelled() => return Err(interrupted(id)),
        };
        match answer {
            Ok(Some(job)) if !is_open(job.state()) => return Ok(StreamEnd::Ended(Box::new(job))),
            Ok(Some(job)) => {
                told = StreamEnd::Open;
                if !job.last_error.is_empty() {
                    progress.complain(&format!("warning: {}", clean(&job.last_error)));
                }
                progress.show(step(&job));
            }
            Ok(None) => return Ok(told),
            Err(failure) if failure.code == Code::Unreachable => return Ok(told),
            Err(failure) => return Err(failure),
        }
    }
}

fn is_open(state: State) -> bool {
    matches!(state, State::Running | State::Waiting | State::Unspecified)
}

fn interrupted(id: &str) -> Failure {
    let id = shell_word(id);
    Failure::new(
        Code::Failed,
        "interrupted; the cluster goes on with the job",
    )
    .hint(format!(
        "`monofs-admin jobs watch {id}` shows how it ends, `monofs-admin jobs cancel {id}` stops it"
    ))
}

fn step(job: &v1::Job) -> ProgressStep {
    let bytes = (job.bytes_total > 0)
        .then(|| format!("{} of {}", size(job.bytes_done), size(job.bytes_total)));
    let steps =
        (job.steps_total > 0).then(|| format!("{}/{} steps", job.steps_done, job.steps_total));
    let message = (!job.message.is_empty()).then(|| clean(&job.message));
    let detail = [steps, bytes, message]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ");
    ProgressStep {
        phase: job.state().word(),
        done: job.steps_done,
        total: job.steps_total,
        detail,
    }
}

/// One line about a job that is done.
pub fn summary(job: &v1::Job) -> String {
    format!(
        "{} {} is done: {} steps, {}\n",
        job.kind().word(),
        clean(&job.id),
        job.steps_done,
        size(job.bytes_done)
    )
}

/// Whether a job that has ended has done its work. Errors: `Failed` when it has not.
pub fn verdict(job: &v1::Job) -> Result<(), Failure> {
    let id = clean(&job.id);
    let steps = format!("{}/{} steps were done", job.steps_done, job.steps_total);
    match job.state() {
        State::Done => Ok(()),
        State::Cancelled => Err(Failure::new(
            Code::Failed,
            format!("job {id} was cancelled; {steps}"),
        )
        .hint("`monofs-admin rebalance --dry-run` shows what is left to do")),
        _ => Err(Failure::new(
            Code::Failed,
            format!("job {id} failed; {steps}: {}", clean(&job.last_error)),
        )
        .hint(
            "`monofs-admin status` shows what is wrong; mend that, then `monofs-admin \
             rebalance` goes on",
        )),
    }
}
