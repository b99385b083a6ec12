//! What the file says of a bridge's gateway.

use super::BridgeConfig;
use super::check::number;
use super::error::{Complaint, Source, did_you_mean};
use super::raw::{RawGateway, RawMasquerade, RawNeighbour, RawRoute, RawRule};
use crate::host::gateway::{GatewayConfig, MasqueradeConfig, Share, stable_mac};
use crate::host::{NeighbourSpec, RouteSpec, RuleSpec};
use crate::port::{PortKind, PortSpec};
use ipnet::IpNet;
use sluice_flows::gateway::{FIRST_TABLE, Gateway};
use sluice_flows::rule::TableId;
use std::net::IpAddr;
use std::str::FromStr;
use toml::Spanned;

/// What a TAP takes (RFC 791 asks for 68).
const MTU: std::ops::RangeInclusive<i64> = 68..=65_521;
/// Least that IPv6 asks of a link (RFC 8200, section 5).
const V6_MTU: u32 = 1280;
/// The zone of a gateway's connections unless another one is asked for.
const ZONE: u16 = 65_520;
/// Routing tables: 0 stands for none, 255 is the kernel's own.
const TABLES: std::ops::RangeInclusive<i64> = 1..=u32::MAX as i64;

/// Reads a value of this type out of a text.
fn read<T: FromStr>(source: Source<'_>, text: &Spanned<String>, wanted: &str) -> Result<T, Complaint> {
    let word = text.get_ref();
    word.parse().map_err(|_| source.complain(&text.span(), format!("`{word}` is not {wanted}")))
}

fn network(source: Source<'_>, text: &Spanned<String>) -> Result<IpNet, Complaint> {
    let word = text.get_ref();
    let net = word.parse::<IpNet>().or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
    match net {
        Ok(net) if net.addr() == net.network() => Ok(net),
        Ok(net) => Err(source
            .complain(&text.span(), format!("`{word}` has bits set behind its prefix"))
            .advice(format!("the network is {}", net.trunc()))),
        Err(_) => Err(source.complain(&text.span(), format!("`{word}` is not a network like 10.0.0.0/8 or fd00::/64"))),
    }
}

fn mac(source: Source<'_>, text: &Spanned<String>) -> Result<[u8; 6], Complaint> {
    // The port's own reader knows what an address looks like.
    let options = [("mac", text.get_ref().as_str())];
    match PortSpec::parse(PortKind::Local, options) {
        Ok(PortSpec::Local { mac: Some(mac), .. }) => Ok(mac),
        _ => Err(source
            .complain(&text.span(), format!("`{}` is not a unicast address like 02:00:00:00:00:01", text.get_ref()))),
    }
}

/// The gateway of `bridge`, whose ports are known.
pub(super) fn gateway(
    source: Source<'_>,
    bridge: &BridgeConfig,
    raw: Spanned<RawGateway>,
) -> Result<GatewayConfig, Complaint> {
    let span = raw.span();
    let raw = raw.into_inner();
    let (port, link) = port(source, bridge, &raw, span.clone())?;
    let addresses = addresses(source, &raw, span)?;
    let families: Vec<bool> = [true, false].into_iter().filter(|v4| has_family(&addresses, *v4)).collect();
    let mtu = raw.mtu.as_ref().map(|m| number::<u32>(source, m, MTU, "`mtu`, in bytes,")).transpose()?;
    if let (Some(value), Some(spanned)) = (mtu.filter(|_| families.contains(&false)), &raw.mtu)
        && value < V6_MTU
    {
        let what = format!("an MTU of {value} is too small for the gateway's IPv6 address");
        return Err(source.complain(&spanned.span(), what).advice("IPv6 needs 1280 or more (RFC 8200, section 5)"));
    }
    let said = raw.mac.as_ref().map(|text| mac(source, text)).transpose()?;
    let routes = raw.routes.iter().map(|raw| route(source, raw)).collect::<Result<_, _>>()?;
    let mut rules = Vec::new();
    for raw in &raw.rules {
        rules.extend(rule(source, raw, &families)?);
    }
    let neighbours = raw.neighbours.iter().map(|raw| neighbour(source, raw)).collect::<Result<_, _>>()?;
    Ok(GatewayConfig {
        mac: said.unwrap_or_else(|| stable_mac(&bridge.name, &addresses)),
        port,
        link,
        packet_links: packet_links(bridge),
        mtu,
        routes,
        rules,
        neighbours,
        forward: raw.forward.unwrap_or(true),
        masquerade: raw.masquerade.map(|raw| masquerade(source, raw, &addresses)).transpose()?,
        addresses,
        vlan: None,
        share: Share::default(),
    })
}

/// The port with the host behind it, and the interface that the host has there.
fn port(
    source: Source<'_>,
    bridge: &BridgeConfig,
    raw: &RawGateway,
    span: std::ops::Range<usize>,
) -> Result<(String, String), Complaint> {
    let Some(name) = &raw.port else {
        if bridge.local_port {
            return Ok((bridge.name.clone(), bridge.name.clone()));
        }
        return Err(source
            .complain(&span, format!("the gateway of {} has no port: the bridge has no port of its own", bridge.name))
            .advice("drop `local_port = false`, or name a port of type tap with `port`"));
    };
    if *name.get_ref() == bridge.name && bridge.local_port {
        return Ok((bridge.name.clone(), bridge.name.clone()));
    }
    let taps = || bridge.ports.iter().filter(|p| p.kind == PortKind::Tap || p.kind == PortKind::TapPlain);
    let Some(port) = taps().find(|port| port.name == *name.get_ref()) else {
        let near = did_you_mean(name.get_ref(), taps().map(|port| port.name.as_str()));
        let what = format!("bridge {} has no port `{}` of type tap{near}", bridge.name, name.get_ref());
        return Err(source
            .complain(&name.span(), what)
            .advice("the host has an interface only where the port is a TAP; without `port` it is the bridge's own"));
    };
    Ok((port.name.clone(), port.options.get("dev").unwrap_or(&port.name).clone()))
}

/// The interfaces that the bridge has packet sockets on.
fn packet_links(bridge: &BridgeConfig) -> Vec<String> {
    let ports = bridge.ports.iter().filter(|port| port.kind == PortKind::AfPacket);
    ports.map(|port| port.options.get("dev").unwrap_or(&port.name).clone()).collect()
}

fn has_family(addresses: &[IpNet], v4: bool) -> bool {
    addresses.iter().any(|address| address.addr().is_ipv4() == v4)
}

fn addresses(source: Source<'_>, raw: &RawGateway, span: std::ops::Range<usize>) -> Result<Vec<IpNet>, Complaint> {
    let mut addresses: Vec<IpNet> = Vec::new();
    for text in &raw.addresses {
        let address: IpNet = read(source, text, "an address with its prefix, like 10.77.0.1/24")?;
        let ip = address.addr();
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(source.complain(&text.span(), format!("{ip} cannot be an interface's address")));
        }
        let room = address.max_prefix_len() - address.prefix_len() > 1;
        if room && address.addr().is_ipv4() && (ip == address.network() || ip == address.broadcast()) {
            let what = format!("{ip} is the network itself or its broadcast address");
            return Err(source.complain(&text.span(), what).advice("take one of the addresses between the two"));
        }
        if addresses.iter().any(|other| other.addr() == ip) {
            return Err(source.complain(&text.span(), format!("{ip} stands here twice")));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(source
            .complain(&span, "the gateway has no address")
            .advice("give it one with `addresses = [\"10.77.0.1/24\"]`"));
    }
    Ok(addresses)
}

fn route(source: Source<'_>, raw: &RawRoute) -> Result<RouteSpec, Complaint> {
    let to = network(source, &raw.to)?;
    let same_family = |text: &Option<Spanned<String>>| {
        let Some(text) = text else { return Ok(None) };
        let address: IpAddr = read(source, text, "an address")?;
        if address.is_ipv4() != to.addr().is_ipv4() {
            return Err(source.complain(&text.span(), format!("{address} and {to} are of different families")));
        }
        Ok(Some(address))
    };
    Ok(RouteSpec {
        to,
        via: same_family(&raw.via)?,
        source: same_family(&raw.src)?,
        metric: raw.metric.as_ref().map(|m| number(source, m, 0..=u32::MAX.into(), "a metric")).transpose()?,
        table: raw.table.as_ref().map(|t| number(source, t, TABLES, "a routing table")).transpose()?,
    })
}

/// One rule for each family that it is about.
fn rule(source: Source<'_>, raw: &RawRule, families: &[bool]) -> Result<Vec<RuleSpec>, Complaint> {
    let priority = number(source, &raw.priority, 1..=32_765, "a rule's priority, before those of the kernel,")?;
    let table = number(source, &raw.table, TABLES, "a routing table")?;
    let from = raw.from.as_ref().map(|text| network(source, text)).transpose()?;
    let to = raw.to.as_ref().map(|text| network(source, text)).transpose()?;
    if let (Some(from), Some(to), Some(text)) = (from, to, &raw.to)
        && from.addr().is_ipv4() != to.addr().is_ipv4()
    {
        return Err(source.complain(&text.span(), format!("{from} and {to} are of different families")));
    }
    let said = from.or(to).map(|net| vec![net.addr().is_ipv4()]);
    let families = said.unwrap_or_else(|| families.to_vec());
    Ok(families.into_iter().map(|v4| RuleSpec { priority, v6: !v4, from, to, table }).collect())
}

fn neighbour(source: Source<'_>, raw: &RawNeighbour) -> Result<NeighbourSpec, Complaint> {
    Ok(NeighbourSpec { address: read(source, &raw.address, "an address")?, mac: mac(source, &raw.mac)? })
}

fn masquerade(
    source: Source<'_>,
    raw: Spanned<RawMasquerade>,
    addresses: &[IpNet],
) -> Result<MasqueradeConfig, Complaint> {
    let span = raw.span();
    let raw = raw.into_inner();
    let mut inside: Vec<IpNet> = addresses.iter().map(IpNet::trunc).collect();
    if let Some(said) = &raw.inside {
        inside = said.iter().map(|text| network(source, text)).collect::<Result<_, _>>()?;
        if let Some((text, net)) =
            said.iter().zip(&inside).find(|(_, net)| !has_family(addresses, net.addr().is_ipv4()))
        {
            let what = format!("the gateway has no address of the family of {net}");
            return Err(source.complain(&text.span(), what).advice("give it one in `addresses`"));
        }
        if inside.is_empty() {
            return Err(source.complain(&span, "`inside` is empty: nothing would be translated"));
        }
    }
    inside.sort_unstable();
    inside.dedup();
    let mut link = MasqueradeConfig::default_addresses().to_vec();
    for text in &raw.addresses {
        let address: IpAddr = read(source, text, "an address")?;
        if addresses.iter().any(|net| net.addr() == address) {
            return Err(source
                .complain(&text.span(), format!("{address} is the gateway's own"))
                .advice("the link's address belongs to the switch: take one that no station and no interface has"));
        }
        link.retain(|other| other.is_ipv4() != address.is_ipv4());
        link.push(address);
    }
    link.retain(|address| inside.iter().any(|net| net.addr().is_ipv4() == address.is_ipv4()));
    let table = raw.first_table.as_ref().map(|t| number(source, t, 1..=249, "the first of six tables"));
    let first_table = table.transpose()?.and_then(TableId::new).filter(|table| Gateway::fits(*table));
    let mut except = raw.except.iter().map(|text| network(source, text)).collect::<Result<Vec<_>, _>>()?;
    except.sort_unstable();
    except.dedup();
    Ok(MasqueradeConfig {
        inside,
        addresses: link,
        except,
        ports: raw.ports.as_ref().map(|text| ports(source, text)).transpose()?,
        zone: raw.zone.as_ref().map(|z| number(source, z, 1..=65_535, "a zone")).transpose()?.unwrap_or(ZONE),
        first_table: first_table.unwrap_or(FIRST_TABLE),
        host_rule: raw.host_rule.unwrap_or(true),
    })
}

fn ports(source: Source<'_>, text: &Spanned<String>) -> Result<(u16, u16), Complaint> {
    let range = text.get_ref().split_once('-').and_then(|(first, last)| {
        let range: (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (range.0 > 0 && range.0 <= range.1).then_some(range)
    });
    let what = || format!("`{}` is not a range of ports", text.get_ref());
    range.ok_or_else(|| source.complain(&text.span(), what()).advice("write it as \"40000-50000\""))
}

/// Gateways share the host: no two of them may have the same address, zone or interface.
pub(super) fn check_all(source: Source<'_>, gateways: &[(Spanned<String>, GatewayConfig)]) -> Result<(), Complaint> {
    for (i, (name, one)) in gateways.iter().enumerate() {
        for (other, two) in &gateways[..i] {
            let clash = |what: String, advice: &str| {
                let what = format!("the gateways of {} and {} have {what}", other.get_ref(), name.get_ref());
                Err(source.complain(&name.span(), what).advice(advice))
            };
            if let Some(net) = one.addresses.iter().find(|a| two.addresses.iter().any(|b| a.addr() == b.addr())) {
                return clash(format!("the same address, {}", net.addr()), "give each its own in `addresses`");
            }
            let (Some(a), Some(b)) = (&one.masquerade, &two.masquerade) else { continue };
            if let Some(address) = a.addresses.iter().find(|address| b.addresses.contains(address)) {
                return clash(format!("the same link address, {address}"), "set `addresses` under one's `masquerade`");
            }
            if a.zone == b.zone {
                return clash(format!("the same zone, {}", a.zone), "set `zone` under one's `masquerade`");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
