//! `sluice`, the operator's command.
//!
//! The command tree is in [`args`]; one file per family of verbs under [`cmd`], and the lab under [`lab`]. A verb takes
//! its arguments and an [`output::Output`] and returns an exit code or a [`failure::Failure`].

mod args;
mod client;
mod cmd;
mod docker;
mod failure;
mod kube;
mod lab;
mod matching;
mod output;
mod watch;
mod xml;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use failure::Failure;
use output::{Exit, Output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(result) = lab::run_own(&args) {
        return end(result);
    }
    if let Some(result) = cmd::extcap::run_if_called(&args) {
        return end(result);
    }
    let command = match plugin_name() {
        Some(name) => Cli::command().bin_name(name),
        None => Cli::command(),
    };
    let cli = match Cli::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let mut out = Output::new(cli.global.output, cli.global.color);
    let result = run(cli.command, &mut out).and_then(|exit| out.flush().map(|()| exit).map_err(Failure::from));
    if result.is_err() {
        // What was written before the failure belongs in front of it.
        let _ = out.flush();
    }
    end(result)
}

/// What we are called as a plugin of kubectl, which calls `kubectl-sluice` for `kubectl sluice`.
fn plugin_name() -> Option<&'static str> {
    let path = std::env::args_os().next()?;
    let name = std::path::Path::new(&path).file_stem()?;
    (name == "kubectl-sluice").then_some("kubectl sluice")
}

fn end(result: Result<Exit, Failure>) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code().code())
        }
    }
}

fn run(command: Command, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        Command::Lab(verb) => lab::run(verb, out),
        Command::Flows(verb) => cmd::flows::run(verb, out),
        Command::Groups(args) => cmd::groups::run(args, out),
        Command::Meters(args) => cmd::meters::run(args, out),
        Command::Tables(args) => cmd::tables::run(args, out),
        Command::Trace(args) => cmd::trace::run(&args, out),
        Command::Gateway(args) => cmd::gateway::run(&args, out),
        Command::Tunnels(args) => cmd::tunnels::run(&args, out),
        Command::Wireguard(args) => cmd::wireguard::run(&args, out),
        Command::Ports(args) => cmd::ports::run(args, out),
        Command::Mirrors(args) => cmd::mirrors::run(args, out),
        Command::Routes(args) => cmd::routes::run(args, out),
        Command::Neighbors(args) => cmd::neighbors::run(args, out),
        Command::Bridges(args) => cmd::bridges::run(args, out),
        Command::Fdb(args) => cmd::fdb::run(args, out),
        Command::Mdb(args) => cmd::mdb::run(args, out),
        Command::Ct(args) => cmd::ct::run(args, out),
        Command::Drops(args) => cmd::drops::run(args, out),
        Command::Log(args) => cmd::log::run(&args, out),
        Command::Policy(verb) => cmd::policy::run(verb, out),
        Command::Svc(args) => cmd::svc::run(&args, out),
        Command::Status(args) => cmd::status::run(&args, out),
        Command::Perf(args) => cmd::perf::run(&args, out),
        Command::Top(args) => cmd::top::run(&args, out),
        Command::Events(args) => cmd::events::run(&args, out),
        Command::Capture(args) => cmd::capture::run(&args, out),
        Command::PacketOut(args) => cmd::packet_out::run(args, out),
        Command::Docker(args) => cmd::docker::run(args, out),
        Command::Bench(verb) => cmd::bench::run(verb, out),
        Command::Cni(verb) => cmd::cni::run(verb, out),
        Command::Relay(args) => cmd::relay::run(&args),
        Command::Completion(args) => cmd::completion::run(&args, out),
        Command::Man(args) => cmd::man::run(&args, out),
    }
}
