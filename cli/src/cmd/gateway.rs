//! `sluice gateway`.

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{Gateway, GatewayMasquerade, ListGatewaysRequest};

/// Arguments of `sluice gateway`.
#[derive(Debug, Args)]
#[command(after_help = "\
A gateway is the host behind a port of a bridge; the configuration of sluiced says which, and
networks of containers have theirs. Ports of the host that lead to containers are in JSON. ON THE
HOST says whether the host has what was asked for, and else what is missing: `kill -HUP` of sluiced
does it again. AS is the address that takes the place of the stations' own.

Examples:
  sluice gateway                  every gateway
  sluice gateway -o json          for a program

Exit code 5 if something is missing.")]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    gateways: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    bridge: String,
    vlan: Option<u32>,
    port: String,
    interface: String,
    addresses: Vec<String>,
    mac: String,
    forward: bool,
    masquerade: Option<Masquerade>,
    missing: Vec<String>,
    fault: Option<String>,
    obstacles: Vec<String>,
    networks: Vec<String>,
    host_ports: Vec<HostPort>,
}

#[derive(Serialize)]
struct HostPort {
    port: String,
    to: String,
}

#[derive(Serialize)]
struct Masquerade {
    inside: Vec<String>,
    addresses: Vec<String>,
    except: Vec<String>,
    first_port: Option<u32>,
    last_port: Option<u32>,
    zone: u32,
    host_rule: bool,
}

impl From<GatewayMasquerade> for Masquerade {
    fn from(masquerade: GatewayMasquerade) -> Self {
        let GatewayMasquerade { inside, addresses, except, first_port, last_port, zone, host_rule } = masquerade;
        let port = |port: u32| Some(port).filter(|port| *port > 0);
        Self { inside, addresses, except, first_port: port(first_port), last_port: port(last_port), zone, host_rule }
    }
}

impl From<Gateway> for Row {
    fn from(gateway: Gateway) -> Self {
        Self {
            bridge: gateway.bridge,
            vlan: Some(gateway.vlan).filter(|vlan| *vlan > 0),
            port: gateway.port,
            interface: gateway.interface,
            addresses: gateway.addresses,
            mac: gateway.mac,
            forward: gateway.forward,
            masquerade: gateway.masquerade.map(Masquerade::from),
            missing: gateway.missing,
            fault: Some(gateway.fault).filter(|fault| !fault.is_empty()),
            obstacles: gateway.obstacles,
            networks: gateway.networks,
            host_ports: gateway.host_ports.into_iter().map(|p| HostPort { port: p.port, to: p.to }).collect(),
        }
    }
}

impl Row {
    fn is_good(&self) -> bool {
        self.missing.is_empty() && self.fault.is_none()
    }

    /// What is to be said of the host, a line each.
    fn said(&self) -> Vec<Cell> {
        let missing = self.missing.iter().map(|step| format!("missing: {step}"));
        let bad = self.fault.iter().cloned().chain(missing).map(|text| Cell::from(text).tone(Tone::Bad));
        let obstacles = self.obstacles.iter().map(|chain| format!("nftables chain {chain} drops what is forwarded"));
        let mut said: Vec<Cell> = bad.chain(obstacles.map(|text| Cell::from(text).tone(Tone::Warn))).collect();
        if self.is_good() {
            said.insert(0, Cell::from("as asked for").tone(Tone::Good));
        }
        said
    }
}

/// Runs the verb.
pub(crate) fn run(args: &GatewayArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let client = Client::connect(&args.target)?;
    let request = ListGatewaysRequest { bridge: args.bridge.bridge.clone() };
    let reply = client.call(client.gateways().list_gateways(request))?;
    let gateways: Vec<Row> = reply.gateways.into_iter().map(Row::from).collect();
    let exit = if gateways.iter().all(Row::is_good) { Exit::Yes } else { Exit::Unhealthy };
    match format {
        Format::Json => out.json(&Answer { gateways })?,
        _ => out.table(&table(&gateways))?,
    }
    Ok(exit)
}

fn table(gateways: &[Row]) -> Table {
    let header = ["BRIDGE", "PORT", "INTERFACE", "ADDRESS", "INSIDE", "AS", "ON THE HOST"];
    let mut table = Table::new(header.map(Cell::from));
    for gateway in gateways {
        let masquerade = gateway.masquerade.as_ref();
        let list = |items: Option<&Vec<String>>| items.map_or_else(|| "-".to_owned(), |items| items.join(","));
        let mut cells: Vec<Cell> =
            [&gateway.bridge, &gateway.port, &gateway.interface].map(|s| s.as_str().into()).into();
        cells.push(gateway.addresses.join(",").into());
        cells.push(list(masquerade.map(|m| &m.inside)).into());
        cells.push(list(masquerade.map(|m| &m.addresses)).into());
        for said in gateway.said() {
            cells.push(said);
            table.row(std::mem::take(&mut cells));
            // What follows is of the same gateway.
            cells = (0..header.len() - 1).map(|_| "".into()).collect();
        }
    }
    table
}
