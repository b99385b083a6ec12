//! Traces between two hosts of a running lab, or from one to an address beyond its uplink: the lab's state knows their addresses
//! and ports.
//!
//! A patch is crossed in translation. Where the packet leaves by a wire, or by a tunnel whose other end is in the lab too,
//! the trace goes on at the other end ([`path`]). The tests of a lab ask the same ([`decide`]).

mod outside;
mod path;

use super::{Trace, show};
use crate::client::Client;
use crate::failure::Failure;
use crate::lab::{self, RouterInterface, State};
use crate::output::{Exit, Format, Output};
use ipnet::IpNet;
use path::Path;
use sluice_flows::explain::Options;
use sluice_switch::api::page::Traced;
use std::net::IpAddr;

/// Source port of the traced TCP or UDP packet.
const SOURCE_PORT: u16 = 40_000;

/// What a host has that a packet needs.
struct Endpoint {
    host: String,
    switch: String,
    port: u16,
    mac: String,
    vlan: Option<String>,
    v4: Option<IpNet>,
    v6: Option<IpNet>,
    /// Addresses and MAC addresses of its gateways.
    gateways: Vec<(IpAddr, String)>,
}

/// Whether the words name hosts rather than packets: a packet has an `=` or a `,`, or is a protocol's name alone.
pub(super) fn is_meant(words: &[String]) -> bool {
    let plain = |word: &String| !word.contains(['=', ',']) && word != "-";
    (2..=3).contains(&words.len()) && words.iter().all(plain)
}

/// Traces a packet from the first word's host to the second's.
pub(super) fn run(args: &Trace, out: &mut Output) -> Result<Exit, Failure> {
    let [from, to, proto @ ..] = args.what.as_slice() else {
        return Err(Failure::usage("two hosts are needed"));
    };
    let state = args.target.lab()?;
    let (from, to, packet) = asked(&state, from, to, proto.first().map(String::as_str))?;
    let client = Client::connect(&args.target)?;
    let path = Path::follow(&client, &state, &from, &to, &packet, &args.options(!args.no_names))?;
    if out.format(&[Format::Table, Format::Json])? == Format::Table {
        out.line(path.headline(&from, &to))?;
        out.line("")?;
    }
    let arrives = path.arrives();
    show(&path.into_traced(), out)?;
    Ok(match arrives {
        Some(true) => Exit::Yes,
        Some(false) => Exit::No,
        None => Exit::Dropped,
    })
}

/// Both hosts, `to` with a port or without, and the packet from one to the other.
fn asked(state: &State, from: &str, to: &str, proto: Option<&str>) -> Result<(Endpoint, Endpoint, String), Failure> {
    if let Some(meant) = outside::meant(state, to) {
        let (from, (to, port)) = (endpoint(state, from)?, meant?);
        let packet = packet(&from, &to, None, port, proto)?;
        return Ok((from, to, packet));
    }
    let (to, port) = match to.split_once(':') {
        Some((host, port)) => {
            let number = port.parse::<u16>().map_err(|_| Failure::usage(format!("`{port}` is no port number")))?;
            (host, Some(number))
        }
        None => (to, None),
    };
    let (from, to) = (endpoint(state, from)?, endpoint(state, to)?);
    let packet = packet(&from, &to, None, port, proto)?;
    Ok((from, to, packet))
}

/// Traces a packet as `sluice trace` does, for a drawing.
///
/// # Errors
/// As [`decide`].
pub(crate) fn draw(client: &Client, state: &State, from: &str, to: &str, proto: &str) -> Result<Traced, Failure> {
    let (near, far, packet) = asked(state, from, to, Some(proto))?;
    let options = Options { names: true, verbose: false, ct_next: Vec::new() };
    let path = Path::follow(client, state, &near, &far, &packet, &options)?;
    let verdict = match path.fate() {
        Fate::Arrives => "delivered",
        Fate::Dropped { .. } => "dropped",
        Fate::Elsewhere => "elsewhere",
    };
    let mut nodes = vec![near.host.clone()];
    nodes.extend(path.bridges());
    if verdict == "delivered" {
        nodes.push(far.host.clone());
    }
    let headline = path.headline(&near, &far);
    let walks: Vec<_> = path.into_traced().into_iter().map(|traced| traced.walk).collect();
    let command = format!("sluice trace --lab {} {from} {to} {proto}", state.topology.name);
    Ok(Traced { verdict, headline, nodes, walk: walks.join("\n\n"), command })
}

/// What becomes of a packet from one host to another.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It gets there.
    Arrives,
    /// It is dropped.
    Dropped {
        /// Why.
        reason: String,
        /// The owner and the priority of the rule that decided.
        rule: Option<(String, u32)>,
    },
    /// It goes elsewhere.
    Elsewhere,
}

/// What is sent from one host to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent<'a> {
    /// The host that sends.
    pub(crate) from: &'a str,
    /// The host that it is for.
    pub(crate) to: &'a str,
    /// By IPv6 rather than IPv4.
    pub(crate) v6: bool,
    /// TCP to this port; an echo request without.
    pub(crate) port: Option<u16>,
}

/// Traces what one host sends to another, as `sluice trace` does.
///
/// # Errors
/// A host has no interface, the two have no addresses of that version, or the switch does not answer.
pub(crate) fn decide(client: &Client, state: &State, sent: Sent<'_>) -> Result<Fate, Failure> {
    let (from, to) = (endpoint(state, sent.from)?, endpoint(state, sent.to)?);
    let packet = packet(&from, &to, Some(sent.v6), sent.port, None)?;
    let options = Options { names: true, verbose: false, ct_next: Vec::new() };
    Ok(Path::follow(client, state, &from, &to, &packet, &options)?.fate())
}

/// The first interface of a host.
fn endpoint(state: &State, name: &str) -> Result<Endpoint, Failure> {
    lab::known_host(state, name)?;
    let host = state.topology.host(name);
    let interface = host
        .and_then(|h| h.interfaces.first())
        .ok_or_else(|| Failure::usage(format!("{name} has no interface")).why("no link of the lab ends at it"))?;
    let address = |v4: bool| interface.addresses.iter().copied().find(|a| a.addr().is_ipv4() == v4);
    let routers = state.topology.routers.iter().flat_map(|r| &r.interfaces);
    let mac_of = |ip: &IpAddr| {
        let has_it = |interface: &RouterInterface| interface.addresses.iter().any(|net| net.addr() == *ip);
        // Networks of different routing domains may have the same addresses.
        let mut found = routers.clone().filter(|i| i.vlan == interface.vlan && has_it(i));
        let mac = found.next().map(|i| i.mac.to_string()).or_else(|| outside::mac_of(state, *ip));
        mac.map(|mac| (*ip, mac))
    };
    Ok(Endpoint {
        host: name.to_owned(),
        switch: interface.switch.clone(),
        port: interface.port,
        mac: interface.mac.to_string(),
        v4: address(true),
        v6: address(false),
        vlan: interface.vlan.clone(),
        gateways: interface.gateways.iter().filter_map(mac_of).collect(),
    })
}

/// The packet as a flow; of IPv4 if both have such an address and nothing else is `wanted`.
fn packet(
    from: &Endpoint,
    to: &Endpoint,
    wanted: Option<bool>,
    port: Option<u16>,
    proto: Option<&str>,
) -> Result<String, Failure> {
    let [v4, v6] = [(false, from.v4.zip(to.v4)), (true, from.v6.zip(to.v6))]
        .map(|(v6, pair)| pair.filter(|_| wanted.is_none_or(|wanted| wanted == v6)));
    let (addresses, v6) = match (v4, v6) {
        (Some((a, b)), _) => (format!("nw_src={},nw_dst={}", a.addr(), b.addr()), false),
        (None, Some((a, b))) => (format!("ipv6_src={},ipv6_dst={}", a.addr(), b.addr()), true),
        (None, None) => {
            return Err(Failure::usage(format!("{} and {} have no addresses of one IP version", from.host, to.host)));
        }
    };
    let proto = proto.unwrap_or(if port.is_some() { "tcp" } else { "icmp" });
    let need = |what: Option<u16>| {
        what.ok_or_else(|| {
            let next = format!("sluice trace {} {}:80 {proto}", from.host, to.host);
            Failure::usage(format!("{proto} needs a port to send to")).next(next)
        })
    };
    let upper = match (proto, v6) {
        ("icmp", _) if port.is_some() => return Err(Failure::usage("icmp has no ports")),
        ("icmp", false) => "icmp,icmp_type=8".to_owned(),
        ("icmp", true) => "icmp6,icmp_type=128".to_owned(),
        ("tcp", _) => format!("tcp{},tp_src={SOURCE_PORT},tp_dst={},tcp_flags=syn", six(v6), need(port)?),
        ("udp", _) => format!("udp{},tp_src={SOURCE_PORT},tp_dst={}", six(v6), need(port)?),
        (other, _) => return Err(Failure::usage(format!("unknown protocol `{other}`")).next("icmp, tcp or udp")),
    };
    Ok(format!(
        "in_port={},dl_src={},dl_dst={},{addresses},nw_ttl=64,{upper}",
        from.port,
        from.mac,
        next_hop(from, to, v6)
    ))
}

fn six(v6: bool) -> &'static str {
    if v6 { "6" } else { "" }
}

/// The MAC address that a host sends to: the other's, or the gateway's if that is in another network.
fn next_hop<'a>(from: &'a Endpoint, to: &'a Endpoint, v6: bool) -> &'a str {
    let (own, other) = if v6 { (from.v6, to.v6) } else { (from.v4, to.v4) };
    let near = own.zip(other).is_some_and(|(own, other)| own.contains(&other.addr()));
    let gateway = from.gateways.iter().find(|(ip, _)| ip.is_ipv6() == v6 && !near);
    gateway.map_or(&to.mac, |(_, mac)| mac)
}
