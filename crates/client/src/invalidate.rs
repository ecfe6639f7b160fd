//! Telling the kernel what changed, from a thread of its own.
//!
//! The kernel takes a directory's lock to drop a name, and that lock may be held by a lookup that
//! waits for an answer from us; so this is never done by a thread that answers requests, and never
//! under a lock of ours. For one directory, names come first and the listing after: dropping a name
//! waits for the listings in progress, and what those put into the kernel's cache is dropped by the
//! second step.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use monofs_content::counters::Counters;
use monofs_content::switch_lock::assert_not_held;
use monofs_model::{Error, Result};
use tokio::sync::oneshot;

use crate::fs::identity::Ino;
use crate::fs::switch::FlipEffect;

/// The kernel's cache of names.
pub trait NameCache: Send + 'static {
    /// Drops one name. Unknown names are fine.
    fn drop_name(&self, directory: Ino, name: &OsStr) -> io::Result<()>;
    /// Drops a directory's listing and attributes.
    fn drop_listing(&self, directory: Ino) -> io::Result<()>;
    /// Drops all names everywhere.
    fn drop_all_names(&self) -> io::Result<()>;
}

struct InvalidationJob {
    effect: FlipEffect,
    done: oneshot::Sender<()>,
}

/// The thread that tells the kernel. Dropping it ends the thread.
pub struct Invalidator {
    jobs: Sender<InvalidationJob>,
    _thread: JoinHandle<()>,
}

impl Invalidator {
    /// Starts the thread.
    pub fn start(kernel: impl NameCache, counters: Arc<Counters>) -> Result<Self> {
        let (jobs, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("monofs-inval".into())
            .spawn(move || run(&kernel, &inbox, &counters))
            .map_err(|e| Error::internal(format!("start the invalidation thread: {e}")))?;
        Ok(Self {
            jobs,
            _thread: thread,
        })
    }

    /// Tells the kernel, and returns when it has been told.
    pub async fn send(&self, effect: FlipEffect) {
        assert_not_held("tell the kernel what changed");
        let (done, told) = oneshot::channel();
        if self.jobs.send(InvalidationJob { effect, done }).is_ok() {
            let _ = told.await;
        }
    }
}

fn run(kernel: &impl NameCache, inbox: &Receiver<InvalidationJob>, counters: &Counters) {
    while let Ok(job) = inbox.recv() {
        if job.effect.drop_all_names {
            check(kernel.drop_all_names(), "drop all names");
            counters.all_names_dropped.one();
        }
        for change in &job.effect.invalidations {
            for name in &change.names {
                check(
                    kernel.drop_name(change.directory, OsStr::from_bytes(name)),
                    "drop a name",
                );
            }
            check(kernel.drop_listing(change.directory), "drop a listing");
            counters.names_invalidated.add(change.names.len() as u64);
            counters.directories_invalidated.one();
        }
        let _ = job.done.send(());
    }
}

fn check(result: io::Result<()>, doing: &str) {
    match result {
        Ok(()) => {}
        // The kernel does not know it (any more), or the mount is gone: nothing to drop.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTCONN | libc::ENODEV | libc::EBADF)
            ) => {}
        Err(error) => {
            tracing::warn!(%error, "could not tell the kernel to {doing}; it may show an old name")
        }
    }
}
