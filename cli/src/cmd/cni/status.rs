//! `sluice cni status`.

use super::networks::{Network, NetworksArg};
use super::places::{Places, ipam};
use crate::client::Client;
use crate::failure::Failure;
use crate::kube::{self, Cluster, ClusterArgs};
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
use serde::{Deserialize, Serialize};
use sluice_cni::ipam::Count;
use sluice_proto::v1::{ListNetworksRequest, NetworkSpec, ReadyRequest};

/// Arguments of `sluice cni status`.
#[derive(Debug, Args)]
#[command(after_help = "\
What CNI's STATUS tells a runtime, in words, for each network of the host: whether another container
would be attached now, and how many addresses are left for it.

Examples:
  sluice cni status                         the networks in /etc/cni/net.d
  sluice cni status pods                    one of them
  sluice cni status --conf my.conflist      those of a file
  sluice cni status --node node-1           those of a node of a cluster

Where there is neither a network nor a switch but a kubeconfig, every node of the cluster is asked.
Exit code 5 if a network would attach nothing, or something limits what is attached.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    networks: NetworksArg,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    networks: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    /// Its node, where a cluster was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    network: String,
    file: String,
    bridge: String,
    socket: String,
    attachments: usize,
    mtu_bytes: Option<u32>,
    /// Whether a controller declares it, and what it waits for if it has not.
    #[serde(default)]
    declared: bool,
    pools: Vec<Pool>,
    /// What is in the way of another container.
    problems: Vec<String>,
    /// What limits those that are there.
    limits: Vec<String>,
}

/// Numbers as text where they may not fit a JSON number that programs read.
#[derive(Serialize, Deserialize)]
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
    out.format(&[Format::Table, Format::Json])?;
    if (args.cluster.is_given() || !args.networks.is_of_host())
        && let Some(cluster) = Cluster::find(&args.cluster)?
    {
        return of_cluster(args, &cluster, out);
    }
    let path = args.networks.path();
    let networks: Vec<Row> =
        args.networks.read()?.iter().map(|network| look(network, &path)).collect::<Result<_, _>>()?;
    show(networks, out)
}

/// Asks nodes of a cluster, each by the command that runs there.
fn of_cluster(args: &StatusArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let members = cluster.chosen(args.cluster.node.as_deref())?;
    let mut command = vec!["sluice", "cni", "status", "-o", "json"];
    command.extend(args.networks.name());
    let asked = kube::each(&members, |member| {
        let said = cluster.run(member, &command)?;
        serde_json::from_str::<Answer>(&said.out).map_err(|error| {
            let why = said.why().unwrap_or_else(|| error.to_string());
            Failure::new(format!("node {} tells of no network", member.node)).why(why).exit(Exit::NoDaemon)
        })
    });
    let mut answers = kube::sorted(&members, asked);
    let named = |(node, answer): &mut (Option<String>, Answer)| {
        let rows = std::mem::take(&mut answer.networks).into_iter();
        rows.map(|row| Row { node: node.clone(), ..row }).collect::<Vec<_>>()
    };
    let rows = answers.all.iter_mut().flat_map(named).collect();
    let exit = show(rows, out)?;
    answers.end(exit, out)
}

fn show(networks: Vec<Row>, out: &mut Output) -> Result<Exit, Failure> {
    let well = networks.iter().all(|row| row.problems.is_empty() && row.limits.is_empty());
    match out.format(&[Format::Table, Format::Json])? {
        Format::Json => out.json(&Answer { networks })?,
        _ => out.table(&table(&networks))?,
    }
    Ok(if well { Exit::Yes } else { Exit::Unhealthy })
}

fn look(network: &Network, path: &[std::path::PathBuf]) -> Result<Row, Failure> {
    let base = &network.base;
    let mut row = Row {
        node: None,
        declared: network.declared,
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
            if network.declared {
                row.problems.extend(undeclared(&client, &base.name)?);
            }
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

/// What is wrong with a network that a controller declares: the plugin attaches nothing to one that it has not declared.
fn undeclared(client: &Client, name: &str) -> Result<Option<String>, Failure> {
    let networks = client.call(client.attachments().list_networks(ListNetworksRequest {}))?.networks;
    let specs = networks.into_iter().filter_map(|network| network.spec);
    Ok(match specs.into_iter().find(|spec| spec.name == name) {
        Some(spec) if spec.kind == "kubernetes" => None,
        Some(spec) => Some(format!("its controller has not declared it; it is {}'s", spec.kind)),
        None => Some("its controller has not declared it: see `sluice status`".to_owned()),
    })
}

fn table(networks: &[Row]) -> Table {
    let by_node = networks.iter().any(|row| row.node.is_some());
    let mut header: Vec<Cell> = if by_node { vec!["NODE".into()] } else { Vec::new() };
    header.extend(["NETWORK", "BRIDGE"].map(Cell::from));
    header.push(Cell::right("ATTACHED"));
    header.push("ADDRESSES".into());
    header.extend(["FREE", "USED", "COOLING"].map(Cell::right));
    header.push("STATE".into());
    let mut table = Table::new(header);
    for row in networks {
        let bad = row.problems.iter().map(|text| Cell::from(text.as_str()).tone(Tone::Bad));
        let limits = row.limits.iter().map(|text| Cell::from(text.as_str()).tone(Tone::Warn));
        let mut said: Vec<Cell> = bad.chain(limits).collect();
        if said.is_empty() {
            let declared = if row.declared { "ready, declared by the controller" } else { "ready" };
            said.push(Cell::from(declared).tone(Tone::Good));
        }
        for line in 0..said.len().max(row.pools.len()).max(1) {
            let node = row.node.as_deref().filter(|_| line == 0).unwrap_or_default();
            let mut cells: Vec<Cell> = if by_node { vec![node.into()] } else { Vec::new() };
            cells.extend(if line == 0 {
                vec![row.network.as_str().into(), row.bridge.as_str().into(), Cell::right(row.attachments.to_string())]
            } else {
                vec!["".into(), "".into(), "".into()]
            });
            match row.pools.get(line) {
                Some(pool) => {
                    cells.push(pool.ranges.as_str().into());
                    cells.extend([&pool.free, &pool.used, &pool.cooling].map(|n| Cell::right(count(n))));
                }
                None => cells.extend(["", "", "", ""].map(Cell::from)),
            }
            cells.push(said.get(line).cloned().unwrap_or_else(|| "".into()));
            table.row(cells);
        }
    }
    table
}

/// A number as it is; one that nobody reads, as of a /64, by its size.
fn count(number: &str) -> String {
    if number.len() > 9 { format!("> 10^{}", number.len() - 1) } else { number.to_owned() }
}
