//! What a topology file says, before anything is decided: known keys, sound values, and the line of each.

use super::Problem;
use super::resolved::Mac;
use super::yaml::{Node, Value};
use ipnet::{Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::net::IpAddr;

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
    pub(super) switches: Option<Vec<RawSwitch>>,
    pub(super) hosts: Option<Vec<RawHost>>,
    pub(super) links: Vec<RawLink>,
}

/// An entry of `switches`.
#[derive(Clone, Debug)]
pub(super) struct RawSwitch {
    pub(super) name: Spot<String>,
    pub(super) rules: Vec<RawRule>,
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
}

/// An entry of `links`.
#[derive(Clone, Debug)]
pub(super) struct RawLink {
    pub(super) line: usize,
    pub(super) name: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) ends: [RawEnd; 2],
}

/// One end of a link: `h1`, `h1:eth1` or `s1:3`.
#[derive(Clone, Debug)]
pub(super) struct RawEnd {
    pub(super) line: usize,
    pub(super) node: String,
    pub(super) pin: Option<String>,
}

/// Keys that the format knows and this version does not carry out: the key, the one value that changes nothing (if
/// there is one), and what is so instead.
type Later = &'static [(&'static str, Option<&'static str>, &'static str)];

const TOP_LATER: Later = &[
    ("vlans", None, "all ports of a switch are in one network"),
    ("routers", None, "a lab is one network; give hosts addresses of one subnet"),
    ("tunnels", None, "join switches by links"),
    ("uplink", None, "a lab is not connected to the machine's network"),
    ("tests", None, "use `sluice lab ping` and `sluice lab exec`"),
];
const DEFAULTS_LATER: Later = &[("link", None, "links are not impaired")];
const SWITCH_LATER: Later = &[
    ("mirror", None, "capture in a host with `sluice lab exec`"),
    ("stp", Some("false"), "links between switches must not form a loop"),
];
const HOST_LATER: Later = &[
    ("dhcp", Some("false"), "leave it out and the host gets the next free address of the subnet"),
    ("run", None, "start commands with `sluice lab exec`"),
];
const LINK_LATER: Later = &[
    ("trunk", None, "all ports of a switch are in one network"),
    ("native", None, "all ports of a switch are in one network"),
    ("access", None, "all ports of a switch are in one network"),
    ("delay", None, "links are not impaired"),
    ("jitter", None, "links are not impaired"),
    ("loss", None, "links are not impaired"),
    ("rate", None, "links are not impaired"),
    ("queue", None, "links are not impaired"),
    ("corrupt", None, "links are not impaired"),
    ("duplicate", None, "links are not impaired"),
    ("reorder", None, "links are not impaired"),
    ("down", Some("false"), "links are up"),
    ("ips", None, "links between switches carry frames, not addresses"),
    ("back", None, "links are not impaired"),
];

/// Whether the file calls itself a lab.
pub(super) fn has_lab_key(root: &Node) -> bool {
    matches!(&root.value, Value::Map(entries) if entries.iter().any(|(key, _)| key.text == "lab"))
}

/// Reads the whole file.
pub(super) fn read(root: &Node, problems: &mut Vec<Problem>) -> Raw {
    let known = ["lab", "seed", "defaults", "switches", "hosts", "links"];
    let fields = Fields::of(root, "the topology", &known, TOP_LATER, problems);
    let mut raw = Raw::default();
    match fields.get("lab") {
        Some(node) => raw.name = name(node, "the lab", problems).unwrap_or_default(),
        None => problems.push(Problem::new(root.line, "the key `lab:` is missing; it names the lab")),
    }
    raw.seed = fields.number("seed", 0..=u64::MAX, problems);
    if let Some(node) = fields.get("defaults") {
        let defaults = Fields::of(node, "defaults", &["mtu", "subnet", "subnet6"], DEFAULTS_LATER, problems);
        raw.mtu = mtu(&defaults, problems);
        raw.subnet = subnet(&defaults, "subnet", "10.0.0.0/24", Ipv4Net::trunc, problems);
        raw.subnet6 = subnet(&defaults, "subnet6", "fd00::/64", Ipv6Net::trunc, problems);
    }
    raw.switches = fields.get("switches").map(|node| nodes(node, "switches", problems, switch));
    raw.hosts = fields.get("hosts").map(|node| nodes(node, "hosts", problems, host));
    match fields.get("links") {
        Some(Node { value: Value::List(items), .. }) => {
            raw.links = items.iter().filter_map(|item| link(item, problems)).collect();
        }
        Some(node) => problems.push(Problem::new(node.line, format!("links: expected a list, found {}", node.kind()))),
        None => problems.push(Problem::new(root.line, "the key `links:` is missing; it lists pairs of names")),
    }
    raw
}

/// The entries of a mapping that are known and not null.
struct Fields<'a> {
    entries: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Fields<'a> {
    fn of(node: &'a Node, what: &str, known: &[&str], later: Later, problems: &mut Vec<Problem>) -> Self {
        let mut entries = BTreeMap::new();
        let map = match &node.value {
            Value::Map(map) => map.as_slice(),
            _ if node.is_null() => &[],
            _ => {
                let message = format!("{what}: expected a mapping of {}, found {}", known.join(", "), node.kind());
                problems.push(Problem::new(node.line, message));
                &[]
            }
        };
        for (key, value) in map {
            let text = key.text.as_str();
            if known.contains(&text) {
                if !value.is_null() {
                    entries.insert(text, value);
                }
            } else if let Some((_, harmless, instead)) = later.iter().find(|(name, ..)| *name == text) {
                let same = matches!(&value.value, Value::Scalar { text, .. } if Some(text.as_str()) == *harmless);
                if !same && !value.is_null() {
                    let message = format!("{text}: not supported yet by this version; {instead}");
                    problems.push(Problem::new(key.line, message));
                }
            } else {
                let all = known.iter().copied().chain(later.iter().map(|(name, ..)| *name));
                let message = format!("unknown key `{text}` in {what}{}", nearest(text, all));
                problems.push(Problem::new(key.line, message));
            }
        }
        Self { entries }
    }

    fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.get(key).copied()
    }

    fn text(&self, key: &str, problems: &mut Vec<Problem>) -> Option<Spot<String>> {
        let node = self.get(key)?;
        let found = scalar(node);
        if found.is_none() {
            problems.push(Problem::new(node.line, format!("{key}: expected a single value, found {}", node.kind())));
        }
        found.map(|text| Spot { line: node.line, value: text.to_owned() })
    }

    fn number(&self, key: &str, range: std::ops::RangeInclusive<u64>, problems: &mut Vec<Problem>) -> Option<u64> {
        let text = self.text(key, problems)?;
        let number = text.value.parse().ok().filter(|n| range.contains(n));
        if number.is_none() {
            let message = match *range.end() {
                u64::MAX => format!("{key}: `{}` is not a number from {} up", text.value, range.start()),
                end => format!("{key}: `{}` is not a number from {} to {end}", text.value, range.start()),
            };
            problems.push(Problem::new(text.line, message));
        }
        number
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some(text),
        _ => None,
    }
}

/// `; did you mean ...?`, or the list of what there is when nothing is near.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let best = known.iter().map(|k| (strsim::osa_distance(word, k), k)).min_by_key(|(distance, _)| *distance);
    match best {
        Some((distance, name)) if distance <= 1 + word.chars().count() / 4 => format!("; did you mean `{name}`?"),
        _ if known.is_empty() => String::new(),
        _ => format!("; known: {}", known.join(", ")),
    }
}

/// Whether a name keeps to `[a-z][a-z0-9-]{0,19}`.
pub(crate) fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    text.len() <= 20
        && chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// What [`is_name`] asks for, for a person.
pub(crate) const NAME_RULE: &str = "a name is a lower-case letter, then up to 19 of a-z, 0-9 and -";

fn check_name(text: &str, line: usize, what: &str, problems: &mut Vec<Problem>) -> bool {
    let problem = if text == "all" {
        format!("{what} cannot be named `all`: that word means every host")
    } else if !is_name(text) {
        format!("`{text}` cannot name {what}: {NAME_RULE}")
    } else {
        return true;
    };
    problems.push(Problem::new(line, problem));
    false
}

fn name(node: &Node, what: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let Some(text) = scalar(node) else {
        problems.push(Problem::new(node.line, format!("{what}: expected a name, found {}", node.kind())));
        return None;
    };
    check_name(text, node.line, what, problems).then(|| text.to_owned())
}

fn mtu(fields: &Fields<'_>, problems: &mut Vec<Problem>) -> Option<u32> {
    // 68 is IPv4's least (RFC 791), 65,521 what a TAP device takes.
    fields.number("mtu", 68..=65_521, problems).and_then(|mtu| u32::try_from(mtu).ok())
}

fn subnet<N: std::str::FromStr + PartialEq + std::fmt::Display>(
    fields: &Fields<'_>,
    key: &str,
    example: &str,
    trunc: fn(&N) -> N,
    problems: &mut Vec<Problem>,
) -> Option<Spot<N>> {
    let text = fields.text(key, problems)?;
    let message = match text.value.parse::<N>() {
        Ok(net) if trunc(&net) == net => return Some(Spot { line: text.line, value: net }),
        Ok(net) => format!("{key}: `{}` has bits behind its prefix; did you mean `{}`?", text.value, trunc(&net)),
        Err(_) => format!("{key}: `{}` is not a subnet like {example}", text.value),
    };
    problems.push(Problem::new(text.line, message));
    None
}

/// Reads a section that maps names to nodes.
fn nodes<T>(
    node: &Node,
    section: &str,
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
        if check_name(&key.text, key.line, "a node", problems) {
            let name = Spot { line: key.line, value: key.text.clone() };
            found.push(read(name, value, problems));
        }
    }
    found
}

fn switch(name: Spot<String>, node: &Node, problems: &mut Vec<Problem>) -> RawSwitch {
    let fields = Fields::of(node, "a switch", &["rules"], SWITCH_LATER, problems);
    let rules = match fields.get("rules") {
        Some(Node { value: Value::List(items), .. }) => items.iter().filter_map(|item| rule(item, problems)).collect(),
        Some(node) => {
            problems.push(Problem::new(node.line, format!("rules: expected a list, found {}", node.kind())));
            Vec::new()
        }
        None => Vec::new(),
    };
    RawSwitch { name, rules }
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
    let fields = Fields::of(node, "a host", &["ip", "mac", "env"], HOST_LATER, problems);
    let items = match fields.get("ip") {
        Some(Node { value: Value::List(items), .. }) => items.iter().collect(),
        Some(node) => vec![node],
        None => Vec::new(),
    };
    let addresses = items.into_iter().filter_map(|item| address(item, problems)).collect();
    let mac = fields.text("mac", problems).and_then(|text| {
        let mac = Mac::parse(&text.value).filter(|mac| mac.is_unicast());
        if mac.is_none() {
            let message = format!("mac: `{}` is not a unicast MAC address like \"02:00:00:00:00:0b\"", text.value);
            problems.push(Problem::new(text.line, message));
        }
        mac.map(|value| Spot { line: text.line, value })
    });
    RawHost { name, addresses, mac, env: env(&fields, problems) }
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

fn link(node: &Node, problems: &mut Vec<Problem>) -> Option<RawLink> {
    if let Value::List(items) = &node.value {
        return Some(RawLink { line: node.line, name: None, mtu: None, ends: ends(node.line, items, problems)? });
    }
    let fields = Fields::of(node, "a link", &["ends", "name", "mtu"], LINK_LATER, problems);
    let name = fields.get("name").and_then(|n| name(n, "a link", problems));
    let mtu = mtu(&fields, problems);
    match fields.get("ends") {
        Some(Node { value: Value::List(items), line }) => {
            Some(RawLink { line: node.line, name, mtu, ends: ends(*line, items, problems)? })
        }
        _ if !matches!(node.value, Value::Map(_)) => None,
        _ => {
            problems.push(Problem::new(node.line, "a link needs its two ends: `[h1, s1]` or `{ends: [h1, s1]}`"));
            None
        }
    }
}

fn ends(line: usize, items: &[Node], problems: &mut Vec<Problem>) -> Option<[RawEnd; 2]> {
    let [first, second] = items else {
        problems.push(Problem::new(line, format!("a link joins two ends, this one has {}", items.len())));
        return None;
    };
    let (first, second) = (end(first, problems), end(second, problems));
    Some([first?, second?])
}

fn end(node: &Node, problems: &mut Vec<Problem>) -> Option<RawEnd> {
    let Some(text) = scalar(node) else {
        let message = format!("an end of a link is `h1`, `h1:eth1` or `s1:3`, found {}", node.kind());
        problems.push(Problem::new(node.line, message));
        return None;
    };
    let (node_name, pin) = match text.split_once(':') {
        Some((name, pin)) => (name, Some(pin.to_owned())),
        None => (text, None),
    };
    let sound = check_name(node_name, node.line, "a node", problems);
    sound.then(|| RawEnd { line: node.line, node: node_name.to_owned(), pin })
}
