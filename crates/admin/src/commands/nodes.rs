//! `nodes`: the nodes and what each says of itself.

use anyhow::Result;
use monofs_api::ListPage;
use monofs_api::members::{NodeDocument, NodeList};
use monofs_proto::v1;

use crate::mood::{Mood, node_mood, plain};
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::size;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin nodes
  monofs-admin nodes --format=json";

/// List the nodes: state, address, repositories, disk
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct NodesArgs {}

pub async fn run(_: NodesArgs, session: &CommandSession) -> Result<()> {
    let status = session.status().await?;
    if session.json() {
        return emit_json(&NodeList {
            nodes: NodeDocument::of_status(&status),
            page: ListPage::whole(status.nodes.len()),
        });
    }
    emit(&table(&status.nodes))
}

/// The nodes as a table.
pub fn table(nodes: &[v1::NodeStatus]) -> String {
    let mut rows = TextTable::new(&[
        "NODE", "STATE", "ADDRESS", "ZONE", ">WEIGHT", "VERSION", ">REPOS", ">DISK", ">FREE",
        "ERROR",
    ]);
    if nodes.is_empty() {
        return "no nodes\n".to_owned();
    }
    // Figures of a node that could not be asked are dashes.
    for node in nodes {
        let member = node.member.clone().unwrap_or_default();
        let stat = node.stat.as_ref();
        let figure =
            |of: fn(&v1::StatResponse) -> String| plain(stat.map_or_else(|| "-".to_owned(), of));
        rows.row_with([
            plain(member.id.clone()),
            node_mood(&member),
            plain(member.address.clone()),
            plain(member.zone.clone()),
            plain(member.weight.to_string()),
            plain(member.version.clone()),
            figure(|stat| stat.repositories.to_string()),
            figure(|stat| size(stat.disk_used_bytes)),
            figure(|stat| size(stat.disk_free_bytes)),
            (node.error.clone(), Mood::Bad),
        ]);
    }
    rows.render()
}
