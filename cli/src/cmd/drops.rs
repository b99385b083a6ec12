//! `sluice drops`.

use super::policy::owner;
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::kube;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use clap::{Args, ValueEnum};
use serde::Serialize;
use sluice_proto::v1::{Drop, ListDropsRequest};
use std::collections::BTreeMap;

/// Arguments of `sluice drops`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  sluice drops                    what was dropped, why, on which port and by whose rule
  sluice drops --by reason        one line for each reason
  sluice drops --by owner         who drops most
  sluice drops --by policy        which policies drop most
  sluice drops --policy shop/db   what a policy dropped: NS/NAME, cnp:NAME, anp:NAME or banp:NAME
  sluice drops --node node-1      on one node of a cluster; by a kubeconfig it is every node's
  sluice drops --all              with what no Pod misses: multicast, announcements of addresses
  sluice trace \"$(sluice drops -o json | jq -r '.drops[0].last_packet')\"")]
pub(crate) struct Drops {
    /// Add up by one thing
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<By>,
    /// Only what this policy dropped: NS/NAME, cnp:NAME, anp:NAME or banp:NAME
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// Also what ends by design on a cluster's nodes: multicast, and announcements of addresses
    #[arg(short, long)]
    all: bool,
    /// Only drops of this bridge's ports
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    bridge: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    Reason,
    Owner,
    Policy,
    Port,
}

#[derive(Serialize)]
struct Answer {
    drops: Vec<Row>,
}

#[derive(Serialize)]
struct Sums {
    by: &'static str,
    drops: Vec<Sum>,
}

#[derive(Serialize)]
struct Sum {
    name: String,
    packets: u64,
}

#[derive(Serialize)]
struct Row {
    /// Its node, where every node of a cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    reason: String,
    explanation: String,
    bridge: String,
    port: String,
    owner: String,
    rule: String,
    packets: u64,
    last_ms: Option<u64>,
    last_packet: String,
    hint: String,
}

/// Where the pipeline of a cluster's node ends what every host says to all others, and nobody has to answer.
const CHATTER: [&str; 4] =
    ["builtin:classify", "builtin:arp_responder", "builtin:nd_responder", "builtin:nd_advertise"];

impl Row {
    /// Whether it is of a cluster's node and ends there by design: multicast, broadcast, announcements. A Pod's own flows drop nothing
    /// else by `rule_drop`.
    fn is_chatter(&self) -> bool {
        self.reason == "rule_drop" && (CHATTER.contains(&self.owner.as_str()) || self.owner.starts_with("pod:"))
    }
}

impl From<Drop> for Row {
    fn from(d: Drop) -> Self {
        Self {
            node: None,
            reason: d.reason,
            explanation: d.explanation,
            bridge: d.bridge,
            port: d.port,
            owner: d.owner,
            rule: d.rule,
            packets: d.packets,
            last_ms: d.last_ms,
            last_packet: d.last_packet,
            hint: d.hint,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: Drops, out: &mut Output) -> Result<Exit, Failure> {
    let format = out.format(&[Format::Table, Format::Wide, Format::Json])?;
    let policy = args.policy.as_deref().map(owner::named).transpose()?;
    let mut answers = kube::ask(&args.target, kube::Unless::All, |client: &Client| {
        let parts = client.collect(client.stats().list_drops(ListDropsRequest { bridge: args.bridge.clone() }))?;
        Ok(parts.into_iter().flat_map(|p| p.drops).map(Row::from).collect::<Vec<_>>())
    })?;
    let named = |(node, rows): &mut (Option<String>, Vec<Row>)| {
        let rows = std::mem::take(rows).into_iter();
        rows.map(|row| Row { node: node.clone(), ..row }).collect::<Vec<_>>()
    };
    let mut drops: Vec<_> = answers.all.iter_mut().flat_map(named).collect();
    if let Some(policy) = &policy {
        drops.retain(|row| owner::policies(&row.owner).contains(policy));
    }
    let chatter: u64 = drops.iter().filter(|row| row.is_chatter()).map(|row| row.packets).sum();
    if !args.all {
        drops.retain(|row| !row.is_chatter());
    }
    drops.sort_by_key(|row| std::cmp::Reverse(row.packets));
    if drops.is_empty() {
        eprintln!("nothing was dropped{}", policy.map_or(String::new(), |policy| format!(" by {policy}")));
    }
    if !args.all && chatter > 0 {
        eprintln!("left out: {chatter} packets of multicast and announcements, which end here by design; see --all");
    }
    let exit = match args.by {
        Some(by) => sums(by, drops, format, out),
        None if format == Format::Json => Ok(out.json(&Answer { drops }).map(|()| Exit::Yes)?),
        None => table(drops, answers.is_of_all(), format == Format::Wide, out),
    };
    answers.end(exit?, out)
}

fn sums(by: By, drops: Vec<Row>, format: Format, out: &mut Output) -> Result<Exit, Failure> {
    let mut totals = BTreeMap::<String, u64>::new();
    for d in drops {
        let name = match by {
            By::Reason => d.reason,
            By::Owner => d.owner,
            By::Policy => owner::policies(&d.owner).join(" "),
            By::Port => format!("{}/{}", d.bridge, d.port),
        };
        *totals.entry(name).or_default() += d.packets;
    }
    let mut drops: Vec<_> = totals.into_iter().map(|(name, packets)| Sum { name, packets }).collect();
    drops.sort_by_key(|s| std::cmp::Reverse(s.packets));
    let (name, header) = match by {
        By::Reason => ("reason", "REASON"),
        By::Owner => ("owner", "OWNER"),
        By::Policy => ("policy", "POLICY"),
        By::Port => ("port", "PORT"),
    };
    if format == Format::Json {
        out.json(&Sums { by: name, drops })?;
        return Ok(Exit::Yes);
    }
    let mut table = Table::new([header.into(), Cell::right("PKTS")]);
    for s in drops {
        table.row([dash(s.name).into(), Cell::right(s.packets.to_string())]);
    }
    out.table(&table)?;
    Ok(Exit::Yes)
}

fn table(drops: Vec<Row>, by_node: bool, wide: bool, out: &mut Output) -> Result<Exit, Failure> {
    let mut header: Vec<Cell> = if by_node { vec!["NODE".into()] } else { Vec::new() };
    header.extend(["REASON".into(), "BRIDGE".into(), "PORT".into(), "BY".into(), Cell::right("PKTS")]);
    header.extend([Cell::right("LAST"), "LAST PACKET".into()]);
    if wide {
        header.push("RULE".into());
    }
    let mut table = Table::new(header);
    let mut hints = BTreeMap::new();
    for d in drops {
        let last = d.last_ms.map_or("-".to_owned(), |ms| format!("{} s", ms / 1000));
        let mut row: Vec<Cell> = d.node.filter(|_| by_node).map(Cell::from).into_iter().collect();
        row.push(Cell::from(d.reason.clone()).tone(Tone::Bad));
        row.extend([d.bridge, dash(d.port), dash(d.owner)].map(Cell::from));
        row.extend([Cell::right(d.packets.to_string()), Cell::right(last), dash(d.last_packet).into()]);
        if wide {
            row.push(dash(d.rule).into());
        }
        table.row(row);
        let hint = if d.hint.is_empty() { d.explanation } else { format!("{} {}", d.explanation, d.hint) };
        hints.insert(d.reason, hint);
    }
    out.table(&table)?;
    for (reason, hint) in hints {
        out.line(format!("{reason}: {hint}"))?;
    }
    Ok(Exit::Yes)
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_by_design_is_told_apart_from_what_somebody_may_miss() {
        let row = |reason: &str, owner: &str| {
            Row::from(Drop { reason: reason.to_owned(), owner: owner.to_owned(), ..Drop::default() })
        };
        for (reason, owner, chatter) in [
            ("rule_drop", "builtin:classify", true),
            ("rule_drop", "builtin:nd_responder", true),
            ("rule_drop", "pod:shop/web-0", true),
            ("spoof_guard", "pod:shop/web-0", false),
            ("vlan_filter", "builtin:classify", false),
            ("rule_drop", "svc:shop/web", false),
            ("rule_drop", "user", false),
            ("rule_drop", "", false),
        ] {
            assert_eq!(row(reason, owner).is_chatter(), chatter, "{reason} {owner}");
        }
    }
}
