//! Feeds what gix reports while it receives and indexes a pack into a [`FetchTask`], and bounds what it
//! may receive.

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
