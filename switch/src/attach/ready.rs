//! Whether an attachment would be made, and with which MTU. Nothing here changes anything.

use super::spec::NetworkSpec;
use crate::Datapath;
use crate::host::netlink::Netlink;
use crate::host::routing::MAIN_TABLE;
use crate::port::PortKind;
use crate::port::link::Link;
use sluice_flows::tunnel::TunnelKind;

/// MTU where nothing says otherwise, in bytes (RFC 894).
const DEFAULT_MTU: u32 = 1500;
/// Attachments that are named one by one when they have a fault.
const NAMED: usize = 10;

/// What an attachment would need.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    /// What is in the way of a new attachment.
    pub(crate) problems: Vec<String>,
    /// What limits those that are there.
    pub(crate) limits: Vec<String>,
    /// Longest network-layer packet, in bytes, that an interface should carry.
    pub(crate) mtu: u32,
}

impl Datapath {
    /// Whether an attachment to this network would be made now.
    pub(crate) fn ready(&self, network: &NetworkSpec) -> Ready {
        let mut ready = Ready { mtu: self.network_mtu(network), ..Ready::default() };
        if self.model().bridge_named(&network.bridge).is_none() && !network.make_bridge {
            let known: Vec<_> = self.bridges().iter().map(|bridge| bridge.name.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            ready.problems.push(format!("there is no bridge {:?}; bridges: {known}", network.bridge));
        }
        // Who holds it is writing right now.
        if let Some(fault) = self.attachments().changes.try_lock().ok().and_then(|changes| changes.store.fault()) {
            ready.problems.push(fault.to_string());
        }
        let records = self.attachments().list(None);
        let faults: Vec<_> = records.iter().filter_map(|record| Some((record, record.fault.as_ref()?))).collect();
        ready.limits.extend(faults.iter().take(NAMED).map(|(record, fault)| format!("{}: {fault}", record.spec.key)));
        if faults.len() > NAMED {
            let more = faults.len() - NAMED;
            ready
                .limits
                .push(format!("and {more} more attachments that are not in force; `sluice cni status` lists them"));
        }
        ready
    }

    /// Longest network-layer packet, in bytes, that interfaces of a network should carry: what it asks for, else the least
    /// of what its bridge's ways out carry, else what the host's way out carries behind a gateway.
    pub(crate) fn network_mtu(&self, network: &NetworkSpec) -> u32 {
        let asked = network.mtu.or_else(|| self.ways_out(&network.bridge));
        let by_host = || if network.gateway.is_empty() { None } else { host_mtu() };
        asked.or_else(by_host).unwrap_or(DEFAULT_MTU)
    }

    /// The least MTU of the ports of a bridge that lead out: uplinks, and tunnels with what is left of the path.
    fn ways_out(&self, bridge: &str) -> Option<u32> {
        let model = self.model();
        let ports = &model.bridge_named(bridge)?.ports;
        let others: Vec<_> = {
            let known = self.attachments().known();
            ports.values().filter(|port| !known.has_port(&port.name)).cloned().collect()
        };
        let mut path = None;
        let mtus = others.iter().filter_map(|port| {
            let device = self.device(port.dp)?;
            match device.kind() {
                PortKind::AfPacket | PortKind::AfXdp => Some(device.mtu()),
                PortKind::Tunnel(TunnelKind::Wireguard) => Some(device.mtu()),
                PortKind::Tunnel(kind) => {
                    let fixed = device
                        .peers(&[])
                        .into_iter()
                        .filter_map(|peer| Some((peer.remote?, peer.path_mtu?)))
                        .min_by_key(|p| p.1);
                    let (ip, path) = match fixed {
                        Some((remote, mtu)) => (if remote.is_ipv4() { 20 } else { 40 }, mtu),
                        None => (20, *path.get_or_insert_with(|| host_mtu().unwrap_or(DEFAULT_MTU))),
                    };
                    Some(path.saturating_sub(ip + around(kind)))
                }
                _ => None,
            }
        });
        mtus.filter(|mtu| *mtu > 0).min()
    }
}

/// Bytes that a tunnel puts around an IP packet, with the inner Ethernet header where there is one, and without the outer IP
/// header.
const fn around(kind: TunnelKind) -> u32 {
    const ETHERNET: u32 = 14;
    const UDP: u32 = 8;
    match kind {
        TunnelKind::Vxlan | TunnelKind::Geneve => UDP + 8 + ETHERNET,
        // With a key.
        TunnelKind::Gre => 8 + ETHERNET,
        TunnelKind::BareUdp => UDP,
        TunnelKind::Ipip | TunnelKind::Sit => 0,
        TunnelKind::Wireguard => UDP + 32,
    }
}

/// MTU of the interface that the host's default route leads to; the least of both families'.
fn host_mtu() -> Option<u32> {
    let mut netlink = Netlink::open().ok()?;
    let routes = netlink.routes().ok()?;
    let family = |v4: bool| {
        let ours = routes.iter().filter(move |route| {
            route.to.prefix_len() == 0
                && route.to.addr().is_ipv4() == v4
                && route.table == MAIN_TABLE
                && route.link != 0
        });
        ours.min_by_key(|route| route.metric).map(|route| route.link)
    };
    let links: Vec<_> = [family(true), family(false)].into_iter().flatten().collect();
    links.into_iter().filter_map(|index| Link::at(index).ok()?.mtu().ok()).min()
}
