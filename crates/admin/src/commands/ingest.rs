//! `ingest`: add a repository, or follow the ingest of it that already runs.

use std::time::Duration;

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_model::{RefName, SourceUrl};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;
use serde::Serialize;

use crate::cluster::{About, Answers, Router};
use crate::display_path::display_path;
use crate::output::{emit, emit_json};
use crate::progress::Progress;
use crate::session::Session;
use crate::shapes;
use crate::text::{clean, count, shell_word, short, size};

/// Longest pause between two signs of life of an ingest: a large remote may think for minutes
/// before it sends.
pub const SILENCE: Duration = Duration::from_secs(600);

const AFTER_HELP: &str = "\
Examples:
  monofs-admin ingest --source=https://github.com/org/repo.git
  monofs-admin ingest --source=git@gitlab.com:group/sub/project.git --ref=v1.2 --wait
  monofs-admin ingest --source=file:///srv/git/tool.git --path=internal/tool --content=lazy";

/// Add a repository to the tree, with live progress
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct IngestArgs {
    /// URL of the Git remote: https, http, ssh, git or file
    #[arg(long, value_name = "URL")]
    source: SourceUrl,
    /// Branch, tag or commit to follow; the remote's HEAD when left away
    #[arg(
        long = "ref",
        value_name = "REF",
        default_value = "",
        hide_default_value = true
    )]
    reference: RefName,
    /// Where it appears in the tree; host and path of the source when left away
    #[arg(long, value_name = "DISPLAY/PATH")]
    path: Option<String>,
    /// Readers see it when the first replica holds it (eventual), or all of them (strong)
    #[arg(long, default_value = "eventual")]
    consistency: Consistency,
    /// Copy contents to the nodes at once (eager) or when first read (lazy)
    #[arg(long, default_value = "eager")]
    content: Content,
    /// Return only when contents are on all replicas, too
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Consistency {
    Eventual,
    Strong,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Content {
    Eager,
    Lazy,
}

#[derive(Serialize)]
struct Answer {
    repository: shapes::Repository,
    unchanged: bool,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    node_id: String,
    durable: bool,
    directories: u64,
    files: u64,
    error: Option<String>,
}

pub async fn run(args: IngestArgs, session: &Session) -> Result<()> {
    let path = args
        .path
        .as_deref()
        .map(display_path)
        .transpose()?
        .unwrap_or_default();
    let message = v1::IngestRequest {
        source: args.source.to_string(),
        ref_name: args.reference.as_str().to_owned(),
        path: path.clone(),
        consistency: match args.consistency {
            Consistency::Eventual => v1::Consistency::Eventual.into(),
            Consistency::Strong => v1::Consistency::Strong.into(),
        },
        content: match args.content {
            Content::Eager => v1::ContentMode::Eager.into(),
            Content::Lazy => v1::ContentMode::Lazy.into(),
        },
        wait_hydrated: args.wait,
    };
    let call = |router: Router| {
        let request = router.stream(message.clone());
        async move { router.admin().ingest(request).await }
    };
    let answers = session.cluster.follow(About::Work, SILENCE, call).await?;
    let subject = if path.is_empty() {
        args.source.to_string()
    } else {
        path
    };
    let done = follow(
        answers,
        Progress::new(&subject),
        session,
        "monofs-admin repos",
    )
    .await?;
    let Some(repository) = &done.repository else {
        return Err(cut_short().into());
    };
    if session.json() {
        return emit_json(&Answer {
            repository: repository.into(),
            unchanged: done.unchanged,
            replicas: done.replicas.iter().map(replica).collect(),
        });
    }
    let look = shell_word(&repository.path);
    emit(&format!(
        "{}\nlook into it: monofs-admin ls {look}\n",
        describe(repository, done.unchanged)
    ))
}

fn replica(wire: &v1::ReplicaProgress) -> Replica {
    Replica {
        node_id: wire.node_id.clone(),
        durable: wire.durable,
        directories: wire.trees_done,
        files: wire.blobs_done,
        error: shapes::some(&wire.error),
    }
}

/// Shows the progress of an ingest or refresh until its last message, which is returned.
pub async fn follow(
    mut answers: Answers<v1::IngestProgress>,
    mut progress: Progress,
    session: &Session,
    watch: &str,
) -> Result<v1::IngestProgress, Failure> {
    let mut repository = None;
    loop {
        let answer = tokio::select! {
            answer = answers.next() => answer.map_err(broken_off)?,
            () = session.interrupt.cancelled() => {
                return Err(Failure::new(Code::Failed, "interrupted; the cluster goes on with the \
                 work")
                    .hint(format!("`{watch}` shows how it ends")));
            }
        };
        let Some(mut answer) = answer else {
            return Err(cut_short());
        };
        progress.ingest(&answer);
        repository = answer.repository.take().or(repository);
        if answer.phase() == Phase::Done {
            answer.repository = repository;
            return Ok(answer);
        }
    }
}

/// A stream that broke says nothing about the work.
fn broken_off(failure: Failure) -> Failure {
    match failure.code {
        Code::Unreachable => failure.hint(
            "`monofs-admin repos` shows whether the work goes on; the same command again \
             joins or repeats it",
        ),
        _ => failure,
    }
}

fn cut_short() -> Failure {
    Failure::new(Code::Failed, "the router ended the work without saying how")
        .hint("`monofs-admin repos` shows the state; run the command again to go on")
}

/// One line about where a repository is now.
pub fn describe(repository: &v1::Repository, unchanged: bool) -> String {
    let shape = shapes::Repository::from(repository);
    let commit = short(shape.commit.as_deref().unwrap_or_default());
    let verb = if unchanged { "is still at" } else { "is at" };
    let (directories, files) = (
        count(shape.directories, "directory"),
        count(shape.files, "file"),
    );
    let holders = shape
        .holders
        .iter()
        .map(|id| clean(id))
        .collect::<Vec<_>>()
        .join(", ");
    let (path, reference, bytes) = (
        clean(&shape.path),
        clean(&shape.ref_name),
        size(shape.bytes),
    );
    format!(
        "{path} {verb} {commit} ({reference}): {directories}, {files}, {bytes}; held by {holders}"
    )
}
