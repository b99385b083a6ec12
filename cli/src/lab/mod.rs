//! `sluice lab`: hosts, switches and links on this machine, made of network namespaces and our own switch.

mod topology;
mod up;
mod view;

use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::Subcommand;

/// The lab's verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring a lab up
    Up(up::Up),
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Up(args) => up::run(&args, out),
    }
}
