//! `sluice flows diff`.

use super::dump;
use crate::client::{BridgeArg, Client, Target};
use crate::cmd::bundle::{label, read};
use crate::failure::Failure;
use crate::output::{Exit, Format, Output};
use clap::Args;
use serde::Serialize;
use sluice_flows::PortNo;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::rule::FlowSpec;
use sluice_flows::text::{Names, parse_flow_file, show_flow};
use sluice_proto::v1::{Flow, ListPortsRequest};
use std::collections::BTreeMap;

/// Arguments of `sluice flows diff`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice flows diff pipeline.flows            - is only in the switch, + is only in the file
  sluice flows diff pipeline.flows -o json
Compared are tables, priorities, matches, actions, cookies and timeouts; not owners and counters.")]
pub(crate) struct Diff {
    /// The flows, one a line; `-` for standard input
    file: String,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    equal: bool,
    only_in_switch: Vec<String>,
    only_in_file: Vec<String>,
}

/// Table, priority (the highest first) and match.
type Place = (u32, std::cmp::Reverse<u32>, String);

/// Runs the verb.
pub(super) fn run(args: &Diff, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Json])?;
    let text = read(&args.file)?;
    let client = Client::connect(&args.target)?;
    let names = port_names(&client, &args.bridge.bridge)?;
    let file = file_flows(label(&args.file), &text, &names)?;
    let switch = dump::flows(&client, args.bridge.bridge.clone(), String::new(), false)?;
    let switch: BTreeMap<Place, String> = switch.iter().map(|f| (place(f), dump::ofctl(f))).collect();
    let only = |a: &BTreeMap<Place, String>, b: &BTreeMap<Place, String>| -> Vec<(Place, String)> {
        let only = a.iter().filter(|(place, text)| b.get(*place) != Some(*text));
        only.map(|(place, text)| (place.clone(), text.trim().to_owned())).collect()
    };
    let (only_in_switch, only_in_file) = (only(&switch, &file), only(&file, &switch));
    let equal = only_in_switch.is_empty() && only_in_file.is_empty();
    if format == Format::Json {
        let texts = |list: Vec<(Place, String)>| list.into_iter().map(|(_, text)| text).collect();
        out.json(&Answer { equal, only_in_switch: texts(only_in_switch), only_in_file: texts(only_in_file) })?;
    } else {
        let signed = |list: Vec<(Place, String)>, sign| list.into_iter().map(move |(place, text)| (place, sign, text));
        let mut lines: Vec<_> = signed(only_in_switch, '-').chain(signed(only_in_file, '+')).collect();
        lines.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        for (_, sign, text) in lines {
            out.line(format!("{sign}{text}"))?;
        }
    }
    Ok(if equal { Exit::Yes } else { Exit::No })
}

fn place(f: &Flow) -> Place {
    (f.table, std::cmp::Reverse(f.priority), f.r#match.clone())
}

/// The names of the ports of a bridge.
fn port_names(client: &Client, bridge: &str) -> Result<Names, Failure> {
    let mut names = Names::new();
    let parts = client.collect(client.ports().list_ports(ListPortsRequest { bridge: bridge.to_owned() }))?;
    for spec in parts.into_iter().flat_map(|p| p.ports).filter_map(|p| p.spec) {
        if let Ok(number) = u16::try_from(spec.number) {
            names.add_port(PortNo(number), spec.name);
        }
    }
    Ok(names)
}

/// The flows that the file's lines make, in the words of a dump.
fn file_flows(label: &str, text: &str, names: &Names) -> Result<BTreeMap<Place, String>, Failure> {
    let parsed = parse_flow_file(label, text, names).map_err(|e| Failure::usage(format!("{e:#}")))?;
    let mut flows = BTreeMap::new();
    for change in parsed.value {
        match change {
            FlowMod::Add { spec, .. } => drop(flows.insert(spec_place(&spec), spec_text(&spec))),
            _ => return Err(Failure::usage(format!("{label} deletes or modifies flows, so it cannot be compared"))),
        }
    }
    Ok(flows)
}

fn spec_place(spec: &FlowSpec) -> Place {
    let matches = sluice_flows::text::show_match(&spec.matches, &Names::new()).to_string();
    (spec.table.get().into(), std::cmp::Reverse(spec.priority.into()), matches)
}

fn spec_text(spec: &FlowSpec) -> String {
    format!(" {}", show_flow(spec, None, &Names::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_reads_the_same_from_a_file_and_from_the_switch() {
        let text =
            "cookie=0x5,table=2,priority=7,idle_timeout=3,send_flow_rem,tcp,tp_dst=80 actions=output:2\nactions=drop\n";
        let file = file_flows("x", text, &Names::new()).unwrap();
        let switch = [
            Flow {
                table: 2,
                priority: 7,
                cookie: 5,
                idle_timeout_s: 3,
                send_flow_rem: true,
                r#match: "tcp,tp_dst=80".into(),
                actions: "output:2".into(),
                ..Flow::default()
            },
            Flow { priority: 0x8000, actions: "drop".into(), ..Flow::default() },
        ];
        let switch: BTreeMap<_, _> = switch.iter().map(|f| (place(f), dump::ofctl(f))).collect();
        assert_eq!(file, switch);
    }
}
