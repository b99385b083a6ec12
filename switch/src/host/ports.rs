//! Ports of the host that lead to stations: one nftables table for each gateway that has any.
//!
//! The host sends what comes for such a port to the gateway's incoming address, which is the switch's; all else is the
//! switch's. Which port goes where is in maps, so that a connection is found by one look however many ports there are, and a
//! port more is one element more. Two maps for each family: ports of one address of the host, and ports of all of them.
//!
//! # Rules
//! - Connections by `127.0.0.1` leave the host by the gateway, with its address as their source: that takes `route_localnet`
//!   there, and the table drops what comes in from there with an address of `127.0.0.0/8`.
//! - What comes from the gateway and goes back to it gets the gateway's address, so that its answers pass the host again;
//!   what the switch has translated already passes.
//! - Nobody reaches the incoming address from outside by itself, past what a port is restricted to.
//!
//! # Limits
//! The kernel sends nothing from `::1` or to link-local addresses any further: such connections are not redirected.

use super::HostError;
use super::nft::{PRIORITY, is_missing};
use nftables::helper::{self, DEFAULT_NFT, NftablesError};
use serde_json::{Map, Value, json};
use sluice_flows::field::{IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// The protocols that have ports, as nft writes them.
const PROTOCOLS: [(u8, &str); 3] = [(IP_PROTO_TCP, "tcp"), (IP_PROTO_UDP, "udp"), (IP_PROTO_SCTP, "sctp")];
/// How our tables' names begin; the interface follows.
pub(super) const TABLE: &str = "sluice-ports-";
/// The chain that both chains of connections that begin have in common.
const STEER: &str = "services";
/// Most ports that are named where a change is told.
const NAMED: usize = 3;

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Of the host's IPv6 addresses; of its IPv4 addresses if not.
    pub v6: bool,
    /// Of this address alone.
    pub address: Option<IpAddr>,
    /// TCP, UDP or SCTP, by its number in IP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = PROTOCOLS.iter().find(|(number, _)| *number == self.protocol).map_or("port", |(_, name)| name);
        match (self.address, self.v6) {
            (Some(IpAddr::V6(address)), _) => write!(f, "{protocol} [{address}]:{}", self.port),
            (Some(address), _) => write!(f, "{protocol} {address}:{}", self.port),
            (None, false) => write!(f, "{protocol} 0.0.0.0:{}", self.port),
            (None, true) => write!(f, "{protocol} [::]:{}", self.port),
        }
    }
}

/// The ports of the host that lead to a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPorts {
    /// The addresses that the host sends to, at most one of each family; both families' ports need theirs.
    pub incoming: Vec<IpAddr>,
    /// The addresses that stations behind the gateway are hidden behind already.
    pub hidden: Vec<IpAddr>,
    /// Each port, and the port of the incoming address that it leads to. Without any there is no table.
    pub ports: BTreeMap<HostPort, u16>,
}

/// What the kernel has of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no such table.
    #[default]
    Nothing,
    /// It is somebody else's.
    Foreign,
    /// Chains, maps or rules are not as they are to be.
    Differs,
    /// It has these elements, and all else is as it is to be.
    Has(BTreeMap<HostPort, u16>),
}

/// What is to be done about the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is written as a whole.
    Write,
    /// It is deleted.
    Delete,
    /// Elements go and come.
    Elements {
        /// Those to delete.
        delete: Vec<HostPort>,
        /// Those to add.
        add: Vec<(HostPort, u16)>,
    },
}

impl fmt::Display for Change {
    /// As what is missing; the table's name follows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, what: &str, ports: Vec<&HostPort>| {
            for (n, port) in ports.iter().take(NAMED).enumerate() {
                write!(f, "{}{port}", if n == 0 { what } else { ", " })?;
            }
            if ports.len() > NAMED { write!(f, " and {} more", ports.len() - NAMED) } else { Ok(()) }
        };
        match self {
            Self::Write => f.write_str("write"),
            Self::Delete => f.write_str("delete"),
            Self::Elements { delete, add } => {
                list(f, "delete host ports ", delete.iter().collect())?;
                let between = if delete.is_empty() { "add host ports " } else { ", add host ports " };
                list(f, between, add.iter().map(|(port, _)| port).collect())?;
                f.write_str(" in")
            }
        }
    }
}

/// The name of the table for the gateway on `link`.
pub(super) fn table_name(link: &str) -> String {
    format!("{TABLE}{}", super::nft::plain(link))
}

/// The setting that lets packets with addresses of the loopback leave by `link`, and their answers come in.
pub(super) fn route_localnet(link: &str) -> String {
    format!("net/ipv4/conf/{link}/route_localnet")
}

fn comment(link: &str) -> String {
    format!("sluiced: host ports {link}")
}

/// From what is there to what is to be.
pub(super) fn change(link: &str, desired: &HostPorts, found: &Found) -> Result<Option<Change>, HostError> {
    let wanted = !desired.ports.is_empty();
    Ok(match found {
        Found::Foreign if wanted => return Err(HostError::TableTaken { table: table_name(link) }),
        Found::Nothing | Found::Foreign if !wanted => None,
        Found::Nothing | Found::Foreign => Some(Change::Write),
        Found::Differs | Found::Has(_) if !wanted => Some(Change::Delete),
        Found::Differs => Some(Change::Write),
        Found::Has(there) => {
            let differs = |map: &BTreeMap<HostPort, u16>, port: &HostPort, to: &u16| map.get(port) != Some(to);
            let delete: Vec<_> =
                there.iter().filter(|(port, to)| differs(&desired.ports, port, to)).map(|(port, _)| *port).collect();
            let add: Vec<_> =
                desired.ports.iter().filter(|(port, to)| differs(there, port, to)).map(|(p, to)| (*p, *to)).collect();
            (!delete.is_empty() || !add.is_empty()).then_some(Change::Elements { delete, add })
        }
    })
}

/// Reads the table of the gateway on `link`. Where nothing is wanted, a host without `nft` has none.
///
/// # Errors
/// `nft` fails.
pub(super) fn find(link: &str, desired: &HostPorts) -> Result<Found, HostError> {
    let name = table_name(link);
    let listed = match helper::get_current_ruleset_raw(DEFAULT_NFT, ["list", "table", "inet", &name]) {
        Ok(listed) => listed,
        Err(error) if is_missing(&error) => return Ok(Found::Nothing),
        Err(NftablesError::NftExecution { .. }) if desired.ports.is_empty() => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
    let objects = listed.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(judge(link, desired, objects))
}

/// What a listed table is.
fn judge(link: &str, desired: &HostPorts, objects: &[Value]) -> Found {
    let ours = comment(link);
    let (mut skeleton, mut elements) = (Vec::new(), BTreeMap::new());
    for object in objects {
        let Some((kind, body)) = object.as_object().and_then(|o| o.iter().next()) else { continue };
        match kind.as_str() {
            "metainfo" | "table" => continue,
            "rule" if body.get("comment").and_then(Value::as_str) != Some(&ours) => return Found::Foreign,
            "rule" | "chain" | "map" => {}
            _ => return Found::Foreign,
        }
        let mut body = body.clone();
        if let Some(body) = body.as_object_mut() {
            body.remove("handle");
            name_protocols(body);
            let name = body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let elem = body.remove("elem");
            elements.extend(elem.iter().filter_map(Value::as_array).flatten().filter_map(|e| read_element(&name, e)));
        }
        skeleton.push(json!({ kind: body }));
    }
    // In order within a chain; the chains and maps come as the kernel has them.
    let sort = |mut objects: Vec<Value>| {
        objects.sort_by_key(|object| {
            let chain = object.pointer("/rule/chain").and_then(Value::as_str);
            chain.map_or_else(|| object.to_string(), |chain| format!("~{chain}"))
        });
        objects
    };
    if sort(skeleton) == sort(table(link, desired)) { Found::Has(elements) } else { Found::Differs }
}

/// Names the protocols of a rule that `nft` lists by their numbers, as it does where there is no `/etc/protocols`.
fn name_protocols(rule: &mut Map<String, Value>) {
    let expressions = rule.get_mut("expr").and_then(Value::as_array_mut).into_iter().flatten();
    let sets = expressions.filter_map(|expression| expression.pointer_mut("/match/right/set")?.as_array_mut());
    for member in sets.flatten() {
        let number = member.as_u64();
        if let Some((_, name)) = PROTOCOLS.iter().find(|(known, _)| number == Some(u64::from(*known))) {
            *member = json!(name);
        }
    }
}

/// Puts the change into force in one transaction.
///
/// # Errors
/// `nft` fails.
pub(super) fn take(link: &str, desired: &HostPorts, change: &Change) -> Result<(), HostError> {
    let name = table_name(link);
    let whole = || json!({"table": {"family": "inet", "name": name}});
    let mut commands = Vec::new();
    match change {
        Change::Write | Change::Delete => {
            // What is added first is there to be deleted, whether there was a table or not.
            commands.extend([json!({"add": whole()}), json!({"delete": whole()})]);
        }
        Change::Elements { delete, .. } => commands.extend(elements(&name, "delete", delete, |_| None)),
    }
    if *change == Change::Write {
        commands.push(json!({"add": whole()}));
        commands.extend(table(link, desired).into_iter().map(|object| json!({"add": object})));
        let all: Vec<_> = desired.ports.keys().copied().collect();
        commands.extend(elements(&name, "add", &all, |port| desired.ports.get(port).copied()));
    }
    if let Change::Elements { add, .. } = change {
        let to: BTreeMap<_, _> = add.iter().copied().collect();
        let ports: Vec<_> = to.keys().copied().collect();
        commands.extend(elements(&name, "add", &ports, |port| to.get(port).copied()));
    }
    let text = json!({"nftables": commands}).to_string();
    helper::apply_ruleset_raw(&text, DEFAULT_NFT, helper::DEFAULT_ARGS)?;
    Ok(())
}

fn map_name(port: &HostPort) -> &'static str {
    match (port.v6, port.address.is_some()) {
        (false, false) => "any4",
        (false, true) => "own4",
        (true, false) => "any6",
        (true, true) => "own6",
    }
}

/// Commands about elements, one for each map.
fn elements(table: &str, verb: &str, ports: &[HostPort], to: impl Fn(&HostPort) -> Option<u16>) -> Vec<Value> {
    let mut maps: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for port in ports {
        let protocol = PROTOCOLS.iter().find(|(number, _)| *number == port.protocol).map_or("tcp", |(_, name)| name);
        let mut key = vec![json!(protocol), json!(port.port)];
        if let Some(address) = port.address {
            key.insert(0, json!(address.to_string()));
        }
        // A value has to be there to be deleted too.
        let value = to(port).unwrap_or(port.port);
        maps.entry(map_name(port)).or_default().push(json!([{"concat": key}, value]));
    }
    let command = |(name, elem): (&str, Vec<Value>)| {
        let element = json!({"family": "inet", "table": table, "name": name, "elem": elem});
        json!({verb: {"element": element}})
    };
    maps.into_iter().map(command).collect()
}

fn read_element(map: &str, element: &Value) -> Option<(HostPort, u16)> {
    let to = u16::try_from(element.get(1)?.as_u64()?).ok()?;
    let mut key = element.get(0)?.get("concat")?.as_array()?.iter();
    let v6 = map.ends_with('6');
    let address = if map.starts_with("own") { Some(key.next()?.as_str()?.parse().ok()?) } else { None };
    let protocol = key.next()?;
    let named = |name: &str| PROTOCOLS.iter().find(|(_, known)| *known == name).map(|(number, _)| *number);
    let protocol = protocol.as_str().and_then(named).or_else(|| u8::try_from(protocol.as_u64()?).ok())?;
    let port = u16::try_from(key.next()?.as_u64()?).ok()?;
    Some((HostPort { v6, address, protocol, port }, to))
}

fn matches(left: Value, op: &str, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn prefix(address: &str, len: u8) -> Value {
    json!({"prefix": {"addr": address, "len": len}})
}

/// The table's maps, chains and rules as nft lists them, without elements.
fn table(link: &str, desired: &HostPorts) -> Vec<Value> {
    let name = table_name(link);
    let map = |map: &str, key: &[&str]| {
        let body = json!({"family": "inet", "name": map, "table": name, "type": key, "map": "inet_service"});
        json!({"map": body})
    };
    let mut out = vec![
        map("any4", &["inet_proto", "inet_service"]),
        map("own4", &["ipv4_addr", "inet_proto", "inet_service"]),
        map("any6", &["inet_proto", "inet_service"]),
        map("own6", &["ipv6_addr", "inet_proto", "inet_service"]),
        json!({"chain": {"family": "inet", "table": name, "name": STEER}}),
    ];
    for (chain, kind, hook, priority) in [
        ("guard", "filter", "prerouting", -300),
        ("prerouting", "nat", "prerouting", -100),
        ("output", "nat", "output", -100),
        ("postrouting", "nat", "postrouting", PRIORITY),
    ] {
        out.push(json!({"chain": {
            "family": "inet", "table": name, "name": chain, "type": kind, "hook": hook, "prio": priority,
            "policy": "accept",
        }}));
    }
    let comment = comment(link);
    let mut rule = |chain: &str, expr: Vec<Value>| {
        let rule = json!({"family": "inet", "table": name, "chain": chain, "comment": comment, "expr": expr});
        out.push(json!({ "rule": rule }));
    };
    for chain in ["prerouting", "output"] {
        rule(chain, vec![json!({"jump": {"target": STEER}})]);
    }
    for incoming in &desired.incoming {
        family(link, desired, *incoming, &mut rule);
    }
    out
}

/// The rules of one family.
fn family(link: &str, desired: &HostPorts, incoming: IpAddr, rule: &mut impl FnMut(&str, Vec<Value>)) {
    let v4 = incoming.is_ipv4();
    let (ip, nfproto, any, own) = if v4 { ("ip", "ipv4", "@any4", "@own4") } else { ("ip6", "ipv6", "@any6", "@own6") };
    let (source, target) = (|| field(ip, "saddr"), || field(ip, "daddr"));
    let from_link = || matches(meta("iifname"), "==", json!(link));
    let to_link = || matches(meta("oifname"), "==", json!(link));
    let to_incoming = || matches(target(), "==", json!(incoming.to_string()));
    let loopback = || prefix("127.0.0.0", 8);
    if v4 {
        rule("guard", vec![from_link(), matches(source(), "==", loopback()), json!({"drop": null})]);
        rule("guard", vec![from_link(), matches(target(), "==", loopback()), json!({"drop": null})]);
        rule("postrouting", vec![to_link(), matches(source(), "==", loopback()), json!({"masquerade": null})]);
    } else {
        let unroutable = json!({"set": ["::1", prefix("fe80::", 10)]});
        rule(STEER, vec![matches(target(), "==", unroutable), json!({"return": null})]);
    }
    rule("guard", vec![to_incoming(), json!({"drop": null})]);
    let mut back = vec![from_link(), to_link(), to_incoming()];
    let hidden = desired.hidden.iter().find(|hidden| hidden.is_ipv4() == v4);
    back.extend(hidden.map(|hidden| matches(source(), "!=", json!(hidden.to_string()))));
    back.push(json!({"masquerade": null}));
    rule("postrouting", back);
    let service = || vec![meta("l4proto"), field("th", "dport")];
    let mut redirect = |first: Value, key: Vec<Value>, map: &str| {
        let with_ports = matches(meta("l4proto"), "==", json!({"set": PROTOCOLS.map(|(_, name)| name)}));
        let port = json!({"map": {"key": {"concat": key}, "data": map}});
        let dnat = json!({"dnat": {"family": ip, "addr": incoming.to_string(), "port": port}});
        rule(STEER, vec![matches(meta("nfproto"), "==", json!(nfproto)), first, with_ports, dnat]);
    };
    let local = || matches(json!({"fib": {"result": "type", "flags": ["daddr"]}}), "==", json!("local"));
    redirect(local(), [vec![target()], service()].concat(), own);
    redirect(local(), service(), any);
}

#[cfg(test)]
mod tests;
