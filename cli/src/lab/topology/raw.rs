//! What a topology file says, before anything is decided: known keys, sound values, and the line of each.

mod dhcp;
mod link;
mod network;
mod test;
mod uplink;
mod value;

use super::Problem;
use super::resolved::Mac;
use super::yaml::{Node, Value};
pub(super) use dhcp::{LEASE, show_lease};
use ipnet::{Ipv4Net, Ipv6Net};
use link::Ways;
pub(super) use link::{RawEnd, RawLink};
pub(super) use network::{RawRoute, RawRouter, RawTunnel, RawVlan};
use std::collections::BTreeMap;
use std::net::IpAddr;
pub(super) use test::{RawTarget, RawTest};
pub(super) use uplink::{RawOutside, RawUplink};
pub(crate) use value::nearest;
use value::{Fields, Later, check_name, mtu, name, one_or_more, scalar, subnet};
pub(crate) use value::{NAME_RULE, closest, is_name};

/// A value and the line it is on.
#[derive(Clone, Debug)]
pub(super) struct Spot<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// The file.
#[derive(Clone, Debug, Default)]
pub(super) struct Raw {
    pub(super) name: String,
    pub(super) seed: Option<u64>,
    pub(super) mtu: Option<u32>,
    pub(super) subnet: Option<Spot<Ipv4Net>>,
    pub(super) subnet6: Option<Spot<Ipv6Net>>,
    pub(super) vlans: Vec<RawVlan>,
    pub(super) switches: Option<Vec<RawSwitch>>,
    pub(super) routers: Option<Vec<RawRouter>>,
    pub(super) hosts: Option<Vec<RawHost>>,
    pub(super) links: Vec<RawLink>,
    pub(super) tunnels: Vec<RawTunnel>,
    pub(super) uplink: Option<RawUplink>,
    pub(super) tests: Vec<RawTest>,
}

/// An entry of `switches`.
#[derive(Clone, Debug)]
pub(super) struct RawSwitch {
    pub(super) name: Spot<String>,
    pub(super) rules: Vec<RawRule>,
    pub(super) groups: Option<Spot<String>>,
    pub(super) flows: Option<Spot<String>>,
    pub(super) mirror: Option<Spot<String>>,
}

/// An entry of a switch's `rules`.
#[derive(Clone, Debug)]
pub(super) struct RawRule {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) matches: String,
    pub(super) action: String,
    pub(super) priority: u16,
}

/// An entry of `hosts`.
#[derive(Clone, Debug)]
pub(super) struct RawHost {
    pub(super) name: Spot<String>,
    pub(super) addresses: Vec<Spot<(IpAddr, Option<u8>)>>,
    pub(super) mac: Option<Spot<Mac>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) run: Option<String>,
    /// The line that says so.
    pub(super) dhcp: Option<usize>,
}

const SWITCH_LATER: Later = &[("stp", "false", "links between switches must not form a loop")];
/// Whether the file calls itself a lab.
pub(super) fn has_lab_key(root: &Node) -> bool {
    matches!(&root.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "lab"))
}

/// Reads the whole file.
pub(super) fn read(root: &Node, problems: &mut Vec<Problem>) -> Raw {
    let known =
        ["lab", "seed", "defaults", "vlans", "switches", "routers", "hosts", "links", "tunnels", "uplink", "tests"];
    let fields = Fields::of(root, "the topology", &known, &[], problems);
    let (mut raw, mut usual) = (Raw::default(), Ways::default());
    match fields.get("lab") {
        Some(node) => raw.name = name(node, "the lab", problems).unwrap_or_default(),
        None => problems.push(Problem::new(root.line, "the key `lab:` is missing; it names the lab")),
    }
    raw.seed = fields.number("seed", 0..=u64::MAX, problems);
    if let Some(node) = fields.get("defaults") {
        let defaults = Fields::of(node, "defaults", &["mtu", "subnet", "subnet6", "link"], &[], problems);
        raw.mtu = mtu(&defaults, problems);
        raw.subnet = subnet(&defaults, "subnet", "10.0.0.0/24", Ipv4Net::trunc, problems);
        raw.subnet6 = subnet(&defaults, "subnet6", "fd00::/64", Ipv6Net::trunc, problems);
        usual = defaults.get("link").map_or(usual, |node| link::usual(node, problems));
    }
    if let Some(node) = fields.get("vlans") {
        raw.vlans = nodes(node, "vlans", "a VLAN", problems, network::vlan);
    }
    raw.switches = fields.get("switches").map(|node| nodes(node, "switches", "a node", problems, switch));
    raw.routers = fields.get("routers").map(|node| nodes(node, "routers", "a node", problems, network::router));
    raw.hosts = fields.get("hosts").map(|node| nodes(node, "hosts", "a node", problems, host));
    match fields.get("links") {
        Some(Node { value: Value::List(items), .. }) => {
            raw.links = items.iter().filter_map(|item| link::link(item, usual, problems)).collect();
        }
        Some(node) => problems.push(Problem::new(node.line, format!("links: expected a list, found {}", node.kind()))),
        None => problems.push(Problem::new(root.line, "the key `links:` is missing; it lists pairs of names")),
    }
    raw.tunnels = fields.list("tunnels", problems, network::tunnel);
    raw.uplink = fields.get("uplink").and_then(|node| uplink::uplink(node, problems));
    raw.tests = fields.list("tests", problems, test::test);
    raw
}

/// Reads a section that maps names to nodes.
fn nodes<T>(
    node: &Node,
    section: &str,
    what: &str,
    problems: &mut Vec<Problem>,
    read: fn(Spot<String>, &Node, &mut Vec<Problem>) -> T,
) -> Vec<T> {
    let Value::Map(entries) = &node.value else {
        let message = format!("{section}: expected a mapping like {{x1: {{}}}}, found {}", node.kind());
        problems.push(Problem::new(node.line, message));
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in entries {
        if check_name(&key.text, key.line, what, problems) {
            let name = Spot { line: key.line, value: key.text.clone() };
            found.push(read(name, value, problems));
        }
    }
    found
}

fn switch(name: Spot<String>, node: &Node, problems: &mut Vec<Problem>) -> RawSwitch {
    let fields = Fields::of(node, "a switch", &["rules", "groups", "flows", "mirror"], SWITCH_LATER, problems);
    let rules = fields.list("rules", problems, rule);
    let [groups, flows] = ["groups", "flows"].map(|key| fields.text(key, problems));
    let mirror = fields.name("mirror", "a node", problems);
    RawSwitch { name, rules, groups, flows, mirror }
}

fn rule(node: &Node, problems: &mut Vec<Problem>) -> Option<RawRule> {
    let fields = Fields::of(node, "a rule", &["name", "match", "action", "priority"], &[], problems);
    let name = fields.get("name").and_then(|n| name(n, "a rule", problems));
    let matches = fields.text("match", problems).map(|m| m.value).unwrap_or_default();
    let action = fields.text("action", problems).map(|a| a.value);
    let priority = fields.number("priority", 0..=65_535, problems).and_then(|p| u16::try_from(p).ok());
    for key in ["name", "action"] {
        if fields.get(key).is_none() {
            problems.push(Problem::new(node.line, format!("a rule needs `{key}:`")));
        }
    }
    Some(RawRule { line: node.line, name: name?, matches, action: action?, priority: priority.unwrap_or(100) })
}

fn host(name: Spot<String>, node: &Node, problems: &mut Vec<Problem>) -> RawHost {
    let fields = Fields::of(node, "a host", &["ip", "mac", "env", "run", "dhcp"], &[], problems);
    let items = fields.get("ip").map(one_or_more).unwrap_or_default();
    let addresses = items.into_iter().filter_map(|item| address(item, problems)).collect();
    let mac = fields.text("mac", problems).and_then(|text| {
        let mac = Mac::parse(&text.value).filter(|mac| mac.is_unicast());
        if mac.is_none() {
            let message = format!("mac: `{}` is not a unicast MAC address like \"02:00:00:00:00:0b\"", text.value);
            problems.push(Problem::new(text.line, message));
        }
        mac.map(|value| Spot { line: text.line, value })
    });
    let run = fields.text("run", problems).and_then(|text| {
        let sound = !text.value.trim().is_empty() && !text.value.contains('\0');
        if !sound {
            problems.push(Problem::new(text.line, "run: expected a command of a shell, found nothing"));
        }
        sound.then_some(text.value)
    });
    let dhcp = dhcp::wanted(&fields, "true or false", problems);
    RawHost { name, addresses, mac, env: env(&fields, problems), run, dhcp }
}

fn address(node: &Node, problems: &mut Vec<Problem>) -> Option<Spot<(IpAddr, Option<u8>)>> {
    let parsed = scalar(node).and_then(|text| match text.split_once('/') {
        None => text.parse().ok().map(|ip| (ip, None)),
        Some((ip, prefix)) => {
            let (ip, prefix): (IpAddr, u8) = (ip.parse().ok()?, prefix.parse().ok()?);
            (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, Some(prefix)))
        }
    });
    match (parsed, scalar(node)) {
        (Some(value), _) => return Some(Spot { line: node.line, value }),
        (None, Some(text)) => {
            let message = format!("ip: `{text}` is not an address like 10.0.0.11 or 10.9.0.1/16");
            problems.push(Problem::new(node.line, message));
        }
        (None, None) => {
            problems.push(Problem::new(node.line, format!("ip: expected an address, found {}", node.kind())))
        }
    }
    None
}

fn env(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> BTreeMap<String, String> {
    let Some(node) = fields.get("env") else { return BTreeMap::new() };
    let Value::Map(entries) = &node.value else {
        problems.push(Problem::new(node.line, format!("env: expected a mapping like {{K: v}}, found {}", node.kind())));
        return BTreeMap::new();
    };
    let mut env = BTreeMap::new();
    for (key, value) in entries {
        match scalar(value).or_else(|| value.is_null().then_some("")) {
            Some(text) if !key.text.is_empty() && !key.text.contains(['=', '\0']) && !text.contains('\0') => {
                env.insert(key.text.clone(), text.to_owned());
            }
            _ => {
                problems.push(Problem::new(key.line, format!("env: `{}` is not a name with a single value", key.text)))
            }
        }
    }
    env
}
