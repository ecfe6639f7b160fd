//! Deadlines: nothing waits without one.

use std::future::Future;
use std::time::Duration;

use monofs_model::{Error, Result};

/// The default deadline of one call.
pub const CALL: Duration = Duration::from_secs(10);
/// The longest silence allowed on a stream of progress or content.
pub const STREAM_SILENCE: Duration = Duration::from_secs(60);

/// Runs `work` for at most `limit`. Errors: `Unavailable`, naming what was waited for.
pub async fn within<T>(
    limit: Duration,
    doing: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::unavailable(format!(
            "{doing}: no answer within {limit:?}"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use monofs_model::ErrorKind;

    use super::*;

    #[tokio::test]
    async fn work_that_takes_too_long_is_given_up_with_its_name_and_its_limit() {
        let never = std::future::pending::<Result<()>>();
        let error = within(Duration::from_millis(20), "ask node-1", never)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.message, "ask node-1: no answer within 20ms");
    }

    #[tokio::test]
    async fn the_result_of_work_in_time_is_its_own() {
        let done = std::future::ready(Err::<(), _>(Error::not_found("no")));
        let error = within(CALL, "ask node-1", done).await.unwrap_err();
        assert_eq!(error, Error::not_found("no"));
    }
}
