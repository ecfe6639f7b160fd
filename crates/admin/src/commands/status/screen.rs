//! The status as one screen of text: the word, what is wrong, one line for each kind of thing, and
//! the members.
//!
//! Invariant: it has no more lines than the screen (24 where it goes anywhere else), because what
//! does not fit is counted and the command that lists it is named.

use std::collections::BTreeSet;

use monofs_api::Health;
use monofs_api::commands::ClusterStatus;
use monofs_api::guide::RepositoriesByState;
use monofs_api::members::MemberCondition;
use monofs_proto::durations::quantile;
use monofs_proto::v1;

use crate::commands::jobs::figures;
use crate::mood::{Mood, member_mood, node_mood, plain};
use crate::output::{TextTable, painted, screen};
use crate::text::{clean, count, latency, percent, size, wrapped};

/// Lines that problems may take.
const PROBLEM_LINES_MAX: usize = 8;
/// Jobs that get a line of their own.
const JOBS_SHOWN_MAX: usize = 2;
/// Columns of the names in front of the summary's lines.
const NAME_WIDTH: usize = 14;
/// Fewest lines of the list of members.
const MEMBER_LINES_MIN: usize = 4;

/// The screen.
pub fn text(status: &v1::StatusResponse, answer: &ClusterStatus) -> String {
    let (lines, columns) = screen();
    let mut text = problems(answer, columns);
    text.push('\n');
    text.push_str(&summary(status, answer, columns));
    text.push('\n');
    // One line is left for the prompt.
    let left = lines
        .saturating_sub(text.lines().count() + 1)
        .max(MEMBER_LINES_MIN);
    text.push_str(&members(status, answer, left, columns));
    text
}

fn problems(answer: &ClusterStatus, columns: usize) -> String {
    let mood = match answer.health {
        Health::Healthy => Mood::Good,
        Health::Degraded => Mood::Uneasy,
        Health::Unhealthy => Mood::Bad,
    };
    let word = painted(answer.health.word(), mood);
    // Nothing is wrong: only what to begin with.
    if answer.findings.is_empty() {
        let first = answer
            .next
            .first()
            .map_or(String::new(), |next| format!("\n  > {next}"));
        return format!("{word}{first}\n");
    }
    let mut text = format!(
        "{word}: {}\n",
        count(answer.findings.len() as u64, "problem")
    );
    // Each problem with its command, as long as there is room.
    let mut told = BTreeSet::new();
    for (shown, finding) in answer.findings.iter().enumerate() {
        let mut lines = wrapped(&clean(&finding.problem), columns.saturating_sub(4));
        if let Some(next) = finding
            .next
            .as_ref()
            .filter(|next| told.insert((*next).clone()))
        {
            lines.push(format!("> {}", clean(next)));
        }
        let hidden = answer.findings.len() - shown;
        if text.lines().count() + lines.len() > PROBLEM_LINES_MAX && shown > 0 {
            text.push_str(&format!(
                "  and {hidden} more: monofs-admin status --format=json\n"
            ));
            break;
        }
        for (number, line) in lines.iter().enumerate() {
            text.push_str(if number == 0 { "  ! " } else { "    " });
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// One line for each kind of thing.
fn summary(status: &v1::StatusResponse, answer: &ClusterStatus, columns: usize) -> String {
    let RepositoriesByState {
        ready,
        ingesting,
        failed,
    } = &answer.repositories;
    let repositories = format!(
        "{ready} ready, {ingesting} being ingested, {failed} failed; {} wanted",
        count(u64::from(answer.replication_factor), "copy")
    );
    // A name, and lines that are broken where the screen ends.
    let mut text = String::new();
    let mut add = |name: &str, value: String| {
        for (number, line) in wrapped(&clean(&value), columns.saturating_sub(NAME_WIDTH))
            .iter()
            .enumerate()
        {
            let name = if number == 0 { name } else { "" };
            text.push_str(format!("{name:<NAME_WIDTH$}{line}").trim_end());
            text.push('\n');
        }
    };
    add("routers", routers(status, answer));
    add("repositories", repositories);
    add("nodes", nodes(status));
    add("fetchers", fetchers(status));
    add("clients", clients(&status.clients));
    if let Some(kept) = kept(status) {
        add("kept", kept);
    }
    add("jobs", jobs_in_short(&status.jobs));
    for job in status.jobs.iter().take(JOBS_SHOWN_MAX) {
        add(
            "",
            format!("{} {}: {}", job.kind().word(), job.id, figures(job)),
        );
    }
    text
}

/// Replaced commits that are kept for readers, with the client of the oldest one.
fn kept(status: &v1::StatusResponse) -> Option<String> {
    let oldest = status.kept_snapshots.first()?;
    let why = match oldest.not_applied {
        true => "has not taken over what replaced it",
        false => "holds files of it open",
    };
    Some(format!(
        "{} for readers; oldest {}: client {} {why}",
        count(status.kept_snapshots_total, "replaced commit"),
        oldest.path,
        oldest.client_id
    ))
}

fn routers(status: &v1::StatusResponse, answer: &ClusterStatus) -> String {
    let asked = answer.routers.iter();
    let silent = asked.filter(|router| !router.reachable).count();
    let leader = status.routers.iter().find(|router| router.leader);
    let leader = leader.map_or("no leader".to_owned(), |leader| {
        format!("{} leads", leader.router_id)
    });
    let running = status.routers.len().max(answer.routers.len() - silent);
    let silent = if silent > 0 {
        format!(", {silent} without an answer")
    } else {
        String::new()
    };
    format!("{running} active{silent}; {leader}; {}", versions(status))
}

/// The versions that run, over all members.
fn versions(status: &v1::StatusResponse) -> String {
    let members = status.nodes.iter().filter_map(|node| node.member.as_ref());
    let members = members.chain(
        status
            .fetchers
            .iter()
            .filter_map(|fetcher| fetcher.member.as_ref()),
    );
    let mut versions: BTreeSet<&str> = members.map(|member| member.version.as_str()).collect();
    versions.extend(status.routers.iter().map(|router| router.version.as_str()));
    versions.insert(&status.version);
    versions.remove("");
    let word = if versions.len() == 1 {
        "version"
    } else {
        "versions"
    };
    format!(
        "{word} {}",
        versions.into_iter().collect::<Vec<_>>().join(", ")
    )
}

/// How many members are in each state: `3 active, 1 down`.
fn states<'a>(members: impl Iterator<Item = &'a Option<v1::Member>>) -> String {
    let states: Vec<v1::MemberState> = members.flatten().map(v1::Member::state).collect();
    let mut kinds: Vec<v1::MemberState> = states.clone();
    kinds.sort_by_key(|state| *state as i32);
    kinds.dedup();
    // Active ones first: they are the most, and what the rest is measured by.
    kinds.sort_by_key(|state| *state != v1::MemberState::Active);
    if states.is_empty() {
        "none".to_owned()
    } else {
        let told = kinds.iter().map(|kind| {
            let number = states.iter().filter(|state| *state == kind).count();
            format!("{number} {}", MemberCondition::from(*kind).word())
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

/// The sum of one figure.
fn sum<T>(of: &[&T], figure: fn(&T) -> u64) -> u64 {
    of.iter()
        .fold(0, |sum, one| sum.saturating_add(figure(one)))
}

fn nodes(status: &v1::StatusResponse) -> String {
    let stats: Vec<&v1::StatResponse> = status
        .nodes
        .iter()
        .filter_map(|node| node.stat.as_ref())
        .collect();
    let mut text = states(status.nodes.iter().map(|node| &node.member));
    if !stats.is_empty() {
        let used = size(sum(&stats, |stat| stat.disk_used_bytes));
        let free = size(sum(&stats, |stat| stat.disk_free_bytes));
        text.push_str(&format!("; {used} used, {free} free"));
        let running = sum(&stats, |stat| stat.hydrations_running);
        let queued = sum(&stats, |stat| stat.hydrations_queued);
        if running + queued > 0 {
            text.push_str(&format!("; {running} hydrating, {queued} queued"));
        }
    }
    text
}

fn fetchers(status: &v1::StatusResponse) -> String {
    let stats: Vec<&v1::FetcherStatResponse> = status
        .fetchers
        .iter()
        .filter_map(|fetcher| fetcher.stat.as_ref())
        .collect();
    let mut text = states(status.fetchers.iter().map(|fetcher| &fetcher.member));
    if !stats.is_empty() {
        let used = size(sum(&stats, |stat| stat.cache_bytes));
        let most = size(sum(&stats, |stat| stat.cache_bytes_max));
        let hits = sum(&stats, |stat| stat.cache_hits);
        let misses = sum(&stats, |stat| stat.cache_misses);
        let hits = percent(hits, hits.saturating_add(misses));
        text.push_str(&format!(
            "; cache {used} of {most}, {hits} hits; {} running",
            sum(&stats, |stat| stat.fetches_running)
        ));
    }
    text
}

fn clients(clients: &[v1::ClientStatus]) -> String {
    let reports: Vec<&v1::ClientReport> = clients
        .iter()
        .filter_map(|client| client.report.as_ref())
        .collect();
    let mut text = if clients.is_empty() {
        "none".to_owned()
    } else {
        count(clients.len() as u64, "mount")
    };
    if !reports.is_empty() {
        let hits = sum(&reports, |report| report.cache_hits);
        let misses = sum(&reports, |report| report.cache_misses);
        text.push_str(&format!(
            "; {} cache hits, {} lagging, {}",
            percent(hits, hits.saturating_add(misses)),
            sum(&reports, |report| report.lagging),
            count(sum(&reports, |report| report.failed), "failed read")
        ));
    }
    text
}

fn jobs_in_short(jobs: &[v1::Job]) -> String {
    let open = [v1::job::State::Running, v1::job::State::Waiting];
    let known = open.into_iter().filter_map(|state| {
        let number = jobs.iter().filter(|job| job.state() == state).count();
        (number > 0).then(|| format!("{number} {}", state.word()))
    });
    let known = known.collect::<Vec<_>>().join(", ");
    match (known.is_empty(), jobs.len() > JOBS_SHOWN_MAX) {
        (true, _) => "none".to_owned(),
        (false, true) => format!("{known}: monofs-admin jobs"),
        (false, false) => known,
    }
}

const HEADINGS: [&str; 9] = [
    "MEMBER", "ROLE", "STATE", "VERSION", ">REPOS", ">DISK", ">FREE", ">P99", "NOTE",
];

/// Cuts the notes, which are last, to what the other columns leave: `monofs-admin nodes` has them
/// whole.
fn cut_notes(rows: &mut [MemberRow], columns: usize) {
    let mut left = columns;
    for (column, heading) in HEADINGS.iter().enumerate().take(HEADINGS.len() - 1) {
        let widest = rows
            .iter()
            .map(|row| clean(&row.cells[column].0).chars().count())
            .max()
            .unwrap_or(0);
        left = left.saturating_sub(widest.max(heading.trim_start_matches('>').len()) + 2);
    }
    for (note, _) in rows.iter_mut().filter_map(|row| row.cells.last_mut()) {
        *note = clean(note).chars().take(left).collect();
    }
}

/// One row of the list of members.
struct MemberRow {
    cells: Vec<(String, Mood)>,
    good: bool,
}

/// The members, in `lines` lines: those with trouble first when not all fit.
fn members(
    status: &v1::StatusResponse,
    answer: &ClusterStatus,
    lines: usize,
    columns: usize,
) -> String {
    // All members, as far as they fit.
    let mut rows = router_rows(status, answer);
    rows.extend(status.nodes.iter().map(node_row));
    rows.extend(status.fetchers.iter().map(fetcher_row));
    let fit = lines.saturating_sub(1);
    let hidden = if rows.len() > fit {
        rows.len() + 1 - fit
    } else {
        0
    };
    if hidden > 0 {
        rows.sort_by_key(|row| row.good);
        rows.truncate(fit - 1);
    }
    cut_notes(&mut rows, columns);
    // The table, and how many are not in it.
    let mut table = TextTable::new(&HEADINGS);
    for row in rows {
        table.row_with(row.cells);
    }
    let mut text = table.render();
    if hidden > 0 {
        text.push_str(&format!(
            "and {hidden} more: monofs-admin nodes, monofs-admin fetchers\n"
        ));
    }
    text
}

fn row(
    id: &str,
    role: &str,
    state: (String, Mood),
    version: &str,
    figures: [String; 4],
    note: &str,
) -> MemberRow {
    let good = state.1 == Mood::Good && note.is_empty();
    let mut cells = vec![plain(id), plain(role), state, plain(version)];
    cells.extend(figures.into_iter().map(|figure| (figure, Mood::Plain)));
    cells.push((note.to_owned(), Mood::Bad));
    MemberRow { cells, good }
}

fn no_figures() -> [String; 4] {
    [const { String::new() }; 4]
}

/// The routers as they know each other, then those that only the command line names.
fn router_rows(status: &v1::StatusResponse, answer: &ClusterStatus) -> Vec<MemberRow> {
    // A router that others know is active.
    let active = ("active".to_owned(), Mood::Good);
    let mut rows: Vec<MemberRow> = Vec::new();
    for router in &status.routers {
        let role = if router.leader {
            "router, leads"
        } else {
            "router"
        };
        rows.push(row(
            &router.router_id,
            role,
            active.clone(),
            &router.version,
            no_figures(),
            "",
        ));
    }
    // One that only the command line names may not be.
    let known = |id: &str| status.routers.iter().any(|router| router.router_id == id);
    for router in answer
        .routers
        .iter()
        .filter(|router| !router.id.as_deref().is_some_and(known))
    {
        let state = if router.reachable {
            active.clone()
        } else {
            ("no answer".to_owned(), Mood::Bad)
        };
        let id = router.id.as_deref().unwrap_or(&router.address);
        rows.push(row(
            id,
            "router",
            state,
            router.version.as_deref().unwrap_or("-"),
            no_figures(),
            "",
        ));
    }
    rows
}

fn node_row(node: &v1::NodeStatus) -> MemberRow {
    // A node that could not be asked has dashes for figures.
    let member = node.member.clone().unwrap_or_default();
    let figures = node.stat.as_ref().map_or_else(
        || [const { String::new() }; 4].map(|_| "-".to_owned()),
        |stat| {
            let p99 = latency(quantile(&stat.request_durations, 0.99));
            [
                stat.repositories.to_string(),
                size(stat.disk_used_bytes),
                size(stat.disk_free_bytes),
                p99,
            ]
        },
    );
    row(
        &member.id,
        "node",
        node_mood(&member),
        &member.version,
        figures,
        &node.error,
    )
}

fn fetcher_row(fetcher: &v1::FetcherStatus) -> MemberRow {
    let member = fetcher.member.clone().unwrap_or_default();
    let state = (
        MemberCondition::from(member.state()).word().to_owned(),
        member_mood(member.state()),
    );
    let mut figures = no_figures();
    if let Some(stat) = &fetcher.stat {
        figures[0] = stat.cached_repositories.to_string();
        figures[1] = size(stat.cache_bytes);
    }
    row(
        &member.id,
        "fetcher",
        state,
        &member.version,
        figures,
        &fetcher.error,
    )
}
