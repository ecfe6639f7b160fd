//! What is printed when the cluster has taken note of what an operator wants: what is so now, and
//! what to do next. Shared by drain, undrain, trigger-failover and clear-failover.

use anyhow::Result;
use monofs_api::commands::AcceptedCommand;
use monofs_api::jobs::Accepted;

use crate::output::{emit, emit_json};
use crate::session::CommandSession;
use crate::text::{clean, shell_word};

/// What people are told about a request that the cluster took note of.
pub struct OutcomeWords<'a> {
    /// What is so from now on.
    pub done: String,
    /// What is said instead where it was so already.
    pub already: String,
    /// The command line that leads on, unless there is a job to follow.
    pub next: &'a str,
}

/// Prints what became of a request.
pub fn print(session: &CommandSession, accepted: Accepted, told: OutcomeWords<'_>) -> Result<()> {
    let next = match &accepted.job_id {
        Some(job_id) => format!("monofs-admin jobs watch {}", shell_word(job_id)),
        None => told.next.to_owned(),
    };
    if session.json() {
        return emit_json(&AcceptedCommand { accepted, next });
    }
    let said = if accepted.unchanged {
        told.already
    } else {
        told.done
    };
    emit(&format!("{}\nnext: {next}\n", clean(&said)))
}
