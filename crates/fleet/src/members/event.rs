//! What the machine of members hears, what it answers, and the times it goes by.

use std::time::{Duration, Instant};

use monofs_model::{Member, NodeId};

use super::member::{AuditFinding, DepartureIntent};

/// What became known, or is over.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// It announced itself to this router. Ask [`MemberMachine::admit`](super::machine::Machine::admit)
    /// first.
    Announced(Member),
    /// A probe of it was answered.
    Answered(NodeId),
    /// A probe of one named on the command line was answered, by who says to be `id`.
    Identified {
        asked: NodeId,
        id: NodeId,
        incarnation: u64,
        version: String,
    },
    /// A probe failed.
    Failed(NodeId),
    /// A client or another member saw it fail.
    Reported(NodeId),
    /// The shared table has this member, from before this router started.
    Loaded(Member),
    /// The shared table has this member from now on, or has it no more.
    Registered(NodeId, Option<Member>),
    Intent(NodeId, Option<DepartureIntent>),
    Audited(NodeId, Option<AuditFinding>),
    /// The audits say that it came back.
    ReturnNoted(NodeId),
    Maintenance(bool),
    /// [`MemberMachine::due`](super::machine::Machine::due) has come.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberCommand {
    /// From now on readers see it like this.
    Show(Member),
    /// Readers do not see it any more.
    Hide(NodeId),
    /// Record this registration for all routers.
    Record(Member),
    /// Record that this node was away: what it holds is to be looked at again.
    NoteReturn(NodeId),
    /// Probe it now.
    Probe(NodeId),
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
