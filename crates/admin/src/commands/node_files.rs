//! `node-files`: what a node holds.

use anyhow::Result;
use monofs_api::commands::{FilesOfNode, HeldFiles, NodeFiles};
use monofs_api::{hex, said};
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::RouterClient;
use crate::display_path::display_path;
use crate::mood::{Mood, plain};
use crate::output::{TextTable, emit, emit_json, note};
use crate::session::CommandSession;
use crate::text::{clean, percent, short, size};

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

pub async fn run(args: NodeFilesArgs, session: &CommandSession) -> Result<()> {
    let path = display_path(&args.path)?;
    let message = v1::NodeFilesRequest {
        node_id: args.node_id.clone(),
        path: path.clone(),
    };
    let call = |router: RouterClient| {
        let request = router.request(message.clone());
        async move { router.admin().node_files(request).await }
    };
    // A path or a node that is not there is told with what may have been meant.
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
        .filter(|node| !node.error.is_empty() && node.repositories.is_empty())
        .count();
    // Nodes that could not be asked are told beside what the others hold.
    if session.json() {
        emit_json(&NodeFiles {
            nodes: answer.nodes.iter().map(node).collect(),
        })?;
    } else {
        emit(&table(&answer.nodes))?;
        for node in &answer.nodes {
            let id = clean(&node.node_id);
            if !node.error.is_empty() {
                note(&format!("{id}: {}", clean(&node.error)));
            }
            if let copies @ 1.. = orphans(node) {
                note(&format!(
                    "{id}: {copies} with commits that the catalogue does not name; nothing drops \
                     them, `monofs-admin ingest` or `refresh` takes them back"
                ));
            }
        }
    }
    if failed > 0 && failed == answer.nodes.len() {
        return Err(Failure::new(Code::Unreachable, "no node could be asked")
            .hint("`monofs-admin nodes` shows their states")
            .into());
    }
    Ok(())
}

fn node(wire: &v1::node_files_response::Entry) -> FilesOfNode {
    FilesOfNode {
        node_id: wire.node_id.clone(),
        orphaned_repositories: orphans(wire),
        repositories: wire.repositories.iter().map(held_files).collect(),
        error: said(&wire.error),
    }
}

fn held_files(wire: &v1::HeldRepository) -> HeldFiles {
    let orphaned = wire.orphaned_commits.iter();
    HeldFiles {
        held: wire.into(),
        orphaned_commits: orphaned.map(|commit| hex(commit)).collect(),
    }
}

fn orphans(wire: &v1::node_files_response::Entry) -> usize {
    let held = wire.repositories.iter();
    held.filter(|held| !held.orphaned_commits.is_empty())
        .count()
}

/// Whether the catalogue names all commits that are held.
fn named(held: &v1::HeldRepository) -> (String, Mood) {
    let (word, mood) = match held.orphaned_commits.len() {
        0 => ("named", Mood::Plain),
        all if all == held.snapshots.len() => ("not named", Mood::Bad),
        _ => ("in part", Mood::Bad),
    };
    (word.to_owned(), mood)
}

fn table(nodes: &[v1::node_files_response::Entry]) -> String {
    let mut rows = TextTable::new(&[
        "NODE",
        "PATH",
        "COMMIT",
        ">DIRECTORIES",
        ">FILES",
        ">CONTENTS",
        ">DISK",
        "CATALOGUE",
        "LAST ERROR",
    ]);
    // One row for each repository of each node.
    for node in nodes {
        for held in &node.repositories {
            let newest = held
                .snapshots
                .last()
                .map(|snapshot| hex(&snapshot.commit))
                .unwrap_or_default();
            rows.row_with([
                plain(node.node_id.clone()),
                plain(held.path.clone()),
                plain(short(&newest)),
                plain(held.trees.to_string()),
                plain(held.blobs.to_string()),
                plain(percent(held.hydrated_blobs, held.total_blobs)),
                plain(size(held.disk_bytes)),
                named(held),
                (held.last_error.clone(), Mood::Bad),
            ]);
        }
    }
    rows.render()
}
