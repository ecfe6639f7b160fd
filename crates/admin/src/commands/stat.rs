//! `stat`: everything about one path.

use std::ffi::OsString;

use anyhow::Result;
use monofs_api::browse::{PathDocument, PathKind};
use monofs_api::{Time, hex};
use monofs_model::limits::SYMLINK_BYTES_MAX;
use monofs_model::tree::EntryKind;

use crate::commands::cat;
use crate::output::{emit, emit_json, fields};
use crate::place::{InsideRepository, NamespacePath, PathPlace, locate};
use crate::session::CommandSession;
use crate::text::{clean_bytes, size};

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

pub async fn run(args: StatArgs, session: &CommandSession) -> Result<()> {
    let path = NamespacePath::new(&args.path)?;
    // Nothing is known yet.
    let mut document = PathDocument {
        path: path.shown(),
        path_encoded: path.encoded(),
        kind: PathKind::Namespace,
        total: None,
        entries: None,
        size: None,
        oid: None,
        target: None,
        url: None,
        submodule: None,
        repository: None,
        source: None,
        commit: None,
        commit_time: None,
        holders: None,
    };
    // What is there.
    match locate(&session.cluster, &path).await? {
        PathPlace::Namespace(entries) => document.total = Some(entries.len()),
        PathPlace::Inside(inside) => describe(&mut document, session, &inside).await?,
    }
    document.entries = document.total;
    if session.json() {
        emit_json(&document)
    } else {
        emit(&text(&document))
    }
}

/// Adds what is known of a path inside a repository.
async fn describe(
    document: &mut PathDocument,
    session: &CommandSession,
    inside: &InsideRepository,
) -> Result<()> {
    // What every entry of a repository has.
    document.kind = if inside.rest.is_empty() {
        PathKind::Repository
    } else {
        inside.kind.into()
    };
    document.size = inside.kind.is_blob().then_some(inside.size);
    document.oid = Some(inside.oid.to_string());
    document.repository = Some(inside.repository.path.clone());
    document.source = Some(inside.repository.source.clone());
    document.commit = Some(hex(&inside.snapshot.commit));
    document.commit_time = Time::known(inside.snapshot.commit_time);
    document.holders = Some(inside.repository.holders.clone());
    // What only its kind has.
    match inside.kind {
        EntryKind::Directory => {
            document.total = Some(inside.record(&session.cluster).await?.len());
        }
        EntryKind::Symlink if inside.size <= SYMLINK_BYTES_MAX => {
            let mut target = Vec::new();
            cat::copy(&session.cluster, inside, |bytes| {
                target.extend_from_slice(bytes);
                Ok(())
            })
            .await?;
            document.target = Some(clean_bytes(&target));
        }
        EntryKind::Submodule => {
            let url = inside.submodule_url();
            document.url = url.map(str::to_owned);
            document.submodule = Some(format!("{}@{}", url.unwrap_or("?"), inside.oid));
        }
        _ => {}
    }
    Ok(())
}

fn text(answer: &PathDocument) -> String {
    let mut pairs = vec![
        ("path", answer.path.clone()),
        ("kind", answer.kind.word().to_owned()),
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
    add("commit time", answer.commit_time.map(Time::text));
    add(
        "held by",
        answer.holders.as_ref().map(|holders| holders.join(", ")),
    );
    // `path` and `target` were cleaned as bytes; cleaning them again changes nothing.
    fields(&pairs)
}
