//! `drain`: the whole cluster is worked on, or one node is emptied.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::jobs::RequestOutcome;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::accepted::{self, OutcomeWords};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin drain --reason=\"Scheduled maintenance\"
  monofs-admin drain --node=node3 --reason=\"new disks\"

Without --node no reader fails over and nothing moves until `monofs-admin undrain`; reads are not
affected. With it the copies of the node move off while it goes on serving; when its job is done, it
is `drained` and can be stopped.";

/// Announce work on the whole cluster, so that none fails over, or empty one node
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DrainArgs {
    /// Only this node: move its copies off
    #[arg(
        long,
        value_name = "ID",
        alias = "node-id",
        value_parser = NonEmptyStringValueParser::new()
    )]
    node: Option<String>,
    /// Why: shown in the status until it is over
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// Empty the node although fewer copies than wanted will be left
    #[arg(long, requires = "node")]
    force: bool,
}

pub async fn run(args: DrainArgs, session: &CommandSession) -> Result<()> {
    let node_id = args.node.unwrap_or_default();
    let message = v1::DrainRequest {
        node_id: node_id.clone(),
        reason: args.reason,
        force: args.force,
    };
    let call = |router: RouterClient| {
        let request = router.request(message.clone());
        async move { router.admin().drain(request).await }
    };
    // A node that is emptied may be the last holder of something.
    let about = if node_id.is_empty() {
        CallSubject::Node
    } else {
        CallSubject::Leaving
    };
    let answer = session.cluster.ask_about(about, call).await;
    let answer: v1::DrainResponse = session.meant_member(&node_id, answer).await?;
    // People are told what is so now, of the cluster or of one node.
    let told = if node_id.is_empty() {
        OutcomeWords {
            done: "the cluster is drained: no member is declared down, nothing is copied, moved \
                   or removed; reads go on"
                .to_owned(),
            already: "the cluster was drained already; `monofs-admin status` shows why and since \
                      when"
                .to_owned(),
            next: "monofs-admin undrain",
        }
    } else {
        OutcomeWords {
            done: format!(
                "{node_id} is being drained: its copies move off while it goes on serving"
            ),
            already: format!("{node_id} was being drained already"),
            next: "monofs-admin nodes",
        }
    };
    let outcome = RequestOutcome {
        action: "drain",
        node_id: &node_id,
        unchanged: answer.unchanged,
        job_id: &answer.job_id,
    };
    accepted::print(session, outcome.into(), told)
}
