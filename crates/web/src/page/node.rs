//! One node: what it holds, how it does, what it went through, and to move reads and copies off it
//! or back.

use askama::Template;
use monofs_model::{Member, Result};
use monofs_proto::v1;
use monofs_proto::v1::node_intent::Kind;
use serde::Deserialize;

use super::chart::{Chart, Unit};
use super::jobs::JobRow;
use super::nodes::{disk, said, served, weight};
use super::parts::{Bar, State};
use super::shell::Shell;
use super::text::{When, clean, encode_path, number, percent, size};
use monofs_control::clock;
use monofs_members::membership;
use monofs_members::membership::seen::StateChange;
use monofs_router::history::HistoryRange;
use monofs_router::parts::Parts;
use monofs_router::reconcile::jobs::has_ended;
use monofs_router::status::ago;

/// Repositories that are listed; all of them are in its list by terminal.
const REPOSITORIES_MAX: usize = 100;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeQuery {
    range: String,
}

/// What the node said of itself.
struct Figures {
    disk: Bar,
    repositories: String,
    open_stores: String,
    hydrations: String,
    served: String,
    hit_ratio: String,
    failed: String,
}

struct Held {
    path: String,
    href: String,
    size: String,
    copies: usize,
}

struct Passed {
    at: When,
    state: State,
    why: String,
}

#[derive(Template)]
#[template(path = "node.html")]
pub(super) struct NodePage {
    shell: Shell,
    id: String,
    /// As the API takes it.
    exact: String,
    url: String,
    state: State,
    standing: String,
    heard: String,
    /// Why the last probe failed, if it did.
    probe: Option<String>,
    address: String,
    external: String,
    zone: String,
    weight: String,
    version: String,
    capacity: Option<String>,
    share: Option<u32>,
    intent: Option<String>,
    drains: bool,
    failed_over: bool,
    /// Fewer copies than wanted would be left without it.
    needs_force: bool,
    figures: Option<Figures>,
    sampled: Option<When>,
    held_total: String,
    held: Vec<Held>,
    jobs: Vec<JobRow>,
    passed: Vec<Passed>,
    charts: Vec<Chart>,
    day: bool,
}

/// Errors: `NotFound`; `Refused` for a fetcher.
pub(super) fn page(state: &Parts, id: &str, asked: &NodeQuery) -> Result<NodePage> {
    let view = state.fleet.members.view();
    let node = membership::node(&view, id)?;
    let held = state.control.catalog.held_by(&node.id);
    let heard = state.fleet.members.heard(&node.id);
    let intent = state.control.tables.intents.get(id);
    let others = membership::placeable(&view)
        .iter()
        .filter(|other| other.id != node.id)
        .count();
    let day = asked.range == "24h";
    let stat = said(state, node);
    let mut jobs: Vec<v1::Job> = state.control.tables.jobs.list();
    jobs.retain(|job| job.subject == id && !has_ended(job));
    Ok(NodePage {
        shell: Shell::new(state, &format!("Node {id}"), "/nodes"),
        id: clean(id),
        exact: id.to_owned(),
        url: encode_path(id),
        state: State::of_member(node),
        standing: state
            .fleet
            .members
            .standing_for(&node.id)
            .map_or("–".to_owned(), ago),
        heard: heard
            .ago
            .map_or("never".to_owned(), |passed| format!("{} ago", ago(passed))),
        probe: heard.failure.as_deref().map(clean),
        address: clean(&node.address),
        external: clean(&node.external_address),
        zone: clean(&node.zone),
        weight: weight(node.weight),
        version: clean(&node.version),
        capacity: (node.capacity_bytes > 0).then(|| size(node.capacity_bytes)),
        share: (node.share_percent < 100).then_some(node.share_percent),
        intent: intent.as_ref().map(wanted),
        drains: intent
            .as_ref()
            .is_some_and(|intent| intent.kind() == Kind::Drain),
        failed_over: intent
            .as_ref()
            .is_some_and(|intent| intent.kind() == Kind::Failover),
        needs_force: others < view.replication_factor.max(1) as usize,
        figures: stat.as_ref().map(|stat| figures(node, stat)),
        sampled: state
            .work
            .history
            .latest()
            .map(|latest| When::at(latest.at)),
        held_total: number(held.len() as u64),
        held: held
            .iter()
            .take(REPOSITORIES_MAX)
            .map(|entry| shown(entry))
            .collect(),
        jobs: jobs.iter().map(JobRow::new).collect(),
        passed: state
            .fleet
            .members
            .states(&node.id)
            .into_iter()
            .rev()
            .map(passed)
            .collect(),
        charts: charts(state, node, day),
        day,
    })
}

/// What an operator wants of it, in words.
fn wanted(intent: &v1::NodeIntent) -> String {
    let what = match intent.kind() {
        Kind::Drain if intent.emptied => "It is drained and holds nothing that is needed",
        Kind::Drain => "Its copies move off",
        _ => "Reads left it, and its copies are made elsewhere",
    };
    let why = if intent.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", clean(&intent.reason))
    };
    format!("{what}{why}")
}

fn figures(node: &Member, stat: &v1::StatResponse) -> Figures {
    Figures {
        disk: disk(node, stat),
        repositories: number(stat.repositories),
        open_stores: number(stat.open_stores),
        hydrations: format!(
            "{} running, {} waiting",
            number(stat.hydrations_running),
            number(stat.hydrations_queued)
        ),
        served: served(stat),
        hit_ratio: percent(stat.chunks_held, stat.chunks_held + stat.chunks_missed).map_or_else(
            || "nothing was asked for".to_owned(),
            |part| format!("{part} of what was asked for"),
        ),
        failed: number(stat.requests_failed),
    }
}

fn shown(entry: &monofs_model::Repository) -> Held {
    Held {
        path: clean(entry.path.as_str()),
        href: format!("/repos/{}", encode_path(entry.path.as_str())),
        size: entry
            .snapshot
            .as_ref()
            .map_or("–".to_owned(), |snapshot| size(snapshot.bytes)),
        copies: entry.holders.len(),
    }
}

fn passed(change: StateChange) -> Passed {
    Passed {
        at: When::at(change.since),
        state: State::of_member_state(change.state),
        why: clean(&change.why),
    }
}

fn charts(state: &Parts, node: &Member, day: bool) -> Vec<Chart> {
    let (range, seconds) = if day {
        (HistoryRange::Day, 86_400)
    } else {
        (HistoryRange::Hour, 3600)
    };
    let Some(table) = state.work.history.node(&node.id, range) else {
        return Vec::new();
    };
    let now = clock::now();
    vec![
        Chart::new(
            "Reads",
            Unit::PerSecond,
            &table,
            &[("reads_per_second", "answered")],
            now,
            seconds,
        ),
        Chart::new(
            "Disk used",
            Unit::Bytes,
            &table,
            &[("disk_used_bytes", "used")],
            now,
            seconds,
        ),
    ]
}
