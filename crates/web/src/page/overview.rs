//! The first page: is it healthy, what does it do, what is to be done next.

use askama::Template;
use monofs_model::{Member, MemberState};
use monofs_proto::v1;
use monofs_proto::v1::job;
use serde::Deserialize;

use super::chart::{Chart, Spark, Unit, values};
use super::jobs::JobRow;
use super::parts::State;
use super::shell::Shell;
use super::text::{When, clean, count, number};
use monofs_control::clock;
use monofs_router::history::{HistoryRange, HistoryTable};
use monofs_router::parts::Parts;
use monofs_router::reconcile::jobs::has_ended;

/// Jobs that are shown here; the others on their own page.
const JOBS_MAX: usize = 5;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OverviewQuery {
    range: String,
}

/// One figure.
struct Tile {
    href: &'static str,
    name: &'static str,
    value: String,
    unit: &'static str,
    more: String,
    tone: &'static str,
    spark: Option<Spark>,
}

struct RouterRow {
    id: String,
    address: String,
    version: String,
    since: When,
    leads: bool,
    here: bool,
}

#[derive(Template)]
#[template(path = "overview.html")]
pub(super) struct OverviewPage {
    shell: Shell,
    tiles: Vec<Tile>,
    day: bool,
    charts: Vec<Chart>,
    routers: Vec<RouterRow>,
    jobs: Vec<JobRow>,
    more_jobs: usize,
    maintenance: Option<String>,
    first_run: Option<FirstRun>,
}

/// What to type first.
struct FirstRun {
    router: String,
    has_node: bool,
    has_fetcher: bool,
}

pub(super) fn page(state: &Parts, asked: &OverviewQuery) -> OverviewPage {
    let day = asked.range == "24h";
    let hour = state.work.history.cluster(HistoryRange::Hour);
    let shown = if day {
        state.work.history.cluster(HistoryRange::Day)
    } else {
        hour.clone()
    };
    let mut open: Vec<v1::Job> = state.control.tables.jobs.list();
    open.retain(|job| !has_ended(job));
    open.sort_by_key(|job| std::cmp::Reverse(job.started_at));
    OverviewPage {
        shell: Shell::new(state, "Overview", "/"),
        tiles: tiles(state, &hour, &open),
        day,
        charts: charts(&shown, clock::now(), if day { 86_400 } else { 3600 }),
        routers: routers(state),
        more_jobs: open.len().saturating_sub(JOBS_MAX),
        jobs: open.iter().take(JOBS_MAX).map(JobRow::new).collect(),
        maintenance: state
            .control
            .tables
            .maintenance
            .get("")
            .map(|maintenance| clean(&maintenance.reason)),
        first_run: first_run(state),
    }
}

/// Commands to type while something is missing that nothing works without.
fn first_run(state: &Parts) -> Option<FirstRun> {
    let view = state.fleet.members.view();
    let has_node = view.nodes().next().is_some();
    let has_fetcher = view.fetchers().next().is_some();
    let nothing = state.control.catalog.is_empty();
    (nothing || !has_node || !has_fetcher).then(|| FirstRun {
        router: clean(&state.control.own.address),
        has_node,
        has_fetcher,
    })
}

fn tiles(state: &Parts, hour: &HistoryTable, jobs: &[v1::Job]) -> Vec<Tile> {
    let now = clock::now();
    let hour = HourFigures { table: hour, now };
    let mut tiles = standing(state, jobs);
    let errors = hour
        .last("errors_per_second")
        .filter(|errors| *errors > 0.0);
    tiles.extend([
        Tile {
            href: "#history",
            name: "Reads",
            value: hour.known(Unit::PerSecond, "reads_per_second"),
            unit: "",
            more: match errors {
                Some(errors) => format!("{} fail", Unit::PerSecond.show(errors)),
                None => format!(
                    "{} served",
                    hour.known(Unit::BytesPerSecond, "bytes_per_second")
                ),
            },
            tone: if errors.is_some() { "bad" } else { "" },
            spark: hour.spark(Unit::PerSecond, "reads_per_second"),
        },
        Tile {
            href: "#history",
            name: "99 % answered within",
            value: hour.known(Unit::Seconds, "latency_p99_seconds"),
            unit: "",
            more: format!(
                "half within {}",
                hour.known(Unit::Seconds, "latency_p50_seconds")
            ),
            tone: "",
            spark: hour.spark(Unit::Seconds, "latency_p99_seconds"),
        },
        Tile {
            href: "#history",
            name: "Hits in client caches",
            value: hour.known(Unit::Ratio, "client_hit_ratio"),
            unit: "",
            more: format!(
                "nodes {}, fetchers {}",
                hour.known(Unit::Ratio, "node_hit_ratio"),
                hour.known(Unit::Ratio, "fetcher_hit_ratio")
            ),
            tone: "",
            spark: hour.spark(Unit::Ratio, "client_hit_ratio"),
        },
        Tile {
            href: "/placement",
            name: "Disk used by nodes",
            value: hour.known(Unit::Bytes, "disk_used_bytes"),
            unit: "",
            more: String::new(),
            tone: "",
            spark: hour.spark(Unit::Bytes, "disk_used_bytes"),
        },
    ]);
    tiles
}

/// Figures of the last hour.
struct HourFigures<'a> {
    table: &'a HistoryTable,
    now: i64,
}

impl HourFigures<'_> {
    /// The newest value of a series; `None` = not known.
    fn last(&self, series: &str) -> Option<f64> {
        values(self.table, series).last().copied().flatten()
    }

    /// The newest value as people read it, or a dash.
    fn known(&self, unit: Unit, series: &str) -> String {
        self.last(series)
            .map_or("–".to_owned(), |value| unit.show(value))
    }

    /// Its curve.
    fn spark(&self, unit: Unit, series: &str) -> Option<Spark> {
        Spark::new(unit, self.table, series, self.now, 3600)
    }
}

/// Who and what is there.
fn standing(state: &Parts, jobs: &[v1::Job]) -> Vec<Tile> {
    let view = state.fleet.members.view();
    let copies = view.copies_wanted();
    let summary = state.control.catalog.summary(copies);
    let mut troubles = Vec::new();
    for (many, what) in [
        (summary.ingesting, "ingesting"),
        (summary.failed.count, "failed"),
        (summary.few.count, "short of copies"),
        (summary.stale.count, "not refreshing"),
    ] {
        if many > 0 {
            troubles.push(format!("{} {what}", number(many as u64)));
        }
    }
    let bad = summary.failed.count + summary.few.count + summary.stale.count > 0;
    let waiting = jobs
        .iter()
        .filter(|job| job.state() == job::State::Waiting)
        .count();
    let ingests = state.work.ingests.len() as u64;
    let clients = state.work.watchers.len();
    vec![
        Tile {
            href: "/repos",
            name: "Repositories",
            value: number(summary.ready as u64),
            unit: "ready",
            more: if troubles.is_empty() {
                format!("{copies} copies of each")
            } else {
                troubles.join(", ")
            },
            tone: if bad { "warn" } else { "" },
            spark: None,
        },
        members("/nodes", "Nodes", view.nodes().collect()),
        members("/fetchers", "Fetchers", view.fetchers().collect()),
        Tile {
            href: "/clients",
            name: "Clients of this router",
            value: number(clients as u64),
            unit: "connected",
            more: String::new(),
            tone: "",
            spark: None,
        },
        Tile {
            href: "/jobs",
            name: "Jobs",
            value: number((jobs.len() - waiting) as u64),
            unit: "running",
            more: format!(
                "{} waiting, {}",
                number(waiting as u64),
                count(ingests, "ingest")
            ),
            tone: if waiting > 0 { "warn" } else { "" },
            spark: None,
        },
    ]
}

fn members(href: &'static str, name: &'static str, members: Vec<&Member>) -> Tile {
    let active = members
        .iter()
        .filter(|member| member.state == MemberState::Active && !member.failed_over)
        .count();
    let mut others: Vec<(&'static str, usize)> = Vec::new();
    for member in members
        .iter()
        .filter(|member| member.state != MemberState::Active || member.failed_over)
    {
        let word = State::of_member(member).word;
        match others.iter_mut().find(|(known, _)| *known == word) {
            Some((_, many)) => *many += 1,
            None => others.push((word, 1)),
        }
    }
    let down = members
        .iter()
        .any(|member| member.state == MemberState::Down);
    let more = others
        .iter()
        .map(|(word, many)| format!("{many} {word}"))
        .collect::<Vec<_>>()
        .join(", ");
    Tile {
        href,
        name,
        value: number(active as u64),
        unit: "active",
        more: match (members.is_empty(), more.is_empty()) {
            (true, _) => "none known".to_owned(),
            (false, true) => "all of them".to_owned(),
            (false, false) => more,
        },
        tone: if down || members.is_empty() {
            "bad"
        } else if others.is_empty() {
            ""
        } else {
            "warn"
        },
        spark: None,
    }
}

fn charts(table: &HistoryTable, now: i64, seconds: i64) -> Vec<Chart> {
    let chart = |title, unit, series: &[(&'static str, &'static str)]| {
        Chart::new(title, unit, table, series, now, seconds)
    };
    vec![
        chart(
            "Reads",
            Unit::PerSecond,
            &[
                ("reads_per_second", "answered"),
                ("errors_per_second", "failed"),
            ],
        ),
        chart(
            "Latency of nodes",
            Unit::Seconds,
            &[
                ("latency_p99_seconds", "99 % within"),
                ("latency_p50_seconds", "half within"),
            ],
        ),
        chart(
            "Answered by caches",
            Unit::Ratio,
            &[("client_hit_ratio", "clients"), ("node_hit_ratio", "nodes")],
        ),
        chart(
            "Served by nodes",
            Unit::BytesPerSecond,
            &[("bytes_per_second", "bytes")],
        ),
        chart(
            "Members",
            Unit::Count,
            &[
                ("nodes_serving", "nodes that serve"),
                ("members_silent", "silent members"),
            ],
        ),
        chart("Jobs", Unit::Count, &[("jobs_running", "not ended")]),
    ]
}

fn routers(state: &Parts) -> Vec<RouterRow> {
    let row = |router: v1::RouterStatus| RouterRow {
        here: router.router_id == state.control.own.router_id,
        id: clean(&router.router_id),
        address: clean(&router.address),
        version: clean(&router.version),
        since: When::at(router.started_at),
        leads: router.leader,
    };
    state.control.routers().into_iter().map(row).collect()
}
