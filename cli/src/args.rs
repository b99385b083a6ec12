//! The command tree. Help, completions and man pages all come from it.
//!
//! One variant of [`Command`] per verb or family of verbs; its arguments live beside its code.

use crate::cmd;
use crate::lab;
use crate::output::{Color, Format};
use clap::{Args, Parser, Subcommand};

/// A packet switch in user space: labs of network namespaces, flow tables and traces.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Options that every verb knows.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sluice lab up --topo single,3     three hosts on one switch
  sluice lab ping                   every host pings every other
  sluice trace h1 h2:80 tcp         what would happen to a packet, and whose rule decides
  sluice flows dump                 the flow tables with owners and counters
  sluice drops                      what was dropped, and why
  sluice lab down                   and nothing is left

Exit codes: 0 yes, 1 no, 2 usage, 3 the traced packet was dropped, 4 partial answer, 5 unhealthy,
69 no switch or lab is running, 77 not allowed to this user; `lab exec` passes its command's code.";

const LAB_EXAMPLES: &str = "\
Examples:
  sluice lab up --topo single,3     three hosts on one switch
  sluice lab up office.lab.yml      what a file says
  sluice lab ping                   every host pings every other
  sluice lab test                   what the file says is to be so
  sluice lab exec h1 -- ip route    a command in a host
  sluice lab down                   and nothing is left";

const FLOWS_EXAMPLES: &str = "\
Examples:
  sluice flows dump
  sluice flows add 'priority=100,tcp,tp_dst=22 actions=drop'
  sluice flows replace --file firewall.flows
  sluice flows diff firewall.flows";

const CNI_EXAMPLES: &str = "\
Examples:
  sluice cni status                 would another container be attached; addresses left
  sluice cni list                   the attached containers
  sluice cni check                  is everything of theirs as it should be
  sluice cni gc --dry-run           what is left of containers that are gone";

const POLICY_EXAMPLES: &str = "\
Examples:
  sluice policy explain shop/web-7f9 shop/db-0:5432    may it, and which rule says so
  sluice policy why-not shop/web-7f9 shop/db-0:81      what would have to change
  sluice policy diff db.yaml                           what applying it would open and close
  sluice policy list shop/db-0                         the policies that are about a Pod
  sluice policy explain shop/web shop/db:80 --from manifests/    of files, without a cluster";

/// Options that every verb knows.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How to write the answer: table, wide (every column), json (with `"v": 1`), or ofctl (dumps
    /// of flows, groups, meters and connections as OVS's); drawings also ascii, mermaid, dot or svg
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t = Format::Table,
        value_name = "FORMAT",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub(crate) output: Format,
    /// When to use colours: always, never, or auto (on a terminal, unless NO_COLOR is set)
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Color::Auto,
        value_name = "WHEN",
        hide_possible_values = true,
        help_heading = "Output"
    )]
    pub(crate) color: Color,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Labs: hosts, switches and links made of network namespaces
    #[command(subcommand, after_help = LAB_EXAMPLES)]
    Lab(lab::Verb),
    /// The flow tables: dump, add, delete, replace, compare
    #[command(subcommand, after_help = FLOWS_EXAMPLES)]
    Flows(cmd::flows::Verb),
    /// The groups with their buckets and counters; add, change, delete them
    Groups(cmd::groups::Groups),
    /// The meters with their counters; add, change, delete them
    Meters(cmd::meters::Meters),
    /// The flow tables as such: names, limits, what happens without a match
    Tables(cmd::tables::Tables),
    /// What would happen to a packet, and which rule decides
    Trace(cmd::trace::Trace),
    /// The ports with their counters; add, change, remove them
    Ports(cmd::ports::Ports),
    /// Copies of what passes ports, for somebody who watches: with their counters; add, remove them
    Mirrors(cmd::mirrors::Mirrors),
    /// The host as a neighbour: gateways of bridges, and what of them the host lacks
    Gateway(cmd::gateway::GatewayArgs),
    /// The tunnels to other hosts, their other ends and how far away those are
    Tunnels(cmd::tunnels::Tunnels),
    /// Keys for encrypted tunnels
    Wireguard(cmd::wireguard::Wireguard),
    /// The routes of routers; which one a packet takes; add, remove them
    Routes(cmd::routes::Routes),
    /// Who has which address on the links of routers
    Neighbors(cmd::neighbors::Neighbors),
    /// The bridges; add, remove them
    Bridges(cmd::bridges::Bridges),
    /// Which MAC address is behind which port
    Fdb(cmd::fdb::Fdb),
    /// Which multicast group is wanted behind which port
    Mdb(cmd::mdb::Mdb),
    /// The tracked connections: show, flush, limit, watch them
    Ct(cmd::ct::Ct),
    /// What was dropped, why, and by whose rule
    Drops(cmd::drops::Drops),
    /// Policies of a cluster: what they say of a connection and why, and what a change would do
    #[command(subcommand, after_help = POLICY_EXAMPLES)]
    Policy(cmd::policy::Verb),
    /// What policies accept and drop, as it happens, by the names of Pods
    Log(cmd::log::Log),
    /// The Services of a cluster, as the switch has them: addresses, endpoints, counters
    Svc(cmd::svc::Svc),
    /// How the switch is; exit 5 when a part is not well
    Status(cmd::status::StatusArgs),
    /// Where the switch's time goes: cycles a packet by stage, bursts, caches
    Perf(cmd::perf::Perf),
    /// What happens in the switch now, in a terminal: ports, flows, drops, connections, workers
    Top(cmd::top::Top),
    /// What changes in the switch, as it happens
    Events(cmd::events::Events),
    /// What crosses a port: as lines, or as a pcapng file
    Capture(cmd::capture::Capture),
    /// Send a packet
    PacketOut(cmd::packet_out::PacketOut),
    /// Networks of Docker on the switch: serve Docker's plugin protocol, show what it has
    Docker(cmd::docker::Docker),
    /// The networks of container runtimes: status, attachments, checks, what is left over
    #[command(subcommand, after_help = CNI_EXAMPLES)]
    Cni(cmd::cni::Verb),
    /// How fast the data path is
    #[command(subcommand)]
    Bench(cmd::bench::Verb),
    /// Join standard input and output to the switch's socket
    #[command(hide = true)]
    Relay(cmd::relay::Relay),
    /// Print a completion script for a shell
    Completion(cmd::completion::Completion),
    /// Write the manual pages
    Man(cmd::man::Man),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_examples_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let leaf = command.get_subcommands().filter(|c| c.get_name() != "help").count() == 0;
            if leaf && !command.is_hide_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path} has no examples");
            }
            // What follows the options is printed as it is, not wrapped at words.
            for line in command.get_after_help().map(ToString::to_string).unwrap_or_default().lines() {
                assert!(line.chars().count() <= 100, "{path}: a line of the examples would be broken: {line}");
            }
            command.get_subcommands().for_each(|c| check(c, &path));
        }
        check(&Cli::command(), "");
    }
}
