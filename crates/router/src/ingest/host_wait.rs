//! Waiting for a remote host that said "not now": within a job's deadline, and visibly.

use std::time::Duration;

use monofs_model::{Error, Result};
use tokio::time::{Instant, sleep};

use super::job::Job;
use monofs_members::hosts;

/// How often the progress of a job that waits is repeated, so that its silence means a dead router.
const TELL_PERIOD: Duration = Duration::from_secs(5);
/// Shortest pause between two tries, whatever was said.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What came of asking a host; `None` after a pause: ask again. Errors: those of `outcome`, and a
/// pause that is longer than the job may wait.
pub(super) async fn settled<T>(job: &Job, outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.pause.is_some() => wait(job, error).await.map(|()| None),
        outcome => {
            if job.is_waiting() {
                job.update(|progress| progress.waiting_for = None);
            }
            outcome.map(Some)
        }
    }
}

/// Waits as long as `error` says. Errors: that is longer than the job may wait.
async fn wait(job: &Job, mut error: Error) -> Result<()> {
    let Some(pause) = &error.pause else {
        return Err(error);
    };
    let until = Instant::now() + pause.retry_after.max(PAUSE_MIN);
    let shown = hosts::shown(pause);
    job.update(|progress| progress.waiting_for = Some(shown.clone()));
    let Some(deadline) = job.deadline else {
        return Err(error);
    };
    if until > deadline {
        error.message.push_str(
            "; that is longer than an ingest waits (the router's --host-wait): ask again then",
        );
        return Err(error);
    }
    tracing::info!(path = %job.spec.path, host = %shown.host, "waiting for a host that says not now");
    while Instant::now() < until {
        sleep(TELL_PERIOD.min(until - Instant::now())).await;
        job.update(|_| {});
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use monofs_model::HostPause;

    use super::*;
    use crate::fixture::entry;
    use crate::ingest::spec::IngestSpec;

    fn not_now(retry_after: Duration) -> Error {
        Error::unavailable("h says not now").with_pause(HostPause {
            host: "h".into(),
            cause: "HTTP 429".into(),
            retry_after,
        })
    }

    fn job(patience: Option<Duration>) -> Job {
        Job::new(IngestSpec::of_entry(&entry("a/b")), patience)
    }

    #[tokio::test]
    async fn a_job_waits_within_its_deadline_and_shows_for_what() {
        let job = job(Some(Duration::from_secs(60)));
        let mut seen = job.follow();
        let began = Instant::now();
        let mut tries = 0;
        let asked = async {
            loop {
                tries += 1;
                let answer = match tries {
                    3 => Ok(7),
                    _ => Err(not_now(Duration::from_millis(150))),
                };
                if let Some(answer) = settled(&job, answer).await? {
                    return Ok(answer);
                }
            }
        };
        let watched = async {
            seen.changed().await.expect("the job lives");
            let shown = seen.borrow().progress.waiting_for.clone();
            shown.expect("it says what it waits for")
        };
        let (outcome, shown): (Result<i32>, _) = tokio::join!(asked, watched);
        assert_eq!(outcome, Ok(7));
        assert_eq!(
            (shown.host.as_str(), shown.cause.as_str()),
            ("h", "HTTP 429")
        );
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert!(job.follow().borrow().progress.waiting_for.is_none());
    }

    #[tokio::test]
    async fn a_pause_beyond_the_deadline_ends_the_job_at_once_with_the_setting() {
        let began = Instant::now();
        let hour = || Err::<(), _>(not_now(Duration::from_secs(3600)));
        let short = job(Some(Duration::from_secs(60)));
        let error = settled(&short, hour()).await.expect_err("too long");
        assert!(error.message.contains("--host-wait"), "{error}");
        assert!(error.pause.is_some());
        // A refresh of the worker's own does not wait: it has its turn again.
        let refresh = job(None);
        let error = settled(&refresh, hour()).await.expect_err("no wait");
        assert_eq!(error.message, "h says not now");
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn any_other_failure_is_passed_on() {
        let job = job(Some(Duration::from_secs(60)));
        let refused = Err::<(), _>(Error::refused("no login"));
        let error = settled(&job, refused).await.expect_err("refused");
        assert_eq!(error.message, "no login");
    }
}
