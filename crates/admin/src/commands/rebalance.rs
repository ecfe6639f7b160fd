//! `rebalance`: bring copies to where placement wants them: the plan, then its progress.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_api::commands::Rebalanced;
use monofs_api::jobs::{MoveKind, PlanMode, RebalancePlan};
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::commands::follow;
use crate::display_path::display_path;
use crate::output::{TextTable, emit, emit_json};
use crate::session::CommandSession;
use crate::text::{count, shell_word, size};

/// Steps of a plan that are shown to people; JSON has all that the router tells (10,000 at most).
const MOVES_SHOWN_MAX: usize = 200;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin rebalance --dry-run
  monofs-admin rebalance --wait
  monofs-admin rebalance --path=github.com/org/repo
  monofs-admin rebalance --storage-id=0123456789abcdef0123456789abcdef";

/// Bring copies to where placement wants them: the plan, then its progress
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RebalanceArgs {
    /// Only the repository with this storage id (`monofs-admin repo PATH` shows it)
    #[arg(
        long,
        value_name = "ID",
        conflicts_with = "path",
        value_parser = NonEmptyStringValueParser::new()
    )]
    storage_id: Option<String>,
    /// Only the repository at this display path
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    path: Option<String>,
    /// Only say what would be done
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Show the progress and return when the job has ended
    #[arg(long)]
    wait: bool,
}

pub async fn run(args: RebalanceArgs, session: &CommandSession) -> Result<()> {
    let path = args
        .path
        .as_deref()
        .map(display_path)
        .transpose()?
        .unwrap_or_default();
    let mode = if args.dry_run {
        PlanMode::DryRun
    } else {
        PlanMode::Started
    };
    // The plan, which the router starts unless it is a dry run.
    let message = v1::RebalanceRequest {
        storage_id: args.storage_id.unwrap_or_default(),
        path: path.clone(),
        dry_run: args.dry_run,
    };
    let call = |router: RouterClient| {
        let request = router.request(message.clone());
        async move { router.admin().rebalance(request).await }
    };
    let plan = session
        .cluster
        .ask_about(CallSubject::Rebalance, call)
        .await;
    let plan: v1::RebalanceResponse = session.meant_path(&path, plan).await?;
    let wait = args.wait && !plan.job_id.is_empty();
    if !session.json() {
        emit(&text(&plan, args.dry_run, wait))?;
    }
    // The job, until it has ended.
    let job = if wait {
        Some(follow::to_the_end(session, &plan.job_id).await?)
    } else {
        None
    };
    if session.json() {
        emit_json(&Rebalanced {
            plan: RebalancePlan::new(&plan, mode),
            job: job.as_ref().map(Into::into),
        })?;
    }
    let Some(job) = job else { return Ok(()) };
    follow::verdict(&job)?;
    if session.json() {
        Ok(())
    } else {
        emit(&follow::summary(&job))
    }
}

fn text(plan: &v1::RebalanceResponse, dry_run: bool, wait: bool) -> String {
    let total = plan.copies_total + plan.deletes_total;
    if total == 0 {
        return "nothing to do: every copy is where placement wants it\n".to_owned();
    }
    // The steps of the plan, the first of them.
    let mut rows = TextTable::new(&["STEP", "PATH", "NODE", "FROM", ">SIZE", "WHY"]);
    for step in plan.moves.iter().take(MOVES_SHOWN_MAX) {
        let from = match (step.kind(), step.from.is_empty()) {
            (v1::planned_move::Kind::Copy, true) => "a fetcher".to_owned(),
            (_, true) => "-".to_owned(),
            (_, false) => step.from.join(", "),
        };
        let bytes = size(step.bytes);
        rows.row([
            MoveKind::from(step.kind()).word(),
            &step.path,
            &step.node_id,
            &from,
            &bytes,
            &step.reason,
        ]);
    }
    let mut text = rows.render();
    let hidden = total.saturating_sub(plan.moves.len().min(MOVES_SHOWN_MAX) as u64);
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more\n"));
    }
    // The sums, and what comes next.
    text.push_str(&format!(
        "\n{}, {}, {} to copy\n",
        count(plan.copies_total, "copy"),
        count(plan.deletes_total, "deletion"),
        size(plan.bytes_total)
    ));
    match (dry_run, wait) {
        (true, _) => text.push_str("nothing was started; next: the same without --dry-run\n"),
        (false, false) if !plan.job_id.is_empty() => {
            text.push_str(&format!(
                "next: monofs-admin jobs watch {}\n",
                shell_word(&plan.job_id)
            ));
        }
        (false, _) => {}
    }
    text
}
