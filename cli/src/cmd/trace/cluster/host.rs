//! What a node's host does with packets between the network outside and the switch: ports of its own that lead to Pods (NodePorts
//! and host ports) are sent to the switch's incoming address, and what leaves from the switch's link gets the host's address.

use ipnet::IpNet;
use sluice_proto::v1::{IncomingPort, Network};
use std::net::{IpAddr, UdpSocket};

/// Fields of a flow with the packet's destination and source.
const DESTINATION: [&str; 2] = ["nw_dst", "ipv6_dst"];
const SOURCE: [&str; 2] = ["nw_src", "ipv6_src"];

/// The ports of a host that lead to Pods.
#[derive(Debug, Default)]
pub(super) struct Ports {
    incoming: Vec<IpAddr>,
    ports: Vec<IncomingPort>,
}

/// Whether this machine has an address: one of it can be bound.
pub(super) fn has(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Addresses with or without a prefix length.
pub(super) fn addresses(texts: &[String]) -> Vec<IpAddr> {
    let parse = |text: &String| text.parse().ok().or_else(|| text.parse::<IpNet>().ok().map(|net| net.addr()));
    texts.iter().filter_map(parse).collect()
}

/// The value of the first of some fields.
fn value<'a>(packet: &'a str, names: &[&str]) -> Option<&'a str> {
    let words = packet.split(',').filter_map(|word| word.split_once('='));
    words.into_iter().find(|(name, _)| names.contains(name)).map(|(_, value)| value)
}

/// The packet with another value of some fields.
fn with(packet: &str, names: &[&str], new: &str) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some((name, _)) if names.contains(&name) => format!("{name}={new}"),
        _ => word.to_owned(),
    };
    packet.split(',').map(word).collect::<Vec<_>>().join(",")
}

/// Where a packet goes.
pub(super) fn destination(packet: &str) -> Option<IpAddr> {
    value(packet, &DESTINATION)?.parse().ok()
}

/// The packet as a host with these addresses sends it: from its own address if it is from one of the switch's link.
pub(super) fn behind(packet: &str, links: &[IpAddr], own: &[IpAddr]) -> String {
    let source = value(packet, &SOURCE).and_then(|text| text.parse::<IpAddr>().ok());
    let own = source.filter(|s| links.contains(s)).and_then(|s| own.iter().find(|o| o.is_ipv4() == s.is_ipv4()));
    own.map_or_else(|| packet.to_owned(), |own| with(packet, &SOURCE, &own.to_string()))
}

/// The packet as a host sends it back to the switch: with the gateway's address, unless it is from one of the switch's link.
pub(super) fn from_gateway(packet: &str, links: &[IpAddr], gateways: &[IpAddr]) -> String {
    let source = value(packet, &SOURCE).and_then(|text| text.parse::<IpAddr>().ok());
    let source = source.filter(|source| !links.contains(source));
    let gateway = source.and_then(|source| gateways.iter().find(|gateway| gateway.is_ipv4() == source.is_ipv4()));
    gateway.map_or_else(|| packet.to_owned(), |gateway| with(packet, &SOURCE, &gateway.to_string()))
}

impl Ports {
    pub(super) fn of(network: &Network) -> Self {
        Self { incoming: addresses(&network.incoming), ports: network.incoming_ports.clone() }
    }

    /// A packet for the host as it is sent to the switch, and what was done in words; none for one that stays with the host.
    pub(super) fn redirected(&self, packet: &str, is_own: impl Fn(IpAddr) -> bool) -> Option<(String, String)> {
        let address = destination(packet)?;
        let protocol = ["tcp", "udp", "sctp"].into_iter().find(|name| {
            let v6 = format!("{name}6");
            packet.split(',').any(|word| word == *name || word == v6)
        })?;
        let port: u32 = value(packet, &["tp_dst", "tcp_dst", "udp_dst", "sctp_dst"])?.parse().ok()?;
        if !is_own(address) && !address.is_loopback() {
            return None;
        }
        let is_meant = |one: &&IncomingPort| {
            one.port.as_ref().is_some_and(|p| {
                let same = p.protocol == protocol && p.port == port;
                same && match p.address.parse::<IpAddr>() {
                    Ok(of) => of == address,
                    Err(_) => p.address.is_empty() && p.v6 == address.is_ipv6(),
                }
            })
        };
        // A port of one address comes before one of all.
        let to = self.ports.iter().filter(is_meant).max_by_key(|one| one.port.as_ref().map(|p| p.address.len()))?;
        let incoming = self.incoming.iter().find(|there| there.is_ipv4() == address.is_ipv4())?;
        let packet = with(packet, &DESTINATION, &incoming.to_string());
        let new_port = to.incoming_port.to_string();
        let packet = with(&packet, &["tp_dst", "tcp_dst", "udp_dst", "sctp_dst"], &new_port);
        let shown = |address: IpAddr, port: u32| std::net::SocketAddr::new(address, u16::try_from(port).unwrap_or(0));
        Some((packet, format!("{} -> {}", shown(address, port), shown(*incoming, to.incoming_port))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::v1::ServicePort;

    fn port(address: &str, v6: bool, incoming_port: u32) -> IncomingPort {
        let port = ServicePort { protocol: "tcp".to_owned(), address: address.to_owned(), port: 30_080, v6 };
        IncomingPort { port: Some(port), incoming_port, ..IncomingPort::default() }
    }

    fn ports() -> Ports {
        let network = Network {
            incoming: vec!["169.254.77.3".to_owned(), "fd73::3".to_owned()],
            incoming_ports: vec![port("", false, 30_080), port("172.30.0.12", false, 1024), port("", true, 30_080)],
            ..Network::default()
        };
        Ports::of(&network)
    }

    #[test]
    fn what_is_for_a_port_of_the_host_comes_to_the_switch_by_its_incoming_address() {
        let own = |address: IpAddr| address.to_string().ends_with('1') || address.to_string().ends_with("12");
        for (packet, wanted) in [
            ("tcp,nw_dst=172.30.0.11,tp_dst=30080", Some("tcp,nw_dst=169.254.77.3,tp_dst=30080")),
            ("tcp,nw_dst=172.30.0.12,tp_dst=30080", Some("tcp,nw_dst=169.254.77.3,tp_dst=1024")),
            ("tcp6,ipv6_dst=fd00:30::11,tp_dst=30080", Some("tcp6,ipv6_dst=fd73::3,tp_dst=30080")),
            ("tcp,nw_dst=172.30.0.11,tp_dst=22", None),
            ("udp,nw_dst=172.30.0.11,tp_dst=30080", None),
            ("tcp,nw_dst=172.30.0.19,tp_dst=30080", None),
        ] {
            let found = ports().redirected(packet, own).map(|(packet, _)| packet);
            assert_eq!(found.as_deref(), wanted, "{packet}");
        }
        let (_, said) = ports().redirected("tcp,nw_dst=172.30.0.11,tp_dst=30080", own).unwrap();
        assert_eq!(said, "172.30.0.11:30080 -> 169.254.77.3:30080");
    }

    #[test]
    fn what_leaves_with_the_links_address_has_the_hosts_outside() {
        let (links, own) = (addresses(&["169.254.77.2".to_owned()]), addresses(&["172.30.0.11/24".to_owned()]));
        assert_eq!(behind("ip,nw_src=169.254.77.2", &links, &own), "ip,nw_src=172.30.0.11");
        assert_eq!(behind("ip,nw_src=10.244.0.2", &links, &own), "ip,nw_src=10.244.0.2");
        let gateways = addresses(&["10.244.0.1/24".to_owned(), "fd00::1/64".to_owned()]);
        assert_eq!(from_gateway("ip,nw_src=10.244.0.2", &links, &gateways), "ip,nw_src=10.244.0.1");
        assert_eq!(from_gateway("ip,nw_src=169.254.77.2", &links, &gateways), "ip,nw_src=169.254.77.2");
    }
}
