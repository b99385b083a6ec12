//! Traces between two hosts of a running lab: the lab's state knows their addresses and ports.

use super::json::Out;
use super::{Trace, Traced, ask, show};
use crate::client::Client;
use crate::failure::Failure;
use crate::lab::{self, State};
use crate::output::{Exit, Format, Output};
use std::net::IpAddr;

/// Source port of the traced TCP or UDP packet.
const SOURCE_PORT: u16 = 40_000;

/// What a host has that a packet needs.
struct Endpoint {
    host: String,
    switch: String,
    port: u16,
    mac: String,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
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
    let (to, port) = match to.split_once(':') {
        Some((host, port)) => {
            let number = port.parse::<u16>().map_err(|_| Failure::usage(format!("`{port}` is no port number")))?;
            (host, Some(number))
        }
        None => (to.as_str(), None),
    };
    let state = args.target.lab()?;
    let (from, to) = (endpoint(&state, from)?, endpoint(&state, to)?);
    let packet = packet(&from, &to, port, proto.first().map(String::as_str))?;
    let client = Client::connect(&args.target)?;
    let traced = ask(&client, &from.switch, std::slice::from_ref(&packet), &args.options(!args.no_names))?;
    let arrives = traced.iter().any(|t| arrives(t, &to));
    if out.format(&[Format::Table, Format::Json])? == Format::Table {
        for t in &traced {
            out.line(headline(t, &from, &to, arrives))?;
            out.line("")?;
        }
    }
    let exit = show(&traced, out)?;
    Ok(if exit == Exit::Yes && !arrives { Exit::No } else { exit })
}

/// The first interface of a host.
fn endpoint(state: &State, name: &str) -> Result<Endpoint, Failure> {
    lab::known_host(state, name)?;
    let host = state.topology.host(name);
    let interface = host
        .and_then(|h| h.interfaces.first())
        .ok_or_else(|| Failure::usage(format!("{name} has no interface")).why("no link of the lab ends at it"))?;
    let address = |v4: bool| interface.addresses.iter().map(|a| a.addr()).find(|a| a.is_ipv4() == v4);
    Ok(Endpoint {
        host: name.to_owned(),
        switch: interface.switch.clone(),
        port: interface.port,
        mac: interface.mac.to_string(),
        v4: address(true),
        v6: address(false),
    })
}

/// The packet as a flow.
fn packet(from: &Endpoint, to: &Endpoint, port: Option<u16>, proto: Option<&str>) -> Result<String, Failure> {
    let (addresses, v6) = match (from.v4.zip(to.v4), from.v6.zip(to.v6)) {
        (Some((a, b)), _) => (format!("nw_src={a},nw_dst={b}"), false),
        (None, Some((a, b))) => (format!("ipv6_src={a},ipv6_dst={b}"), true),
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
    Ok(format!("in_port={},dl_src={},dl_dst={},{addresses},nw_ttl=64,{upper}", from.port, from.mac, to.mac))
}

fn six(v6: bool) -> &'static str {
    if v6 { "6" } else { "" }
}

fn arrives(traced: &Traced, to: &Endpoint) -> bool {
    let here = |o: &Out| o.port == u32::from(to.port) && o.bridge.as_deref() == Some(to.switch.as_str());
    traced.outputs.iter().any(here)
}

/// The answer in one line.
fn headline(traced: &Traced, from: &Endpoint, to: &Endpoint, arrives: bool) -> String {
    let by = |what: &str| match &traced.rule {
        Some(rule) => format!(" {what} {} (table {}, priority {})", rule.owner, rule.table, rule.priority),
        None => String::new(),
    };
    if let Some(reason) = &traced.reason {
        return format!("DROPPED  {} -> {}: {reason}{}", from.host, to.host, by("by"));
    }
    let ways: Vec<_> =
        traced.outputs.iter().map(|o| format!("{}:{}", o.bridge.as_deref().unwrap_or("-"), o.port)).collect();
    if arrives {
        let others = match ways.len() {
            1 => String::new(),
            n => format!(" (flooded to {n} ports)"),
        };
        return format!(
            "DELIVERED  {} -> {}:{} -> {}:{} -> {}{others}{}",
            from.host,
            from.switch,
            from.port,
            to.switch,
            to.port,
            to.host,
            by("by")
        );
    }
    let ways = if ways.is_empty() { "the controller".to_owned() } else { ways.join(", ") };
    format!("NOT DELIVERED  {} -> {ways}, not to {}{}", from.host, to.host, by("by"))
}
