//! Tunnels: their ends, their addresses, and whether what they carry fits.

use super::super::Problem;
use super::super::raw::{Raw, RawTunnel, Spot, nearest};
use super::super::resolved::{Carried, Link, Tunnel, TunnelEnd, TunnelKind};
use super::links::Numbering;
use super::nodes::{Index, Nodes};
use super::{MTU, vlans};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Most bytes of a VLAN's tag.
const TAG: u32 = 4;

impl TunnelKind {
    const ALL: [Self; 3] = [Self::Vxlan, Self::Geneve, Self::Gre];

    /// What a packet grows by, in bytes: from the inner packet to the outer one, its Ethernet header within included.
    fn overhead(self, v4: bool, key: bool) -> u32 {
        let ip = if v4 { 20 } else { 40 };
        let own = match self {
            // UDP, then eight bytes.
            Self::Vxlan | Self::Geneve => 16,
            Self::Gre if key => 8,
            Self::Gre => 4,
        };
        ip + own + 14
    }
}

/// Resolves every tunnel.
pub(super) fn resolve(
    raw: &Raw,
    links: &[Link],
    nodes: &Nodes,
    numbering: &mut Numbering<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<Tunnel> {
    let mut names = BTreeMap::new();
    let mut tunnels = Vec::new();
    for (index, tunnel) in raw.tunnels.iter().enumerate() {
        let name = tunnel.name.as_ref().map_or_else(|| format!("t{}", index + 1), |n| n.value.clone());
        let line = tunnel.name.as_ref().map_or(tunnel.line, |n| n.line);
        if let Some(first) = names.insert(name.clone(), tunnel.line) {
            problems.push(Problem::new(line, format!("another tunnel is named `{name}` (line {first})")));
        }
        if nodes.kind(&name).is_some() || name == "gw" || name == "uplink" {
            problems.push(Problem::new(line, format!("a tunnel cannot be named `{name}`: a node's ports are")));
        }
        tunnels.extend(one(raw, tunnel, name, links, nodes, numbering, problems));
    }
    tunnels
}

fn one(
    raw: &Raw,
    tunnel: &RawTunnel,
    name: String,
    links: &[Link],
    nodes: &Nodes,
    numbering: &mut Numbering<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Tunnel> {
    let before = problems.len();
    let kind = kind(tunnel, problems);
    for end in &tunnel.ends {
        check_end("ends", "tunnels join switches", end, nodes, problems);
    }
    let vlans: Vec<_> = tunnel.vlans.iter().filter_map(|name| vlans::known(raw, "vlans", name, problems)).collect();
    let vni = vni(raw, tunnel, kind, problems);
    if problems.len() > before {
        return None;
    }
    let kind = kind?;
    let carried = match vlans.as_slice() {
        [] => Carried::All,
        [one] => Carried::Access(one.clone()),
        _ => Carried::Trunk { vlans, native: None },
    };
    let (addresses, link) = match &tunnel.remote {
        Some(remote) => (vec![(None, remote.value)], None),
        None => {
            let link = over(tunnel, &name, links, problems)?;
            let addresses = addresses(&tunnel.ends, link);
            if addresses.is_empty() {
                let message = format!("the link {} has no addresses of one IP version at both ends", link.name);
                problems.push(Problem::new(tunnel.line, message));
            }
            (addresses, Some(link))
        }
    };
    let ends = tunnel.ends.iter().zip(addresses).map(|(switch, (local, remote))| {
        let (switch, port) = (switch.value.clone(), numbering.port(&switch.value));
        TunnelEnd { switch, port, local, remote }
    });
    let ends = ends.collect();
    let (over, mtu) = (link.map(|l| l.name.clone()), link.map(|l| l.mtu));
    Some(Tunnel { name, kind, vni, carried, ends, over, mtu, line: tunnel.line })
}

fn kind(tunnel: &RawTunnel, problems: &mut Vec<Problem>) -> Option<TunnelKind> {
    const PACKETS_ONLY: [&str; 4] = ["ipip", "sit", "bareudp", "wireguard"];
    let text = tunnel.kind.as_ref()?;
    let found = TunnelKind::ALL.into_iter().find(|kind| kind.name() == text.value);
    if found.is_none() {
        let names = TunnelKind::ALL.map(TunnelKind::name);
        let message = match PACKETS_ONLY.contains(&text.value.as_str()) {
            true => format!(
                "type: {} carries packets and no frames, so it cannot join switches; {}",
                text.value,
                names.join(", ")
            ),
            false => format!("type: there is no `{}`{}", text.value, nearest(&text.value, names.into_iter())),
        };
        problems.push(Problem::new(text.line, message));
    }
    found
}

/// Refuses what is no switch; `why` says what needs one.
pub(super) fn check_end(key: &str, why: &str, end: &Spot<String>, nodes: &Nodes, problems: &mut Vec<Problem>) {
    let message = match nodes.kind(&end.value) {
        Some(Index::Switch(_)) => return,
        Some(_) => format!("{key}: `{}` is no switch; {why}", end.value),
        None => {
            let known = nodes.switches.iter().map(|s| s.name.as_str());
            format!("{key}: there is no switch `{}`{}", end.value, nearest(&end.value, known))
        }
    };
    problems.push(Problem::new(end.line, message));
}

/// The tunnel's own number, or that of its only VLAN.
fn vni(raw: &Raw, tunnel: &RawTunnel, kind: Option<TunnelKind>, problems: &mut Vec<Problem>) -> Option<u32> {
    let of_vlan = match tunnel.vlans.as_slice() {
        [one] => raw.vlans.iter().find(|v| v.name.value == one.value).and_then(|v| v.vni.as_ref()),
        _ => None,
    };
    if let (Some(own), Some(of_vlan), [one]) = (&tunnel.vni, of_vlan, tunnel.vlans.as_slice())
        && own.value != of_vlan.value
    {
        let message =
            format!("vni: {}, but the VLAN {} has {} (line {})", own.value, one.value, of_vlan.value, of_vlan.line);
        problems.push(Problem::new(own.line, message));
    }
    let vni = tunnel.vni.as_ref().or(of_vlan);
    match (vni, kind) {
        (None, Some(TunnelKind::Vxlan | TunnelKind::Geneve)) => {
            let message = "the tunnel needs `vni:`, or one VLAN that has it";
            problems.push(Problem::new(tunnel.line, message));
        }
        (Some(vni), Some(TunnelKind::Vxlan | TunnelKind::Geneve)) if vni.value > 0xff_ffff => {
            problems.push(Problem::new(vni.line, format!("vni: `{}` is not a number from 0 to 16777215", vni.value)));
        }
        _ => {}
    }
    vni.and_then(|vni| u32::try_from(vni.value).ok())
}

/// The routed link that a tunnel goes over: the named one, or the only one that joins its ends.
fn over<'a>(tunnel: &RawTunnel, name: &str, links: &'a [Link], problems: &mut Vec<Problem>) -> Option<&'a Link> {
    let ends: Vec<_> = tunnel.ends.iter().map(|e| e.value.as_str()).collect();
    let joins = |link: &&Link| {
        let [a, b] = link.ends.each_ref().map(|end| end.node());
        link.underlay.is_some() && (ends == [a, b] || ends == [b, a])
    };
    let mut fitting = links.iter().filter(joins);
    let Some(over) = &tunnel.over else {
        let found = fitting.next();
        if found.is_none() || fitting.next().is_some() {
            let what = if found.is_none() { "no link" } else { "more than one link" };
            let message = format!("{name} needs `over:`: {what} with `ips:` joins {}", ends.join(" and "));
            problems.push(Problem::new(tunnel.line, message));
            return None;
        }
        return found;
    };
    let message = match links.iter().find(|link| link.name == over.value) {
        Some(link) if joins(&link) => return Some(link),
        Some(link) if link.underlay.is_none() => {
            format!("over: the link `{}` has no addresses; give it `ips: [.., ..]`", over.value)
        }
        Some(_) => format!("over: the link `{}` does not join {}", over.value, ends.join(" and ")),
        None => {
            let known = links.iter().filter(|l| l.underlay.is_some()).map(|l| l.name.as_str());
            format!("over: there is no link `{}`{}", over.value, nearest(&over.value, known))
        }
    };
    problems.push(Problem::new(over.line, message));
    None
}

/// Local and remote address of each end: of IPv4 if the link has it.
fn addresses(ends: &[Spot<String>], link: &Link) -> Vec<(Option<IpAddr>, IpAddr)> {
    let Some(underlay) = &link.underlay else { return Vec::new() };
    for v4 in [true, false] {
        let first = |addresses: &[IpNet]| addresses.iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == v4);
        let (Some(a), Some(b)) = (first(&underlay[0].addresses), first(&underlay[1].addresses)) else { continue };
        let same = ends.first().is_some_and(|end| end.value == link.ends[0].node());
        return if same { vec![(Some(a), b), (Some(b), a)] } else { vec![(Some(b), a), (Some(a), b)] };
    }
    Vec::new()
}

/// Refuses tunnels whose packets are larger than their links.
pub(super) fn check_sizes(raw: &Raw, tunnels: &[Tunnel], nodes: &Nodes, links: &[Link], problems: &mut Vec<Problem>) {
    for tunnel in tunnels {
        let (Some(over), Some(end)) = (&tunnel.over, tunnel.ends.first()) else { continue };
        let Some((link, raw_link)) = links.iter().zip(&raw.links).find(|(link, _)| link.name == *over) else {
            continue;
        };
        let inner = largest(raw, &tunnel.carried, nodes);
        let mut overhead = tunnel.kind.overhead(end.remote.is_ipv4(), tunnel.vni.is_some());
        if !matches!(tunnel.carried, Carried::Access(_)) && !raw.vlans.is_empty() {
            overhead += TAG;
        }
        let need = inner + overhead;
        if need > link.mtu {
            let message = format!("{} needs {need} on {over} ({inner} + {overhead}), has {}", tunnel.name, link.mtu);
            problems.push(Problem::behind(raw_link.mtu_line, message));
        }
    }
}

/// The largest packet that what is in the VLANs sends.
fn largest(raw: &Raw, carried: &Carried, nodes: &Nodes) -> u32 {
    let hosts = nodes.hosts.iter().flat_map(|h| &h.interfaces).map(|i| (&i.vlan, i.mtu));
    let routers = nodes.routers.iter().flat_map(|r| &r.interfaces).map(|i| (&i.vlan, i.mtu));
    let sizes = hosts.chain(routers).filter(|(vlan, _)| carried.carries(vlan.as_deref())).map(|(_, mtu)| mtu);
    sizes.max().unwrap_or_else(|| raw.mtu.unwrap_or(MTU))
}
