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
