//! `nodes`: the nodes and what each says of itself.

use anyhow::Result;
use monofs_proto::v1;
use serde::Serialize;

use crate::mood::{Mood, member_mood};
use crate::output::{Rows, emit, emit_json};
use crate::session::Session;
use crate::shapes::{self, member_state};
use crate::text::size;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin nodes
  monofs-admin nodes --format=json";

/// List the nodes: state, address, repositories, disk
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct NodesArgs {}

#[derive(Serialize)]
struct Answer {
    nodes: Vec<shapes::Node>,
}

pub async fn run(_: NodesArgs, session: &Session) -> Result<()> {
    let status = session.status().await?;
    if session.json() {
        return emit_json(&Answer {
            nodes: status.nodes.iter().map(Into::into).collect(),
        });
    }
    emit(&table(&status.nodes))
}

/// The nodes as a table.
pub fn table(nodes: &[v1::NodeStatus]) -> String {
    let mut rows = Rows::new(&[
        "NODE", "STATE", "ADDRESS", "ZONE", ">WEIGHT", "VERSION", ">REPOS", ">DISK", ">FREE",
        "ERROR",
    ]);
    if nodes.is_empty() {
        return "no nodes\n".to_owned();
    }
    for node in nodes {
        let member = node.member.clone().unwrap_or_default();
        let stat = node.stat.as_ref();
        let plain = |text: String| (text, Mood::Plain);
        let figure =
            |of: fn(&v1::StatResponse) -> String| plain(stat.map_or_else(|| "-".to_owned(), of));
        rows.row_with([
            plain(member.id.clone()),
            state(&member),
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

/// A node's state, and what it does not do although it should.
pub fn state(member: &v1::Member) -> (String, Mood) {
    let (state, mood) = (member_state(member.state()), member_mood(member.state()));
    let uneasy = if mood == Mood::Bad {
        Mood::Bad
    } else {
        Mood::Uneasy
    };
    match (member.failed_over, member.share_percent) {
        (true, _) => (format!("{state}, failed over"), uneasy),
        (false, percent @ 1..100) => (format!("{state}, {percent} % of reads"), uneasy),
        (false, _) => (state.to_owned(), mood),
    }
}
