//! `node-files`: what a node holds.

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;
use serde::Serialize;

use crate::cluster::Router;
use crate::display_path::display_path;
use crate::mood::Mood;
use crate::output::{Rows, emit, emit_json, note};
use crate::session::Session;
use crate::shapes;
use crate::text::{clean, hex, percent, short, size};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin node-files --node-id=node1
  monofs-admin node-files --node-id=all --path=github.com/org/repo";

/// Show which repositories a node holds, and how much of each
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct NodeFilesArgs {
    /// A node's id, or `all`
    #[arg(long, value_name = "ID|all")]
    node_id: String,
    /// Only this repository
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    path: String,
}

#[derive(Serialize)]
struct Answer {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    node_id: String,
    repositories: Vec<shapes::Held>,
    error: Option<String>,
}

pub async fn run(args: NodeFilesArgs, session: &Session) -> Result<()> {
    let path = display_path(&args.path)?;
    let message = v1::NodeFilesRequest {
        node_id: args.node_id.clone(),
        path: path.clone(),
    };
    let call = |router: Router| {
        let request = router.request(message.clone());
        async move { router.admin().node_files(request).await }
    };
    let answer = session
        .meant_path(&path, session.cluster.ask(call).await)
        .await;
    let node_id = if args.node_id == "all" {
        ""
    } else {
        &args.node_id
    };
    let answer: v1::NodeFilesResponse = session.meant_member(node_id, answer).await?;
    let failed = answer
        .nodes
        .iter()
        .filter(|node| !node.error.is_empty())
        .count();
    if session.json() {
        emit_json(&Answer {
            nodes: answer.nodes.iter().map(node).collect(),
        })?;
    } else {
        emit(&table(&answer.nodes))?;
        for node in answer.nodes.iter().filter(|node| !node.error.is_empty()) {
            note(&format!("{}: {}", clean(&node.node_id), clean(&node.error)));
        }
    }
    if failed > 0 && failed == answer.nodes.len() {
        return Err(Failure::new(Code::Unreachable, "no node could be asked")
            .hint("`monofs-admin nodes` shows their states")
            .into());
    }
    Ok(())
}

fn node(wire: &v1::node_files_response::Entry) -> Node {
    Node {
        node_id: wire.node_id.clone(),
        repositories: wire.repositories.iter().map(Into::into).collect(),
        error: shapes::some(&wire.error),
    }
}

fn table(nodes: &[v1::node_files_response::Entry]) -> String {
    let mut rows = Rows::new(&[
        "NODE",
        "PATH",
        "COMMIT",
        ">DIRECTORIES",
        ">FILES",
        ">CONTENTS",
        ">DISK",
        "LAST ERROR",
    ]);
    for node in nodes {
        for held in &node.repositories {
            let newest = held
                .snapshots
                .last()
                .map(|snapshot| hex(&snapshot.commit))
                .unwrap_or_default();
            let plain = |text: String| (text, Mood::Plain);
            rows.row_with([
                plain(node.node_id.clone()),
                plain(held.path.clone()),
                plain(short(&newest)),
                plain(held.trees.to_string()),
                plain(held.blobs.to_string()),
                plain(percent(held.hydrated_blobs, held.total_blobs)),
                plain(size(held.disk_bytes)),
                (held.last_error.clone(), Mood::Bad),
            ]);
        }
    }
    rows.render()
}
