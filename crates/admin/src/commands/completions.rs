//! `completions`: what a shell needs to complete this command line.

use anyhow::Result;
use clap::Parser;
use clap_complete::Shell;

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
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints them for the command line `Program` of the binary `name`.
pub fn run<Program: Parser>(args: CompletionsArgs, name: &'static str) -> Result<()> {
    let script = monofs_launch::tool_completions::<Program>(name, args.shell);
    emit(&String::from_utf8_lossy(&script))
}
