//! The seam between a fetcher and where repositories come from.
//!
//! A [`RemoteSource`] resolves a name to a commit and brings exactly one commit, with all it
//! reaches but its history, into a directory. Git is the first source; archives of package
//! registries could be others. Implementations block: they are called on blocking threads, watch
//! [`FetchTask::cancelled`] and respect its deadlines.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use gix::progress::StepShared;
use monofs_model::{Error, Oid, RefName, Result, SourceUrl};
use parking_lot::Mutex;

/// Largest object held in memory while a pack is indexed, in bytes, unless configured otherwise.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;
/// Most bytes that are kept of what a remote says beside the data.
const SAID_BYTES_MAX: usize = 8 << 10;

/// Whether `file` sources, which are repositories on the disk of the fetcher, may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalFiles {
    Allowed,
    Refused,
}

/// What a ref is upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedRef {
    /// The commit, tags peeled.
    pub commit: Oid,
    /// The full name that the remote has for it; empty for a bare commit.
    pub full_ref: String,
}

/// One commit to bring in.
#[derive(Debug, Clone, Copy)]
pub struct CommitWant<'a> {
    pub source: &'a SourceUrl,
    /// What the commit was resolved from: for messages, and for servers that give out only what a
    /// ref names.
    pub ref_name: &'a RefName,
    pub commit: Oid,
    /// Commits that `into` already holds whole: the remote leaves out what they share with the new
    /// one.
    pub have: &'a [Oid],
    /// A bare repository of the commit's object format.
    pub into: &'a Path,
}

/// Where repositories come from.
pub trait RemoteSource: Send + Sync + 'static {
    /// Which commit `ref_name` is at upstream now. Nothing is fetched.
    fn resolve(
        &self,
        source: &SourceUrl,
        ref_name: &RefName,
        task: &Arc<FetchTask>,
    ) -> Result<ResolvedRef>;

    /// Brings `want.commit` into `want.into`. On failure the directory may hold less, never wrong
    /// objects.
    fn fetch(&self, want: &CommitWant<'_>, task: &Arc<FetchTask>) -> Result<()>;
}

/// What a fetch is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FetchPhase {
    Connecting = 1,
    Receiving = 2,
    Indexing = 3,
    Walking = 4,
    Done = 5,
}

/// One piece of blocking work: how far it is, how it is stopped, and when it must give up.
#[derive(Debug, Default)]
pub struct FetchTask {
    phase: AtomicU8,
    cancelled: AtomicBool,
    over_limit: AtomicBool,
    bytes: AtomicU64,
    total: AtomicU64,
    said: Mutex<String>,
    pub(crate) received: StepShared,
    pub(crate) resolved: StepShared,
    pub limits: FetchLimits,
}

/// The bounds of a task.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    /// Most bytes a remote may send.
    pub bytes_max: u64,
    /// Largest object that is held in memory while a pack is indexed.
    pub object_bytes_max: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            bytes_max: u64::MAX,
            object_bytes_max: OBJECT_BYTES_MAX,
        }
    }
}

/// A task's progress at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    pub phase: FetchPhase,
    pub objects_done: u64,
    /// 0 = not known yet.
    pub objects_total: u64,
    pub bytes_done: u64,
}

impl FetchTask {
    /// A task that has not begun.
    pub fn new(limits: FetchLimits) -> Arc<Self> {
        let task = Self {
            limits,
            ..Self::default()
        };
        task.set_phase(FetchPhase::Connecting);
        Arc::new(task)
    }

    /// Asks the work to stop soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Set once the work should stop; shared with what polls a plain flag.
    pub fn cancelled(&self) -> &AtomicBool {
        &self.cancelled
    }

    /// Whether the work should stop. Errors: `Unavailable`.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::unavailable(
                "the fetch was cancelled: nobody waits for it any more",
            ));
        }
        Ok(())
    }

    /// Whether the remote sent more than the limit.
    pub fn over_limit(&self) -> bool {
        self.over_limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_phase(&self, phase: FetchPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, objects: u64) {
        self.total.store(objects, Ordering::Relaxed);
    }

    /// Counts bytes from the remote; false once they are too many.
    pub(crate) fn add_bytes(&self, bytes: u64) -> bool {
        let sum = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if sum > self.limits.bytes_max {
            self.over_limit.store(true, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Keeps what a remote says beside the data: it may explain a failure.
    pub(crate) fn hear(&self, text: &str) {
        let mut said = self.said.lock();
        if said.len() + text.len() < SAID_BYTES_MAX {
            said.push_str(text);
            said.push('\n');
        }
    }

    /// What a remote said beside the data.
    pub(crate) fn heard(&self) -> String {
        self.said.lock().clone()
    }

    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.bound_bytes(bytes);
    }

    /// Notes that so many bytes have come, which may be too many.
    pub(crate) fn bound_bytes(&self, bytes: u64) {
        if bytes > self.limits.bytes_max {
            self.over_limit.store(true, Ordering::Relaxed);
        }
    }

    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How far the work is.
    pub fn progress(&self) -> FetchProgress {
        let phase = match self.phase.load(Ordering::Relaxed) {
            2 => FetchPhase::Receiving,
            3 => FetchPhase::Indexing,
            4 => FetchPhase::Walking,
            5 => FetchPhase::Done,
            _ => FetchPhase::Connecting,
        };
        let objects_total = self.total.load(Ordering::Relaxed);
        let objects_done = match phase {
            FetchPhase::Connecting => 0,
            FetchPhase::Receiving => self.received.load(Ordering::Relaxed) as u64,
            FetchPhase::Indexing => self.resolved.load(Ordering::Relaxed) as u64,
            FetchPhase::Walking | FetchPhase::Done => objects_total,
        };
        FetchProgress {
            phase,
            objects_done,
            objects_total,
            bytes_done: self.bytes(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn task(bytes_max: u64) -> Arc<FetchTask> {
        FetchTask::new(FetchLimits {
            bytes_max,
            ..FetchLimits::default()
        })
    }

    #[test]
    fn progress_counts_what_its_phase_is_about() {
        let task = task(u64::MAX);
        task.set_total(10);
        task.received.store(7, Ordering::Relaxed);
        task.resolved.store(3, Ordering::Relaxed);
        assert!(task.add_bytes(99));
        let done_in = |phase| {
            task.set_phase(phase);
            let progress = task.progress();
            assert_eq!((progress.phase, progress.objects_total), (phase, 10));
            assert_eq!(progress.bytes_done, 99);
            progress.objects_done
        };
        assert_eq!(done_in(FetchPhase::Connecting), 0);
        assert_eq!(done_in(FetchPhase::Receiving), 7);
        assert_eq!(done_in(FetchPhase::Indexing), 3);
        assert_eq!(done_in(FetchPhase::Walking), 10);
        assert_eq!(done_in(FetchPhase::Done), 10);
    }

    #[test]
    fn a_remote_may_send_as_much_as_the_limit_and_no_more() {
        let task = task(100);
        assert!(task.add_bytes(60) && task.add_bytes(40));
        assert!(!task.over_limit());
        assert!(!task.add_bytes(1));
        assert!(task.over_limit());
    }

    #[test]
    fn a_cancelled_task_says_so_to_all_that_look() {
        let task = task(1);
        task.check().unwrap();
        task.cancel();
        let error = task.check().unwrap_err();
        assert_eq!(error.kind, monofs_model::ErrorKind::Unavailable);
        assert!(task.cancelled().load(Ordering::Relaxed));
    }

    #[test]
    fn a_talkative_remote_is_heard_within_bounds() {
        let task = task(1);
        task.hear("first words");
        for _ in 0..100 {
            task.hear(&"blah ".repeat(100));
        }
        let heard = task.heard();
        assert!(heard.starts_with("first words\n"));
        assert!(heard.len() <= SAID_BYTES_MAX, "{} bytes", heard.len());
    }
}
