//! `undrain`: the work is over; the cluster, or one node, takes part again.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::jobs::RequestOutcome;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::accepted::{self, OutcomeWords};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin undrain
  monofs-admin undrain --node=node3";

/// End the work on the cluster, or let a drained node take part again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct UndrainArgs {
    /// Only this node
    #[arg(
        long,
        value_name = "ID",
        alias = "node-id",
        value_parser = NonEmptyStringValueParser::new()
    )]
    node: Option<String>,
}

pub async fn run(args: UndrainArgs, session: &CommandSession) -> Result<()> {
    let node_id = args.node.unwrap_or_default();
    let call = |router: RouterClient| {
        let request = router.request(v1::UndrainRequest {
            node_id: node_id.clone(),
        });
        async move { router.admin().undrain(request).await }
    };
    let answer = session.cluster.ask_about(CallSubject::Node, call).await;
    let answer: v1::UndrainResponse = session.meant_member(&node_id, answer).await?;
    // People are told what is so now, of the cluster or of one node.
    let next = "monofs-admin status";
    let told = if node_id.is_empty() {
        OutcomeWords {
            done: "the cluster is no longer drained: members that are down are noticed, and \
                   missing copies are made again"
                .to_owned(),
            already: "the cluster was not drained".to_owned(),
            next,
        }
    } else {
        OutcomeWords {
            done: format!("{node_id} takes part again: copies that belong on it are made there"),
            already: format!("{node_id} was not being drained"),
            next,
        }
    };
    let outcome = RequestOutcome {
        action: "undrain",
        node_id: &node_id,
        unchanged: answer.unchanged,
        job_id: "",
    };
    accepted::print(session, outcome.into(), told)
}
