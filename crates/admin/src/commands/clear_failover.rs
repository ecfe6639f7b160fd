//! `clear-failover`: let a node back.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::jobs::RequestOutcome;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::accepted::{self, OutcomeWords};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin clear-failover --node-id=node3";

/// Let a node back: what it lacks is copied to it, then reads return gradually
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ClearFailoverArgs {
    /// Which node
    #[arg(long, value_name = "ID", alias = "node", value_parser = NonEmptyStringValueParser::new())]
    node_id: String,
}

pub async fn run(args: ClearFailoverArgs, session: &CommandSession) -> Result<()> {
    let node_id = args.node_id;
    let call = |router: RouterClient| {
        let request = router.request(v1::ClearFailoverRequest {
            node_id: node_id.clone(),
        });
        async move { router.admin().clear_failover(request).await }
    };
    let answer = session.cluster.ask_about(CallSubject::Node, call).await;
    let answer: v1::ClearFailoverResponse = session.meant_member(&node_id, answer).await?;
    let told = OutcomeWords {
        done: format!(
            "{node_id} is let back: what it lacks is copied to it, then reads return gradually"
        ),
        already: format!("{node_id} was not failed over by an operator"),
        next: "monofs-admin failover",
    };
    // What became of it.
    let outcome = RequestOutcome {
        action: "clear-failover",
        node_id: &node_id,
        unchanged: answer.unchanged,
        job_id: "",
    };
    accepted::print(session, outcome.into(), told)
}
