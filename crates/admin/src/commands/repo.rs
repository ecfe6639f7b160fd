//! `repo`: one repository in full.

use anyhow::Result;
use monofs_api::Time;
use monofs_api::repos::{
    ReplicaDocument, RepositoryCondition, RepositoryDocument, RepositoryInFull, SubmoduleDocument,
};
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::RouterClient;
use crate::display_path::display_path;
use crate::mood::Mood;
use crate::output::{TextTable, emit, emit_json, fields};
use crate::place::NamespacePath;
use crate::session::CommandSession;
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

pub async fn run(args: RepoArgs, session: &CommandSession) -> Result<()> {
    let path = display_path(&args.path)?;
    let call = |router: RouterClient| {
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
    let document = in_full(&repository, &answer.replicas);
    if session.json() {
        return emit_json(&document);
    }
    emit(&text(&document, &repository))
}

/// The repository as its document. What placement wants, and who works on it, is not told.
fn in_full(repository: &v1::Repository, replicas: &[v1::ReplicaStatus]) -> RepositoryInFull {
    let document = RepositoryDocument::from(repository);
    let modules = repository.snapshot.iter().flat_map(|at| &at.submodules);
    RepositoryInFull {
        replicas: replicas
            .iter()
            .map(|wire| ReplicaDocument::new(wire, None, document.commit.as_deref()))
            .collect(),
        repository: document,
        wanted: None,
        worked_on_by: None,
        submodules: modules
            .map(|module| SubmoduleDocument {
                path_encoded: NamespacePath::from_bytes(&module.path).encoded(),
                url: module.url.clone(),
            })
            .collect(),
    }
}

fn text(document: &RepositoryInFull, wire: &v1::Repository) -> String {
    // Everything of the repository, then its replicas.
    let repository = &document.repository;
    let mut text = fields(&[
        ("path", repository.path.clone()),
        ("state", repository.state.word().to_owned()),
        ("source", repository.source.clone()),
        ("ref", repository.ref_name.clone()),
        ("commit", or_dash(repository.commit.clone())),
        (
            "commit time",
            or_dash(repository.commit_time.map(Time::text)),
        ),
        ("generation", repository.generation.to_string()),
        ("directories", figure(repository.directories)),
        ("files", figure(repository.files)),
        ("size", or_dash(repository.bytes.map(size))),
        ("submodules", figure(repository.submodules)),
        ("content", repository.content.word().to_owned()),
        ("consistency", repository.consistency.word().to_owned()),
        ("created", with_age(wire.created_at)),
        ("last refresh", with_age(wire.refreshed_at)),
        ("last error", or_dash(repository.last_error.clone())),
        ("storage id", repository.storage_id.clone()),
    ]);
    text.push('\n');
    text.push_str(&replica_table(&document.replicas));
    if repository.state == RepositoryCondition::Failed {
        text.push_str(&format!(
            "\ntry again: monofs-admin ingest --source={} --path={}\n",
            shell_word(&repository.source),
            shell_word(&repository.path)
        ));
    }
    text
}

/// A text, or `-` where there is none.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// A number, or `-` where it is not known.
fn figure<T: ToString>(number: Option<T>) -> String {
    or_dash(number.map(|number| number.to_string()))
}

/// When something was, and how long ago that is.
fn with_age(seconds: i64) -> String {
    let time = or_dash(Time::known(seconds).map(Time::text));
    format!("{time} ({} ago)", ago(seconds))
}

fn replica_table(replicas: &[ReplicaDocument]) -> String {
    let mut rows = TextTable::new(&["REPLICA", "HOLDS COMMIT", ">DISK", ">CONTENTS", "ERROR"]);
    for replica in replicas {
        let contents = replica.contents_held.zip(replica.contents_total);
        let contents = contents.map(|(held, total)| percent(held, total));
        let error = replica.error.clone().or_else(|| replica.last_error.clone());
        let holds = if replica.holder {
            ("yes".to_owned(), Mood::Good)
        } else {
            ("no".to_owned(), Mood::Uneasy)
        };
        rows.row_with([
            (replica.node_id.clone(), Mood::Plain),
            holds,
            (or_dash(replica.disk_bytes.map(size)), Mood::Plain),
            (or_dash(contents), Mood::Plain),
            (error.unwrap_or_default(), Mood::Bad),
        ]);
    }
    rows.render()
}
