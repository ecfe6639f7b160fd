//! `stat`: everything about one path.

use std::ffi::OsString;

use anyhow::Result;
use monofs_model::limits::SYMLINK_BYTES_MAX;
use monofs_model::tree::EntryKind;
use serde::Serialize;

use crate::commands::cat;
use crate::output::{emit, emit_json, fields};
use crate::place::{Inside, Place, TreePath, kind_word, locate};
use crate::session::Session;
use crate::text::{clean_bytes, hex, size, time};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin stat github.com/org/repo/README.md
  monofs-admin stat github.com/org";

/// Show everything about one path of the tree, no mount needed
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct StatArgs {
    /// A path of the tree, as on a mount
    #[arg(value_name = "PATH")]
    path: OsString,
}

#[derive(Default, Serialize)]
struct Answer {
    path: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submodule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    holders: Option<Vec<String>>,
}

pub async fn run(args: StatArgs, session: &Session) -> Result<()> {
    let path = TreePath::new(&args.path)?;
    let answer = match locate(&session.cluster, &path).await? {
        Place::Namespace(entries) => Answer {
            path: path.shown(),
            kind: "namespace",
            entries: Some(entries.len()),
            ..Answer::default()
        },
        Place::Inside(inside) => describe(session, &path, &inside).await?,
    };
    if session.json() {
        emit_json(&answer)
    } else {
        emit(&text(&answer))
    }
}

async fn describe(session: &Session, path: &TreePath, inside: &Inside) -> Result<Answer> {
    let mut answer = Answer {
        path: path.shown(),
        kind: if inside.rest.is_empty() {
            "repository"
        } else {
            kind_word(inside.kind)
        },
        size: inside.kind.is_blob().then_some(inside.size),
        oid: Some(inside.oid.to_string()),
        repository: Some(inside.repository.path.clone()),
        source: Some(inside.repository.source.clone()),
        commit: Some(hex(&inside.snapshot.commit)),
        commit_time: time(inside.snapshot.commit_time),
        holders: Some(inside.repository.holders.clone()),
        ..Answer::default()
    };
    match inside.kind {
        EntryKind::Directory => answer.entries = Some(inside.record(&session.cluster).await?.len()),
        EntryKind::Symlink if inside.size <= SYMLINK_BYTES_MAX => {
            let mut target = Vec::new();
            cat::copy(&session.cluster, inside, |bytes| {
                target.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
            answer.target = Some(clean_bytes(&target));
        }
        EntryKind::Submodule => {
            answer.submodule = Some(format!(
                "{}@{}",
                inside.submodule_url().unwrap_or("?"),
                inside.oid
            ))
        }
        _ => {}
    }
    Ok(answer)
}

fn text(answer: &Answer) -> String {
    let mut pairs = vec![
        ("path", answer.path.clone()),
        ("kind", answer.kind.to_owned()),
    ];
    let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
    add("entries", answer.entries.map(|entries| entries.to_string()));
    add(
        "size",
        answer.size.map(|bytes| {
            if bytes < 1024 {
                size(bytes)
            } else {
                format!("{} ({bytes} B)", size(bytes))
            }
        }),
    );
    add("object", answer.oid.clone());
    add("target", answer.target.clone());
    add("submodule", answer.submodule.clone());
    add("repository", answer.repository.clone());
    add("source", answer.source.clone());
    add("commit", answer.commit.clone());
    add("commit time", answer.commit_time.clone());
    add(
        "held by",
        answer.holders.as_ref().map(|holders| holders.join(", ")),
    );
    // `path` and `target` were cleaned as bytes; cleaning them again changes nothing.
    fields(&pairs)
}
