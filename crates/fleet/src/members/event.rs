//! What the machine of members hears, and the commands that it answers with.

use monofs_model::{Member, NodeId};

use super::facts::{AuditFinding, DepartureIntent};

/// What became known, or is over.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// It announced itself to this router, which admitted it.
    Announced(Member),
    /// A probe of it was answered.
    Answered(NodeId),
    /// A probe of one named on the command line was answered by a process that calls itself `id`.
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
    /// `MemberMachine::due` has come.
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
