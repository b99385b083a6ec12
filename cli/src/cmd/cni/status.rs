//! `sluice cni status`.

use super::networks::{Network, NetworksArg};
use super::places::{Places, ipam};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::Serialize;
use sluice_cni::ipam::Count;
use sluice_proto::v1::{NetworkSpec, ReadyRequest};

/// Arguments of `sluice cni status`.
#[derive(Debug, Args)]
#[command(after_help = "\
What CNI's STATUS tells a runtime, in words, for each network of the host: whether another container
would be attached now, and how many addresses are left for it.

Examples:
  sluice cni status                         the networks in /etc/cni/net.d
  sluice cni status pods                    one of them
  sluice cni status --conf my.conflist      those of a file

Exit code 5 if a network would attach nothing, or something limits what is attached.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    networks: NetworksArg,
}

#[derive(Serialize)]
struct Answer {
    networks: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    network: String,
    file: String,
    bridge: String,
    socket: String,
    attachments: usize,
    mtu_bytes: Option<u32>,
    pools: Vec<Pool>,
    /// What is in the way of another container.
    problems: Vec<String>,
    /// What limits those that are there.
    limits: Vec<String>,
}

/// Numbers as text where they may not fit a JSON number that programs read.
#[derive(Serialize)]
struct Pool {
    ranges: String,
    size: String,
    used: String,
    cooling: String,
    free: String,
}

impl From<Count> for Pool {
    fn from(count: Count) -> Self {
        let [size, used, cooling, free] = [count.size, count.used, count.cooling, count.free].map(|n| n.to_string());
        Self { ranges: count.ranges, size, used, cooling, free }
    }
}

/// Runs the verb.
pub(crate) fn run(args: &StatusArgs, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let path = args.networks.path();
    let networks: Vec<Row> =
        args.networks.read()?.iter().map(|network| look(network, &path)).collect::<Result<_, _>>()?;
    let well = networks.iter().all(|row| row.problems.is_empty() && row.limits.is_empty());
    match format {
        Format::Json => out.json(&Answer { networks })?,
        _ => out.table(&table(&networks))?,
    }
    Ok(if well { Exit::Yes } else { Exit::Unhealthy })
}

fn look(network: &Network, path: &[std::path::PathBuf]) -> Result<Row, Failure> {
    let base = &network.base;
    let mut row = Row {
        network: base.name.clone(),
        file: network.file.display().to_string(),
        bridge: base.bridge.clone(),
        socket: base.socket.display().to_string(),
        attachments: 0,
        mtu_bytes: None,
        pools: Vec::new(),
        problems: Vec::new(),
        limits: Vec::new(),
    };
    let client = match Client::connect_to(base.socket.clone()) {
        Ok(client) => {
            let spec = NetworkSpec {
                name: base.name.clone(),
                bridge: base.bridge.clone(),
                make_bridge: true,
                ..Default::default()
            };
            let ready = client.call(client.attachments().ready(ReadyRequest { network: Some(spec) }))?;
            row.problems.extend(ready.problems);
            row.limits.extend(ready.limits);
            row.mtu_bytes = Some(ready.mtu_bytes).filter(|mtu| *mtu > 0);
            Some(client)
        }
        Err(failure) => {
            row.problems.push(failure.to_string().replace("error: ", "").replace('\n', ";"));
            None
        }
    };
    let ipam = ipam(network, path)?;
    if let Err(error) = ipam.status() {
        row.problems.push(error.to_string());
    }
    match ipam.counts() {
        Ok(counts) => row.pools.extend(counts.into_iter().map(Pool::from)),
        Err(error) => row.problems.push(error.to_string()),
    }
    let places = Places::of(network, client.as_ref(), path)?;
    row.attachments = places.attachments.values().filter(|known| known.record.is_some()).count();
    Ok(row)
}

fn table(networks: &[Row]) -> Table {
    let header = ["NETWORK", "BRIDGE", "ATTACHED", "ADDRESSES", "FREE", "USED", "COOLING", "STATE"];
    let mut table = Table::new(header);
    for row in networks {
        let bad = row.problems.iter().map(|text| Cell::from(text.as_str()).tone(Tone::Bad));
        let limits = row.limits.iter().map(|text| Cell::from(text.as_str()).tone(Tone::Warn));
        let mut said: Vec<Cell> = bad.chain(limits).collect();
        if said.is_empty() {
            said.push(Cell::from("ready").tone(Tone::Good));
        }
        for line in 0..said.len().max(row.pools.len()).max(1) {
            let mut cells: Vec<Cell> = if line == 0 {
                vec![row.network.as_str().into(), row.bridge.as_str().into(), Cell::right(row.attachments.to_string())]
            } else {
                vec!["".into(), "".into(), "".into()]
            };
            match row.pools.get(line) {
                Some(pool) => {
                    cells.push(pool.ranges.as_str().into());
                    cells.extend([&pool.free, &pool.used, &pool.cooling].map(|n| Cell::right(n.as_str())));
                }
                None => cells.extend(["", "", "", ""].map(Cell::from)),
            }
            cells.push(said.get(line).cloned().unwrap_or_else(|| "".into()));
            table.row(cells);
        }
    }
    table
}
