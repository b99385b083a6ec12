//! `sluice svc`: the Services of a cluster, as a node's switch has them.
//!
//! Everything is read back from the switch ([`read`]): what is shown is what happens to packets, whatever the API server says.

mod read;

use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::Args;
pub(crate) use read::Services;
use read::{Endpoint, Frontend};
use serde::Serialize;

/// Arguments of `sluice svc`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice svc                          every address that a Service has, and its endpoints
  sluice svc shop/web                 one Service, with the connections of each endpoint
  sluice svc shop/web --node all      as every node has it
  sluice svc -o json

FROM tells who gets these endpoints: `inside` is Pods and nodes, `outside` everybody else. An
address without endpoints refuses (`reject`) or loses (`drop`) what comes to it. CHOSEN counts the
connections that got an endpoint since its group was made; CONNS and PKTS are of those that are
tracked now.")]
pub(crate) struct Svc {
    /// Only this Service: NAMESPACE/NAME
    #[arg(value_name = "NS/NAME")]
    service: Option<String>,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer<'a> {
    services: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(flatten)]
    frontend: &'a Frontend,
    endpoints: &'a [Endpoint],
}

/// Runs the verb.
pub(crate) fn run(args: &Svc, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let name = args.service.as_deref().map(|name| name.strip_prefix("svc:").unwrap_or(name));
    if name.is_some_and(|name| !name.contains('/')) {
        return Err(Failure::usage("a Service is named by its namespace and its name").next("sluice svc default/web"));
    }
    let bridge = &args.bridge.bridge;
    let answers = kube::ask(&args.target, kube::Unless::Any, |client: &Client| Services::read(client, bridge, name))?;
    let empty = answers.all.iter().all(|(_, services)| services.frontends.is_empty());
    if format == Format::Json {
        out.json(&Answer { services: answers.all.iter().flat_map(|(node, all)| rows(node, all)).collect() })?;
    } else if !empty {
        let by_node = answers.is_of_all();
        out.table(&frontends(&answers.all, by_node, format == Format::Wide))?;
        if name.is_some() {
            out.line("")?;
            out.table(&endpoints(&answers.all, by_node))?;
        }
    }
    match name {
        Some(name) if empty && answers.silent.is_empty() => {
            let failure = Failure::new(format!("the switch has no Service {name}"));
            Err(failure.next(format!("kubectl -n {} get service; headless Services have no flows", namespace(name))))
        }
        None if empty => {
            out.talk("the switch has no Services")?;
            answers.end(Exit::Yes, out)
        }
        _ => answers.end(Exit::Yes, out),
    }
}

fn namespace(name: &str) -> &str {
    name.split_once('/').map_or(name, |(namespace, _)| namespace)
}

fn rows<'a>(node: &'a Option<String>, services: &'a Services) -> impl Iterator<Item = Row<'a>> {
    let node = node.as_deref();
    services.frontends.iter().map(move |frontend| {
        let endpoints = services.endpoints_of(frontend);
        Row { node, frontend, endpoints }
    })
}

fn frontends(all: &[(Option<String>, Services)], by_node: bool, wide: bool) -> Table {
    let mut header: Vec<Cell> = if by_node { vec!["NODE".into()] } else { Vec::new() };
    header.extend(["SERVICE", "ADDRESS", "PROTO", "KIND", "FROM"].map(Cell::from));
    header.extend([Cell::right("ENDPOINTS"), "AFFINITY".into(), Cell::right("PKTS")]);
    if wide {
        header.extend([Cell::right("BYTES"), Cell::right("GROUP"), "TO".into()]);
    }
    let mut table = Table::new(header);
    for (node, services) in all {
        for row in rows(node, services) {
            let mut cells: Vec<Cell> = if by_node { vec![row.node.unwrap_or("-").into()] } else { Vec::new() };
            let f = row.frontend;
            cells.extend([f.service.as_str(), f.shown().as_str(), f.protocol, f.kind, f.from.as_str()].map(Cell::from));
            let count = row.endpoints.len();
            cells.push(match f.refused {
                Some(how) => Cell::right(format!("{how} {count}")).tone(Tone::Bad),
                None => Cell::right(count.to_string()).tone(if count == 0 { Tone::Bad } else { Tone::Plain }),
            });
            cells.push(f.affinity_s.map_or("-".to_owned(), |s| format!("{s} s")).into());
            cells.push(Cell::right(f.packets.to_string()));
            if wide {
                cells.push(Cell::right(f.bytes.to_string()));
                cells.push(Cell::right(f.group.map_or("-".to_owned(), |group| group.to_string())));
                let to: Vec<_> = row.endpoints.iter().map(|e| e.address.as_str()).collect();
                cells.push(if to.is_empty() { "-".into() } else { to.join(",").into() });
            }
            table.row(cells);
        }
    }
    table
}

/// The endpoints of every group, each once.
fn endpoints(all: &[(Option<String>, Services)], by_node: bool) -> Table {
    let mut header: Vec<Cell> = if by_node { vec!["NODE".into()] } else { Vec::new() };
    header.extend(["ENDPOINT", "PROTO", "POD"].map(Cell::from));
    header.extend(["CHOSEN", "CONNS", "PKTS", "GROUP"].map(Cell::right));
    let mut table = Table::new(header);
    for (node, services) in all {
        let mut shown = Vec::new();
        for f in &services.frontends {
            let Some(group) = f.group.filter(|group| !shown.contains(group)) else { continue };
            shown.push(group);
            for e in services.endpoints_of(f) {
                let mut cells: Vec<Cell> = Vec::new();
                if by_node {
                    cells.push(node.as_deref().unwrap_or("-").into());
                }
                cells.extend([e.address.as_str(), f.protocol, e.pod.as_deref().unwrap_or("-")].map(Cell::from));
                cells.extend([e.chosen, e.connections, e.packets, group.into()].map(|n| Cell::right(n.to_string())));
                table.row(cells);
            }
        }
    }
    table
}
