//! `drain`: the whole cluster is worked on, or one node is emptied.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_proto::v1;

use crate::cluster::{About, Router};
use crate::commands::accepted::Accepted;
use crate::session::Session;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin drain --reason=\"Scheduled maintenance\"
  monofs-admin drain --node=node3 --reason=\"new disks\"

Without --node nobody fails over and nothing moves until `monofs-admin undrain`; reads are not affected. With it the copies
of the node move off while it goes on serving; when its job is done, it is `drained` and can be stopped.";

/// Announce work on the whole cluster, so that nobody fails over, or empty one node
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DrainArgs {
    /// Only this node: move its copies off
    #[arg(long, value_name = "ID", alias = "node-id", value_parser = NonEmptyStringValueParser::new())]
    node: Option<String>,
    /// Why: shown in the status until it is over
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
    /// Empty the node although fewer copies than wanted will be left
    #[arg(long, requires = "node")]
    force: bool,
}

pub async fn run(args: DrainArgs, session: &Session) -> Result<()> {
    let node_id = args.node.unwrap_or_default();
    let message = v1::DrainRequest {
        node_id: node_id.clone(),
        reason: args.reason,
        force: args.force,
    };
    let call = |router: Router| {
        let request = router.request(message.clone());
        async move { router.admin().drain(request).await }
    };
    let about = if node_id.is_empty() {
        About::Node
    } else {
        About::Leaving
    };
    let answer = session.cluster.ask_about(about, call).await;
    let answer: v1::DrainResponse = session.meant_member(&node_id, answer).await?;
    let accepted = if node_id.is_empty() {
        let said = "the cluster is drained: nobody is declared down, nothing is copied, moved or \
         removed; reads go on";
        Accepted::new("drain", "", said, "monofs-admin undrain").answered(
            answer.unchanged,
            "the cluster was drained already; `monofs-admin status` shows why and since when",
            "",
        )
    } else {
        let said =
            format!("{node_id} is being drained: its copies move off while it goes on serving");
        let already = format!("{node_id} was being drained already");
        Accepted::new("drain", &node_id, said, "monofs-admin nodes").answered(
            answer.unchanged,
            already,
            &answer.job_id,
        )
    };
    accepted.print(session)
}
