//! Adding a repository: the form, and how far an ingest is, phase by phase and copy by copy.
//!
//! The URL of an ingest names its path, so a reload, or another router, shows the same. What is
//! shown follows from the job if it runs or ran here, else from the catalogue and the copies.

use askama::Template;
use monofs_model::{ContentMode, DisplayPath, Error, Repository, RepositoryState, Result};
use monofs_proto::v1;
use monofs_proto::v1::fetch_progress::Phase as FetchPhase;
use monofs_proto::v1::ingest_progress::Phase as JobPhase;

use super::replicas::{self, Replica};
use super::shell::Shell;
use super::text::{Line, clean, encode_path, number, short, size};
use monofs_api::percent::percent_decoded;
use monofs_router::ingest;
use monofs_router::parts::Parts;

#[derive(Template)]
#[template(path = "add.html")]
pub(super) struct AddPage {
    shell: Shell,
    /// What would keep an ingest from running.
    lacks: Vec<&'static str>,
}

pub(super) fn form(state: &Parts) -> AddPage {
    let view = state.fleet.members.view();
    let mut lacks = Vec::new();
    if monofs_members::membership::placeable(&view).is_empty() {
        lacks.push("no node can take a copy now");
    }
    if !view
        .fetchers()
        .any(|fetcher| fetcher.state == monofs_model::MemberState::Active)
    {
        lacks.push("no fetcher is active");
    }
    AddPage {
        shell: Shell::new(state, "Add a repository", "/add"),
        lacks,
    }
}

/// How one phase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PhaseStanding {
    Waits,
    Runs,
    Done,
    Failed,
}

/// One phase.
struct ShownPhase {
    name: &'static str,
    standing: PhaseStanding,
    /// What it does, or did.
    about: String,
    problem: Option<Line>,
    copies: Vec<CopyProgress>,
}

impl ShownPhase {
    const fn tone(&self) -> &'static str {
        match self.standing {
            PhaseStanding::Waits => "idle",
            PhaseStanding::Runs => "info",
            PhaseStanding::Done => "good",
            PhaseStanding::Failed => "bad",
        }
    }

    const fn shape(&self) -> &'static str {
        match self.standing {
            PhaseStanding::Waits => "i-ring",
            PhaseStanding::Runs => "i-half",
            PhaseStanding::Done => "i-check",
            PhaseStanding::Failed => "i-cross",
        }
    }

    const fn word(&self) -> &'static str {
        match self.standing {
            PhaseStanding::Waits => "waits",
            PhaseStanding::Runs => "runs",
            PhaseStanding::Done => "done",
            PhaseStanding::Failed => "failed",
        }
    }
}

/// How far a copy is.
struct CopyProgress {
    node: String,
    done: u64,
    total: u64,
    label: String,
    problem: String,
}

#[derive(Template)]
#[template(path = "ingest.html")]
pub(super) struct IngestPage {
    shell: Shell,
    path: String,
    url: String,
    /// In one line, for who only listens.
    summary: String,
    phases: Vec<ShownPhase>,
    running: bool,
    published: bool,
    failed: bool,
    source: String,
    /// It runs at another router.
    elsewhere: Option<String>,
}

/// What is known of an ingest.
struct IngestFacts<'a> {
    progress: v1::IngestProgress,
    /// It runs.
    running: bool,
    /// Why it ended without success.
    failure: Option<Error>,
    entry: Option<&'a Repository>,
    /// The copies, of an entry that is published.
    replicas: Vec<Replica>,
}

impl IngestFacts<'_> {
    /// Readers see some commit of it.
    fn is_published(&self) -> bool {
        self.entry.is_some_and(|entry| entry.snapshot.is_some())
    }
}

/// `encoded`: the path as in the URL. Errors: `NotFound` when nothing is, or was, ingested there.
pub(super) async fn progress(state: &Parts, encoded: &str) -> Result<IngestPage> {
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
        Some(entry) => replicas::of(&state.fleet, entry).await,
        None => Vec::new(),
    };
    let worked_on = ingest::worked_on_by(&state.control, &state.work, &path);
    let facts = IngestFacts {
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
        .any(|phase| phase.standing == PhaseStanding::Failed);
    let published = facts.is_published();
    Ok(IngestPage {
        shell: Shell::new(state, &format!("Ingest of {path}"), "/add"),
        path: clean(path.as_str()),
        url: encode_path(path.as_str()),
        summary: summary(&phases),
        running: !failed
            && phases
                .iter()
                .any(|phase| matches!(phase.standing, PhaseStanding::Runs | PhaseStanding::Waits)),
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
    Some(Error::unavailable(entry.last_error.clone()))
}

fn summary(phases: &[ShownPhase]) -> String {
    match phases
        .iter()
        .find(|phase| phase.standing != PhaseStanding::Done)
    {
        Some(phase) => format!("{}: {}", phase.name, phase.word()),
        None => "All done".to_owned(),
    }
}

/// The phases of an ingest, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum IngestPhase {
    Resolve,
    Fetch,
    Adopt,
    Publish,
    /// Contents are copied; readers see the repository already.
    Hydrate,
}

impl IngestPhase {
    const ALL: [Self; 5] = [
        Self::Resolve,
        Self::Fetch,
        Self::Adopt,
        Self::Publish,
        Self::Hydrate,
    ];

    /// As the page shows it, not begun.
    fn shown(self, facts: &IngestFacts<'_>) -> ShownPhase {
        match self {
            Self::Resolve => named("Look the ref up at its source", resolving(facts)),
            Self::Fetch => named("Fetch the commit", fetching(facts)),
            Self::Adopt => ShownPhase {
                copies: adopting(facts),
                ..named("Bring the directories to the nodes", String::new())
            },
            Self::Publish => named("Publish: readers see it", published(facts)),
            Self::Hydrate => hydrating(facts),
        }
    }

    /// How it stands when the ingest has reached `reached`. Hydration knows by itself.
    fn standing(self, reached: Self, facts: &IngestFacts<'_>) -> Option<PhaseStanding> {
        if self == Self::Hydrate {
            return None;
        }
        Some(match self.cmp(&reached) {
            std::cmp::Ordering::Less => PhaseStanding::Done,
            std::cmp::Ordering::Equal if facts.running => PhaseStanding::Runs,
            _ => PhaseStanding::Waits,
        })
    }
}

/// All phases, with the failure at the one where it happened.
fn phases(facts: &IngestFacts<'_>) -> Vec<ShownPhase> {
    let reached = reached(facts);
    // What failed after it was published failed while it was being published anew.
    let failed_at = reached.min(IngestPhase::Publish);
    let failure = facts.failure.as_ref().filter(|_| !facts.running);
    let mut phases = Vec::new();
    for phase in IngestPhase::ALL {
        // There is nothing to hydrate of an ingest that failed before it was published.
        if phase == IngestPhase::Hydrate && failure.is_some() && !facts.is_published() {
            continue;
        }
        let mut shown = phase.shown(facts);
        if let Some(standing) = phase.standing(reached, facts) {
            shown.standing = standing;
        }
        if let Some(failure) = failure.filter(|_| phase == failed_at) {
            shown.standing = PhaseStanding::Failed;
            shown.problem = Some(Line::new(&failure.message));
        }
        phases.push(shown);
    }
    phases
}

fn named(name: &'static str, about: String) -> ShownPhase {
    ShownPhase {
        name,
        standing: PhaseStanding::Waits,
        about,
        problem: None,
        copies: Vec::new(),
    }
}

/// The phase that it is in; [`IngestPhase::Hydrate`] = it is published.
fn reached(facts: &IngestFacts<'_>) -> IngestPhase {
    let is_ready = facts
        .entry
        .is_some_and(|entry| entry.snapshot.is_some() && entry.state == RepositoryState::Ready);
    match facts.progress.phase() {
        JobPhase::Resolving => IngestPhase::Resolve,
        JobPhase::Fetching => IngestPhase::Fetch,
        JobPhase::Adopting => IngestPhase::Adopt,
        JobPhase::Published | JobPhase::Hydrating | JobPhase::Done => IngestPhase::Hydrate,
        // Another router runs it, or it ended long ago.
        JobPhase::Unspecified if is_ready && facts.failure.is_none() && !facts.running => {
            IngestPhase::Hydrate
        }
        JobPhase::Unspecified => IngestPhase::Resolve,
    }
}

fn resolving(facts: &IngestFacts<'_>) -> String {
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

fn fetching(facts: &IngestFacts<'_>) -> String {
    let Some(fetch) = &facts.progress.fetch else {
        return String::new();
    };
    let doing = match fetch.phase() {
        FetchPhase::Unspecified | FetchPhase::Connecting => "connecting",
        FetchPhase::Receiving => "receiving",
        FetchPhase::Indexing => "indexing",
        FetchPhase::Walking => "reading directories",
        FetchPhase::Done => "received",
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

fn adopting(facts: &IngestFacts<'_>) -> Vec<CopyProgress> {
    facts.progress.replicas.iter().map(adopted).collect()
}

/// How far a node is with the directories.
fn adopted(replica: &v1::ReplicaProgress) -> CopyProgress {
    let total = replica.trees_total.max(1);
    let (done, label) = if replica.durable {
        (total, "on its disk".to_owned())
    } else {
        let done = number(replica.trees_done);
        let label = format!("{done} of {} directories", number(replica.trees_total));
        (replica.trees_done, label)
    };
    CopyProgress {
        node: clean(&replica.node_id),
        done,
        total,
        label,
        problem: clean(&replica.error),
    }
}

/// How far a holder is with the contents.
fn hydrated(replica: &Replica) -> CopyProgress {
    let (done, total) = replica.contents.unwrap_or((0, 0));
    let label = match replica.contents {
        Some(_) => format!("{} of {} files", number(done), number(total)),
        None => "not known".to_owned(),
    };
    CopyProgress {
        node: replica.id.clone(),
        done,
        total: total.max(1),
        label,
        problem: replica.problem.clone(),
    }
}

fn is_complete(replica: &Replica) -> bool {
    replica.contents.is_some_and(|(done, total)| done == total)
}

fn published(facts: &IngestFacts<'_>) -> String {
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
fn hydrating(facts: &IngestFacts<'_>) -> ShownPhase {
    let mut phase = named("Copy the contents to the nodes", String::new());
    let Some(entry) = facts.entry.filter(|entry| entry.snapshot.is_some()) else {
        return phase;
    };
    if entry.content == ContentMode::Lazy {
        phase.about = "on first read, as was asked".to_owned();
        phase.standing = PhaseStanding::Done;
        return phase;
    }
    // Nodes that should hold it and do not yet are no matter of this phase.
    let holders: Vec<&Replica> = facts.replicas.iter().filter(|one| one.holder).collect();
    phase.copies = holders.iter().map(|replica| hydrated(replica)).collect();
    phase.standing = if facts.running {
        PhaseStanding::Waits
    } else if holders.iter().all(|replica| is_complete(replica)) {
        PhaseStanding::Done
    } else {
        PhaseStanding::Runs
    };
    phase
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(step: JobPhase, running: bool, failure: Option<&str>) -> IngestFacts<'static> {
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
        IngestFacts {
            progress,
            running,
            failure,
            entry: None,
            replicas: Vec::new(),
        }
    }

    fn standings(facts: &IngestFacts<'_>) -> Vec<PhaseStanding> {
        phases(facts).iter().map(|phase| phase.standing).collect()
    }

    #[test]
    fn the_phase_that_runs_has_those_before_it_done_and_those_behind_it_waiting() {
        use PhaseStanding::{Done, Runs, Waits};
        assert_eq!(
            standings(&facts(JobPhase::Unspecified, true, None)),
            [Runs, Waits, Waits, Waits, Waits]
        );
        assert_eq!(
            standings(&facts(JobPhase::Adopting, true, None)),
            [Done, Done, Runs, Waits, Waits]
        );
    }

    #[test]
    fn a_failure_is_shown_at_the_phase_where_it_happened() {
        let failed = facts(JobPhase::Adopting, false, Some("no node took it"));
        assert_eq!(
            standings(&failed),
            [
                PhaseStanding::Done,
                PhaseStanding::Done,
                PhaseStanding::Failed,
                PhaseStanding::Waits
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
        let again = facts(JobPhase::Fetching, true, Some("an older one"));
        assert!(phases_have_no_problem(&again));
    }

    fn phases_have_no_problem(facts: &IngestFacts<'_>) -> bool {
        phases(facts).iter().all(|phase| phase.problem.is_none())
    }
}
