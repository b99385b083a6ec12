//! `sluice ct dump`.

use super::chosen;
use super::ofctl;
use super::show::{Row, table};
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::kube::find_pod;
use crate::output::{Exit, Format, Output};
use crate::watch::Watch;
use clap::Args;
use ipnet::IpNet;
use serde::Serialize;
use sluice_proto::v1::{Connection, ListConnectionsRequest};

/// Arguments of `sluice ct dump`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice ct dump
  sluice ct dump zone=5,tcp,nw_src=10.0.0.0/8,tp_dst=80
  sluice ct dump unreplied,!icmp            who gets no answer
  sluice ct dump owner=np:shop/* -w         again every second
  sluice ct dump --pod shop/web-7f9         a Pod's, on its node
  sluice ct dump -o ofctl -m                as `ovs-appctl dpctl/dump-conntrack -m` prints them
Under PKTS and BYTES are the packets that began the connection and their like, then the answers.")]
pub(super) struct Dump {
    /// Which, in the words of `sluice ct --help`; all if not given
    #[arg(value_name = "MATCH")]
    matches: Vec<String>,
    /// The states of both ends and more of OVS's details, with -o ofctl
    #[arg(short, long)]
    more: bool,
    /// Counters and times, with -o ofctl
    #[arg(short, long)]
    statistics: bool,
    /// Those of this Pod, on its node: with one of its addresses at either end
    #[arg(long, value_name = "NS/POD")]
    pod: Option<String>,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    connections: Vec<Row>,
}

/// Runs the verb.
pub(super) fn run(args: &Dump, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json, Format::Ofctl])?;
    let client = Client::connect_for(&args.target, args.pod.as_deref())?;
    let addresses = args.pod.as_deref().map(|pod| addresses(&client, pod)).transpose()?;
    let filters = filters(&chosen(&args.matches, &client)?, addresses.as_deref());
    args.watch.run(out, |out| {
        let mut all: Vec<Connection> = Vec::new();
        let mut is_any = false;
        for filter in &filters {
            let request = ListConnectionsRequest { filter: filter.clone() };
            let mut parts = client.call(client.connections().list_connections(request))?;
            while let Some(part) = client.next(&mut parts)? {
                is_any |= !part.connections.is_empty();
                if format == Format::Ofctl {
                    for connection in &part.connections {
                        out.line(ofctl::line(connection, args.more, args.statistics))?;
                    }
                } else {
                    all.extend(part.connections);
                }
            }
        }
        if !is_any {
            out.talk(if filters == [""] { "no connection is tracked" } else { "no connection is like that" })?;
        }
        all.sort_by_key(order);
        match format {
            Format::Json => out.json(&Answer { connections: all.into_iter().map(Row::from).collect() })?,
            Format::Ofctl => {}
            _ => out.table(&table(&all, format == Format::Wide))?,
        }
        Ok(Exit::Yes)
    })
}

/// A Pod's addresses.
fn addresses(client: &Client, pod: &str) -> Result<Vec<String>, Failure> {
    let spec = find_pod(client, pod)?.spec.unwrap_or_default();
    let addresses = spec.addresses.iter().filter_map(|a| a.parse::<IpNet>().ok());
    Ok(addresses.map(|net| net.addr().to_string()).collect())
}

/// The filters to ask with: one, or one for each address, which are of different families.
fn filters(words: &str, addresses: Option<&[String]>) -> Vec<String> {
    let Some(addresses) = addresses else { return vec![words.to_owned()] };
    let with =
        |address: &String| if words.is_empty() { format!("addr={address}") } else { format!("{words},addr={address}") };
    addresses.iter().map(with).collect()
}

/// Zone, then the oldest first.
fn order(connection: &Connection) -> (u32, std::cmp::Reverse<u64>) {
    (connection.zone, std::cmp::Reverse(connection.age_ms))
}
