//! `completions`: what a shell needs to complete this command line.

use anyhow::Result;
use clap_complete::Shell;

use crate::cli;
use crate::output::emit;

const AFTER_HELP: &str = "\
Examples:
  monofs-admin completions bash > /etc/bash_completion.d/monofs-admin
  monofs-admin completions zsh > ~/.zfunc/_monofs-admin";

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub fn run(args: Args) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut monofs_launch::tool_command::<cli::Args>(cli::NAME), cli::NAME, &mut text);
    emit(&String::from_utf8_lossy(&text))
}
