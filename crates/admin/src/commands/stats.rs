//! `stats`: figures of the cluster as a whole, of its members, of the mounts, or all of them.

mod totals;

use anyhow::Result;
use monofs_api::clients::ClientDocument;
use monofs_api::members::{FetcherDocument, NodeDocument};
use monofs_api::reads::ReadCounts;
use monofs_api::stats::{ClusterFigures, totals};
use monofs_proto::v1;

use crate::commands::{fetchers, nodes};
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::{ago, latency, percent, size};
use totals::lines;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin stats --type=cluster
  monofs-admin stats --type=nodes
  monofs-admin stats --type=all --format=json

Counters are since the member, or the mount, started; `monofs-admin top` shows them as rates. A `-`
stands for what a member does not tell, because it cannot be asked or is older. Latencies are upper
bounds.";

/// Show figures of the cluster, of its nodes, fetchers and mounts, or all
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatsArgs {
    /// Which figures
    #[arg(long = "type", default_value = "cluster")]
    kind: FigureKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FigureKind {
    /// Sums over all of it
    Cluster,
    Nodes,
    Fetchers,
    /// The mounts
    Clients,
    All,
}

pub async fn run(args: StatsArgs, session: &CommandSession) -> Result<()> {
    // Only sums over the catalogue need the list of it.
    let status = session.status().await?;
    let cluster = match args.kind.includes(FigureKind::Cluster) {
        true => Some(totals(&status, &session.repositories("").await?)),
        false => None,
    };
    if session.json() {
        return emit_json(&ClusterFigures {
            cluster,
            nodes: args
                .kind
                .includes(FigureKind::Nodes)
                .then(|| NodeDocument::of_status(&status)),
            fetchers: args
                .kind
                .includes(FigureKind::Fetchers)
                .then(|| FetcherDocument::of_status(&status)),
            clients: args
                .kind
                .includes(FigureKind::Clients)
                .then(|| ClientDocument::of_status(&status)),
        });
    }
    // The same as tables.
    let mut parts: Vec<String> = cluster.iter().map(lines).collect();
    if args.kind.includes(FigureKind::Nodes) {
        parts.push(nodes::table(&status.nodes));
        parts.push(served(&status.nodes));
    }
    if args.kind.includes(FigureKind::Fetchers) {
        parts.push(fetchers::table(&status.fetchers));
    }
    if args.kind.includes(FigureKind::Clients) {
        parts.push(mounts(&status.clients));
    }
    emit(&parts.join("\n"))
}

impl FigureKind {
    fn includes(self, other: Self) -> bool {
        self == other || self == Self::All
    }
}

/// What each node did for readers.
fn served(nodes: &[v1::NodeStatus]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let headings = [
        "NODE",
        ">REQUESTS",
        ">FAILED",
        ">P50",
        ">P99",
        ">HERE",
        ">TREES",
        ">CHUNKS",
        ">BYTES SERVED",
        ">HYDRATING",
        ">QUEUED",
        ">OPEN STORES",
    ];
    let mut rows = TextTable::new(&headings);
    // Figures of a node that does not tell are dashes.
    for node in nodes {
        let id = node
            .member
            .as_ref()
            .map(|member| member.id.clone())
            .unwrap_or_default();
        let requests = node.stat.as_ref().and_then(ReadCounts::of);
        let asked =
            |of: fn(&ReadCounts) -> String| requests.as_ref().map_or_else(|| "-".to_owned(), of);
        let figure = |of: fn(&v1::StatResponse) -> String| {
            node.stat.as_ref().map_or_else(|| "-".to_owned(), of)
        };
        rows.row([
            id,
            asked(|requests| requests.answered.to_string()),
            asked(|requests| requests.failed.to_string()),
            asked(|requests| latency(requests.p50_seconds)),
            asked(|requests| latency(requests.p99_seconds)),
            asked(|requests| {
                percent(
                    requests.chunks_held,
                    requests.chunks_held.saturating_add(requests.chunks_missed),
                )
            }),
            figure(|stat| stat.trees_served.to_string()),
            figure(|stat| stat.chunks_served.to_string()),
            figure(|stat| size(stat.bytes_served)),
            figure(|stat| stat.hydrations_running.to_string()),
            figure(|stat| stat.hydrations_queued.to_string()),
            figure(|stat| stat.open_stores.to_string()),
        ]);
    }
    rows.render()
}

/// The mounts and what each reported.
fn mounts(clients: &[v1::ClientStatus]) -> String {
    if clients.is_empty() {
        return "no mounts\n".to_owned();
    }
    let headings = [
        "CLIENT",
        "MOUNT",
        "VERSION",
        "ROUTER",
        ">CONNECTED",
        ">CACHE",
        ">OF",
        ">HITS",
        ">FETCHED",
        ">UPCALLS",
        ">FAILED",
        ">LAGGING",
        ">MEMORY",
        ">REPORTED",
    ];
    let mut rows = TextTable::new(&headings);
    // Figures of a mount that has not reported are dashes.
    for client in clients {
        let figure = |of: fn(&v1::ClientReport) -> String| {
            client.report.as_ref().map_or_else(|| "-".to_owned(), of)
        };
        let router = if client.router_id.is_empty() {
            "-"
        } else {
            &client.router_id
        };
        rows.row([
            client.client_id.clone(),
            client.mount.clone(),
            client.version.clone(),
            router.to_owned(),
            ago(client.connected_at),
            figure(|report| size(report.cache_bytes)),
            figure(|report| size(report.cache_bytes_max)),
            figure(|report| {
                percent(
                    report.cache_hits,
                    report.cache_hits.saturating_add(report.cache_misses),
                )
            }),
            figure(|report| size(report.bytes_fetched)),
            figure(|report| report.upcalls.to_string()),
            figure(|report| report.failed.to_string()),
            figure(|report| report.lagging.to_string()),
            figure(|report| size(report.resident_bytes)),
            ago(client.reported_at),
        ]);
    }
    rows.render()
}
