//! Feeds what gix reports while it receives and indexes a pack into a [`FetchTask`], and bounds
//! what it may receive.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use gix::progress::{
    Count, Id, MessageLevel, NestedProgress, Progress, Step, StepShared, UNKNOWN, Unit,
};

use crate::source::{FetchPhase, FetchTask};

/// gix's ids of the two counters that matter (`gix_pack::index::write::ProgressId`).
const INDEX_OBJECTS: Id = *b"IWIO";
const RESOLVE_OBJECTS: Id = *b"IWRO";

/// One node of gix's progress tree.
pub struct ProgressGauge {
    id: Id,
    step: StepShared,
    task: Arc<FetchTask>,
}

impl ProgressGauge {
    /// The root of the tree.
    pub fn new(task: &Arc<FetchTask>) -> Self {
        Self::child(task.clone(), UNKNOWN)
    }

    fn child(task: Arc<FetchTask>, id: Id) -> Self {
        let step = match id {
            INDEX_OBJECTS => task.received.clone(),
            RESOLVE_OBJECTS => task.resolved.clone(),
            _ => StepShared::default(),
        };
        Self { id, step, task }
    }
}

impl Count for ProgressGauge {
    fn set(&self, step: Step) {
        self.step.store(step, std::sync::atomic::Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        self.step.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn inc_by(&self, step: Step) {
        self.step
            .fetch_add(step, std::sync::atomic::Ordering::Relaxed);
    }

    fn counter(&self) -> StepShared {
        self.step.clone()
    }
}

impl Progress for ProgressGauge {
    fn init(&mut self, max: Option<Step>, _unit: Option<Unit>) {
        let phase = match self.id {
            INDEX_OBJECTS => FetchPhase::Receiving,
            RESOLVE_OBJECTS => FetchPhase::Indexing,
            _ => return,
        };
        self.set(0);
        self.task.set_total(max.unwrap_or(0) as u64);
        self.task.set_phase(phase);
    }

    fn set_name(&mut self, name: String) {
        // And this way what the remote's programs write.
        if name.contains("fatal") || name.contains("error") {
            self.task.hear(&name);
        }
    }

    fn name(&self) -> Option<String> {
        None
    }

    fn id(&self) -> Id {
        self.id
    }

    fn message(&self, level: MessageLevel, message: String) {
        // gix reports the remote's error channel this way.
        if level == MessageLevel::Failure || message.contains("fatal") || message.contains("error")
        {
            self.task.hear(&message);
        }
    }
}

impl NestedProgress for ProgressGauge {
    type SubProgress = Self;

    fn add_child(&mut self, _name: impl Into<String>) -> Self {
        Self::child(self.task.clone(), UNKNOWN)
    }

    fn add_child_with_id(&mut self, _name: impl Into<String>, id: Id) -> Self {
        Self::child(self.task.clone(), id)
    }
}

/// A pack as it arrives: counted, and cut off over the limit or when the task is cancelled.
pub struct MeteredPack<'a> {
    pub inner: &'a mut dyn BufRead,
    pub task: &'a FetchTask,
}

impl MeteredPack<'_> {
    fn count(&self, bytes: usize) -> io::Result<()> {
        self.task.check().map_err(io::Error::other)?;
        if !self.task.add_bytes(bytes as u64) {
            return Err(io::Error::other("the pack is larger than the cache"));
        }
        Ok(())
    }
}

impl Read for MeteredPack<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count(count)?;
        Ok(count)
    }
}

impl BufRead for MeteredPack<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.count(0)?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        // Too much is noticed at the next read.
        self.task.add_bytes(count as u64);
        self.inner.consume(count);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::source::FetchLimits;

    use super::*;

    fn task(bytes_max: u64) -> Arc<FetchTask> {
        FetchTask::new(FetchLimits {
            bytes_max,
            ..FetchLimits::default()
        })
    }

    #[test]
    fn a_pack_is_counted_once_however_it_is_read() {
        let task = task(u64::MAX);
        let mut bytes = &[7_u8; 100][..];
        let mut pack = MeteredPack {
            inner: &mut bytes,
            task: &task,
        };
        let mut head = [0; 12];
        pack.read_exact(&mut head).unwrap();
        let buffered = pack.fill_buf().unwrap().len();
        pack.consume(buffered);
        assert_eq!(pack.fill_buf().unwrap(), b"");
        assert_eq!(task.bytes(), 100);
    }

    #[test]
    fn a_pack_over_the_limit_is_cut_off() {
        let task = task(50);
        let mut bytes = &[7_u8; 100][..];
        let mut pack = MeteredPack {
            inner: &mut bytes,
            task: &task,
        };
        let mut rest = Vec::new();
        pack.read_to_end(&mut rest).unwrap_err();
        assert!(task.over_limit());
    }

    #[test]
    fn a_cancelled_task_reads_no_further() {
        let task = task(u64::MAX);
        let mut bytes = &[7_u8; 100][..];
        let mut pack = MeteredPack {
            inner: &mut bytes,
            task: &task,
        };
        pack.fill_buf().unwrap();
        task.cancel();
        pack.fill_buf().unwrap_err();
    }

    #[test]
    fn the_counters_of_gix_become_the_progress_of_the_task() {
        let task = task(u64::MAX);
        let mut root = ProgressGauge::new(&task);
        let mut other = root.add_child("something else");
        other.init(Some(3), None);
        other.inc_by(3);
        assert_eq!(task.progress().phase, FetchPhase::Connecting);

        let mut indexed = root.add_child_with_id("objects", INDEX_OBJECTS);
        indexed.init(Some(40), None);
        indexed.inc_by(12);
        let progress = task.progress();
        assert_eq!(progress.phase, FetchPhase::Receiving);
        assert_eq!((progress.objects_done, progress.objects_total), (12, 40));

        let mut resolved = root.add_child_with_id("deltas", RESOLVE_OBJECTS);
        resolved.init(Some(8), None);
        resolved.set(5);
        let progress = task.progress();
        assert_eq!(progress.phase, FetchPhase::Indexing);
        assert_eq!((progress.objects_done, progress.objects_total), (5, 8));
    }

    #[test]
    fn what_a_remote_says_is_kept_when_it_may_explain_a_failure() {
        let task = task(u64::MAX);
        let mut gauge = ProgressGauge::new(&task);
        gauge.set_name("remote: Counting objects".into());
        gauge.message(MessageLevel::Info, "Compressing".into());
        gauge.message(MessageLevel::Failure, "upload-pack: not our ref".into());
        gauge.set_name("fatal: the remote end hung up".into());
        assert_eq!(
            task.heard(),
            "upload-pack: not our ref\nfatal: the remote end hung up\n"
        );
    }
}
