//! `verify`: check every object on every replica against its oid.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use monofs_api::commands::{Verified, VerifiedReplica};
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::{CallSubject, RouterClient};
use crate::display_path::display_path;
use crate::mood::{Mood, plain};
use crate::output::{TextTable, emit, emit_json};
use crate::progress::{ProgressDisplay, ProgressStep};
use crate::session::CommandSession;
use crate::text::{clean, count, size};

/// Longest pause between two signs of life: one huge object may take a while to read.
const SILENCE: Duration = Duration::from_secs(120);
/// Damaged objects that are named for each replica; the rest is counted.
const ERRORS_SHOWN_MAX: usize = 100;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin verify
  monofs-admin verify --path=github.com/org/repo --format=json";

/// Check every object on every replica against its object id
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct VerifyArgs {
    /// Only this repository
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true
    )]
    path: String,
}

pub async fn run(args: VerifyArgs, session: &CommandSession) -> Result<()> {
    let path = display_path(&args.path)?;
    let call = |router: RouterClient| {
        let request = router.stream(v1::AdminVerifyRequest { path: path.clone() });
        async move { router.admin().verify(request).await }
    };
    let mut answers = session
        .cluster
        .follow(CallSubject::Cluster, SILENCE, call)
        .await?;
    let mut progress = ProgressDisplay::new("verify");
    let mut replicas: BTreeMap<(String, String), VerifiedReplica> = BTreeMap::new();
    // A path that is not there is said in place of the first answer.
    while let Some(answer) = session.meant_path(&path, answers.next().await).await? {
        let key = (answer.node_id.clone(), answer.path.clone());
        let fresh = || VerifiedReplica {
            node_id: answer.node_id.clone(),
            path: answer.path.clone(),
            ..VerifiedReplica::default()
        };
        add(replicas.entry(key).or_insert_with(fresh), &answer);
        let (objects, bytes) = replicas.values().fold((0, 0), |(a, b), replica| {
            (a + replica.objects, b + replica.bytes)
        });
        let detail = format!("{}, {}", count(objects, "object"), size(bytes));
        progress.show(ProgressStep {
            phase: "checking",
            done: objects,
            total: 0,
            detail,
        });
    }
    drop(progress);
    report(session, replicas.into_values().collect())
}

fn add(replica: &mut VerifiedReplica, answer: &v1::AdminVerifyProgress) {
    if let Some(progress) = &answer.progress {
        replica.objects = replica.objects.max(progress.objects_checked);
        replica.bytes = replica.bytes.max(progress.bytes_checked);
        replica.finished |= progress.finished;
    }
    let errors = answer.progress.iter().flat_map(|progress| &progress.errors);
    for error in errors.chain(Some(&answer.error).filter(|error| !error.is_empty())) {
        replica.damaged += 1;
        if replica.errors.len() < ERRORS_SHOWN_MAX {
            replica.errors.push(error.clone());
        }
    }
}

fn report(session: &CommandSession, replicas: Vec<VerifiedReplica>) -> Result<()> {
    // A replica that was not checked to its end is not good either.
    let damaged: u64 = replicas.iter().map(|replica| replica.damaged).sum();
    let unfinished = replicas.iter().filter(|replica| !replica.finished).count();
    let ok = damaged == 0 && unfinished == 0;
    if session.json() {
        emit_json(&Verified { ok, replicas })?;
    } else {
        emit(&text(&replicas))?;
    }
    if ok {
        return Ok(());
    }
    // The failure says what was found.
    let what = match (damaged, unfinished as u64) {
        (0, unfinished) => format!(
            "{} could not be checked to the end",
            count(unfinished, "replica")
        ),
        (damaged, 0) => format!("{} found", count(damaged, "error")),
        (damaged, unfinished) => {
            format!(
                "{} found, {} not checked to the end",
                count(damaged, "error"),
                count(unfinished, "replica")
            )
        }
    };
    Err(Failure::new(Code::Failed, what)
        .hint(
            "what is damaged is not served. Stop the node, remove repos/STORAGE-ID below its \
             --db-path and start it: the copy is made again, from another node or from Git; \
             `monofs-admin node-files --node-id=NODE --format=json` names the storage id",
        )
        .into())
}

fn text(replicas: &[VerifiedReplica]) -> String {
    if replicas.is_empty() {
        return "nothing to check\n".to_owned();
    }
    // One row for each replica.
    let mut rows = TextTable::new(&["NODE", "PATH", ">OBJECTS", ">BYTES", "RESULT"]);
    for replica in replicas {
        let (result, mood) = match (replica.damaged, replica.finished) {
            (0, true) => ("good".to_owned(), Mood::Good),
            (0, false) => ("not finished".to_owned(), Mood::Uneasy),
            (damaged, _) => (count(damaged, "error"), Mood::Bad),
        };
        rows.row_with([
            plain(replica.node_id.clone()),
            plain(replica.path.clone()),
            plain(replica.objects.to_string()),
            plain(size(replica.bytes)),
            (result, mood),
        ]);
    }
    // The damaged objects, the first of each replica.
    let mut text = rows.render();
    for replica in replicas {
        for error in &replica.errors {
            text.push_str(&format!(
                "{} {}: {}\n",
                clean(&replica.node_id),
                clean(&replica.path),
                clean(error)
            ));
        }
        let hidden = replica.damaged.saturating_sub(replica.errors.len() as u64);
        if hidden > 0 {
            text.push_str(&format!(
                "{} {}: and {hidden} more\n",
                clean(&replica.node_id),
                clean(&replica.path)
            ));
        }
    }
    text
}
