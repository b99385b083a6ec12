//! The flows of a bridge that translates for a router: what leaves by one port does so behind the router's addresses there.
//!
//! The bridge stands in the way between the router and its link, and has no addresses of its own: frames keep their MAC
//! addresses, and what is no packet of the router's interface (ARP, neighbour discovery, other VLANs) passes as it is. What the
//! outside begins is let through as it is, since a masquerade is no firewall: who has a route may come in, and is answered.

use super::topology::resolved::{Router, RouterInterface};
use super::wiring::{TRANSLATOR_INSIDE as INSIDE, TRANSLATOR_OUTSIDE as OUTSIDE};
use crate::failure::Failure;
use ipnet::IpNet;
use sluice_flows::Owner;
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::flow_mod::FlowMod;
use sluice_flows::text::{Names, parse_flow};

/// The zone of the first router that translates; others have those below it, far from those that people take.
const LAST_ZONE: u16 = 0xffff;

/// The flows for the router that is the `index`th to translate; `source` is the topology file.
///
/// # Errors
/// None that a file can lead to: the text of a flow is wrong.
pub(super) fn flows(router: &Router, index: usize, source: &str) -> Result<Vec<BridgeMod>, Failure> {
    let (Some(interface), Some(nat)) = (router.nat_interface(), &router.nat) else { return Ok(Vec::new()) };
    let zone = LAST_ZONE - u16::try_from(index).unwrap_or(LAST_ZONE);
    let flow = |text: &String| {
        let read = parse_flow(text, Names::NONE);
        let mut spec = read.map_err(|error| Failure::new(format!("nat of {}: {text}: {error}", router.name)))?.value;
        spec.owner = Owner::file_line(source, nat.line);
        Ok(FlowMod::add(spec).into())
    };
    texts(interface, zone).iter().map(flow).collect()
}

fn texts(interface: &RouterInterface, zone: u16) -> Vec<String> {
    let mut out = Vec::new();
    for (from, to) in [(INSIDE, OUTSIDE), (OUTSIDE, INSIDE)] {
        out.push(format!("table=0,priority=1,in_port={from} actions=output:{to}"));
        // What is known, and what belongs to it; errors too.
        out.push(format!("table=1,priority=1,in_port={from} actions=output:{to}"));
    }
    out.push("table=1,priority=9,ct_state=+inv+trk actions=drop".to_owned());
    let tag = interface.tag.map_or_else(|| "vlan_tci=0x0000/0x1000".to_owned(), |tag| format!("dl_vlan={tag}"));
    for v4 in [true, false] {
        let Some(address) = interface.addresses.iter().map(IpNet::addr).find(|ip| ip.is_ipv4() == v4) else { continue };
        let (ip, source) = if v4 { ("ip", "nw_src") } else { ("ipv6", "ipv6_src") };
        out.push(format!("table=0,priority=5,{ip},{tag} actions=ct(table=1,zone={zone},nat)"));
        let came = format!("ct_state=+new+trk,in_port={OUTSIDE},{ip}");
        out.push(format!("table=1,priority=5,{came} actions=ct(commit,zone={zone}),output:{INSIDE}"));
        let new = format!("ct_state=+new+trk,in_port={INSIDE},{ip}");
        out.push(format!(
            "table=1,priority=7,{new},{source}={address} actions=ct(commit,zone={zone}),output:{OUTSIDE}"
        ));
        let address = if v4 { address.to_string() } else { format!("[{address}]") };
        out.push(format!(
            "table=1,priority=5,{new} actions=ct(commit,zone={zone},nat(src={address})),output:{OUTSIDE}"
        ));
    }
    // Neighbour discovery is between neighbours.
    for kind in 133..=137 {
        for (from, to) in [(INSIDE, OUTSIDE), (OUTSIDE, INSIDE)] {
            out.push(format!("table=0,priority=9,icmp6,icmp_type={kind},in_port={from} actions=output:{to}"));
        }
    }
    out
}
