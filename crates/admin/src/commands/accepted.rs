//! What is printed when the cluster has taken note of what an operator wants: what is so now, and
//! what to do next. Shared by drain, undrain, trigger-failover and clear-failover.

use anyhow::Result;
use serde::Serialize;

use crate::output::{emit, emit_json};
use crate::session::Session;
use crate::text::{clean, shell_word};

/// A wish that the cluster has taken note of.
#[derive(Debug, Serialize)]
pub struct Accepted {
    action: &'static str,
    /// Null = the whole cluster.
    node_id: Option<String>,
    /// It was wanted already.
    unchanged: bool,
    /// The job that brings it about; null when there is nothing to move.
    job_id: Option<String>,
    /// The command line that leads on.
    next: String,
    /// For people: what is so now.
    #[serde(skip)]
    said: String,
}

impl Accepted {
    /// An `action` on a node, or on the whole cluster for the empty id. `next` leads on unless
    /// there is a job to follow.
    pub fn new(action: &'static str, node_id: &str, said: impl Into<String>, next: &str) -> Self {
        let node_id = (!node_id.is_empty()).then(|| node_id.to_owned());
        Self {
            action,
            node_id,
            unchanged: false,
            job_id: None,
            next: next.to_owned(),
            said: said.into(),
        }
    }

    /// The same with what the router answered: whether it was so already (then `said` says it), and
    /// the job.
    pub fn answered(mut self, unchanged: bool, said: impl Into<String>, job_id: &str) -> Self {
        self.unchanged = unchanged;
        if unchanged {
            self.said = said.into();
        }
        if !job_id.is_empty() {
            self.next = format!("monofs-admin jobs watch {}", shell_word(job_id));
            self.job_id = Some(job_id.to_owned());
        }
        self
    }

    /// Prints it.
    pub fn print(&self, session: &Session) -> Result<()> {
        if session.json() {
            emit_json(self)
        } else {
            emit(&format!("{}\nnext: {}\n", clean(&self.said), self.next))
        }
    }
}
