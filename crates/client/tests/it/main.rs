//! The client against peers that speak the protocol over loopback, through a real mount.
#![allow(clippy::unwrap_used)]

mod contents;
mod failures;
mod fake;
mod in_use;
mod mounting;
mod nested;
mod replicas;
mod updates;
mod walks;
mod watching;

use std::future::Future;
use std::path::{Path, PathBuf};

use monofs_client::Mounted;

/// Runs file system calls off the runtime's threads: they wait for this very process.
async fn on_mount<T: Send + 'static>(
    mounted: &Mounted,
    path: &str,
    work: impl FnOnce(&Path) -> T + Send + 'static,
) -> T {
    let at: PathBuf = mounted.path().join(path);
    blocking(move || work(&at)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Waits until `condition` holds.
async fn until<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    monofs_testkit::wait::wait_until_async(what, std::time::Duration::from_secs(10), condition)
        .await;
}
