//! The ingests of a run: each says how it went, and none ends the others.

use futures::StreamExt;
use monofs_cluster::{Cluster, Ingest};
use monofs_launch::exit::{Failure, one_line};
use monofs_model::source::redact;
use monofs_model::{Error, ErrorKind, Repository};

use crate::repository::RepositoryToShow;
use crate::say::say;

/// Ingests at once: a host that lets us wait does not hold up the others.
const AT_ONCE: usize = 4;

/// How the ingests of a run ended.
#[derive(Debug, Default)]
pub(super) struct IngestOutcome {
    /// Display paths of what is served, in the order in which it came: also of what was served
    /// before and could not be ingested again.
    pub(super) served: Vec<String>,
    /// What failed and why, a line each, in the order in which it was asked for.
    pub(super) failed: Vec<String>,
}

/// How one ended.
enum IngestEnd {
    Served(String),
    /// Why it failed; and its path, if an earlier commit of it is served.
    Failed(String, Option<String>),
}

/// Ingests what `--repo` names, and prints a line for each that begins and each that is served.
pub(super) async fn ingest_all(cluster: &Cluster, repos: &[String]) -> IngestOutcome {
    // What cannot be read, or would be shown where another is, fails before anything is asked.
    let mut wanted: Vec<(usize, RepositoryToShow)> = Vec::new();
    let mut failed = Vec::new();
    for (number, text) in repos.iter().enumerate() {
        match RepositoryToShow::parse(text) {
            Ok(repo) if wanted.iter().any(|(_, other)| other.path == repo.path) => {
                let why = format!(
                    "another --repo is shown at {} already; add =DISPLAY/PATH",
                    repo.path
                );
                failed.push((number, failure_line(text, &why)));
            }
            Ok(repo) => wanted.push((number, repo)),
            Err(error) => failed.push((number, failure_line(text, &reason(&error)))),
        }
    }

    let ends: Vec<(usize, IngestEnd)> = futures::stream::iter(&wanted)
        .map(async |(number, repo)| (*number, ingest(cluster, repo, &repos[*number]).await))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    // Together, in the order of the command line.
    let mut served = Vec::new();
    for (number, end) in ends {
        match end {
            IngestEnd::Served(path) => served.push(path),
            IngestEnd::Failed(line, path) => {
                failed.push((number, line));
                served.extend(path);
            }
        }
    }
    failed.sort_by_key(|(number, _)| *number);
    IngestOutcome {
        served,
        failed: failed.into_iter().map(|(_, line)| line).collect(),
    }
}

async fn ingest(cluster: &Cluster, repo: &RepositoryToShow, text: &str) -> IngestEnd {
    say(&format!("ingesting {repo}"));
    let what = Ingest::of(repo.source.as_str())
        .at(repo.ref_name.as_str())
        .shown_as(repo.path.as_str());
    let path = repo.path.as_str().to_owned();
    let error = match cluster.ingest(what).await {
        Ok(entry) => {
            say(&served_line(&entry));
            return IngestEnd::Served(path);
        }
        Err(error) => error,
    };
    let mut why = one_line(&error.message);
    if error.kind == ErrorKind::NotFound && repo.source.path().contains('@') {
        why.push_str("; a branch with a slash in its name is written with %2F");
    }
    // A remote that cannot be asked now does not take away what it gave before.
    match snapshot_of(cluster, &path).await {
        Some(commit) => {
            why.push_str(&format!("; {path} stays at {commit}, as it was"));
            IngestEnd::Failed(failure_line(text, &why), Some(path))
        }
        None => IngestEnd::Failed(failure_line(text, &why), None),
    }
}

fn served_line(entry: &Repository) -> String {
    match &entry.snapshot {
        Some(snapshot) => format!(
            "  {} at {} ({}, {})",
            entry.path,
            snapshot.commit,
            counted(snapshot.trees, "directory", "directories"),
            counted(snapshot.blobs, "content", "contents")
        ),
        None => format!("  {}", entry.path),
    }
}

/// A number with the word that fits it.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

/// The commit that is shown at a path, if one is.
async fn snapshot_of(cluster: &Cluster, path: &str) -> Option<String> {
    let entry = cluster.repository(path).await.ok()?;
    Some(entry.snapshot?.commit.to_string())
}

/// A line about what failed; `text` is what the user gave.
fn failure_line(text: &str, why: &str) -> String {
    format!("failed: {}: {why}", one_line(&redact(text)))
}

/// What an error says, with its hint if it has one of its own.
fn reason(error: &anyhow::Error) -> String {
    let hint = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Failure>()?.hint.clone());
    // The model's errors begin with the source, which the line has already.
    let message = match error.downcast_ref::<Error>() {
        Some(error) => error.message.clone(),
        None => format!("{error:#}"),
    };
    match hint {
        Some(hint) => one_line(&format!("{message}; {hint}")),
        None => one_line(&message),
    }
}
