//! `sluice lab up`.

use super::topology::preset::Preset;
use super::topology::{self, Topology};
use super::view;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `sluice lab up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab up                       the topology file of this folder: *.lab.yml, or the only *.yml with `lab:`
  sluice lab up office.yml --dry-run  say what would be made
  sluice lab up --topo single,3       three hosts on one switch, no file needed")]
pub(crate) struct Up {
    /// Topology file
    #[arg(conflicts_with = "topo")]
    file: Option<PathBuf>,
    /// A topology without a file: single,HOSTS or linear,SWITCHES or tree,DEPTH,FANOUT
    #[arg(long, value_name = "PRESET")]
    topo: Option<Preset>,
    /// Name of the lab, instead of the file's
    #[arg(long)]
    name: Option<String>,
    /// Only print what would be made
    #[arg(long)]
    dry_run: bool,
}

/// Brings a lab up.
pub(crate) fn run(args: &Up, out: &mut Output) -> Result<Exit, Failure> {
    let topology = wanted(args)?;
    if args.dry_run {
        match out.format(&[Format::Table, Format::Json])? {
            Format::Json => out.json(&topology)?,
            _ => {
                out.line(format!("{}: would make {}   seed {}", topology.name, view::size(&topology), topology.seed))?;
                out.table(&view::nodes(&topology))?;
            }
        }
        return Ok(Exit::Yes);
    }
    Err(Failure::new("this version cannot start a lab yet").next("sluice lab up --dry-run"))
}

fn wanted(args: &Up) -> Result<Topology, Failure> {
    if let Some(name) = args.name.as_deref().filter(|name| !topology::is_name(name)) {
        return Err(Failure::usage(format!("`{name}` cannot name a lab")).why(topology::NAME_RULE));
    }
    if let Some(preset) = args.topo {
        return Ok(preset.topology(args.name.as_deref().unwrap_or(preset.name()))?);
    }
    let file = match &args.file {
        Some(file) => file.clone(),
        None => topology::find(Path::new("."))?,
    };
    let mut topology = topology::load(&file)?;
    topology.name = args.name.clone().unwrap_or(topology.name);
    Ok(topology)
}
