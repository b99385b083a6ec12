//! `sluice lab`: hosts, switches and links on this machine, made of network namespaces and our own switch.
//!
//! # Who does what
//! `lab up` reads a [`topology`] and [`launch`]es a [`supervisor`], a process in the background that owns everything the
//! lab is: the hosts' [`namespace`]s and the switch ([`switching`]). Every other verb reads the supervisor's [`state`]
//! file in the [`runtime`] folder and goes into the lab by itself ([`enter`]).
//!
//! # Rules
//! - All or nothing: a lab that cannot be made whole is not made at all.
//! - Nothing outlives the supervisor but its folder. No namespace has a name, no process leaves its PID namespace.
//! - A process is touched only after its identity was compared with the state file's.

pub(crate) mod capture;
pub(crate) mod containers;
mod dhcp;
mod dns;
mod doctor;
mod down;
mod enter;
mod exec;
mod graph;
mod inspect;
mod launch;
mod leases;
mod link;
mod logs;
mod machine;
mod names;
mod namespace;
mod new;
mod ping;
mod routing;
mod run;
mod runtime;
mod save;
mod serve;
mod shell;
mod state;
mod supervisor;
mod switching;
mod test;
mod topology;
mod translating;
mod up;
mod uplink;
mod validate;
mod view;
mod wiring;

use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Exit, Output};
use clap::{Args, Subcommand};
use runtime::Runtime;
use state::Lab;
pub(crate) use state::State;
use std::ffi::OsString;
use std::net::IpAddr;
pub(crate) use topology::closest;
pub(crate) use topology::resolved::uplink::Outside;
pub(crate) use topology::resolved::{Host, RouterInterface};
pub(crate) use wiring::{Crossing, crossings};

/// The lab's verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring a lab up
    Up(up::Up),
    /// Ping between all hosts
    Ping(ping::Ping),
    /// Run a command in a host, or in all of them
    Exec(exec::Exec),
    /// Run the tests of the lab's file
    Test(test::Test),
    /// Open a shell in a host
    Sh(exec::Sh),
    /// A prompt for a lab: `h1 ping h2`, `s1 flows`, `link h1 s1 down`
    Shell(shell::Shell),
    /// What the command of a host has written
    Logs(logs::Logs),
    /// Answer TCP connections with the host's name
    Serve(serve::Serve),
    /// What crosses a link or a node: as lines, or as a pcapng file
    Capture(capture::Capture),
    /// What happens to frames on links: show it, change it
    #[command(subcommand)]
    Link(link::Verb),
    /// Print a running lab as a topology file, with what was changed since
    Save(save::Save),
    /// Draw a lab: as text, Mermaid, DOT or SVG
    Graph(graph::Graph),
    /// Say what is wrong with topology files
    Validate(validate::Validate),
    /// Print the JSON Schema of topology files
    Schema(validate::Schema),
    /// Print a topology file to begin with
    New(new::New),
    /// Show a lab
    Inspect(inspect::Inspect),
    /// Who has which address by DHCP
    Leases(leases::Leases),
    /// Have a container join a running lab
    Attach(containers::Attach),
    /// Take a container out of a lab
    Detach(containers::Detach),
    /// Print the configuration by which a container runtime's containers join a lab
    Cni(containers::Cni),
    /// List labs
    Ls(inspect::Ls),
    /// Take a lab down
    Down(down::Down),
    /// Say what keeps this machine from having labs, and what to do about it
    Doctor(doctor::Doctor),
    /// Clean up after supervisors that were killed
    Gc(down::Gc),
}

/// Which lab a verb is about.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The lab; may be left out when one is running
    #[arg(long, value_name = "NAME")]
    pub(crate) lab: Option<String>,
}

/// The running lab of this user with this name, or the only one there is.
///
/// # Errors
/// [`Exit::NoDaemon`] when there is none, [`Exit::Usage`] when a name is needed.
pub(crate) fn running(name: Option<&str>) -> Result<(String, State), Failure> {
    Lab::running(&Runtime::of_user(), name)
}

/// As [`running`], with the containers that have joined it as hosts.
///
/// # Errors
/// As [`running`], and what the lab's switch says.
pub(crate) fn joined(name: Option<&str>) -> Result<(String, State), Failure> {
    let (name, mut state) = running(name)?;
    containers::join(&mut state)?;
    Ok((name, state))
}

/// All running labs of this user.
///
/// # Errors
/// The folder of labs cannot be read.
pub(crate) fn all_running() -> Result<Vec<(String, State)>, Failure> {
    Lab::all_running(&Runtime::of_user())
}

/// The running lab that a switch is of, if it is of one.
///
/// # Errors
/// The folder of labs cannot be read, and what the switch says.
pub(crate) fn of(client: &Client) -> Result<Option<State>, Failure> {
    let found = all_running()?.into_iter().find(|(_, state)| client.is_of(&state.socket));
    found.map(|(name, _)| joined(Some(&name)).map(|(_, state)| state)).transpose()
}

/// The addresses of a node, by its name.
///
/// # Errors
/// The lab has no node of this name.
pub(crate) fn addresses_of(state: &State, name: &str) -> Result<Vec<IpAddr>, Failure> {
    let topology = &state.topology;
    if !topology.node_names().any(|known| known == name) {
        return Err(Failure::usage(format!("the lab {} has no node named {name}", topology.name))
            .next(one_of(topology.node_names())));
    }
    Ok(names::of(topology).remove(name).unwrap_or_default())
}

/// Changes what the state file of a running lab says, one command after the other.
///
/// # Errors
/// No such lab runs, its folder cannot be written to, or what `change` says.
fn change<T>(name: &str, change: impl FnOnce(&mut State) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = Runtime::of_user();
    let _lock = runtime.lock()?;
    let (_, mut state) = Lab::running(&runtime, Some(name))?;
    let result = change(&mut state)?;
    let folder = runtime.lab(name);
    state.write(&folder).map_err(|error| Failure::new(format!("cannot write to {}: {error}", folder.display())))?;
    Ok(result)
}

/// Runs a verb.
pub(crate) fn run(verb: Verb, out: &mut Output) -> Result<Exit, Failure> {
    match verb {
        Verb::Up(args) => up::run(&args, out),
        Verb::Ping(args) => ping::run(&args, out),
        Verb::Exec(args) => exec::run(&args),
        Verb::Test(args) => test::run(&args, out),
        Verb::Sh(args) => exec::shell(&args),
        Verb::Shell(args) => shell::run(&args, out),
        Verb::Logs(args) => logs::run(&args, out),
        Verb::Serve(args) => serve::run(&args, out),
        Verb::Capture(args) => capture::run(&args, out),
        Verb::Link(verb) => link::run(verb, out),
        Verb::Save(args) => save::run(&args, out),
        Verb::Graph(args) => graph::run(&args, out),
        Verb::Validate(args) => validate::run(&args, out),
        Verb::Schema(args) => validate::schema(&args, out),
        Verb::New(args) => new::run(&args, out),
        Verb::Inspect(args) => inspect::inspect(&args, out),
        Verb::Leases(args) => leases::run(&args, out),
        Verb::Attach(args) => containers::attach(&args, out),
        Verb::Detach(args) => containers::detach(&args, out),
        Verb::Cni(args) => containers::cni(&args, out),
        Verb::Ls(args) => inspect::list(&args, out),
        Verb::Down(args) => down::down(&args, out),
        Verb::Doctor(args) => doctor::run(&args, out),
        Verb::Gc(args) => down::gc(&args, out),
    }
}

/// Runs what this program starts itself as, if that is what the command line (without the program's name) asks for:
/// `lab supervise NAME`, `lab examine all` and `lab inside HOST FOLDER -- COMMAND...`. They are not in the command tree, because they are nothing
/// for a person to type.
pub(crate) fn run_own(args: &[OsString]) -> Option<Result<Exit, Failure>> {
    let [family, verb, name, rest @ ..] = args else { return None };
    match (family.to_str()?, verb.to_str()?) {
        ("lab", supervisor::VERB) => Some(supervisor::run().map(|()| Exit::Yes)),
        ("lab", doctor::VERB) => Some(doctor::examine().map(|()| Exit::Yes)),
        ("lab", enter::VERB) => {
            let [folder, dashes, command @ ..] = rest else { return None };
            (dashes == "--").then(|| Err(enter::become_command(name, folder.as_ref(), command)))
        }
        _ => None,
    }
}

/// What can be named instead of what there is not.
fn one_of<'a>(known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.into_iter().collect();
    if known.is_empty() { "it has none".to_owned() } else { format!("one of: {}", known.join(", ")) }
}

/// Makes sure that the lab has this host.
pub(crate) fn known_host(state: &State, name: &str) -> Result<(), Failure> {
    let topology = &state.topology;
    if topology.host(name).is_some() {
        return Ok(());
    }
    let failure = Failure::usage(format!("the lab {} has no host named {name}", topology.name));
    let (is_switch, is_router) =
        (topology.switches.iter().any(|s| s.name == name), topology.routers.iter().any(|r| r.name == name));
    if is_switch || is_router {
        let what = if is_switch { "switch" } else { "router" };
        return Err(failure.why(format!("{name} is a {what}, which has no namespace of its own")));
    }
    Err(failure.next(one_of(topology.hosts.iter().map(|h| h.name.as_str()))))
}

/// Makes sure that the lab has a namespace of this name: a host's, or that of a switch at which routed links end.
pub(crate) fn known_namespace(state: &State, name: &str) -> Result<(), Failure> {
    if state.topology.stacks().contains(&name) { Ok(()) } else { known_host(state, name) }
}
