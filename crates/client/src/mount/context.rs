//! The parts of one mount, as the threads and tasks that answer the kernel share them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use monofs_content::content::Content;
use monofs_content::counters::Counters;
use monofs_content::spawner::Spawner;

use crate::changes::ChangeLog;
use crate::errno::Errno;
use crate::fill::Filler;
use crate::fs::Fs;
use crate::prefetch::Prefetch;
use crate::want::{Miss, Outcome};

/// How often a task may find that something else is missing before it gives up: a walk down needs
/// one record at a time.
const FETCHES_MAX: usize = 8;

/// The owner of everything in a mount.
#[derive(Debug, Clone, Copy)]
pub struct FileOwner {
    pub uid: u32,
    pub gid: u32,
}

/// The parts of one mount. Only the adapter to the kernel, the status and the mount itself take all
/// of it; every other module takes the parts that it needs.
pub struct MountContext {
    pub fs: Arc<Fs>,
    pub content: Content,
    pub prefetch: Prefetch,
    pub counters: Arc<Counters>,
    pub changes: Arc<ChangeLog>,
    pub owner: FileOwner,
    /// Deadline of one request of the kernel.
    pub timeout: Duration,
    pub(crate) spawner: Spawner,
    /// Set once the kernel has mounted; never, when nothing is to be fetched ahead.
    pub(crate) filler: OnceLock<Filler>,
}

impl MountContext {
    /// Gets what is missing.
    async fn fetch(&self, miss: Miss) -> Result<(), Errno> {
        let result = match &miss {
            Miss::Fail(errno) => return Err(*errno),
            Miss::Tree(want) => self.prefetch.list(want).await,
            Miss::Times(want) => self.content.times(&want.repo, &want.generations).await,
            Miss::Chunks(want) => self.prefetch.serve(want).await,
        };
        result.map_err(|error| {
            tracing::warn!(%error, "a read failed");
            Errno::from(&error)
        })
    }

    /// Asks again and again, fetching what is missing in between, for at most the timeout.
    pub async fn retry<T>(&self, miss: Miss, ask: impl Fn(&Fs) -> Outcome<T>) -> Result<T, Errno> {
        self.counters.waited.one();
        let work = async {
            let mut miss = miss;
            for _ in 0..FETCHES_MAX {
                self.fetch(miss).await?;
                match ask(&self.fs) {
                    Ok(answer) => return Ok(answer),
                    Err(Miss::Fail(errno)) => return Err(errno),
                    Err(next) => miss = next,
                }
            }
            Err(Errno::IO)
        };
        let result = tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or(Err(Errno::IO));
        if result.is_err() {
            self.counters.failed.one();
        }
        result
    }
}
