//! `undrain`: the work is over; the cluster, or one node, takes part again.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_proto::v1;

use crate::cluster::{About, Router};
use crate::commands::accepted::Accepted;
use crate::session::Session;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin undrain
  monofs-admin undrain --node=node3";

/// End the work on the cluster, or let a drained node take part again
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct UndrainArgs {
    /// Only this node
    #[arg(long, value_name = "ID", alias = "node-id", value_parser = NonEmptyStringValueParser::new())]
    node: Option<String>,
}

pub async fn run(args: UndrainArgs, session: &Session) -> Result<()> {
    let node_id = args.node.unwrap_or_default();
    let call = |router: Router| {
        let request = router.request(v1::UndrainRequest {
            node_id: node_id.clone(),
        });
        async move { router.admin().undrain(request).await }
    };
    let answer = session.cluster.ask_about(About::Node, call).await;
    let answer: v1::UndrainResponse = session.meant_member(&node_id, answer).await?;
    let (said, already) = if node_id.is_empty() {
        let said = "the cluster is no longer drained: members that are down are noticed, and \
         missing copies are made again";
        (said.to_owned(), "the cluster was not drained".to_owned())
    } else {
        let said = format!("{node_id} takes part again: copies that belong on it are made there");
        (said, format!("{node_id} was not being drained"))
    };
    Accepted::new("undrain", &node_id, said, "monofs-admin status")
        .answered(answer.unchanged, already, "")
        .print(session)
}
