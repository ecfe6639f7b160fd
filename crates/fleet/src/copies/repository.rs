//! What the plan remembers of one repository.

use std::time::Duration;

use monofs_model::placement::Ranked;

use super::steps::PlanCause;

/// Where its copies are and should be, and when it may be worked on. Nodes are named by number.
pub(super) struct PlannedRepository {
    pub generation: u64,
    /// Raw size of the snapshot.
    pub bytes: u64,
    pub holders: Box<[u32]>,
    /// As placement wants it, most preferred first.
    pub desired: Box<[Ranked]>,
    /// A command for it runs.
    pub busy: bool,
    /// Commands that failed one after the other.
    pub failures: u8,
    /// No command before this time of the plan's clock; zero = at once.
    pub not_before: Duration,
    /// Where it stands in line, boxed because most stand nowhere.
    pub queued: Option<Box<QueuePlace>>,
}

/// The line that a repository stands in, with all that is needed to find it there.
pub(super) enum QueuePlace {
    /// For the next command of this cause, the lowest number first.
    Ready(PlanCause, u8),
    /// Until this time.
    Delayed(Duration),
}

impl PlannedRepository {
    /// One without holders or generation.
    pub fn new(desired: Box<[Ranked]>) -> Self {
        Self {
            generation: 0,
            bytes: 0,
            holders: Box::default(),
            desired,
            busy: false,
            failures: 0,
            not_before: Duration::ZERO,
            queued: None,
        }
    }

    pub fn desired_nodes(&self) -> impl Iterator<Item = u32> {
        self.desired.iter().map(|ranked| ranked.tag)
    }

    pub fn is_desired(&self, node: u32) -> bool {
        self.desired.iter().any(|ranked| ranked.tag == node)
    }

    /// Nodes that should hold it and do not.
    pub fn missing(&self) -> impl Iterator<Item = u32> {
        self.desired_nodes()
            .filter(|node| !self.holders.contains(node))
    }

    /// Nodes that hold it and should not.
    pub fn extra(&self) -> impl Iterator<Item = u32> + Clone {
        self.holders
            .iter()
            .copied()
            .filter(|node| !self.is_desired(*node))
    }

    /// Whether it is exactly where placement wants it.
    pub fn is_settled(&self) -> bool {
        self.holders.len() == self.desired.len() && self.missing().next().is_none()
    }
}
