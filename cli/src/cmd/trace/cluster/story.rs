//! A trace through the nodes of a cluster, told: the verdict, then the stages on each node, then what to look at.

use super::{Hop, LOCAL, Question};
use crate::cmd::trace::json::{Rule, Traced};
use crate::failure::Failure;
use crate::output::{Cell, Exit, Format, Output, Table, Tone};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// All of it.
pub(super) struct Story<'a> {
    pub(super) question: &'a Question,
    pub(super) hops: &'a [Hop],
    /// Why it was not followed further.
    pub(super) lost: Option<String>,
    /// Whose addresses are known that are no Pods'.
    pub(super) places: BTreeMap<IpAddr, String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    verdict: &'static str,
    summary: String,
    reason: Option<&'a str>,
    hint: Option<String>,
    hops: Vec<HopAnswer<'a>>,
}

#[derive(Serialize)]
struct HopAnswer<'a> {
    node: &'a str,
    stages: Vec<Stage>,
    trace: &'a Traced,
}

/// A table that the packet came through.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Stage {
    stage: String,
    what: String,
    owner: String,
    result: &'static str,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Delivered,
    Left,
    Elsewhere,
    Dropped,
    Unknown,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "DELIVERED",
            Self::Left => "LEFT",
            Self::Elsewhere => "NOT DELIVERED",
            Self::Dropped => "DROPPED",
            Self::Unknown => "GOES ON",
        }
    }
}

impl Story<'_> {
    /// Prints it, and gives the exit code.
    pub(super) fn tell(&self, verbose: bool, out: &mut Output) -> Result<Exit, Failure> {
        let json = out.format(&[Format::Table, Format::Json])? == Format::Json;
        let (verdict, summary) = self.verdict();
        let dropped = self.hops.last().filter(|hop| hop.traced.is_dropped());
        let hint = dropped.and_then(|hop| hint(hop, self.question)).or_else(|| self.lost.clone());
        if json {
            let reason = dropped.and_then(|hop| hop.traced.reason.as_deref());
            let hops = self.hops.iter().map(|hop| HopAnswer {
                node: &hop.node,
                stages: stages(hop, true),
                trace: &hop.traced,
            });
            out.json(&Answer { verdict: verdict.word(), summary, reason, hint, hops: hops.collect() })?;
        } else {
            out.line(summary)?;
            out.table(&self.table(verbose))?;
            if let Some(hint) = hint {
                out.line(format!("hint: {hint}"))?;
            }
            if verbose {
                for hop in self.hops {
                    out.line("")?;
                    out.line(&hop.traced.walk)?;
                }
            }
        }
        Ok(match verdict {
            Verdict::Delivered | Verdict::Left => Exit::Yes,
            Verdict::Elsewhere | Verdict::Unknown => Exit::No,
            Verdict::Dropped => Exit::Dropped,
        })
    }

    fn verdict(&self) -> (Verdict, String) {
        let (from, to) = (&self.question.from, &self.question.to);
        let Some(hop) = self.hops.last() else { return (Verdict::Unknown, format!("GOES ON  {from} -> {to}")) };
        if hop.traced.is_dropped() {
            let reason = hop.traced.reason.as_deref().unwrap_or("drop");
            let by = hop.traced.rule.as_ref().map_or(String::new(), |rule| format!(" by {}", rule.owner));
            return (Verdict::Dropped, format!("DROPPED{}{by} ({reason})", on(&hop.node)));
        }
        let mut way = vec![from.to_string()];
        way.extend(self.hops.iter().filter(|hop| !hop.node.is_empty()).map(|hop| hop.node.clone()));
        let Some(output) = hop.traced.outputs.first() else {
            return (Verdict::Elsewhere, format!("NOT DELIVERED  {}: it leaves by no port", way.join(" -> ")));
        };
        let address = destination(&output.packet);
        let verdict = if let Some(pod) = hop.pods.get(&output.port) {
            way.push(format!("{pod}{}", address.map_or(String::new(), |a| format!(" [{a}]"))));
            Verdict::Delivered
        } else if hop.tunnels.contains(&output.port) {
            way.push("by the tunnel".to_owned());
            Verdict::Unknown
        } else if output.port == LOCAL {
            way.push("the host".to_owned());
            let whose = crate::cmd::trace::cluster::host::destination(&output.packet).and_then(|a| self.places.get(&a));
            match (whose, address) {
                // It ends here: the host is whom it is for.
                (Some(name), Some(address)) if *name == hop.node => way.push(address),
                (Some(name), Some(address)) => way.push(format!("{address}, node {name}")),
                (None, Some(address)) => way.push(address),
                (_, None) => {}
            }
            Verdict::Left
        } else {
            way.push(format!("port {}", output.name.clone().unwrap_or_else(|| output.port.to_string())));
            Verdict::Elsewhere
        };
        let wanted = matches!(&self.question.to, super::Named::Pod(name) if hop.pods.get(&output.port).is_some_and(|p| p != name));
        let verdict = if wanted { Verdict::Elsewhere } else { verdict };
        (verdict, format!("{}  {}", verdict.word(), way.join(" -> ")))
    }

    fn table(&self, verbose: bool) -> Table {
        let by_node = self.hops.iter().any(|hop| !hop.node.is_empty());
        let mut table = Table::default();
        for hop in self.hops {
            let mut name = if hop.by.is_empty() { hop.node.clone() } else { format!("{} ({})", hop.node, hop.by) };
            for stage in stages(hop, verbose) {
                let mut cells: Vec<Cell> = vec![Cell::from("")];
                if by_node {
                    cells.push(std::mem::take(&mut name).into());
                }
                let tone = if stage.result == "drop" { Tone::Bad } else { Tone::Plain };
                cells.extend([Cell::from(stage.stage), stage.what.into(), stage.owner.into()]);
                cells.push(Cell::from(stage.result).tone(tone));
                table.row(cells);
            }
        }
        table
    }
}

fn on(node: &str) -> String {
    if node.is_empty() { String::new() } else { format!(" on {node}") }
}

/// The stages of a node. Those that only send on to the next are left out, unless `all` are wanted.
fn stages(hop: &Hop, all: bool) -> Vec<Stage> {
    let passes = hop.traced.passes();
    let host = hop.host.iter().map(|done| Stage {
        stage: "(host)".to_owned(),
        what: done.clone(),
        owner: String::new(),
        result: "dnat",
    });
    let mut out: Vec<Stage> = host.collect();
    for (index, pass) in passes.iter().enumerate() {
        for step in pass.steps() {
            let (Some(table), Some(rule)) = (step.table, &step.rule) else { continue };
            if !all && is_plain(rule) {
                continue;
            }
            let name = hop.tables.get(&table).cloned().unwrap_or_else(|| match table {
                0 => "entry".to_owned(),
                other => format!("table {other}"),
            });
            let after = passes.get(index + 1).map(|next| next.packet());
            out.push(Stage {
                what: what(rule, after, hop),
                stage: name,
                owner: rule.owner.clone(),
                result: result(rule),
            });
        }
        if pass.is_dropped()
            && let Some(last) = out.last_mut()
        {
            last.result = "drop";
        }
    }
    out
}

/// Whether a rule only sends on, whatever the packet is.
fn is_plain(rule: &Rule) -> bool {
    let goes_on = |action: &str| action.starts_with("goto_table") || action.starts_with("resubmit");
    rule.r#match.is_empty() && goes_on(&rule.actions)
}

/// What the stage saw and did, in short: the match with Pods for their ports, and where it sends the packet.
fn what(rule: &Rule, after: Option<&str>, hop: &Hop) -> String {
    let port = |word: &str| {
        let number = word.strip_prefix("in_port=").and_then(|number| number.parse().ok());
        number.and_then(|number: u32| hop.pods.get(&number)).map(|pod| format!("in_port={pod}"))
    };
    let words = rule.r#match.split(',').map(|word| port(word).unwrap_or_else(|| word.to_owned()));
    let seen = if rule.r#match.is_empty() { "any".to_owned() } else { words.collect::<Vec<_>>().join(",") };
    let translated = after.filter(|_| rule.actions.contains("group:") || rule.actions.contains("nat("));
    if let Some(to) = translated.and_then(destination).filter(|_| rule.owner.starts_with("svc:")) {
        return format!("{seen} -> {to}");
    }
    let is_destination =
        rule.r#match.split(',').any(|word| word.starts_with("nw_dst=") || word.starts_with("ipv6_dst="));
    let routes = is_destination && rule.actions.contains("NXM_NX_REG1");
    match rule.owner.split_once(':') {
        Some(("node" | "pod", name)) if routes => format!("{seen} -> {name}"),
        _ => seen,
    }
}

/// What came of it, in a word.
fn result(rule: &Rule) -> &'static str {
    let has = |text: &str| rule.actions.contains(text);
    if has("reject") {
        "reject"
    } else if rule.actions.is_empty() || rule.actions == "drop" {
        "drop"
    } else if has("group:") || has("nat(dst=") {
        "dnat"
    } else if has("nat(src=") {
        "snat"
    } else if has("output") {
        "forward"
    } else {
        "ok"
    }
}

/// The destination of a packet in a flow's words: `10.0.0.1:80`.
fn destination(packet: &str) -> Option<String> {
    let value = |names: &[&str]| {
        packet
            .split(',')
            .filter_map(|word| word.trim().split_once('='))
            .find(|(name, _)| names.contains(name))
            .map(|(_, v)| v)
    };
    let address = value(&["nw_dst", "ipv6_dst"])?;
    match value(&["tp_dst", "tcp_dst", "udp_dst", "sctp_dst"]) {
        Some(port) if address.contains(':') => Some(format!("[{address}]:{port}")),
        Some(port) => Some(format!("{address}:{port}")),
        None => Some(address.to_owned()),
    }
}

/// What to look at when a packet was dropped.
fn hint(hop: &Hop, question: &Question) -> Option<String> {
    let node = if hop.node.is_empty() { String::new() } else { format!(" --node {}", hop.node) };
    let owner = hop.traced.rule.as_ref().map(|rule| rule.owner.as_str()).unwrap_or_default();
    let service = owner.strip_prefix("svc:");
    Some(match hop.traced.reason.as_deref()? {
        "service_no_endpoint" => match service.and_then(|name| name.split_once('/')) {
            Some((namespace, name)) => format!(
                "sluice svc {namespace}/{name}{node}; kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}"
            ),
            None => "no Service has this address and port: kubectl get services -A".to_owned(),
        },
        "spoof_guard" => {
            format!("sluice cni list{node}: a Pod may send with its own addresses only, and not before it is confirmed")
        }
        "no_route" => format!("no Pod and no node has the address of {}: kubectl get pods -A -o wide", question.to),
        "tunnel_down" => format!("sluice tunnels --probe{node}"),
        "ct_invalid" => format!("sluice ct dump{node}; a packet that fits no connection, and begins none"),
        _ => format!("sluice drops{node}; docs/drop-reasons.md"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_a_flows_words() {
        assert_eq!(destination("tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80").as_deref(), Some("10.0.0.2:80"));
        assert_eq!(destination("udp6,ipv6_dst=fd00::1,tp_dst=53").as_deref(), Some("[fd00::1]:53"));
        assert_eq!(destination("icmp,nw_dst=10.0.0.2").as_deref(), Some("10.0.0.2"));
        assert_eq!(destination("arp"), None);
    }
}
