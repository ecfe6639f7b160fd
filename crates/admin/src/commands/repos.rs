//! `repos`: all repositories.

use anyhow::Result;
use monofs_proto::v1;
use serde::Serialize;

use crate::display_path::display_path;
use crate::mood::{Mood, repository_mood};
use crate::output::{Rows, emit, emit_json, note};
use crate::session::Session;
use crate::shapes::{self, repository_state};
use crate::text::{ago, hex, short, size};

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

#[derive(Serialize)]
struct Answer {
    repositories: Vec<shapes::Repository>,
}

pub async fn run(args: ReposArgs, session: &Session) -> Result<()> {
    let prefix = display_path(&args.prefix)?;
    let repositories = session.repositories(&prefix).await?;
    if session.json() {
        return emit_json(&Answer {
            repositories: repositories.iter().map(Into::into).collect(),
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
    let mut rows = Rows::new(&[
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
    for repository in repositories {
        let snapshot = repository.snapshot.as_ref();
        let plain = |text: String| (text, Mood::Plain);
        let reference = if repository.ref_name.is_empty() {
            "HEAD"
        } else {
            &repository.ref_name
        };
        rows.row_with([
            plain(repository.path.clone()),
            (
                repository_state(repository.state()).to_owned(),
                repository_mood(repository.state()),
            ),
            plain(reference.to_owned()),
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
