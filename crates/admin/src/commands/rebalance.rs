//! `rebalance`: bring copies to where placement wants them: the plan, then its progress.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use monofs_proto::v1;
use serde::Serialize;

use crate::cluster::{About, Router};
use crate::commands::follow;
use crate::display_path::display_path;
use crate::output::{Rows, emit, emit_json};
use crate::session::Session;
use crate::shapes::{self, move_kind};
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
    #[arg(long, value_name = "ID", conflicts_with = "path", value_parser = NonEmptyStringValueParser::new())]
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

#[derive(Serialize)]
struct Answer {
    dry_run: bool,
    moves: Vec<shapes::Move>,
    copies_total: u64,
    deletes_total: u64,
    bytes_total: u64,
    job_id: Option<String>,
    /// How the job ended; null unless it was waited for.
    job: Option<shapes::Job>,
}

pub async fn run(args: RebalanceArgs, session: &Session) -> Result<()> {
    let path = args
        .path
        .as_deref()
        .map(display_path)
        .transpose()?
        .unwrap_or_default();
    let message = v1::RebalanceRequest {
        storage_id: args.storage_id.unwrap_or_default(),
        path: path.clone(),
        dry_run: args.dry_run,
    };
    let call = |router: Router| {
        let request = router.request(message.clone());
        async move { router.admin().rebalance(request).await }
    };
    let plan = session.cluster.ask_about(About::Rebalance, call).await;
    let plan: v1::RebalanceResponse = session.meant_path(&path, plan).await?;
    let wait = args.wait && !plan.job_id.is_empty();
    if !session.json() {
        emit(&text(&plan, args.dry_run, wait))?;
    }
    let job = if wait {
        Some(follow::to_the_end(session, &plan.job_id).await?)
    } else {
        None
    };
    if session.json() {
        emit_json(&answer(&plan, args.dry_run, job.as_ref()))?;
    }
    let Some(job) = job else { return Ok(()) };
    follow::verdict(&job)?;
    if session.json() {
        Ok(())
    } else {
        emit(&follow::summary(&job))
    }
}

fn answer(plan: &v1::RebalanceResponse, dry_run: bool, job: Option<&v1::Job>) -> Answer {
    Answer {
        dry_run,
        moves: plan.moves.iter().map(Into::into).collect(),
        copies_total: plan.copies_total,
        deletes_total: plan.deletes_total,
        bytes_total: plan.bytes_total,
        job_id: shapes::some(&plan.job_id),
        job: job.map(Into::into),
    }
}

fn text(plan: &v1::RebalanceResponse, dry_run: bool, wait: bool) -> String {
    let total = plan.copies_total + plan.deletes_total;
    if total == 0 {
        return "nothing to do: every copy is where placement wants it\n".to_owned();
    }
    let mut rows = Rows::new(&["STEP", "PATH", "NODE", "FROM", ">SIZE", "WHY"]);
    for step in plan.moves.iter().take(MOVES_SHOWN_MAX) {
        let from = match (step.kind(), step.from.is_empty()) {
            (v1::planned_move::Kind::Copy, true) => "a fetcher".to_owned(),
            (_, true) => "-".to_owned(),
            (_, false) => step.from.join(", "),
        };
        let bytes = size(step.bytes);
        rows.row([
            move_kind(step.kind()),
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
    let (copies, deletes) = (
        count(plan.copies_total, "copy"),
        count(plan.deletes_total, "deletion"),
    );
    text.push_str(&format!(
        "\n{copies}, {deletes}, {} to copy\n",
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
