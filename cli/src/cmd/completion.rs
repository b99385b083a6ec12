//! `sluice completion`: completion scripts, made from the command tree.

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `sluice completion`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice completion bash > /etc/bash_completion.d/sluice
  sluice completion zsh > ~/.zfunc/_sluice
  sluice completion fish > ~/.config/fish/completions/sluice.fish")]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &Completion, out: &mut Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "sluice", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Yes)
}
