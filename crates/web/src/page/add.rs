//! Adding a repository: the form, and how far an ingest is, phase by phase and copy by copy.
//!
//! The URL of an ingest names its path, so a reload, or another router, shows the same. What is
//! shown follows from the job if it runs or ran here, else from the catalogue and the copies.

use askama::Template;
use monofs_model::{
    ContentMode, DisplayPath, Error, ErrorKind, Repository, RepositoryState, Result,
};
use monofs_proto::v1;
use monofs_proto::v1::fetch_progress::Phase as Fetching;
use monofs_proto::v1::ingest_progress::Phase as Step;

use super::Pages;
use super::replicas::{self, Replica};
use super::shell::Shell;
use super::text::{Line, clean, encode_path, number, short, size};
use monofs_router::browse::percent_decoded;
use monofs_router::ingest;

#[derive(Template)]
#[template(path = "add.html")]
pub(super) struct Form {
    shell: Shell,
    /// What would keep an ingest from running.
    lacks: Vec<&'static str>,
}

pub(super) fn form(pages: &Pages) -> Form {
    let view = pages.state.fleet.members.view();
    let mut lacks = Vec::new();
    if monofs_router::membership::placeable(&view).is_empty() {
        lacks.push("no node can take a copy now");
    }
    if !view
        .fetchers()
        .any(|fetcher| fetcher.state == monofs_model::MemberState::Active)
    {
        lacks.push("no fetcher is active");
    }
    Form {
        shell: Shell::new(&pages.state, "Add a repository", "/add"),
        lacks,
    }
}

/// How one phase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Waits,
    Runs,
    Done,
    Failed,
}

/// One phase.
struct Phase {
    name: &'static str,
    standing: Standing,
    /// What it does, or did.
    about: String,
    problem: Option<Line>,
    copies: Vec<Copy>,
}

impl Phase {
    const fn tone(&self) -> &'static str {
        match self.standing {
            Standing::Waits => "idle",
            Standing::Runs => "info",
            Standing::Done => "good",
            Standing::Failed => "bad",
        }
    }

    const fn shape(&self) -> &'static str {
        match self.standing {
            Standing::Waits => "i-ring",
            Standing::Runs => "i-half",
            Standing::Done => "i-check",
            Standing::Failed => "i-cross",
        }
    }

    const fn word(&self) -> &'static str {
        match self.standing {
            Standing::Waits => "waits",
            Standing::Runs => "runs",
            Standing::Done => "done",
            Standing::Failed => "failed",
        }
    }
}

/// How far a copy is.
struct Copy {
    node: String,
    done: u64,
    total: u64,
    label: String,
    problem: String,
}

#[derive(Template)]
#[template(path = "ingest.html")]
pub(super) struct Page {
    shell: Shell,
    path: String,
    url: String,
    /// In one line, for who only listens.
    summary: String,
    phases: Vec<Phase>,
    running: bool,
    published: bool,
    failed: bool,
    source: String,
    /// It runs at another router.
    elsewhere: Option<String>,
}

/// What is known of an ingest.
struct Facts<'a> {
    progress: v1::IngestProgress,
    /// It runs.
    running: bool,
    /// Why it ended without success.
    failure: Option<Error>,
    entry: Option<&'a Repository>,
    /// The copies, of an entry that is published.
    replicas: Vec<Replica>,
}

/// `encoded`: the path as in the URL. Errors: `NotFound` when nothing is, or was, ingested there.
pub(super) async fn progress(pages: &Pages, encoded: &str) -> Result<Page> {
    let state = &pages.state;
    let text = String::from_utf8(percent_decoded(encoded))
        .map_err(|_| Error::invalid("the path of a repository is UTF-8; this is not"))?;
    let path = DisplayPath::new(&text)?;
    let running = state.work.ingests.running(&path);
    let job = running.clone().or_else(|| state.work.ingests.ended(&path));
    let entry = state.control.catalog.get(&path);
    let source = match (&job, &entry) {
        (Some(job), _) => clean(job.spec.source.as_str()),
        (None, Some(entry)) => clean(entry.source.as_str()),
        (None, None) => {
            return Err(Error::not_found(format!(
                "nothing is being ingested at '{path}', and no repository is there"
            )));
        }
    };
    let now = job
        .map(|job| job.follow().borrow().clone())
        .unwrap_or_default();
    let published = entry.as_ref().filter(|entry| entry.snapshot.is_some());
    let replicas = match published {
        Some(entry) => replicas::of(state, entry).await,
        None => Vec::new(),
    };
    let worked_on = ingest::worked_on_by(&state.control, &state.work, &path);
    let facts = Facts {
        progress: now.progress,
        running: running.is_some() || worked_on.is_some(),
        failure: now
            .outcome
            .and_then(Result::err)
            .or_else(|| recorded_failure(entry.as_deref())),
        entry: entry.as_deref(),
        replicas,
    };
    let phases = phases(&facts);
    let failed = phases
        .iter()
        .any(|phase| phase.standing == Standing::Failed);
    let published = facts.entry.is_some_and(|entry| entry.snapshot.is_some());
    Ok(Page {
        shell: Shell::new(state, &format!("Ingest of {path}"), "/add"),
        path: clean(path.as_str()),
        url: encode_path(path.as_str()),
        summary: summary(&phases),
        running: !failed
            && phases
                .iter()
                .any(|phase| matches!(phase.standing, Standing::Runs | Standing::Waits)),
        published,
        failed,
        source,
        elsewhere: worked_on
            .filter(|router| *router != state.control.own.router_id)
            .map(|router| clean(&router)),
        phases,
    })
}

/// The failure that the catalogue remembers.
fn recorded_failure(entry: Option<&Repository>) -> Option<Error> {
    let entry = entry.filter(|entry| !entry.last_error.is_empty())?;
    Some(Error {
        kind: ErrorKind::Unavailable,
        message: entry.last_error.clone(),
    })
}

fn summary(phases: &[Phase]) -> String {
    match phases.iter().find(|phase| phase.standing != Standing::Done) {
        Some(phase) => format!("{}: {}", phase.name, phase.word()),
        None => "All done".to_owned(),
    }
}

/// All phases, with the failure at the one where it happened.
fn phases(facts: &Facts<'_>) -> Vec<Phase> {
    let reached = reached(facts);
    let mut phases = vec![
        named("Look the ref up at its source", resolving(facts)),
        named("Fetch the commit", fetching(facts)),
        Phase {
            copies: adopting(facts),
            ..named("Bring the directories to the nodes", String::new())
        },
        named("Publish: readers see it", published(facts)),
        hydrating(facts),
    ];
    for (number, phase) in phases.iter_mut().enumerate().take(4) {
        phase.standing = match number.cmp(&reached) {
            std::cmp::Ordering::Less => Standing::Done,
            std::cmp::Ordering::Equal if facts.running => Standing::Runs,
            _ => Standing::Waits,
        };
    }
    if let Some(failure) = facts.failure.as_ref().filter(|_| !facts.running)
        && let Some(phase) = phases.get_mut(reached.min(3))
    {
        phase.standing = Standing::Failed;
        phase.problem = Some(Line::new(&failure.message));
        phases.truncate(
            if facts.entry.is_some_and(|entry| entry.snapshot.is_some()) {
                5
            } else {
                4
            },
        );
    }
    phases
}

fn named(name: &'static str, about: String) -> Phase {
    Phase {
        name,
        standing: Standing::Waits,
        about,
        problem: None,
        copies: Vec::new(),
    }
}

/// The number of the phase that it is in; 4 = it is published.
fn reached(facts: &Facts<'_>) -> usize {
    let by_job = match facts.progress.phase() {
        Step::Unspecified => None,
        Step::Resolving => Some(0),
        Step::Fetching => Some(1),
        Step::Adopting => Some(2),
        Step::Published | Step::Hydrating | Step::Done => Some(4),
    };
    let is_published = facts
        .entry
        .is_some_and(|entry| entry.snapshot.is_some() && entry.state == RepositoryState::Ready);
    match by_job {
        Some(number) => number,
        // Another router runs it, or it ended long ago.
        None if is_published && facts.failure.is_none() && !facts.running => 4,
        None => 0,
    }
}

fn resolving(facts: &Facts<'_>) -> String {
    if facts.progress.unchanged {
        return "it has not moved: what is published is the newest".to_owned();
    }
    let commit = facts
        .progress
        .repository
        .as_ref()
        .and_then(|repository| repository.snapshot.as_ref());
    let commit = commit.and_then(|snapshot| monofs_model::Oid::from_bytes(&snapshot.commit).ok());
    commit.map_or(String::new(), |commit| {
        format!("commit {}", short(&commit.to_string()))
    })
}

fn fetching(facts: &Facts<'_>) -> String {
    let Some(fetch) = &facts.progress.fetch else {
        return String::new();
    };
    let doing = match fetch.phase() {
        Fetching::Unspecified | Fetching::Connecting => "connecting",
        Fetching::Receiving => "receiving",
        Fetching::Indexing => "indexing",
        Fetching::Walking => "reading directories",
        Fetching::Done => "received",
    };
    let objects = match (fetch.objects_done, fetch.objects_total) {
        (0, 0) => String::new(),
        (done, 0) => format!(", {} objects", number(done)),
        (done, total) => format!(", {} of {} objects", number(done), number(total)),
    };
    let bytes = if fetch.bytes_done == 0 {
        String::new()
    } else {
        format!(", {}", size(fetch.bytes_done))
    };
    format!("{doing}{objects}{bytes}")
}

fn adopting(facts: &Facts<'_>) -> Vec<Copy> {
    let copy = |replica: &v1::ReplicaProgress| Copy {
        node: clean(&replica.node_id),
        done: if replica.durable {
            replica.trees_total.max(1)
        } else {
            replica.trees_done
        },
        total: replica.trees_total.max(1),
        label: if replica.durable {
            "on its disk".to_owned()
        } else {
            format!(
                "{} of {} directories",
                number(replica.trees_done),
                number(replica.trees_total)
            )
        },
        problem: clean(&replica.error),
    };
    facts.progress.replicas.iter().map(copy).collect()
}

fn published(facts: &Facts<'_>) -> String {
    let Some(entry) = facts.entry.filter(|entry| entry.snapshot.is_some()) else {
        return String::new();
    };
    let Some(snapshot) = &entry.snapshot else {
        return String::new();
    };
    format!(
        "commit {}, {} in {} files",
        short(&snapshot.commit.to_string()),
        size(snapshot.bytes),
        number(snapshot.blobs)
    )
}

/// The contents, which come after the publication.
fn hydrating(facts: &Facts<'_>) -> Phase {
    let mut phase = named("Copy the contents to the nodes", String::new());
    let Some(entry) = facts.entry.filter(|entry| entry.snapshot.is_some()) else {
        return phase;
    };
    if entry.content == ContentMode::Lazy {
        phase.about = "on first read, as was asked".to_owned();
        phase.standing = Standing::Done;
        return phase;
    }
    let holders = || facts.replicas.iter().filter(|replica| replica.holder);
    phase.copies = holders()
        .map(|replica| {
            let (done, total) = replica.contents.unwrap_or((0, 0));
            let label = match replica.contents {
                Some(_) => format!("{} of {} files", number(done), number(total)),
                None => "not known".to_owned(),
            };
            Copy {
                node: replica.id.clone(),
                done,
                total: total.max(1),
                label,
                problem: replica.problem.clone(),
            }
        })
        .collect();
    let complete = |replica: &Replica| replica.contents.is_some_and(|(done, total)| done == total);
    phase.standing = if facts.running {
        Standing::Waits
    } else if holders().all(complete) {
        Standing::Done
    } else {
        Standing::Runs
    };
    phase
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(step: Step, running: bool, failure: Option<&str>) -> Facts<'static> {
        let mut progress = v1::IngestProgress::default();
        progress.set_phase(step);
        progress.replicas = vec![v1::ReplicaProgress {
            node_id: "node1".into(),
            trees_done: 3,
            trees_total: 9,
            error: "no room".into(),
            ..Default::default()
        }];
        let failure = failure.map(Error::unavailable);
        Facts {
            progress,
            running,
            failure,
            entry: None,
            replicas: Vec::new(),
        }
    }

    fn standings(facts: &Facts<'_>) -> Vec<Standing> {
        phases(facts).iter().map(|phase| phase.standing).collect()
    }

    #[test]
    fn the_phase_that_runs_has_those_before_it_done_and_those_behind_it_waiting() {
        use Standing::{Done, Runs, Waits};
        assert_eq!(
            standings(&facts(Step::Unspecified, true, None)),
            [Runs, Waits, Waits, Waits, Waits]
        );
        assert_eq!(
            standings(&facts(Step::Adopting, true, None)),
            [Done, Done, Runs, Waits, Waits]
        );
    }

    #[test]
    fn a_failure_is_shown_at_the_phase_where_it_happened() {
        let failed = facts(Step::Adopting, false, Some("no node took it"));
        assert_eq!(
            standings(&failed),
            [
                Standing::Done,
                Standing::Done,
                Standing::Failed,
                Standing::Waits
            ]
        );
        let phases = phases(&failed);
        assert_eq!(
            phases[2].problem.as_ref().map(Line::text).as_deref(),
            Some("no node took it")
        );
        assert_eq!(
            (
                phases[2].copies[0].done,
                phases[2].copies[0].problem.as_str()
            ),
            (3, "no room")
        );
        assert_eq!(
            summary(&phases),
            "Bring the directories to the nodes: failed"
        );
        // An error of an earlier look does not stand against one that runs.
        let again = facts(Step::Fetching, true, Some("an older one"));
        assert!(phases_have_no_problem(&again));
    }

    fn phases_have_no_problem(facts: &Facts<'_>) -> bool {
        phases(facts).iter().all(|phase| phase.problem.is_none())
    }
}
