//! `sluice docker`.

use crate::docker::{self, DriverError, Endpoint, Network, Paths, Store, Switch};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

/// Arguments of `sluice docker`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Serves Docker's plugin protocol, in the foreground, until it is ended. Docker finds it by the
socket's name; sluiced does the switching and must run beside it, in the same network namespace.

Examples:
  sudo sluiced &
  sudo sluice docker &
  docker network create -d sluice net1
  docker run -d --name web --network net1 -p 8080:80 IMAGE
  docker network create -d sluice --subnet 10.9.0.0/24 -o bridge=br0 -o vlan=10 net2
  sluice docker status              networks, containers' interfaces and published ports

Options of networks, each as -o NAME=VALUE of `docker network create`:
  bridge=NAME           a bridge that is there, instead of one of the network's own
  gateway=host          the host is the network's router; external: another station has the
                        gateway's address; none: there is none
  guard=full            what containers send has their own addresses; mac: the MAC address; none
  ipmasq=true           addresses are hidden behind the host's outside
  isolated=false        containers reach the gateway, but not each other
  mtu=BYTES             longest IP packet
  vlan=ID               containers are in this VLAN of the bridge
  vxlan.vni=NUMBER      with vxlan.remotes=ADDRESS,... (and vxlan.port=4789): the same network on
                        other hosts

Exit codes: 0 ended as asked, 1 failed, 77 not allowed to this user."
)]
pub(crate) struct Docker {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    places: Places,
}

/// Where things are.
#[derive(Clone, Debug, Args)]
struct Places {
    /// Socket of the switch
    #[arg(long, value_name = "PATH", env = "SLUICE_SOCKET", default_value = "/run/sluice/switch.sock")]
    socket: PathBuf,
    /// Socket that Docker finds the driver by; its name is the driver's
    #[arg(long, value_name = "PATH", default_value = "/run/docker/plugins/sluice.sock")]
    plugin_socket: PathBuf,
    /// Folder of what survives a restart
    #[arg(long, value_name = "DIR", default_value = "/var/lib/sluice/docker")]
    state: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Networks, containers' interfaces and published ports, as the driver and the switch have them
    #[command(after_help = "\
HOST PORTS has the ports that Docker left to the driver to choose (`-p 80`) as well, which `docker
port` does not know.

Examples:
  sudo sluice docker status
  sudo sluice docker status -o json

Exit code 5 if the switch lacks something.")]
    Status(Places),
}

/// Runs the verb.
pub(crate) fn run(args: Docker, out: &mut Output) -> Result<Exit, Failure> {
    match args.verb {
        Some(Verb::Status(places)) => status(&places, out),
        None => serve(args.places),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("cannot start: {error}")))
}

fn failure(error: &DriverError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        DriverError::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            failure.next("run as root, or give other places with --plugin-socket and --state").exit(Exit::NoPrivilege)
        }
        DriverError::Away { .. } => failure.exit(Exit::NoDaemon),
        _ => failure,
    }
}

fn serve(places: Places) -> Result<Exit, Failure> {
    let color = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tracing_subscriber::fmt().with_ansi(color).with_writer(io::stderr).with_max_level(tracing::Level::INFO).init();
    let Places { socket, plugin_socket, state } = places;
    let paths = Paths { switch: socket, plugin: plugin_socket, state };
    runtime()?.block_on(docker::serve(&paths)).map_err(|error| failure(&error))?;
    Ok(Exit::Yes)
}

#[derive(Serialize)]
struct Answer {
    networks: Vec<NetworkRow>,
}

#[derive(Serialize)]
struct NetworkRow {
    id: String,
    network: String,
    bridge: String,
    subnets: Vec<String>,
    /// What is wrong; `None` if nothing is.
    fault: Option<String>,
    endpoints: Vec<EndpointRow>,
}

#[derive(Serialize)]
struct EndpointRow {
    id: String,
    port: String,
    addresses: Vec<String>,
    mac: String,
    host_ports: Vec<String>,
    joined: bool,
    fault: Option<String>,
}

/// What the switch has: networks, and attachments with what is wrong with each, by the container's ID.
struct There {
    networks: Vec<String>,
    faults: BTreeMap<String, String>,
}

fn status(places: &Places, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let store = Store::read(&places.state).map_err(|error| failure(&error))?;
    let there = runtime()?.block_on(async {
        let switch = Switch::at(&places.socket)?.at_once();
        let networks = switch.networks().await?.into_iter().filter_map(|n| n.spec).map(|spec| spec.name).collect();
        let attached = switch.attachments().await?.into_iter();
        let faults = attached.filter_map(|a| a.spec.map(|spec| (spec.container_id, a.fault))).collect();
        Ok(There { networks, faults })
    });
    let away = there.as_ref().err().map(DriverError::to_string);
    let rows: Vec<NetworkRow> = store.networks().map(|network| row(network, &store, there.as_ref().ok())).collect();
    let bad = |row: &NetworkRow| row.fault.is_some() || row.endpoints.iter().any(|e| e.fault.is_some());
    let exit = if away.is_some() || rows.iter().any(bad) { Exit::Unhealthy } else { Exit::Yes };
    match format {
        Format::Json => out.json(&Answer { networks: rows })?,
        _ => out.table(&table(&rows))?,
    }
    if let Some(away) = away {
        out.talk(format!("warning: {away}"))?;
    }
    Ok(exit)
}

fn row(network: &Network, store: &Store, there: Option<&There>) -> NetworkRow {
    let missing = there.is_some_and(|there| !there.networks.contains(&network.name()));
    let endpoints = store.endpoints().filter(|e| e.network == network.id).map(|e| endpoint_row(e, there)).collect();
    NetworkRow {
        id: network.id.clone(),
        network: network.name(),
        bridge: network.bridge_name(),
        subnets: network.subnets.iter().map(ToString::to_string).collect(),
        fault: missing.then(|| "the switch does not have it".to_owned()),
        endpoints,
    }
}

fn endpoint_row(endpoint: &Endpoint, there: Option<&There>) -> EndpointRow {
    let joined = endpoint.sandbox.is_some();
    let fault = there.filter(|_| joined).and_then(|there| match there.faults.get(&endpoint.id) {
        None => Some("the switch does not have it".to_owned()),
        Some(fault) => Some(fault.clone()).filter(|fault| !fault.is_empty()),
    });
    EndpointRow {
        id: endpoint.id.clone(),
        port: endpoint.link(),
        addresses: endpoint.addresses.iter().map(ToString::to_string).collect(),
        mac: endpoint.mac.clone(),
        host_ports: endpoint.published.iter().map(ToString::to_string).collect(),
        joined,
        fault,
    }
}

fn table(rows: &[NetworkRow]) -> Table {
    let mut table = Table::new(["NETWORK", "BRIDGE", "PORT", "ADDRESS", "MAC", "HOST PORTS", "STATE"]);
    let list = |items: &[String]| if items.is_empty() { "-".to_owned() } else { items.join(",") };
    let state = |fault: Option<&String>, good: &str| match fault {
        Some(fault) => Cell::from(fault.as_str()).tone(Tone::Bad),
        None => Cell::from(good).tone(Tone::Good),
    };
    for network in rows {
        let of_network = [Cell::from(network.network.as_str()), network.bridge.as_str().into()];
        if network.endpoints.is_empty() || network.fault.is_some() {
            let cells = ["-".to_owned(), list(&network.subnets), "-".to_owned(), "-".to_owned()].map(Cell::from);
            let state = state(network.fault.as_ref(), "empty");
            table.row(of_network.iter().cloned().chain(cells).chain([state]));
        }
        for endpoint in &network.endpoints {
            let cells =
                [endpoint.port.clone(), list(&endpoint.addresses), endpoint.mac.clone(), list(&endpoint.host_ports)];
            let state = state(endpoint.fault.as_ref(), if endpoint.joined { "joined" } else { "created" });
            table.row(of_network.iter().cloned().chain(cells.map(Cell::from)).chain([state]));
        }
    }
    table
}
