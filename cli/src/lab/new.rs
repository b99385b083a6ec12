//! `sluice lab new`: a topology file to begin with.

use super::topology::preset::Preset;
use super::topology::{NAME_RULE, is_name};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::json;

/// Arguments of `sluice lab new`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab new leafspine,2,4 > fabric.lab.yml
  sluice lab new single,3 --name office | sluice lab validate -

Presets:
  single,HOSTS              hosts on one switch
  linear,SWITCHES           a row of switches with a host each
  tree,DEPTH,FANOUT         a tree of switches, hosts as its leaves
  leafspine,SPINES,LEAVES   routers; flows are spread over the spines
  ring,ROUTERS              routers in a ring")]
pub(crate) struct New {
    /// What to begin with
    preset: Preset,
    /// Name of the lab
    #[arg(long)]
    name: Option<String>,
}

/// Prints the file of a preset.
pub(crate) fn run(args: &New, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let name = args.name.as_deref().unwrap_or(args.preset.name());
    if !is_name(name) {
        return Err(Failure::usage(format!("`{name}` cannot name a lab")).why(NAME_RULE));
    }
    let text = args.preset.file(name)?;
    match format {
        Format::Json => out.json(&json!({"preset": args.preset.to_string(), "topology": text}))?,
        _ => text.lines().try_for_each(|line| out.line(line))?,
    }
    Ok(Exit::Yes)
}
