//! `delete`: take a repository out of the tree.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::Result;
use monofs_api::commands::Deleted;
use monofs_launch::exit::{Code, Failure};
use monofs_proto::v1;

use crate::cluster::RouterClient;
use crate::display_path::display_path;
use crate::output::{emit, emit_json};
use crate::session::CommandSession;
use crate::text::{clean, shell_word};

const AFTER_HELP: &str = "\
Examples:
  monofs-admin delete github.com/org/repo
  monofs-admin delete github.com/org/repo --yes";

/// Take a repository out of the tree; the Git remote is not touched
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DeleteArgs {
    /// Its display path
    #[arg(value_name = "PATH")]
    path: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: DeleteArgs, session: &CommandSession) -> Result<()> {
    let path = display_path(&args.path)?;
    if !args.yes {
        confirm(&path)?;
    }
    let call = |router: RouterClient| {
        let request = router.request(v1::DeleteRequest { path: path.clone() });
        async move { router.admin().delete(request).await }
    };
    let answer: Result<v1::DeleteResponse, Failure> = session.cluster.ask(call).await;
    session.meant_path(&path, answer).await?;
    if session.json() {
        return emit_json(&Deleted { deleted: path });
    }
    emit(&format!(
        "{} is deleted; its copies are freed after a grace period for open readers\n",
        clean(&path)
    ))
}

fn confirm(path: &str) -> Result<()> {
    // Without a terminal there is no answer to wait for.
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            Code::Usage,
            "delete asks before it acts, and there is no terminal to ask on",
        )
        .hint(format!(
            "`monofs-admin delete {} --yes` does not ask",
            shell_word(path)
        ))
        .into());
    }
    write!(
        std::io::stderr().lock(),
        "delete {} from the tree of every client? [y/N] ",
        clean(path)
    )?;
    // Everything but a plain yes is a no.
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(Code::Failed, "nothing was deleted")
        .hint("answer `y`, or give --yes, to delete it")
        .into())
}
