//! `stats`: figures of the cluster as a whole, of each node, or both.

use anyhow::Result;
use monofs_proto::v1;
use serde::Serialize;

use crate::commands::{Session, nodes};
use crate::output::{Rows, emit, emit_json, fields};
use crate::shapes;
use crate::text::size;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin stats --type=cluster
  monofs-admin stats --type=all --format=json";

/// Show figures of the cluster, of its nodes, or both
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Whose figures
    #[arg(long = "type", default_value = "cluster")]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Cluster,
    Nodes,
    All,
}

#[derive(Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Totals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<shapes::Node>>,
}

/// Sums over the catalogue and over the nodes that could be asked.
#[derive(Debug, Default, Serialize)]
struct Totals {
    repositories_ready: u64,
    repositories_ingesting: u64,
    repositories_failed: u64,
    directories: u64,
    files: u64,
    bytes: u64,
    nodes: usize,
    nodes_active: usize,
    nodes_asked: usize,
    disk_used_bytes: u64,
    disk_free_bytes: u64,
    hydrations_running: u64,
    hydrations_queued: u64,
    trees_served: u64,
    chunks_served: u64,
    bytes_served: u64,
    fetchers: usize,
    fetchers_active: usize,
    clients: usize,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let status = session.status().await?;
    let cluster = match args.kind {
        Kind::Nodes => None,
        Kind::Cluster | Kind::All => Some(totals(&status, &session.repositories("").await?)),
    };
    let with_nodes = args.kind != Kind::Cluster;
    if session.json() {
        let nodes = with_nodes.then(|| status.nodes.iter().map(Into::into).collect());
        return emit_json(&Answer { cluster, nodes });
    }
    let mut text = cluster.as_ref().map(lines).unwrap_or_default();
    if with_nodes {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&nodes::table(&status.nodes));
        text.push('\n');
        text.push_str(&served(&status.nodes));
    }
    emit(&text)
}

fn totals(status: &v1::StatusResponse, repositories: &[v1::Repository]) -> Totals {
    let active =
        |member: &Option<v1::Member>| member.as_ref().is_some_and(|member| member.state() == v1::MemberState::Active);
    let mut totals = Totals {
        repositories_ready: status.repositories_ready,
        repositories_ingesting: status.repositories_ingesting,
        repositories_failed: status.repositories_failed,
        nodes: status.nodes.len(),
        nodes_active: status.nodes.iter().filter(|node| active(&node.member)).count(),
        fetchers: status.fetchers.len(),
        fetchers_active: status.fetchers.iter().filter(|fetcher| active(&fetcher.member)).count(),
        clients: status.clients.len(),
        ..Totals::default()
    };
    let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
    for snapshot in repositories.iter().filter_map(|repository| repository.snapshot.as_ref()) {
        add(&mut totals.directories, snapshot.trees);
        add(&mut totals.files, snapshot.blobs);
        add(&mut totals.bytes, snapshot.bytes);
    }
    for stat in status.nodes.iter().filter_map(|node| node.stat.as_ref()) {
        totals.nodes_asked += 1;
        add(&mut totals.disk_used_bytes, stat.disk_used_bytes);
        add(&mut totals.disk_free_bytes, stat.disk_free_bytes);
        add(&mut totals.hydrations_running, stat.hydrations_running);
        add(&mut totals.hydrations_queued, stat.hydrations_queued);
        add(&mut totals.trees_served, stat.trees_served);
        add(&mut totals.chunks_served, stat.chunks_served);
        add(&mut totals.bytes_served, stat.bytes_served);
    }
    totals
}

fn lines(totals: &Totals) -> String {
    let Totals { repositories_ready: ready, repositories_ingesting: ingesting, repositories_failed: failed, .. } =
        totals;
    fields(&[
        ("repositories", format!("{ready} ready, {ingesting} being ingested, {failed} failed")),
        ("directories", totals.directories.to_string()),
        ("files", format!("{}, {}", totals.files, size(totals.bytes))),
        ("nodes", format!("{} active of {}", totals.nodes_active, totals.nodes)),
        ("disk", format!("{} used, {} free", size(totals.disk_used_bytes), size(totals.disk_free_bytes))),
        ("hydrations", format!("{} running, {} queued", totals.hydrations_running, totals.hydrations_queued)),
        (
            "served",
            format!("{} trees, {} chunks, {}", totals.trees_served, totals.chunks_served, size(totals.bytes_served)),
        ),
        ("fetchers", format!("{} active of {}", totals.fetchers_active, totals.fetchers)),
        ("clients", totals.clients.to_string()),
    ])
}

fn served(nodes: &[v1::NodeStatus]) -> String {
    let mut rows = Rows::new(&[
        "NODE",
        ">TREES SERVED",
        ">CHUNKS SERVED",
        ">BYTES SERVED",
        ">HYDRATING",
        ">QUEUED",
        ">OPEN STORES",
    ]);
    for node in nodes {
        let id = node.member.as_ref().map(|member| member.id.clone()).unwrap_or_default();
        let Some(stat) = &node.stat else { continue };
        rows.row([
            id,
            stat.trees_served.to_string(),
            stat.chunks_served.to_string(),
            size(stat.bytes_served),
            stat.hydrations_running.to_string(),
            stat.hydrations_queued.to_string(),
            stat.open_stores.to_string(),
        ]);
    }
    rows.render()
}
