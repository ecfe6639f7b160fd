//! `repos`: all repositories.

use anyhow::Result;
use monofs_api::repos::{RepositoryCondition, RepositoryList, ref_word};
use monofs_api::{ListPage, hex};
use monofs_proto::v1;

use crate::display_path::display_path;
use crate::mood::{Mood, plain, repository_mood};
use crate::output::{TextTable, emit, emit_json, note};
use crate::session::CommandSession;
use crate::text::{ago, short, size};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin repos
  monofs-admin repos github.com/org --format=json";

/// List the repositories
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReposArgs {
    /// Only those at or below this path
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
}

pub async fn run(args: ReposArgs, session: &CommandSession) -> Result<()> {
    let prefix = display_path(&args.prefix)?;
    let repositories = session.repositories(&prefix).await?;
    if session.json() {
        return emit_json(&RepositoryList {
            repositories: repositories.iter().map(Into::into).collect(),
            page: ListPage::whole(repositories.len()),
        });
    }
    if repositories.is_empty() {
        match prefix.as_str() {
            "" => note("no repositories yet; add one: monofs-admin ingest --source=URL"),
            _ => note("no repository is there; `monofs-admin repos` lists all"),
        }
        return Ok(());
    }
    emit(&table(&repositories))
}

/// The repositories as a table.
pub fn table(repositories: &[v1::Repository]) -> String {
    let mut rows = TextTable::new(&[
        "PATH",
        "STATE",
        "REF",
        "COMMIT",
        ">FILES",
        ">SIZE",
        "REFRESHED",
        "HOLDERS",
        "LAST ERROR",
    ]);
    // A repository without a commit has no figures.
    for repository in repositories {
        let snapshot = repository.snapshot.as_ref();
        rows.row_with([
            plain(repository.path.clone()),
            (
                RepositoryCondition::from(repository).word().to_owned(),
                repository_mood(repository.state()),
            ),
            plain(ref_word(&repository.ref_name)),
            plain(short(
                &snapshot
                    .map(|snapshot| hex(&snapshot.commit))
                    .unwrap_or_default(),
            )),
            plain(snapshot.map_or_else(|| "-".to_owned(), |snapshot| snapshot.blobs.to_string())),
            plain(snapshot.map_or_else(|| "-".to_owned(), |snapshot| size(snapshot.bytes))),
            plain(ago(repository.refreshed_at)),
            plain(repository.holders.join(",")),
            (repository.last_error.clone(), Mood::Bad),
        ]);
    }
    rows.render()
}
