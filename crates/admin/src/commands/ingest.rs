//! `ingest`: add a repository, or follow the ingest of it that already runs.

use std::time::Duration;

use anyhow::Result;
use monofs_api::hex;
use monofs_api::ingest::IngestDocument;
use monofs_api::repos::ref_word;
use monofs_launch::exit::{Code, Failure};
use monofs_model::{RefName, SourceUrl};
use monofs_proto::v1;
use monofs_proto::v1::ingest_progress::Phase;

use crate::cluster::{AnswerStream, CallSubject, RouterClient};
use crate::display_path::display_path;
use crate::output::{emit, emit_json};
use crate::progress::ProgressDisplay;
use crate::session::CommandSession;
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
    consistency: ConsistencyChoice,
    /// Copy contents to the nodes at once (eager) or when first read (lazy)
    #[arg(long, default_value = "eager")]
    content: ContentChoice,
    /// Return only when contents are on all replicas, too
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ConsistencyChoice {
    Eventual,
    Strong,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ContentChoice {
    Eager,
    Lazy,
}

pub async fn run(args: IngestArgs, session: &CommandSession) -> Result<()> {
    let path = args
        .path
        .as_deref()
        .map(display_path)
        .transpose()?
        .unwrap_or_default();
    // The request, with the path as a user may write it.
    let message = v1::IngestRequest {
        source: args.source.to_string(),
        ref_name: args.reference.as_str().to_owned(),
        path: path.clone(),
        consistency: match args.consistency {
            ConsistencyChoice::Eventual => v1::Consistency::Eventual.into(),
            ConsistencyChoice::Strong => v1::Consistency::Strong.into(),
        },
        content: match args.content {
            ContentChoice::Eager => v1::ContentMode::Eager.into(),
            ContentChoice::Lazy => v1::ContentMode::Lazy.into(),
        },
        wait_hydrated: args.wait,
    };
    let call = |router: RouterClient| {
        let request = router.stream(message.clone());
        async move { router.admin().ingest(request).await }
    };
    let answers = session
        .cluster
        .follow(CallSubject::Work, SILENCE, call)
        .await?;
    // The progress is shown until the last answer.
    let subject = if path.is_empty() {
        args.source.to_string()
    } else {
        path
    };
    let done = follow(
        answers,
        ProgressDisplay::new(&subject),
        session,
        "monofs-admin repos",
    )
    .await?;
    let Some(repository) = &done.repository else {
        return Err(cut_short().into());
    };
    // How it ended.
    if session.json() {
        return emit_json(&IngestDocument::from(&done));
    }
    let look = shell_word(&repository.path);
    emit(&format!(
        "{}\nlook into it: monofs-admin ls {look}\n",
        describe(&done)
    ))
}

/// Shows the progress of an ingest or refresh until its last message, which is returned.
pub async fn follow(
    mut answers: AnswerStream<v1::IngestProgress>,
    mut progress: ProgressDisplay,
    session: &CommandSession,
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

/// One line about where a repository is now; empty when the work did not say.
pub fn describe(done: &v1::IngestProgress) -> String {
    let Some(repository) = &done.repository else {
        return String::new();
    };
    let snapshot = repository.snapshot.clone().unwrap_or_default();
    let verb = if done.unchanged {
        "is still at"
    } else {
        "is at"
    };
    let holders = repository.holders.iter().map(|id| clean(id));
    format!(
        "{} {verb} {} ({}): {}, {}, {}; held by {}",
        clean(&repository.path),
        short(&hex(&snapshot.commit)),
        clean(&ref_word(&repository.ref_name)),
        count(snapshot.trees, "directory"),
        count(snapshot.blobs, "file"),
        size(snapshot.bytes),
        holders.collect::<Vec<_>>().join(", "),
    )
}
