//! Entries of `vlans`, `routers` and `tunnels`.

use super::super::Problem;
use super::super::yaml::Node;
use super::value::{Fields, name_spot, nearest, one_or_more, parsed, subnet};
use super::{Spot, dhcp};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::IpAddr;
use std::time::Duration;

/// An entry of `vlans`.
#[derive(Clone, Debug)]
pub(in super::super) struct RawVlan {
    pub(in super::super) name: Spot<String>,
    pub(in super::super) id: Option<Spot<u64>>,
    pub(in super::super) subnet: Option<Spot<Ipv4Net>>,
    pub(in super::super) subnet6: Option<Spot<Ipv6Net>>,
    pub(in super::super) gateway: Option<Spot<String>>,
    pub(in super::super) vni: Option<Spot<u64>>,
    pub(in super::super) vrf: Option<Spot<String>>,
    pub(in super::super) dhcp: Option<Spot<Duration>>,
}

/// An entry of `routers`.
#[derive(Clone, Debug)]
pub(in super::super) struct RawRouter {
    pub(in super::super) name: Spot<String>,
    pub(in super::super) routes: Vec<RawRoute>,
    /// It translates; the line of the key.
    pub(in super::super) nat: Option<usize>,
}

/// An entry of a router's `routes`.
#[derive(Clone, Debug)]
pub(in super::super) struct RawRoute {
    pub(in super::super) line: usize,
    pub(in super::super) to: Spot<Option<IpNet>>,
    pub(in super::super) via: Vec<Spot<IpAddr>>,
    pub(in super::super) vrf: Option<Spot<String>>,
}

/// An entry of `tunnels`.
#[derive(Clone, Debug)]
pub(in super::super) struct RawTunnel {
    pub(in super::super) line: usize,
    pub(in super::super) name: Option<Spot<String>>,
    pub(in super::super) kind: Option<Spot<String>>,
    pub(in super::super) ends: Vec<Spot<String>>,
    pub(in super::super) vni: Option<Spot<u64>>,
    pub(in super::super) vlans: Vec<Spot<String>>,
    pub(in super::super) over: Option<Spot<String>>,
    pub(in super::super) remote: Option<Spot<IpAddr>>,
}

pub(super) fn vlan(name: Spot<String>, node: &Node, problems: &mut Vec<Problem>) -> RawVlan {
    let keys = ["id", "subnet", "subnet6", "gateway", "vni", "vrf", "dhcp"];
    let fields = Fields::of(node, "a VLAN", &keys, &[], problems);
    RawVlan {
        name,
        id: fields.number_spot("id", 1..=4094, problems),
        subnet: subnet(&fields, "subnet", "10.0.10.0/24", Ipv4Net::trunc, problems),
        subnet6: subnet(&fields, "subnet6", "fd00:10::/64", Ipv6Net::trunc, problems),
        gateway: fields.name("gateway", "a node", problems),
        vni: fields.number_spot("vni", 0..=VNI_MAX, problems),
        vrf: fields.name("vrf", "a VRF", problems),
        dhcp: dhcp::server(&fields, problems),
    }
}

/// Highest virtual network identifier (24 bits, RFC 7348 section 5).
const VNI_MAX: u64 = 0xff_ffff;

pub(super) fn router(name: Spot<String>, node: &Node, problems: &mut Vec<Problem>) -> RawRouter {
    let fields = Fields::of(node, "a router", &["routes", "nat"], &[], problems);
    let nat = fields.text("nat", problems);
    if let Some(nat) = nat.as_ref().filter(|nat| nat.value != "uplink") {
        let near = nearest(&nat.value, ["uplink"].into_iter());
        problems.push(Problem::new(nat.line, format!("nat: there is no `{}`{near}", nat.value)));
    }
    RawRouter { name, routes: fields.list("routes", problems, route), nat: nat.map(|nat| nat.line) }
}

fn route(node: &Node, problems: &mut Vec<Problem>) -> Option<RawRoute> {
    let fields = Fields::of(node, "a route", &["to", "via", "vrf"], &[], problems);
    let to = fields.parsed("to", "a network like 10.9.0.0/16, or default", problems, destination);
    let vias = fields.get("via").map(one_or_more).unwrap_or_default();
    let wanted = "a next hop's address like 10.0.10.2";
    let count = vias.len();
    let via: Vec<_> =
        vias.into_iter().filter_map(|n| parsed(n, "via", wanted, problems, |t| t.parse::<IpAddr>().ok())).collect();
    for key in ["to", "via"] {
        if fields.get(key).is_none() {
            problems.push(Problem::new(node.line, format!("a route needs `{key}:`")));
        }
    }
    let (to, sound) = (to?, count == via.len() && count > 0);
    let families = via.iter().map(|v| v.value.is_ipv4()).chain(to.value.map(|net| net.addr().is_ipv4()));
    let families: Vec<_> = families.collect();
    if sound && families.windows(2).any(|w| w[0] != w[1]) {
        problems.push(Problem::new(node.line, "a route's network and next hops must be of one IP version"));
    }
    let vrf = fields.name("vrf", "a VRF", problems);
    sound.then_some(RawRoute { line: node.line, to, via, vrf })
}

/// A network without bits behind its prefix; `None` within for the default route, whose version is its next hop's.
fn destination(text: &str) -> Option<Option<IpNet>> {
    if text == "default" {
        return Some(None);
    }
    let net: IpNet = if text.contains('/') { text.parse().ok()? } else { IpNet::from(text.parse::<IpAddr>().ok()?) };
    (net.trunc() == net).then_some(Some(net))
}

pub(super) fn tunnel(node: &Node, problems: &mut Vec<Problem>) -> Option<RawTunnel> {
    let keys = ["name", "type", "ends", "vni", "vlans", "over", "remote"];
    let fields = Fields::of(node, "a tunnel", &keys, &[], problems);
    if fields.get("ends").is_none() {
        problems.push(Problem::new(node.line, "a tunnel needs `ends:`, the switches that it joins"));
    }
    let before = problems.len();
    let ends = fields.list("ends", problems, |item, problems| name_spot(item, "a node", problems));
    let sound = fields.get("ends").is_some() && before == problems.len();
    let tunnel = RawTunnel {
        line: node.line,
        name: fields.name("name", "a tunnel", problems),
        kind: fields.text("type", problems),
        ends,
        vni: fields.number_spot("vni", 0..=u64::from(u32::MAX), problems),
        vlans: fields.list("vlans", problems, |item, problems| name_spot(item, "a VLAN", problems)),
        over: fields.name("over", "a link", problems),
        remote: fields.parsed("remote", "an address like 192.0.2.9", problems, |text| text.parse().ok()),
    };
    if fields.get("type").is_none() {
        problems.push(Problem::new(node.line, "a tunnel needs `type:`: vxlan, geneve or gre"));
    }
    let ends = tunnel.ends.len();
    match (sound, &tunnel.remote) {
        (true, Some(_)) if ends != 1 => {
            let message = format!("a tunnel to another machine (`remote:`) has one end here, this one has {ends}");
            problems.push(Problem::new(node.line, message));
        }
        (true, None) if ends != 2 => {
            problems.push(Problem::new(node.line, format!("a tunnel joins two ends, this one has {ends}")));
        }
        _ => {}
    }
    Some(tunnel)
}
