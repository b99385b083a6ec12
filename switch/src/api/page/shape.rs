//! What the page is told, as JSON: numbers raw, units in the keys.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A host, or whatever is behind a port.
    Host,
    /// A bridge.
    Switch,
    /// A bridge that routes.
    Router,
    /// Another machine, at the other end of a tunnel; or this one, behind a lab's uplink.
    Remote,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// Its addresses, with their prefix lengths where they are known.
    pub addresses: Vec<String>,
    /// Its MAC addresses.
    pub macs: Vec<String>,
}

/// What joins two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// A link with a host at an end.
    Host,
    /// A link of switches and routers.
    Trunk,
    /// A tunnel.
    Tunnel,
}

/// A link or a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Join,
    /// The nodes at its ends.
    pub ends: [String; 2],
    /// What a drawing says of it.
    pub label: String,
    /// The switch's port at each end; none where there is only a host's interface.
    pub ports: [Option<String>; 2],
}

/// Nodes, and what joins them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// What the page is called.
    pub title: String,
    /// The lab, for the commands that the page shows; none for a switch of its own.
    pub lab: Option<String>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The links.
    pub links: Vec<Edge>,
    /// Rules that have names.
    pub rules: Vec<RuleName>,
}

/// How a rule is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Its owner.
    pub owner: String,
    /// How its flow begins: `priority=100`.
    pub priority: String,
    /// Its name.
    pub name: String,
}

impl Drawing {
    /// The name of the rule of this owner that a drop tells of as `table=T,priority=P,MATCH`: several where they share a line of
    /// a file, none where it has no name.
    pub(super) fn rule_name(&self, owner: &str, rule: &str) -> String {
        let priority = rule.split(',').find(|part| part.starts_with("priority="));
        let is_it = |of: &&RuleName| of.owner == owner && priority.is_none_or(|priority| priority == of.priority);
        self.rules.iter().filter(is_it).map(|of| of.name.as_str()).collect::<Vec<_>>().join(" or ")
    }
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Traced {
    /// `delivered`, `dropped` or `elsewhere`.
    pub verdict: &'static str,
    /// All of it in one line.
    pub headline: String,
    /// The nodes that it comes to, in order.
    pub nodes: Vec<String>,
    /// Every step, as text.
    pub walk: String,
    /// The command that says the same.
    pub command: String,
}

/// What is to change of a link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The link.
    pub link: String,
    /// Whether it is up.
    #[serde(default)]
    pub up: Option<bool>,
    /// What happens to frames, both ways: `delay`, `loss` and the like by name.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

/// Everything at one time.
#[derive(Debug, Serialize)]
pub(super) struct View {
    /// Version of this shape.
    pub(super) v: u32,
    /// Milliseconds since 1970.
    pub(super) time_ms: u64,
    pub(super) title: String,
    pub(super) lab: Option<String>,
    /// Whether links may be changed from the page.
    pub(super) writes: bool,
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Line>,
    pub(super) talks: Vec<Talk>,
    pub(super) drops: Vec<DropRow>,
    pub(super) connections: Vec<ConnectionRow>,
    pub(super) groups: Vec<GroupRow>,
    pub(super) health: Health,
}

/// A link as it is.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    #[serde(flatten)]
    pub(super) edge: Edge,
    pub(super) up: bool,
    /// From the first end to the second, and back.
    pub(super) ways: [Way; 2],
    /// How long the other end of a tunnel took to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_us: Option<u64>,
}

/// One way of a link.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Way {
    /// What is set on it, as `sluice lab link show` writes it.
    pub(super) set: BTreeMap<String, String>,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Frames that a wire lost or had no room for.
    pub(super) lost_packets: u64,
    /// How long a frame that came now would take; 0 where nothing is set.
    pub(super) latency_ns: u64,
}

/// Who sends to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Talk {
    /// A node's name, or an address that no node has.
    pub(super) from: String,
    pub(super) to: String,
    /// `forward` or `drop`.
    pub(super) verdict: &'static str,
    pub(super) packets: u64,
    /// Owner of the rule that decided.
    pub(super) owner: String,
}

/// What was dropped for one reason, on one port, by one owner's rule.
#[derive(Debug, Serialize)]
pub(super) struct DropRow {
    pub(super) reason: String,
    pub(super) explanation: String,
    pub(super) hint: String,
    pub(super) bridge: String,
    pub(super) port: String,
    pub(super) owner: String,
    /// The name of the rule; empty for one without.
    pub(super) name: String,
    pub(super) rule: String,
    pub(super) packets: u64,
    pub(super) last_ms: Option<u64>,
    pub(super) last_packet: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ConnectionRow {
    pub(super) protocol: u32,
    pub(super) src: String,
    pub(super) src_port: u32,
    pub(super) dst: String,
    pub(super) dst_port: u32,
    /// Who answers, which differs from the destination where that was translated.
    pub(super) answers: String,
    pub(super) state: String,
    pub(super) zone: u32,
    pub(super) owner: String,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A group: what a Service is to a switch.
#[derive(Debug, Serialize)]
pub(super) struct GroupRow {
    pub(super) bridge: String,
    pub(super) id: u32,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) owner: String,
    pub(super) packets: u64,
    pub(super) buckets: Vec<BucketRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct BucketRow {
    pub(super) actions: String,
    pub(super) weight: u32,
    pub(super) packets: u64,
}

/// How the switch is.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) version: String,
    pub(super) uptime_ms: u64,
    pub(super) flows: u64,
    pub(super) fdb_entries: u64,
    pub(super) connections: u64,
    pub(super) max_connections: u64,
    pub(super) received_packets: u64,
    pub(super) forwarded_packets: u64,
    pub(super) dropped_packets: u64,
    pub(super) parts: Vec<Part>,
    pub(super) workers: Vec<Worker>,
}

#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) detail: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Worker {
    pub(super) packets: u64,
    pub(super) exact_hits: u64,
    pub(super) megaflow_hits: u64,
    pub(super) misses: u64,
    pub(super) busy_us: u64,
    pub(super) uptime_us: u64,
    pub(super) packet_ins_lost: u64,
}
