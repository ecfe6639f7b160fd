//! What is left to do for one cause, in numbers.

use std::collections::BTreeMap;

use super::steps::{CopyFault, CopyStep, StepWait};

/// What is left to do for one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepTally {
    pub copies: u64,
    pub deletes: u64,
    /// Raw size of what is to be copied.
    pub bytes: u64,
    /// Steps that can be done now.
    pub runnable: u64,
    /// Steps that wait, by what they wait for.
    pub waits: BTreeMap<StepWait, u64>,
}

impl StepTally {
    pub fn steps(&self) -> u64 {
        self.copies + self.deletes
    }

    /// Why nothing can be done now; `None` when something can.
    pub fn blocked(&self) -> Option<StepWait> {
        let mut waits = self.waits.keys().filter(|wait| **wait != StepWait::Copies);
        waits.next().copied().filter(|_| self.runnable == 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.steps() == 0
    }

    pub(super) fn add(&mut self, step: &CopyStep) {
        match step.fault {
            CopyFault::Missing => self.copies += 1,
            CopyFault::TooMany => self.deletes += 1,
        }
        self.bytes += step.bytes;
        match step.wait {
            None => self.runnable += 1,
            Some(wait) => *self.waits.entry(wait).or_default() += 1,
        }
    }

    pub(super) fn remove(&mut self, step: &CopyStep) {
        match step.fault {
            CopyFault::Missing => self.copies -= 1,
            CopyFault::TooMany => self.deletes -= 1,
        }
        self.bytes -= step.bytes;
        let Some(wait) = step.wait else {
            self.runnable -= 1;
            return;
        };
        if let Some(count) = self.waits.get_mut(&wait) {
            *count -= 1;
            if *count == 0 {
                self.waits.remove(&wait);
            }
        }
    }
}
