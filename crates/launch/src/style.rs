//! The kinds of processes that are launched.

/// What kind of process it is, which decides where its log goes and what a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProcessStyle {
    /// Serves until a signal drains it; logs to standard output.
    Server,
    /// Answers an operator on standard output; logs to standard error, and a signal ends it.
    Tool,
    /// Like a tool, but a signal drains it.
    Session,
}
