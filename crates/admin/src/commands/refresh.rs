//! `refresh`: look upstream now.

use anyhow::Result;
use monofs_api::commands::{RefreshOutcome, RefreshResult, Refreshed};
use monofs_api::repos::RepositoryDocument;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::ingest::{SILENCE, describe, follow};
use crate::display_path::display_path;
use crate::output::{emit, emit_json, note};
use crate::progress::ProgressDisplay;
use crate::session::CommandSession;
use crate::text::{clean, count};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin refresh github.com/org/repo
  monofs-admin refresh --all";

/// Look upstream now and publish the new commit, if there is one
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RefreshArgs {
    /// Display path of the repository
    #[arg(
        value_name = "PATH",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    path: Option<String>,
    /// Refresh every repository, one after the other
    #[arg(long)]
    all: bool,
}

pub async fn run(args: RefreshArgs, session: &CommandSession) -> Result<()> {
    // One repository, or all of them.
    let paths = match (args.path, args.all) {
        (Some(path), _) => vec![display_path(&path)?],
        (None, true) => session
            .repositories("")
            .await?
            .into_iter()
            .map(|repository| repository.path)
            .collect(),
        (None, false) => {
            return Err(Failure::new(Code::Usage, "nothing to refresh")
                .hint("name a path, or use --all")
                .into());
        }
    };
    // A single one fails as a whole.
    if let [path] = paths.as_slice()
        && !args.all
    {
        let done = refresh(session, path).await;
        let done = session.meant_path(path, done).await?;
        return if session.json() {
            emit_json(&Refreshed {
                refreshed: vec![outcome(path, &done)],
            })
        } else {
            emit(&format!("{}\n", describe(&done)))
        };
    }
    refresh_all(session, &paths).await
}

async fn refresh_all(session: &CommandSession, paths: &[String]) -> Result<()> {
    let mut refreshed = Vec::with_capacity(paths.len());
    for path in paths {
        match refresh(session, path).await {
            Ok(done) => {
                refreshed.push(outcome(path, &done));
                if !session.json() {
                    emit(&format!("{}\n", describe(&done)))?;
                }
            }
            // No router is left to ask, or the user has seen enough: the other repositories would
            // not fare better.
            Err(failure)
                if failure.code == Code::Unreachable || session.interrupt.is_cancelled() =>
            {
                return Err(failure.into());
            }
            Err(failure) => {
                note(&format!("{}: {}", clean(path), clean(&failure.message)));
                refreshed.push(RefreshOutcome {
                    path: path.clone(),
                    result: RefreshResult::Failed,
                    commit: None,
                    error: Some(failure.message),
                });
            }
        }
    }
    let failed = refreshed
        .iter()
        .filter(|outcome| outcome.result == RefreshResult::Failed)
        .count();
    let total = refreshed.len();
    if session.json() {
        emit_json(&Refreshed { refreshed })?;
    }
    if failed > 0 {
        let of = count(total as u64, "repository");
        return Err(Failure::new(
            Code::Failed,
            format!("{failed} of {of} could not be refreshed"),
        )
        .hint("the lines above say why; what readers see has not changed for them")
        .into());
    }
    Ok(())
}

async fn refresh(session: &CommandSession, path: &str) -> Result<v1::IngestProgress, Failure> {
    let call = |router: RouterClient| {
        let request = router.stream(v1::RefreshRequest {
            path: path.to_owned(),
            follow: false,
        });
        async move { router.admin().refresh(request).await }
    };
    let answers = session
        .cluster
        .follow(CallSubject::Work, SILENCE, call)
        .await?;
    follow(
        answers,
        ProgressDisplay::new(path),
        session,
        "monofs-admin repos",
    )
    .await
}

fn outcome(path: &str, done: &v1::IngestProgress) -> RefreshOutcome {
    let repository = done.repository.as_ref().map(RepositoryDocument::from);
    let result = if done.unchanged {
        RefreshResult::Unchanged
    } else {
        RefreshResult::Updated
    };
    RefreshOutcome {
        path: path.to_owned(),
        result,
        commit: repository.and_then(|repository| repository.commit),
        error: None,
    }
}
