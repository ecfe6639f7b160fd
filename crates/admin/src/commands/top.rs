//! `top`: the cluster live on a terminal, or one plain snapshot of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use monofs_api::commands::LiveFigures;
use monofs_launch::args;

use crate::output::{emit, emit_json};
use crate::session::CommandSession;
use crate::text::{clean, latency, rate};
use crate::top::figures::SampleHistory;
use crate::top::{live, panels, terminal};

/// Between the two samples of a snapshot, at most: what happens in it is shown as rates.
const SNAPSHOT_INTERVAL_MAX: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Examples:
  monofs-admin top
  monofs-admin top --router=router1:9090,router2:9090 --interval=5s
  monofs-admin top --once
  monofs-admin top --once --format=json

Keys: q quits, ? explains all of them. When the router goes away, the next one of --router is asked.
Where standard output is no terminal, or with --once, one snapshot is printed: rates in it are over
--interval, but 2s at most.";

/// Show the cluster live: reads, latencies, disks, jobs, mounts
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct TopArgs {
    /// Print one snapshot and end
    #[arg(long)]
    once: bool,
    /// Time between two samples
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = args::duration)]
    interval: Duration,
}

pub async fn run(args: TopArgs, session: &CommandSession) -> Result<()> {
    if !args.once && !session.json() && terminal::is_there() {
        return live::run(session, args.interval).await;
    }
    let start = Instant::now();
    let mut history = SampleHistory::default();
    history.take(live::sample(session, start).await?);
    tokio::time::sleep(args.interval.min(SNAPSHOT_INTERVAL_MAX)).await;
    let figures = history.take(live::sample(session, start).await?);
    if session.json() {
        emit_json(&figures)
    } else {
        emit(&plain(&figures))
    }
}

/// A snapshot as text.
fn plain(figures: &LiveFigures) -> String {
    // The cluster in three lines.
    let reads = &figures.reads;
    let mut text = format!(
        "{}: router {}, {} leads\nreads {}  {}  p50 {}  p99 {}  failed {}\nrepositories {} ready, \
         {} being ingested, {} failed\n",
        figures.health.word(),
        clean(&figures.router),
        clean(figures.leader.as_deref().unwrap_or("no router")),
        rate(reads.requests_per_second),
        reads
            .bytes_per_second
            .map_or_else(|| "-".to_owned(), panels::byte_rate),
        latency(reads.p50_seconds),
        latency(reads.p99_seconds),
        rate(reads.failed_per_second),
        figures.repositories_ready,
        figures.repositories_ingesting,
        figures.repositories_failed,
    );
    // What is wrong, then a table for each kind of member.
    for finding in &figures.findings {
        text.push_str(&format!("! {}\n", clean(&finding.problem)));
    }
    for grid in [
        panels::nodes(figures),
        panels::fetchers(figures),
        panels::jobs(figures),
        panels::clients(figures),
    ] {
        if !grid.rows.is_empty() {
            text.push('\n');
            text.push_str(&grid.plain());
        }
    }
    text
}
