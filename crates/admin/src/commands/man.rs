//! `man`: manual pages of this program.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;
use monofs_api::commands::PagesWritten;
use monofs_launch::exit::{Code, Failure};

use crate::output::{emit, emit_json};
use crate::session::CommandSession;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin man | man --local-file -
  monofs-admin man jobs-watch | man --local-file -
  monofs-admin man --dir=/usr/local/share/man/man1

Every other binary writes its pages with `BINARY --generate-man DIRECTORY`, and completions with
`BINARY --generate-completions SHELL`.";

/// Print a manual page, or write all of them into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ManArgs {
    /// Of this command, such as `status` or `jobs-watch`; the page of the whole program when left
    /// away
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Option<String>,
    /// Write a page for the program and for each command here
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages of the command line `Program` of the binary `program`.
pub fn run<Program: Parser>(
    args: ManArgs,
    program: &'static str,
    session: &CommandSession,
) -> Result<()> {
    let pages = monofs_launch::tool_pages::<Program>(program);
    // All pages, into a directory.
    if let Some(dir) = args.dir {
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        for (name, text) in &pages {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        if session.json() {
            return emit_json(&PagesWritten {
                written: pages.into_iter().map(|(name, _)| name).collect(),
            });
        }
        return emit(&format!(
            "{} pages written to {}\n",
            pages.len(),
            dir.display()
        ));
    }
    // One page, to standard output.
    let name = args.command.map_or(program.to_owned(), |command| {
        format!("{program}-{}", command.replace(' ', "-"))
    });
    let Some((_, text)) = pages
        .into_iter()
        .find(|(page, _)| page.strip_suffix(".1") == Some(&name))
    else {
        return Err(Failure::new(
            Code::Usage,
            format!("there is no manual page called {name}"),
        )
        .hint("`monofs-admin --help` lists the commands")
        .into());
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&text)?;
    Ok(stdout.flush()?)
}
