//! `sluice cni`: what an operator asks about the networks of a host's container runtimes.
//!
//! Three places know of an attachment: the switch's records, the kernel's interfaces and the store of addresses
//! ([`places`]). The verbs compare them, network by network, as the runtime's configuration files name them ([`networks`]).

mod check;
mod gc;
mod list;
mod migrate;
mod networks;
mod places;
mod status;

use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::Subcommand;

/// The verbs of `sluice cni`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Whether containers can be attached: the switch, addresses left, attachments with a fault
    Status(status::StatusArgs),
    /// The attached containers
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Compare what the switch, the kernel and the store of addresses know, and mend nothing
    Check(check::CheckArgs),
    /// Remove what is left of containers that are gone
    Gc(gc::GcArgs),
    /// Take over the addresses that the plugin host-local has reserved
    Migrate(migrate::MigrateArgs),
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Status(args) => status::run(&args, out),
        Verb::List(args) => list::run(&args, out),
        Verb::Check(args) => check::run(&args, out),
        Verb::Gc(args) => gc::run(&args, out),
        Verb::Migrate(args) => migrate::run(&args, out),
    }
}
