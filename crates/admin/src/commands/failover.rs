//! `failover`: where reads go instead of where placement wants them, and why.

use anyhow::Result;
use monofs_api::jobs::FailoverList;
use monofs_api::members::MemberCondition;
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::mood::{member_mood, plain};
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::ago;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin failover
  monofs-admin failover --format=json";

/// List the nodes that readers have left, why, and who is asked instead
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct FailoverArgs {}

pub async fn run(_: FailoverArgs, session: &CommandSession) -> Result<()> {
    let call = |router: RouterClient| {
        let request = router.request(v1::ListFailoversRequest {});
        async move { router.admin().list_failovers(request).await }
    };
    let answer: v1::ListFailoversResponse =
        session.cluster.ask_about(CallSubject::Node, call).await?;
    if session.json() {
        return emit_json(&FailoverList {
            failovers: answer.failovers.iter().map(Into::into).collect(),
        });
    }
    emit(&table(&answer.failovers))
}

fn table(failovers: &[v1::Failover]) -> String {
    if failovers.is_empty() {
        return "no failover: every repository is read where placement wants it\n".to_owned();
    }
    let mut rows = TextTable::new(&["NODE", "STATE", "SINCE", ">REPOS", "READ FROM", "REASON"]);
    // One row for each node, with all that are read instead.
    for failover in failovers {
        let target =
            |target: &v1::FailoverTarget| format!("{} ({})", target.node_id, target.repositories);
        let targets = failover
            .targets
            .iter()
            .map(target)
            .collect::<Vec<_>>()
            .join(", ");
        rows.row_with([
            plain(failover.node_id.clone()),
            (
                MemberCondition::from(failover.state()).word().to_owned(),
                member_mood(failover.state()),
            ),
            plain(ago(failover.since)),
            plain(failover.repositories.to_string()),
            plain(if targets.is_empty() {
                "-".to_owned()
            } else {
                targets
            }),
            plain(failover.reason.clone()),
        ]);
    }
    rows.render()
}
