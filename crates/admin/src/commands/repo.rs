//! `repo`: one repository in full.

use anyhow::Result;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;
use serde::Serialize;

use crate::cluster::Router;
use crate::display_path::display_path;
use crate::mood::Mood;
use crate::output::{Rows, emit, emit_json, fields};
use crate::session::Session;
use crate::shapes;
use crate::text::{ago, percent, shell_word, size};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin repo github.com/org/repo";

/// Show one repository in full: commit, replicas, sizes, last refresh, errors
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RepoArgs {
    /// Its display path
    #[arg(value_name = "PATH")]
    path: String,
}

#[derive(Serialize)]
struct Answer {
    repository: shapes::Repository,
    replicas: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    node_id: String,
    holder: bool,
    held: Option<shapes::Held>,
    error: Option<String>,
}

pub async fn run(args: RepoArgs, session: &Session) -> Result<()> {
    let path = display_path(&args.path)?;
    let call = |router: Router| {
        let request = router.request(v1::GetRepositoryRequest { path: path.clone() });
        async move { router.admin().get_repository(request).await }
    };
    let answer = session.cluster.ask(call).await;
    let answer: v1::GetRepositoryResponse = session.meant_path(&path, answer).await?;
    let Some(repository) = answer.repository else {
        return Err(Failure::new(
            Code::Failed,
            format!("the router did not describe {}", shell_word(&path)),
        )
        .hint("compare `monofs-admin --version` with the router's in `monofs-admin status`")
        .into());
    };
    let shape = shapes::Repository::from(&repository);
    let replicas: Vec<Replica> = answer.replicas.iter().map(replica).collect();
    if session.json() {
        return emit_json(&Answer {
            repository: shape,
            replicas,
        });
    }
    emit(&text(&shape, &repository, &replicas))
}

fn replica(wire: &v1::ReplicaStatus) -> Replica {
    Replica {
        node_id: wire.node_id.clone(),
        holder: wire.holder,
        held: wire.held.as_ref().map(Into::into),
        error: shapes::some(&wire.error),
    }
}

fn text(shape: &shapes::Repository, wire: &v1::Repository, replicas: &[Replica]) -> String {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut text = fields(&[
        ("path", shape.path.clone()),
        ("state", shape.state.to_owned()),
        ("source", shape.source.clone()),
        ("ref", shape.ref_name.clone()),
        ("commit", or_dash(&shape.commit)),
        ("commit time", or_dash(&shape.commit_time)),
        ("generation", shape.generation.to_string()),
        ("directories", shape.directories.to_string()),
        ("files", shape.files.to_string()),
        ("size", size(shape.bytes)),
        ("submodules", shape.submodules.to_string()),
        ("content", shape.content.to_owned()),
        ("consistency", shape.consistency.to_owned()),
        (
            "created",
            format!(
                "{} ({} ago)",
                or_dash(&shape.created_at),
                ago(wire.created_at)
            ),
        ),
        (
            "last refresh",
            format!(
                "{} ({} ago)",
                or_dash(&shape.refreshed_at),
                ago(wire.refreshed_at)
            ),
        ),
        ("last error", or_dash(&shape.last_error)),
        ("storage id", shape.storage_id.clone()),
    ]);
    let mut rows = Rows::new(&["REPLICA", "HOLDS COMMIT", ">DISK", ">CONTENTS", "ERROR"]);
    for replica in replicas {
        let held = replica.held.as_ref();
        let contents = held.map_or_else(
            || "-".to_owned(),
            |held| percent(held.hydrated_files, held.total_files),
        );
        let error = replica
            .error
            .clone()
            .or_else(|| held.and_then(|held| held.last_error.clone()))
            .unwrap_or_default();
        rows.row_with([
            (replica.node_id.clone(), Mood::Plain),
            if replica.holder {
                ("yes".to_owned(), Mood::Good)
            } else {
                ("no".to_owned(), Mood::Uneasy)
            },
            (
                held.map_or_else(|| "-".to_owned(), |held| size(held.disk_bytes)),
                Mood::Plain,
            ),
            (contents, Mood::Plain),
            (error, Mood::Bad),
        ]);
    }
    text.push('\n');
    text.push_str(&rows.render());
    if shape.state == "failed" {
        let source = shell_word(&shape.source);
        text.push_str(&format!(
            "\ntry again: monofs-admin ingest --source={source} --path={}\n",
            shell_word(&shape.path)
        ));
    }
    text
}
