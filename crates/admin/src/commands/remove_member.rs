//! `remove-member`: forget a node or fetcher that will not come back.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::commands::Removed;
use monofs_launch::exit::Failure;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::output::{emit, emit_json};
use crate::session::CommandSession;
use crate::text::clean;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin remove-member --member=node3

Drain a node first (`monofs-admin drain --node=node3 --reason=...`), then stop it: a process that
goes on running announces itself again. Refused while the node is the last holder of something.";

/// Forget a node or fetcher that is down or drained and will not come back
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RemoveMemberArgs {
    /// Its id
    #[arg(
        long,
        value_name = "ID",
        alias = "node-id",
        value_parser = NonEmptyStringValueParser::new()
    )]
    member: String,
}

pub async fn run(args: RemoveMemberArgs, session: &CommandSession) -> Result<()> {
    let member_id = args.member;
    let call = |router: RouterClient| {
        let request = router.request(v1::RemoveMemberRequest {
            member_id: member_id.clone(),
        });
        async move { router.admin().remove_member(request).await }
    };
    let answer: Result<v1::RemoveMemberResponse, Failure> =
        session.cluster.ask_about(CallSubject::Removal, call).await;
    session.meant_member(&member_id, answer).await?;
    if session.json() {
        return emit_json(&Removed { removed: member_id });
    }
    emit(&format!(
        "{} is forgotten; started again with this id, it is a new member\nnext: monofs-admin \
         status\n",
        clean(&member_id)
    ))
}
