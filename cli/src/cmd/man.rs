//! `sluice man`: manual pages, made from the command tree.

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::{Args, CommandFactory};
use std::path::PathBuf;

/// Arguments of `sluice man`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice man ~/.local/share/man/man1 && man sluice-lab-up")]
pub(crate) struct Man {
    /// Folder to write into, one page per verb; made if missing
    folder: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(args: &Man, out: &mut Output) -> Result<Exit, Failure> {
    let failed = |error| Failure::new(format!("cannot write manual pages to {}: {error}", args.folder.display()));
    std::fs::create_dir_all(&args.folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).map_err(failed)?;
    out.line(format!("manual pages written to {}", args.folder.display()))?;
    Ok(Exit::Yes)
}
