//! Store work off the async threads: the one way from a task to a thread that may block.

use monofs_model::{Error, Result};
use monofs_rpc::context;

/// Runs `work` on a thread that may block, as part of the request of the calling task. Errors: the
/// work's own; a panic in it is `Internal`.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(context::carried(work)).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("store work ended: {error}"))),
    }
}
