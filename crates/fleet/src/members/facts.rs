//! What a member's state follows from beside the member itself: what operators want, what audits
//! found, and the times that decide. Below every other file of `members`.

use std::time::{Duration, Instant};

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DepartureIntent {
    /// `emptied`: no copy is left on it.
    Drain {
        emptied: bool,
    },
    Failover,
}

/// What is recorded about the last look at what a node holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFinding {
    /// Of the start that was asked; `None` = it must be asked again.
    pub incarnation: Option<u64>,
    /// It may lack copies that placement wants on it.
    pub behind: bool,
}

/// What decides beside the member itself.
#[derive(Clone, Copy)]
pub struct MemberFacts {
    pub intent: Option<DepartureIntent>,
    pub audit: Option<AuditFinding>,
    pub maintenance: bool,
    /// When a maintenance ended: silence before that counts against no member.
    pub resumed: Option<Instant>,
}

/// The times that decide.
#[derive(Debug, Clone)]
pub struct MemberTimes {
    /// Silence after which a member is down.
    pub threshold: Duration,
    /// How long the reads of a node that recovered take to return.
    pub recovery_time: Duration,
    /// Their shares in percent, for an equal part of that time each; then it is 100.
    pub recovery_shares: Vec<u32>,
}

impl MemberTimes {
    /// How long one share is in force.
    fn step_time(&self) -> Duration {
        self.recovery_time / self.recovery_shares.len().max(1) as u32
    }

    /// The share of reads `elapsed` after a recovery.
    pub fn share(&self, elapsed: Duration) -> u32 {
        let step = self.step_time();
        let at = if step.is_zero() {
            usize::MAX
        } else {
            (elapsed.as_nanos() / step.as_nanos()) as usize
        };
        self.recovery_shares.get(at).copied().unwrap_or(100)
    }

    /// When the share changes next; `None` when it has reached the last one.
    pub fn next_step(&self, from: Instant, now: Instant) -> Option<Instant> {
        let step = self.step_time();
        if step.is_zero() {
            return None;
        }
        let done = (now.saturating_duration_since(from).as_nanos() / step.as_nanos()) as usize;
        (done < self.recovery_shares.len()).then(|| from + step * (done as u32 + 1))
    }
}
