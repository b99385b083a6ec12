//! Hand-written cases: objects, changes, and a truth table after each change.
//!
//! A case is a YAML file with `title` and `steps`. The cluster it starts from is `world.yaml` beside it. A step may
//! have, done in this order:
//!
//! - `apply`: objects that are made or replaced;
//! - `delete`: objects that go, each as `KIND NAME` or `KIND NAMESPACE/NAME`;
//! - `label`: by `Pod x/a`, `Namespace x` or `Node node-1`, labels that are set, or taken away by `null`;
//! - `expect`: the truth table, as lines that are read from the first to the last. The table begins with everything
//!   allowed, and a later line overrules an earlier one:
//!
//! ```text
//! deny  * -> x/*
//! allow y/a, y/b -> x/a, */c on TCP/80 UDP 81 ipv4
//! ```
//!
//! An end is `NAMESPACE/POD`, each of which may be `*`; `*` alone (all Pods); `@NODE` or `@*` (a node's host); or an
//! address (something outside). After `on` stand families, protocols, protocols with a port, and ports of all
//! protocols; what is not said is all. A Pod always reaches itself, whatever the lines say. The table has all Pods, both
//! families, TCP, UDP and SCTP, and the ports 80 and 81; hosts and addresses are in it where a line names them.
//!
//! In the file `${x/a ipv4}`, `${node-1 ipv6}` and so on stand for addresses of the cluster that the case is read for.

use super::objects::Object;
use super::verdict::Protocol;
use super::world::{End, World};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The ports of a truth table.
const PORTS: [u16; 2] = [80, 81];

/// Which object: kind, namespace (empty for objects of the whole cluster) and name.
pub type Key = (String, String, String);

/// Labels that are set, or taken away.
pub type LabelChanges = BTreeMap<String, Option<String>>;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub title: String,
    /// In order.
    pub steps: Vec<Step>,
}

/// A change, and the truth table after it.
#[derive(Clone, Debug)]
pub struct Step {
    /// Objects that are made or replaced.
    pub apply: Vec<Object>,
    /// Objects that go.
    pub delete: Vec<Key>,
    /// Objects whose labels change.
    pub label: Vec<(Key, LabelChanges)>,
    /// Lines of the truth table.
    pub expect: Vec<Pattern>,
}

/// A line of a truth table.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it was written.
    pub text: String,
    allow: bool,
    from: Vec<String>,
    to: Vec<String>,
    families: Vec<String>,
    ports: Vec<(Option<Protocol>, Option<u16>)>,
}

/// A cell of a truth table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Where the connection comes from.
    pub from: End,
    /// Where it goes.
    pub to: End,
    /// Of what protocol.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
    /// Whether it is to come through.
    pub allowed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseText {
    title: String,
    steps: Vec<StepText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepText {
    #[serde(default)]
    apply: Vec<Value>,
    #[serde(default)]
    delete: Vec<String>,
    #[serde(default)]
    label: BTreeMap<String, LabelChanges>,
    expect: Vec<String>,
}

impl Case {
    /// Reads a case's file for a cluster.
    ///
    /// # Errors
    ///
    /// What cannot be read, or an address that the cluster does not have.
    pub fn read(text: &str, world: &World) -> Result<Self, String> {
        let text = with_addresses(text, world)?;
        let value: Value = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
        let case: CaseText = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let steps = case.steps.into_iter().map(read_step).collect::<Result<_, _>>()?;
        Ok(Self { title: case.title, steps })
    }
}

fn read_step(step: StepText) -> Result<Step, String> {
    let mut label = Vec::new();
    for (object, labels) in step.label {
        label.push((read_key(&object)?, labels));
    }
    Ok(Step {
        apply: step.apply.into_iter().map(Object::read).collect::<Result<_, _>>()?,
        delete: step.delete.iter().map(|text| read_key(text)).collect::<Result<_, _>>()?,
        label,
        expect: step.expect.iter().map(|text| Pattern::read(text)).collect::<Result<_, _>>()?,
    })
}

fn read_key(text: &str) -> Result<Key, String> {
    let (kind, name) = text.split_once(' ').ok_or_else(|| format!("{text}: not KIND NAME"))?;
    let (namespace, name) = name.split_once('/').unwrap_or(("", name));
    Ok((kind.to_owned(), namespace.to_owned(), name.to_owned()))
}

/// Puts addresses where the text asks for them.
fn with_addresses(text: &str, world: &World) -> Result<String, String> {
    let mut parts = text.split("${");
    let mut written = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (asked, rest) = part.split_once('}').ok_or("a ${ without its }")?;
        let (name, family) = asked.split_once(' ').ok_or_else(|| format!("{asked}: not NAME FAMILY"))?;
        let ends = if name.contains('/') { world.pod_ends() } else { world.host_ends() };
        let name = if name.contains('/') { name.to_owned() } else { format!("@{name}") };
        let is = |end: &&End| matches(&name, end) && is_of(family, end.address());
        let end = ends.iter().find(is).ok_or_else(|| format!("{asked}: no such address"))?;
        written.push_str(&end.address().to_string());
        written.push_str(rest);
    }
    Ok(written)
}

fn is_of(family: &str, address: IpAddr) -> bool {
    family == if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Whether a word for an end means this one.
fn matches(word: &str, end: &End) -> bool {
    let same = |word: &str, name: &str| word == "*" || word == name;
    match (end, word.split_once('/')) {
        (End::Pod { namespace, name, .. }, Some((in_namespace, pod))) => {
            same(in_namespace, namespace) && same(pod, name)
        }
        (End::Pod { .. }, None) => word == "*",
        (End::Host { node, .. }, _) => word.strip_prefix('@').is_some_and(|word| same(word, node)),
        (End::Address(address), _) => word.parse() == Ok(*address),
    }
}

impl Pattern {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text}: {what}");
        let (action, rest) = text.split_once(' ').ok_or_else(|| wrong("not ACTION FROM -> TO"))?;
        let allow = match action {
            "allow" => true,
            "deny" => false,
            _ => return Err(wrong("neither allow nor deny")),
        };
        let (ends, words) = rest.split_once(" on ").unwrap_or((rest, ""));
        let (from, to) = ends.split_once("->").ok_or_else(|| wrong("no ->"))?;
        let ends = |text: &str| text.split(',').map(|word| word.trim().to_owned()).collect();
        let mut pattern = Self {
            text: text.to_owned(),
            allow,
            from: ends(from),
            to: ends(to),
            families: Vec::new(),
            ports: Vec::new(),
        };
        for word in words.split_whitespace() {
            let (protocol, port) = word.split_once('/').unwrap_or((word, ""));
            match (Protocol::named(protocol), word.parse()) {
                (Some(protocol), _) if port.is_empty() => pattern.ports.push((Some(protocol), None)),
                (Some(protocol), _) => {
                    let port = port.parse().map_err(|_| wrong("not a port"))?;
                    pattern.ports.push((Some(protocol), Some(port)));
                }
                (None, Ok(port)) => pattern.ports.push((None, Some(port))),
                (None, Err(_)) if ["ipv4", "ipv6"].contains(&word) => pattern.families.push(word.to_owned()),
                (None, Err(_)) => return Err(wrong("a word after `on` that is none")),
            }
        }
        Ok(pattern)
    }

    fn is_about(&self, cell: &Cell) -> bool {
        let by_port = |(protocol, port): &(Option<Protocol>, Option<u16>)| {
            protocol.is_none_or(|protocol| protocol == cell.protocol) && port.is_none_or(|port| port == cell.port)
        };
        self.from.iter().any(|word| matches(word, &cell.from))
            && self.to.iter().any(|word| matches(word, &cell.to))
            && (self.families.is_empty() || self.families.iter().any(|family| is_of(family, cell.to.address())))
            && (self.ports.is_empty() || self.ports.iter().any(by_port))
    }
}

impl Step {
    /// Does what the step does to a cluster.
    ///
    /// # Errors
    ///
    /// An object that is to go or to be labelled and is not there.
    pub fn change(&self, world: &mut World) -> Result<(), String> {
        for object in &self.apply {
            world.apply(object.clone());
        }
        for (kind, namespace, name) in &self.delete {
            if !world.delete(kind, namespace, name) {
                return Err(format!("delete {kind} {namespace}/{name}: there is none"));
            }
        }
        for ((kind, namespace, name), changes) in &self.label {
            let object = world.object_mut(kind, namespace, name);
            let object = object.ok_or_else(|| format!("label {kind} {namespace}/{name}: there is none"))?;
            let labels = object.metadata_mut().labels.get_or_insert_default();
            for (key, value) in changes {
                match value {
                    Some(value) => labels.insert(key.clone(), value.clone()),
                    None => labels.remove(key),
                };
            }
        }
        Ok(())
    }

    /// The truth table in a cluster.
    pub fn cells(&self, world: &World) -> Vec<Cell> {
        let ends = self.ends(world);
        let mut cells = Vec::new();
        for from in &ends {
            for to in ends.iter().filter(|to| is_asked(from, to)) {
                for protocol in Protocol::ALL {
                    for port in PORTS {
                        let (from, to) = (from.clone(), to.clone());
                        let mut cell = Cell { from, to, protocol, port, allowed: true };
                        if let Some(last) = self.expect.iter().rev().find(|pattern| pattern.is_about(&cell)) {
                            cell.allowed = last.allow || cell.from == cell.to;
                        }
                        cells.push(cell);
                    }
                }
            }
        }
        cells
    }

    /// The step with a line that says nothing in the place of one, so that the table has the same cells.
    #[must_use]
    pub fn without_line(&self, index: usize) -> Self {
        let mut step = self.clone();
        step.expect[index].ports = vec![(None, Some(0))];
        step
    }

    /// Pods, and the hosts and addresses that a line names.
    fn ends(&self, world: &World) -> BTreeSet<End> {
        let words: Vec<&String> = self.expect.iter().flat_map(|line| line.from.iter().chain(&line.to)).collect();
        let mut ends: BTreeSet<End> = world.pod_ends().into_iter().collect();
        let hosts = world.host_ends().into_iter();
        ends.extend(hosts.filter(|end| words.iter().any(|word| matches(word, end))));
        ends.extend(words.iter().filter_map(|word| word.parse().ok()).map(End::Address));
        ends
    }
}

/// Whether a packet can go between two ends, and policy has a say.
fn is_asked(from: &End, to: &End) -> bool {
    let is_pod = |end: &End| matches!(end, End::Pod { .. });
    from.address().is_ipv4() == to.address().is_ipv4() && (is_pod(from) || is_pod(to))
}

impl World {
    /// The end of a Pod by a family (`ipv4` or `ipv6`).
    pub fn pod_end(&self, namespace: &str, name: &str, family: &str) -> Option<End> {
        let is = |end: &End| {
            let End::Pod { namespace: in_namespace, name: named, address } = end else { return false };
            (in_namespace.as_str(), named.as_str()) == (namespace, name) && is_of(family, *address)
        };
        self.pod_ends().into_iter().find(is)
    }
}
