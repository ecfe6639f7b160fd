//! `completions`: what a shell needs to complete this command line.

use anyhow::Result;
use clap_complete::Shell;

use crate::cli;
use crate::output::emit;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin completions bash > /etc/bash_completion.d/monofs-admin
  monofs-admin completions zsh > ~/.zfunc/_monofs-admin
  monofs-admin completions fish > ~/.config/fish/completions/monofs-admin.fish
  source <(monofs-admin completions bash)";

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub fn run(args: Args) -> Result<()> {
    emit(&String::from_utf8_lossy(
        &monofs_launch::tool_completions::<cli::Args>(cli::NAME, args.shell),
    ))
}
