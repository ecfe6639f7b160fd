//! `failover`: where reads go instead of where placement wants them, and why.

use anyhow::Result;
use monofs_proto::v1;
use serde::Serialize;

use crate::cluster::{About, Router};
use crate::mood::{Mood, member_mood};
use crate::output::{Rows, emit, emit_json};
use crate::session::Session;
use crate::shapes::{self, member_state};
use crate::text::ago;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin failover
  monofs-admin failover --format=json";

/// List the nodes that readers have left, why, and who is asked instead
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct FailoverArgs {}

#[derive(Serialize)]
struct Answer {
    failovers: Vec<shapes::Failover>,
}

pub async fn run(_: FailoverArgs, session: &Session) -> Result<()> {
    let call = |router: Router| {
        let request = router.request(v1::ListFailoversRequest {});
        async move { router.admin().list_failovers(request).await }
    };
    let answer: v1::ListFailoversResponse = session.cluster.ask_about(About::Node, call).await?;
    if session.json() {
        return emit_json(&Answer {
            failovers: answer.failovers.iter().map(Into::into).collect(),
        });
    }
    emit(&table(&answer.failovers))
}

fn table(failovers: &[v1::Failover]) -> String {
    if failovers.is_empty() {
        return "no failover: every repository is read where placement wants it\n".to_owned();
    }
    let mut rows = Rows::new(&["NODE", "STATE", "SINCE", ">REPOS", "READ FROM", "REASON"]);
    for failover in failovers {
        let target =
            |target: &v1::FailoverTarget| format!("{} ({})", target.node_id, target.repositories);
        let targets = failover
            .targets
            .iter()
            .map(target)
            .collect::<Vec<_>>()
            .join(", ");
        let plain = |text: String| (text, Mood::Plain);
        rows.row_with([
            plain(failover.node_id.clone()),
            (
                member_state(failover.state()).to_owned(),
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
