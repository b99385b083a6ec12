//! `sluice-controller`: the roles that make a Kubernetes network of switches.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
