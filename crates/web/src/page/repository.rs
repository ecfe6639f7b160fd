//! One repository: where it comes from, what is published, its copies, its past, and what can be
//! done with it.

use std::sync::Arc;

use askama::Template;
use monofs_model::{Consistency, ContentMode, Error, Oid, Repository, Result};
use monofs_proto::v1;

use super::parts::State;
use super::replicas::{self, Replica};
use super::shell::Shell;
use super::text::{Line, When, clean, encode_path, number, size};
use monofs_api::percent::{percent_decoded, percent_encoded};
use monofs_control::Control;
use monofs_router::ingest;
use monofs_router::parts::Parts;

/// The published commit.
struct Published {
    commit: String,
    committed: When,
    size: String,
    files: String,
    directories: String,
    submodules: usize,
}

/// A commit that was published, now or before.
struct PastPublication {
    number: u64,
    commit: String,
    ref_name: String,
    committed: When,
    published: When,
    size: String,
    router: String,
}

#[derive(Template)]
#[template(path = "repository.html")]
pub(super) struct RepositoryPage {
    shell: Shell,
    path: String,
    url: String,
    /// As the API names it.
    api: String,
    state: State,
    source: String,
    ref_name: String,
    published: Option<Published>,
    generation: u64,
    content: &'static str,
    consistency: &'static str,
    created: When,
    refreshed: When,
    storage_id: String,
    last_error: Option<Line>,
    replicas: Vec<Replica>,
    copies: usize,
    /// Somebody ingests it now; the router that does.
    worked_on: Option<String>,
    past: Result<Vec<PastPublication>, Line>,
    grace: String,
}

/// `encoded`: the path as in the URL. Errors: `NotFound`, `Invalid`.
pub(super) async fn page(state: &Parts, encoded: &str) -> Result<RepositoryPage> {
    let entry = require(&state.control, encoded)?;
    let (replicas, past) = futures::join!(
        replicas::of(&state.fleet, &entry),
        past(&state.control, &entry)
    );
    let view = state.fleet.members.view();
    let copies = view.copies_wanted();
    Ok(RepositoryPage {
        shell: Shell::new(state, entry.path.as_str(), "/repos"),
        path: clean(entry.path.as_str()),
        url: encode_path(entry.path.as_str()),
        api: percent_encoded(entry.path.as_str().as_bytes()),
        state: State::of_repository(&entry, copies),
        source: clean(entry.source.as_str()),
        ref_name: clean(entry.ref_name.as_str()),
        published: entry.snapshot.as_ref().map(|snapshot| Published {
            commit: snapshot.commit.to_string(),
            committed: When::at(snapshot.commit_time),
            size: size(snapshot.bytes),
            files: number(snapshot.blobs),
            directories: number(snapshot.trees),
            submodules: snapshot.submodules.len(),
        }),
        generation: entry.generation,
        content: match entry.content {
            ContentMode::Eager => "copied to the nodes at once",
            ContentMode::Lazy => "copied to the nodes on first read",
        },
        consistency: match entry.consistency {
            Consistency::Eventual => "a commit is published with its first copy",
            Consistency::Strong => "a commit is published with its last copy",
        },
        created: When::at(entry.created_at),
        refreshed: When::at(entry.refreshed_at),
        storage_id: entry.storage_id().to_string(),
        last_error: (!entry.last_error.is_empty()).then(|| Line::new(&entry.last_error)),
        replicas,
        copies,
        worked_on: ingest::worked_on_by(&state.control, &state.work, &entry.path)
            .map(|router| clean(&router)),
        past,
        grace: monofs_router::status::ago(state.config.snapshot_grace),
    })
}

/// The entry that a URL names. Errors: `NotFound`, `Invalid`.
pub(super) fn require(control: &Control, encoded: &str) -> Result<Arc<Repository>> {
    let path = String::from_utf8(percent_decoded(encoded))
        .map_err(|_| Error::invalid("the path of a repository is UTF-8; this is not"))?;
    control.catalog.require(&path)
}

/// What was published, the last one first.
async fn past(control: &Control, entry: &Repository) -> Result<Vec<PastPublication>, Line> {
    if !*control.shared.reachable().borrow() {
        return Err(Line::new("the state store cannot be reached"));
    }
    let kept = control
        .published
        .of(&entry.path)
        .await
        .map_err(|error| Line::new(&error.message))?;
    Ok(kept.iter().rev().map(past_publication).collect())
}

fn past_publication(row: &v1::Publication) -> PastPublication {
    PastPublication {
        number: row.generation,
        commit: Oid::from_bytes(&row.commit)
            .map_or_else(|_| "unknown".to_owned(), |commit| commit.to_string()),
        ref_name: clean(&row.ref_name),
        committed: When::at(row.commit_time),
        published: When::at(row.published_at),
        size: size(row.bytes),
        router: clean(&row.router_id),
    }
}
