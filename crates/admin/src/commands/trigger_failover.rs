//! `trigger-failover`: leave a node at once.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::jobs::RequestOutcome;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::accepted::{self, OutcomeWords};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin trigger-failover --node-id=node3
  monofs-admin trigger-failover --node-id=node3 --reason=\"disk errors\"

Readers ask the node last from now on. `monofs-admin clear-failover` lets it back.";

/// Move reads off a node at once, and make its copies elsewhere
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct TriggerFailoverArgs {
    /// Which node
    #[arg(long, value_name = "ID", alias = "node", value_parser = NonEmptyStringValueParser::new())]
    node_id: String,
    /// Why: shown in the status until it is over
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Leave it although fewer copies than wanted will be left
    #[arg(long)]
    force: bool,
}

pub async fn run(args: TriggerFailoverArgs, session: &CommandSession) -> Result<()> {
    let node_id = args.node_id;
    let message = v1::TriggerFailoverRequest {
        node_id: node_id.clone(),
        reason: args.reason,
        force: args.force,
    };
    let call = |router: RouterClient| {
        let request = router.request(message.clone());
        async move { router.admin().trigger_failover(request).await }
    };
    let answer = session.cluster.ask_about(CallSubject::Leaving, call).await;
    let answer: v1::TriggerFailoverResponse = session.meant_member(&node_id, answer).await?;
    let told = OutcomeWords {
        done: format!("readers leave {node_id} now, and its copies are made elsewhere"),
        already: format!("{node_id} was failed over already"),
        next: "monofs-admin failover",
    };
    // What became of it.
    let outcome = RequestOutcome {
        action: "trigger-failover",
        node_id: &node_id,
        unchanged: answer.unchanged,
        job_id: &answer.job_id,
    };
    accepted::print(session, outcome.into(), told)
}
