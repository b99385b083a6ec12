//! `sluice lab save`: the running lab as a topology file.

use super::Target;
use super::topology::write::write;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde_json::json;

/// Arguments of `sluice lab save`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab save > now.yml             as it runs now
  sluice lab save | diff office.yml -   what was changed since")]
pub(crate) struct Save {
    /// The lab; may be left out when one is running
    #[arg(conflicts_with = "lab")]
    name: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Prints a topology file that makes the lab that runs.
pub(crate) fn run(args: &Save, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let (name, state) = super::running(args.name.as_deref().or(args.target.lab.as_deref()))?;
    let mut topology = state.topology;
    super::link::refresh(&mut topology, state.socket)?;
    // A file says what happens on links, not what they are.
    topology.links.iter_mut().for_each(|link| link.wire = false);
    let text = write(&topology).ok_or_else(|| {
        Failure::new(format!("the lab {name} cannot be written as a file"))
            .why("no file that says the same was found, which is a fault of this program")
            .next(format!("its file was {}; sluice lab inspect -o json tells all of it", topology.source))
    })?;
    match format {
        Format::Json => out.json(&json!({"lab": name, "topology": text}))?,
        _ => text.lines().try_for_each(|line| out.line(line))?,
    }
    Ok(Exit::Yes)
}
