//! The tables of the live view.

use monofs_api::commands::{LiveClient, LiveFetcher, LiveFigures, LiveNode};
use monofs_api::jobs::{JobCondition, JobDocument};

use crate::mood::{Mood, member_mood, node_mood};
use crate::text::{latency, rate, size};
use crate::top::grid::{Grid, GridCell};

/// A disk that is fuller than this is pointed at, and one that is fuller than that is bad, in per
/// cent.
const DISK_UNEASY: f64 = 80.0;
const DISK_BAD: f64 = 95.0;
/// A latency above these bounds, in seconds.
const LATENCY_UNEASY: f64 = 0.1;
const LATENCY_BAD: f64 = 0.5;

fn count(value: Option<u64>) -> GridCell {
    GridCell::number(
        value.map(|value| value as f64),
        value.map_or_else(|| "-".to_owned(), |value| value.to_string()),
    )
}

/// A count that should be 0.
fn trouble(value: Option<u64>) -> GridCell {
    let mood = if value.is_some_and(|value| value > 0) {
        Mood::Uneasy
    } else {
        Mood::Plain
    };
    count(value).mood(mood)
}

fn bytes(value: Option<u64>) -> GridCell {
    GridCell::number(
        value.map(|value| value as f64),
        value.map_or_else(|| "-".to_owned(), size),
    )
}

fn rates(value: Option<f64>) -> GridCell {
    GridCell::number(value, rate(value))
}

fn failures(value: Option<f64>) -> GridCell {
    let mood = if value.is_some_and(|value| value > 0.0) {
        Mood::Bad
    } else {
        Mood::Plain
    };
    rates(value).mood(mood)
}

fn byte_rates(value: Option<f64>) -> GridCell {
    GridCell::number(value, value.map_or_else(|| "-".to_owned(), byte_rate))
}

/// Bytes a second.
pub fn byte_rate(per_second: f64) -> String {
    format!("{}/s", size(per_second as u64))
}

fn time(seconds: Option<f64>) -> GridCell {
    GridCell::number(seconds, latency(seconds)).mood(match seconds {
        Some(seconds) if seconds > LATENCY_BAD => Mood::Bad,
        Some(seconds) if seconds > LATENCY_UNEASY => Mood::Uneasy,
        _ => Mood::Plain,
    })
}

fn per_cent(value: Option<f64>) -> GridCell {
    GridCell::number(
        value,
        value.map_or_else(|| "-".to_owned(), |value| format!("{:.0} %", value.floor())),
    )
}

/// How full a disk is.
fn disk(node: &LiveNode) -> GridCell {
    let full = node
        .disk_used_bytes
        .zip(node.disk_free_bytes)
        .and_then(|(used, free)| {
            let whole = used as f64 + free as f64;
            (whole > 0.0).then(|| used as f64 / whole * 100.0)
        });
    per_cent(full).mood(match full {
        Some(full) if full > DISK_BAD => Mood::Bad,
        Some(full) if full > DISK_UNEASY => Mood::Uneasy,
        _ => Mood::Plain,
    })
}

fn note(error: Option<&str>) -> GridCell {
    GridCell::text(error.unwrap_or_default()).mood(Mood::Bad)
}

/// The nodes.
pub fn nodes(figures: &LiveFigures) -> Grid {
    let headings = vec![
        "NODE", "STATE", ">READS", ">BYTES", ">P50", ">P99", ">FAIL", ">DISK", ">FREE", ">HYDR",
        ">HERE", ">REPOS", "NOTE",
    ];
    Grid {
        headings,
        rows: figures.nodes.iter().map(node_row).collect(),
    }
}

fn node_row(node: &LiveNode) -> Vec<GridCell> {
    // The cells are in the order of the headings.
    let (state, mood) = node_mood(&node.member);
    vec![
        GridCell::text(&node.id),
        GridCell::text(&state).mood(mood),
        rates(node.reads.requests_per_second),
        byte_rates(node.reads.bytes_per_second),
        time(node.reads.p50_seconds),
        time(node.reads.p99_seconds),
        failures(node.reads.failed_per_second),
        disk(node),
        bytes(node.disk_free_bytes),
        count(
            node.hydrations_running
                .map(|running| running.saturating_add(node.hydrations_queued.unwrap_or(0))),
        ),
        per_cent(node.chunks_here_percent),
        count(node.repositories),
        note(node.error.as_deref()),
    ]
}

/// The fetchers.
pub fn fetchers(figures: &LiveFigures) -> Grid {
    let headings = vec![
        "FETCHER", "STATE", ">RUN", ">WAIT", ">DONE", ">BYTES", ">FAILED", ">CACHE", ">OF",
        ">HITS", "NOTE",
    ];
    Grid {
        headings,
        rows: figures.fetchers.iter().map(fetcher_row).collect(),
    }
}

fn fetcher_row(fetcher: &LiveFetcher) -> Vec<GridCell> {
    // The cells are in the order of the headings.
    let state = GridCell::text(fetcher.state.word()).mood(member_mood(fetcher.member.state()));
    vec![
        GridCell::text(&fetcher.id),
        state,
        count(fetcher.fetches_running),
        trouble(fetcher.fetches_waiting),
        rates(fetcher.fetches_per_second),
        byte_rates(fetcher.bytes_per_second),
        trouble(fetcher.fetches_failed),
        bytes(fetcher.cache_bytes),
        bytes(fetcher.cache_bytes_max),
        per_cent(fetcher.cache_hits_percent),
        note(fetcher.error.as_deref()),
    ]
}

/// The jobs.
pub fn jobs(figures: &LiveFigures) -> Grid {
    let headings = vec!["JOB", "STATE", ">DONE", ">STEPS", ">LEFT", "NOW"];
    Grid {
        headings,
        rows: figures.jobs.iter().map(job_row).collect(),
    }
}

fn job_row(job: &JobDocument) -> Vec<GridCell> {
    // How far it is, and what it does now.
    let done =
        (job.steps_total > 0).then(|| job.steps_done as f64 / job.steps_total as f64 * 100.0);
    let now = [job.message.as_deref(), job.last_error.as_deref()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    let mood = match (job.last_error.is_some(), job.state) {
        (true, _) => Mood::Bad,
        (false, JobCondition::Running) => Mood::Good,
        (false, _) => Mood::Uneasy,
    };
    vec![
        GridCell::text(&job.id),
        GridCell::text(job.state.word()).mood(mood),
        per_cent(done),
        GridCell::number(
            Some(job.steps_done as f64),
            format!("{}/{}", job.steps_done, job.steps_total),
        ),
        bytes(Some(job.bytes_total.saturating_sub(job.bytes_done))),
        GridCell::text(&now.join("; ")).mood(if job.last_error.is_some() {
            Mood::Bad
        } else {
            Mood::Plain
        }),
    ]
}

/// The mounts.
pub fn clients(figures: &LiveFigures) -> Grid {
    let headings = vec![
        "CLIENT", ">UPCALLS", ">FETCHED", ">HITS", ">CACHE", ">FAILED", ">LAG", ">MEMORY", "MOUNT",
        "ROUTER", "VERSION",
    ];
    Grid {
        headings,
        rows: figures.clients.iter().map(client_row).collect(),
    }
}

fn client_row(client: &LiveClient) -> Vec<GridCell> {
    // The cells are in the order of the headings.
    vec![
        GridCell::text(&client.id),
        rates(client.upcalls_per_second),
        byte_rates(client.bytes_per_second),
        per_cent(client.cache_hits_percent),
        bytes(client.cache_bytes),
        trouble(client.failed),
        trouble(client.lagging_repositories),
        bytes(client.resident_bytes),
        GridCell::text(&client.mount),
        GridCell::text(client.router_id.as_deref().unwrap_or("-")),
        GridCell::text(&client.version),
    ]
}
