//! `cat`: the bytes of files, chunk by chunk, verified against their object id.

use std::ffi::OsString;
use std::io::Write;

use anyhow::Result;
use monofs_api::browse::PathKind;
use monofs_launch::exit::{Code, Failure};
use monofs_model::oid::ObjectHasher;
use monofs_model::tree::EntryKind;
use monofs_model::{Error, ObjectKind};
use monofs_proto::v1;
use monofs_store::frame;

use crate::cluster::{CallSubject, ClusterClient, RouterClient, explain};
use crate::place::{InsideRepository, NamespacePath, PathPlace, locate, not_held};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin cat github.com/org/repo/README.md
  monofs-admin cat github.com/org/repo/image.png > image.png";

/// Print files of the tree, no mount needed
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct CatArgs {
    /// Files of the tree, as on a mount
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<OsString>,
}

pub async fn run(args: CatArgs, session: &CommandSession) -> Result<()> {
    for text in &args.paths {
        // Only files have bytes to print.
        let path = NamespacePath::new(text)?;
        let inside = match locate(&session.cluster, &path).await? {
            PathPlace::Inside(inside) => inside,
            PathPlace::Namespace(_) => return Err(no_file(&path, "a directory")),
        };
        match inside.kind {
            EntryKind::File | EntryKind::Executable => {}
            EntryKind::Directory | EntryKind::Submodule => {
                return Err(no_file(
                    &path,
                    &format!("a {}", PathKind::from(inside.kind).word()),
                ));
            }
            EntryKind::Symlink => return Err(no_file(&path, "a symlink")),
        }
        // The bytes go out as they come.
        let mut stdout = std::io::stdout().lock();
        copy(&session.cluster, &inside, |bytes| {
            Ok(stdout.write_all(bytes)?)
        })
        .await?;
        stdout.flush()?;
    }
    Ok(())
}

fn no_file(path: &NamespacePath, what: &str) -> anyhow::Error {
    Failure::new(
        Code::Failed,
        format!("{} is {what}, not a file", path.shown()),
    )
    .hint("`monofs-admin ls` lists directories, `monofs-admin stat` shows where a symlink points")
    .into()
}

/// Gives the bytes of a file or symlink in order; fails when they are not all there or not the
/// object's.
pub async fn copy(
    cluster: &ClusterClient,
    inside: &InsideRepository,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let message = inside.blob_request();
    let call = |router: RouterClient| {
        let request = router.stream(message.clone());
        async move { router.content().get_blobs(request).await }
    };
    let mut answers = cluster
        .follow(CallSubject::Cluster, cluster.timeout(), call)
        .await?;
    // All chunks, in order.
    let mut hasher = ObjectHasher::new(inside.oid.format(), ObjectKind::Blob, inside.size);
    let mut next = 0;
    let count = frame::chunk_count(inside.size);
    while next < count {
        let Some(answer) = answers.next().await? else {
            return Err(not_held("file", &inside.oid).into());
        };
        if !answer.missing.is_empty() {
            return Err(not_held("file", &inside.oid).into());
        }
        for chunk in &answer.chunks {
            let raw = open(inside, chunk, next)?;
            hasher.update(&raw);
            take(&raw)?;
            next += 1;
        }
    }
    // They must be those of the object that was asked for.
    if hasher.finish() != inside.oid {
        return Err(damaged(inside, "the bytes do not match the object id"));
    }
    Ok(())
}

fn open<'a>(
    inside: &InsideRepository,
    chunk: &'a v1::BlobChunk,
    expected: u64,
) -> Result<std::borrow::Cow<'a, [u8]>> {
    if chunk.oid != inside.oid.as_bytes() || u64::from(chunk.index) != expected {
        return Err(damaged(inside, "chunks arrived out of order"));
    }
    let raw = frame::decode(&chunk.frame).map_err(|error| explain(error, CallSubject::Cluster))?;
    if raw.len() != frame::chunk_len(inside.size, expected) {
        return Err(damaged(inside, "a chunk has the wrong length"));
    }
    Ok(raw)
}

fn damaged(inside: &InsideRepository, what: &str) -> anyhow::Error {
    explain(
        Error::corrupt(format!("file {}: {what}", inside.oid)),
        CallSubject::Cluster,
    )
    .into()
}
