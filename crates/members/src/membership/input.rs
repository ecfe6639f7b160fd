//! What the task of membership is told.

use monofs_fleet::members::MemberEvent;
use monofs_model::{Member, Result};
use tokio::sync::oneshot;

/// One input of the task that owns the machine.
pub(super) enum MembershipInput {
    /// A member announced itself; the answer says whether it was admitted.
    Announce(Box<Member>, oneshot::Sender<Result<()>>),
    /// An event for the machine.
    Machine(MemberEvent),
}
