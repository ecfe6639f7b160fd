//! The reconciler's jobs: how far they are, what they wait for, and to cancel them.

use askama::Template;
use monofs_proto::v1;
use monofs_proto::v1::job::Kind;
use serde::Deserialize;

use super::parts::{Bar, State};
use super::shell::Shell;
use super::text::{Line, When, clean, encode_path, number, size};
use monofs_router::parts::Parts;
use monofs_router::reconcile::jobs::has_ended;

/// The query of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct JobsQuery {
    /// Not empty: also those that have ended.
    ended: String,
}

/// One job.
pub(super) struct JobRow {
    pub id: String,
    pub state: State,
    pub bar: Bar,
    pub message: Line,
    url: String,
    kind: &'static str,
    /// What it is about, and where that is.
    subject: String,
    href: String,
    reason: String,
    started: When,
    ended: Option<When>,
    last_error: String,
    router: String,
    can_cancel: bool,
    /// Why an operator cannot cancel it here.
    instead: &'static str,
}

impl JobRow {
    pub fn new(job: &v1::Job) -> Self {
        let ended = has_ended(job);
        let from_intent = matches!(job.kind(), Kind::Drain | Kind::Failover);
        let href = match job.subject.as_str() {
            "" => "/placement".to_owned(),
            path if path.contains('/') => format!("/repos/{}", encode_path(path)),
            node => format!("/nodes/{}", encode_path(node)),
        };
        Self {
            id: clean(&job.id),
            state: State::of_job(job),
            bar: progress(job),
            message: Line::new(&job.message),
            url: encode_path(&job.id),
            kind: job.kind().word(),
            subject: if job.subject.is_empty() {
                "everything".to_owned()
            } else {
                clean(&job.subject)
            },
            href,
            reason: clean(&job.reason),
            started: When::at(job.started_at),
            ended: ended.then(|| When::at(job.ended_at)),
            last_error: clean(&job.last_error),
            router: clean(&job.router_id),
            can_cancel: !ended && !from_intent,
            instead: match job.kind() {
                Kind::Drain if !ended => "Undrain the node to end it",
                Kind::Failover if !ended => "Clear the failover to end it",
                _ => "",
            },
        }
    }
}

fn progress(job: &v1::Job) -> Bar {
    let steps = format!(
        "{} of {} steps",
        number(job.steps_done),
        number(job.steps_total)
    );
    let label = match (job.bytes_done, job.bytes_total) {
        (_, 0) => steps,
        (done, total) => format!("{steps}, {} of {}", size(done), size(total)),
    };
    Bar::progress(job.steps_done, job.steps_total, label)
}

#[derive(Template)]
#[template(path = "jobs.html")]
pub(super) struct JobsPage {
    shell: Shell,
    open: Vec<JobRow>,
    ended: Vec<JobRow>,
    all: bool,
    maintenance: Option<String>,
}

pub(super) fn page(state: &Parts, asked: &JobsQuery) -> JobsPage {
    let (mut ended, mut open): (Vec<_>, Vec<_>) = state
        .control
        .tables
        .jobs
        .list()
        .into_iter()
        .partition(has_ended);
    open.sort_by(|a, b| (b.started_at, &a.id).cmp(&(a.started_at, &b.id)));
    ended.sort_by(|a, b| (b.ended_at, &a.id).cmp(&(a.ended_at, &b.id)));
    let all = !asked.ended.is_empty();
    JobsPage {
        shell: Shell::new(state, "Jobs", "/jobs"),
        open: open.iter().map(JobRow::new).collect(),
        ended: ended
            .iter()
            .take(if all { usize::MAX } else { 10 })
            .map(JobRow::new)
            .collect(),
        all: all || ended.len() <= 10,
        maintenance: state
            .control
            .tables
            .maintenance
            .get("")
            .map(|maintenance| clean(&maintenance.reason)),
    }
}
