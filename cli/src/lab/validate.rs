//! `sluice lab validate` and `sluice lab schema`: what is wrong with topology files, and what may be in them.

use super::topology::{self, Topology, TopologyError};
use super::view;
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Arguments of `sluice lab validate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice lab validate                 the file *.lab.yml here, or the only *.yml with the key `lab:`
  sluice lab validate a.yml b.yml
  sluice lab new ring,4 | sluice lab validate -

Every mistake is told with its line, all at once; nothing is made, and no privilege is needed. Exit
code 1 if there is one.")]
pub(crate) struct Validate {
    /// Topology files; `-` for standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Arguments of `sluice lab schema`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sluice lab schema > lab.schema.json

An editor with YAML's language server then completes keys and shows mistakes in a file that begins
with:
  # yaml-language-server: $schema=lab.schema.json")]
pub(crate) struct Schema {}

/// The JSON Schema of topology files.
const SCHEMA: &str = include_str!("topology/schema.json");

#[derive(Serialize)]
struct Checked {
    file: String,
    valid: bool,
    mistakes: Vec<Mistake>,
}

#[derive(Serialize)]
struct Mistake {
    line: usize,
    message: String,
}

/// Checks files.
pub(crate) fn run(args: &Validate, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let files = if args.files.is_empty() { vec![topology::find(Path::new("."))?] } else { args.files.clone() };
    let mut all = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let parsed = topology::examine(&read(&file)?, &name);
        if format == Format::Table {
            tell(&name, &parsed, out)?;
        }
        let mistakes = parsed.as_ref().err().map(mistakes).unwrap_or_default();
        all.push(Checked { file: name, valid: parsed.is_ok(), mistakes });
    }
    if format == Format::Json {
        out.json(&json!({"files": all}))?;
    }
    Ok(if all.iter().all(|checked| checked.valid) { Exit::Yes } else { Exit::No })
}

fn tell(name: &str, parsed: &Result<Topology, TopologyError>, out: &mut Output) -> Result<(), Failure> {
    match parsed {
        Ok(topology) => out.line(format!("{name}: ok   {}", view::size(topology)))?,
        Err(error) => error.problems().iter().try_for_each(|problem| out.line(error.told(problem)))?,
    }
    Ok(())
}

fn mistakes(error: &TopologyError) -> Vec<Mistake> {
    error.problems().iter().map(|p| Mistake { line: p.line, message: p.message.clone() }).collect()
}

fn read(file: &Path) -> Result<String, Failure> {
    if file != Path::new("-") {
        return topology::read(file);
    }
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

/// Prints the schema.
pub(crate) fn schema(_args: &Schema, out: &mut Output) -> Result<Exit, Failure> {
    out.format(&[Format::Table, Format::Json])?;
    SCHEMA.lines().try_for_each(|line| out.line(line))?;
    Ok(Exit::Yes)
}
