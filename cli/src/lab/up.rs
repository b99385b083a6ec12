//! `sluice lab up`.

use super::launch;
use super::state::Attachment;
use super::topology::preset::Preset;
use super::topology::{self, Topology};
use super::view;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Arguments of `sluice lab up`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab up                       the file *.lab.yml here, or the only *.yml with the key `lab:`
  sluice lab up office.yml --dry-run  say what would be made
  sluice lab up --topo single,3       three hosts on one switch, no file needed")]
pub(crate) struct Up {
    /// Topology file
    #[arg(conflicts_with = "topo")]
    file: Option<PathBuf>,
    /// A topology without a file: single,HOSTS or linear,SWITCHES or tree,DEPTH,FANOUT or
    /// leafspine,SPINES,LEAVES or ring,ROUTERS
    #[arg(long, value_name = "PRESET")]
    topo: Option<Preset>,
    /// Name of the lab, instead of the file's
    #[arg(long)]
    name: Option<String>,
    /// How hosts are joined to switches; by TAP where /dev/net/tun may be opened, else by veth
    #[arg(long, value_enum, value_name = "KIND")]
    attach: Option<Attachment>,
    /// Threads that forward packets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Only print what would be made
    #[arg(long)]
    dry_run: bool,
}

/// Brings a lab up.
pub(crate) fn run(args: &Up, out: &mut Output) -> Result<Exit, Failure> {
    let topology = wanted(args)?;
    let format = out.format(&[Format::Table, Format::Json])?;
    if args.dry_run {
        match format {
            Format::Json => out.json(&topology)?,
            _ => {
                out.line(format!("{}: would make {}   seed {}", topology.name, view::size(&topology), topology.seed))?;
                view::tables(&topology, out)?;
            }
        }
        return Ok(Exit::Yes);
    }
    let begin = Instant::now();
    let state = launch::start(&topology, args.attach, args.workers.into())?;
    if format == Format::Json {
        out.json(&state)?;
        return Ok(Exit::Yes);
    }
    let mode = if state.rootless { "   rootless" } else { "" };
    let (seconds, size) = (begin.elapsed().as_secs_f64(), view::size(&topology));
    out.line(format!("{}: up in {seconds:.2} s   {size}   seed {}{mode}", topology.name, topology.seed))?;
    view::tables(&topology, out)?;
    let first = topology.hosts.first().map_or("HOST", |host| &host.name);
    let check = if topology.tests.is_empty() { "ping" } else { "test" };
    out.talk(format!("next: sluice lab {check} | sluice lab sh {first} | sluice lab inspect | sluice lab down"))?;
    Ok(Exit::Yes)
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
