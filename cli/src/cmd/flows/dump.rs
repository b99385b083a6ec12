//! `sluice flows dump`.

use super::of::{Selected, Whose, group_table};
use crate::client::{BridgeArg, Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::matching;
use crate::output::{Cell, Exit, Format, Output, Table};
use crate::watch::Watch;
use clap::Args;
use serde::Serialize;
use sluice_proto::v1::{DumpFlowsRequest, Flow, FlowFilter, FlowLineStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Arguments of `sluice flows dump`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice flows dump
  sluice flows dump table=1,tcp               the flows of table 1 within this match
  sluice flows dump owner=np:shop/*           the flows of some owners
  sluice flows dump 'dst=h1,!owner=builtin:*' to a node of the lab, by others' rules
  sluice flows dump --nonzero                 only flows that were hit
  sluice flows dump --nonzero -w=2            again every two seconds
  sluice flows dump -o ofctl                  as `ovs-ofctl dump-flows` prints them
  sluice flows dump -o ofctl --no-stats > backup.flows
  sluice flows dump --pod shop/web-7f9        what concerns a Pod, on its node
  sluice flows dump --svc shop/web tcp        a Service's flows of TCP, and its groups
  sluice flows dump --policy shop/db --nonzero     what a policy has decided, on every node
In a cluster a Pod leads to its node. `sluice capture --help` has the words of a
MATCH. By names or with `!`, -o ofctl has no counters.")]
pub(crate) struct Dump {
    /// Which flows: those within this MATCH; all if not given
    #[arg(value_name = "MATCH", default_value = "", hide_default_value = true)]
    matches: String,
    /// Only flows that a packet has matched
    #[arg(long)]
    nonzero: bool,
    /// Name ports instead of numbering them
    #[arg(long)]
    names: bool,
    /// Without counters and times, with -o ofctl: what can be fed back or compared
    #[arg(long)]
    no_stats: bool,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    bridge: BridgeArg,
    #[command(flatten)]
    target: Target,
}

#[derive(Serialize)]
struct Answer {
    flows: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<super::super::groups::Row>,
}

/// A flow in JSON.
#[derive(Serialize)]
struct Row {
    /// Its node, where every node of a cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    table: u32,
    priority: u32,
    r#match: String,
    actions: String,
    owner: String,
    generation: u64,
    cookie: u64,
    drop_reason: Option<String>,
    packets: u64,
    bytes: u64,
    duration_ms: u64,
    idle_ms: u64,
    idle_timeout_s: u32,
    hard_timeout_s: u32,
    importance: u32,
    send_flow_rem: bool,
}

impl From<Flow> for Row {
    fn from(f: Flow) -> Self {
        Self {
            node: None,
            table: f.table,
            priority: f.priority,
            r#match: f.r#match,
            actions: f.actions,
            owner: f.owner,
            generation: f.generation,
            cookie: f.cookie,
            drop_reason: Some(f.drop_reason).filter(|r| !r.is_empty()),
            packets: f.packets,
            bytes: f.bytes,
            duration_ms: f.duration_ms,
            idle_ms: f.idle_ms,
            idle_timeout_s: f.idle_timeout_s,
            hard_timeout_s: f.hard_timeout_s,
            importance: f.importance,
            send_flow_rem: f.send_flow_rem,
        }
    }
}

/// Runs the verb.
pub(super) fn run(args: &Dump, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json, Format::Ofctl])?;
    if args.whose.policy.is_some() {
        return args.watch.run(out, |out| by_node(args, format, out));
    }
    let client = args.whose.connect(&args.target)?;
    args.watch.run(out, |out| show(args, &client, format, out))
}

/// Flows of a policy, which any node may have.
fn by_node(args: &Dump, format: Format, out: &mut Output) -> Result<Exit, Failure> {
    let bridge = &args.bridge.bridge;
    let answers = kube::ask(&args.target, kube::Unless::All, |client: &Client| {
        let selected = args.whose.selected(client)?;
        Ok((wanted(args, client, selected)?, Whose::table_names(client, bridge)?))
    })?;
    if answers.all.iter().all(|(_, (flows, _))| flows.is_empty()) {
        out.talk(none(false))?;
    }
    let mut rows = Vec::new();
    for (node, (flows, names)) in &answers.all {
        match format {
            Format::Json => rows.extend(flows.iter().map(|f| Row { node: node.clone(), ..Row::from(f.clone()) })),
            Format::Ofctl => flows.iter().try_for_each(|f| out.line(ofctl(f)))?,
            _ if flows.is_empty() => {}
            _ => {
                if let Some(node) = node {
                    out.line(format!("{node}:"))?;
                }
                out.table(&table(flows, names, format == Format::Wide))?;
            }
        }
    }
    if format == Format::Json {
        out.json(&Answer { flows: rows, groups: Vec::new() })?;
    }
    answers.end(Exit::Yes, out)
}

/// The flows that match, of those that are selected.
fn wanted(args: &Dump, client: &Client, mut selected: Option<Selected>) -> Result<Vec<Flow>, Failure> {
    let bridge = &args.bridge.bridge;
    let words = matching::read(&args.matches, client)?;
    let mut found = flows(client, bridge.clone(), words.plain(), args.names)?;
    for condition in words.conditions()? {
        let mut within = BTreeSet::new();
        for one in condition.any {
            let flows = flows(client, bridge.clone(), one, args.names)?;
            within.extend(flows.into_iter().map(|flow| (flow.table, flow.priority, flow.r#match)));
        }
        found.retain(|flow| within.contains(&(flow.table, flow.priority, flow.r#match.clone())) != condition.not);
    }
    match &mut selected {
        Some(selected @ Selected::Policy(..)) if !args.matches.is_empty() => {
            selected.find_rules(&flows(client, bridge.clone(), String::new(), false)?);
        }
        Some(selected) => selected.find_rules(&found),
        None => {}
    }
    found.retain(|f| (!args.nonzero || f.packets > 0) && selected.as_ref().is_none_or(|selected| selected.has(f)));
    Ok(found)
}

fn show(args: &Dump, client: &Client, format: Format, out: &mut Output) -> Result<Exit, Failure> {
    let selected = args.whose.selected(client)?;
    let is_plain = || Ok::<_, Failure>(matching::read(&args.matches, client)?.conditions()?.is_empty());
    if format == Format::Ofctl && selected.is_none() && is_plain()? {
        return print(args, client, out);
    }
    let everything = args.matches.is_empty() && !args.nonzero && selected.is_none();
    let bridge = &args.bridge.bridge;
    let flows = wanted(args, client, selected)?;
    if flows.is_empty() {
        out.talk(none(everything))?;
    }
    let groups = args.whose.groups(client, bridge)?;
    match format {
        Format::Json => {
            let groups = groups.into_iter().map(Into::into).collect();
            out.json(&Answer { flows: flows.into_iter().map(Row::from).collect(), groups })?;
        }
        Format::Ofctl => flows.iter().try_for_each(|f| out.line(ofctl(f)))?,
        _ => {
            let names = Whose::table_names(client, bridge)?;
            out.table(&table(&flows, &names, format == Format::Wide))?;
            if !groups.is_empty() {
                out.line("")?;
                out.table(&group_table(&groups, format == Format::Wide))?;
            }
        }
    }
    Ok(Exit::Yes)
}

/// What to say when there is nothing to show.
fn none(everything: bool) -> &'static str {
    if everything { "there are no flows: every packet is dropped" } else { "no flow is selected" }
}

/// Prints flows as `ovs-ofctl` does, each as soon as it is there.
fn print(args: &Dump, client: &Client, out: &mut Output) -> Result<Exit, Failure> {
    let everything = args.matches.is_empty() && !args.nonzero;
    let style = if args.no_stats { FlowLineStyle::NoStats } else { FlowLineStyle::Stats };
    let request = request(args.bridge.bridge.clone(), args.matches.clone(), args.names);
    let request = DumpFlowsRequest { lines: style.into(), nonzero: args.nonzero, ..request };
    let mut parts = client.call(client.flows().dump_flows(request))?;
    if !args.no_stats {
        out.line("NXST_FLOW reply (xid=0x4):")?;
    }
    let mut found = false;
    while let Some(part) = client.next(&mut parts)? {
        if !part.lines.is_empty() {
            found = true;
            out.line(part.lines.trim_end_matches('\n'))?;
        }
    }
    if !found {
        out.talk(none(everything))?;
    }
    Ok(Exit::Yes)
}

fn request(bridge: String, matches: String, names: bool) -> DumpFlowsRequest {
    let filter = FlowFilter { r#match: matches, ..FlowFilter::default() };
    DumpFlowsRequest { bridge, filter: Some(filter), port_names: names, ..DumpFlowsRequest::default() }
}

/// The flows of a bridge that `matches` selects.
pub(super) fn flows(client: &Client, bridge: String, matches: String, names: bool) -> Result<Vec<Flow>, Failure> {
    let parts = client.collect(client.flows().dump_flows(request(bridge, matches, names)))?;
    Ok(parts.into_iter().flat_map(|p| p.flows).collect())
}

fn table(flows: &[Flow], names: &BTreeMap<u32, String>, wide: bool) -> Table {
    let number = |table: u32| match names.get(&table) {
        Some(name) => Cell::from(format!("{table:>2} {name}")),
        None if names.is_empty() => Cell::right(table.to_string()),
        None => Cell::from(format!("{table:>2}")),
    };
    let title = if names.is_empty() { Cell::right("TABLE") } else { Cell::from("TABLE") };
    let mut header: Vec<Cell> = vec![title, Cell::right("PRIO"), "MATCH".into(), "ACTIONS".into()];
    header.extend(["OWNER".into(), Cell::right("PKTS"), Cell::right("BYTES"), Cell::right("LAST")]);
    if wide {
        header.extend([Cell::right("COOKIE"), Cell::right("GEN"), Cell::right("AGE"), "TIMEOUTS".into()]);
    }
    let mut table = Table::new(header);
    for f in flows {
        let last = if f.packets == 0 { "never".to_owned() } else { format!("{} s", f.idle_ms / 1000) };
        let matches = if f.r#match.is_empty() { "any" } else { &f.r#match };
        let actions =
            if f.drop_reason.is_empty() { f.actions.clone() } else { format!("{} ({})", f.actions, f.drop_reason) };
        let mut row: Vec<Cell> = vec![number(f.table), Cell::right(f.priority.to_string())];
        row.extend([matches.into(), actions.into(), f.owner.as_str().into()]);
        row.extend([f.packets.to_string(), f.bytes.to_string(), last].map(Cell::right));
        if wide {
            let age = format!("{} s", f.duration_ms / 1000);
            row.extend([format!("{:#x}", f.cookie), f.generation.to_string(), age].map(Cell::right));
            row.push(format!("idle {} hard {}", f.idle_timeout_s, f.hard_timeout_s).into());
        }
        table.row(row);
    }
    table
}

/// A flow as `ovs-ofctl dump-flows --no-stats` prints it.
pub(super) fn ofctl(f: &Flow) -> String {
    let mut out = String::from(" ");
    // Writing to a string cannot fail.
    let mut put = |part: std::fmt::Arguments<'_>| _ = out.write_fmt(part);
    if f.cookie != 0 {
        put(format_args!("cookie={:#x}, ", f.cookie));
    }
    if f.table != 0 {
        put(format_args!("table={}, ", f.table));
    }
    for (name, value) in [("idle_timeout", f.idle_timeout_s), ("hard_timeout", f.hard_timeout_s)] {
        if value != 0 {
            put(format_args!("{name}={value}, "));
        }
    }
    if f.send_flow_rem {
        put(format_args!("send_flow_rem "));
    }
    if f.importance != 0 {
        put(format_args!("importance={}, ", f.importance));
    }
    let default = u32::from(sluice_flows::rule::DEFAULT_PRIORITY);
    match (f.priority == default, f.r#match.is_empty()) {
        (true, true) => {}
        (true, false) => put(format_args!("{} ", f.r#match)),
        (false, true) => put(format_args!("priority={} ", f.priority)),
        (false, false) => put(format_args!("priority={},{} ", f.priority, f.r#match)),
    }
    put(format_args!("actions={}", f.actions));
    out
}
