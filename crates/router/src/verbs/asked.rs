//! The line of the log that says who asked for a verb. Every verb begins with it.

use monofs_model::Actor;

/// Notes that `actor` asks for `verb`. `subject`: the path, member or job that it is about; empty =
/// the whole cluster.
pub(super) fn asked(actor: &Actor, verb: &'static str, subject: &str) {
    tracing::debug!(verb, subject, %actor, "a verb is asked for");
}
