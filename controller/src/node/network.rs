//! The Pods' network as the switch is asked for it.

use super::conflist::NETWORK;
use super::transport::{Route, gateway};
use crate::config::Config;
use crate::facts::Protocol;
use crate::services::{Published, PublishedPort};
use ipnet::IpNet;
use sluice_proto::v1::{Network, NetworkRoute, NetworkSpec, ServicePort};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Who declares it, for lists.
const KIND: &str = "kubernetes";

/// The network of a node with these Pods' networks. Routes lead to peers, to Services, and to what Services have published.
pub(super) fn spec(
    config: &Config,
    pod_cidrs: &[IpNet],
    mtu: u16,
    routes: &BTreeSet<Route>,
    published: &Published,
) -> NetworkSpec {
    let text = |networks: &[IpNet]| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut all = routes.clone();
    all.extend(published.routes.iter().map(|address| Route { to: IpNet::from(*address), via: None }));
    let route = |route: &Route| NetworkRoute {
        to: route.to.to_string(),
        via: route.via.map(|via| via.to_string()).unwrap_or_default(),
    };
    let port = |port: &PublishedPort| ServicePort {
        protocol: port.protocol.name().to_owned(),
        address: port.address.map(|address| address.to_string()).unwrap_or_default(),
        port: u32::from(port.port),
        v6: port.v6,
    };
    NetworkSpec {
        name: NETWORK.to_owned(),
        bridge: config.bridge.clone(),
        make_bridge: true,
        gateway: pod_cidrs.iter().filter_map(gateway).map(|address| address.to_string()).collect(),
        masquerade: if config.no_snat { Vec::new() } else { text(pod_cidrs) },
        masquerade_except: if config.no_snat { Vec::new() } else { text(&config.masquerade_except) },
        mtu_bytes: u32::from(mtu),
        keep: true,
        kind: KIND.to_owned(),
        routes: all.iter().map(route).collect(),
        service_ports: published.ports.iter().map(port).collect(),
        confirm: true,
        ..NetworkSpec::default()
    }
}

/// Addresses of the API, those that are none left out.
pub(super) fn addresses(texts: &[String]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// Where ports of single addresses of the host arrive.
pub(super) fn incoming_ports(network: &Network) -> HashMap<PublishedPort, u16> {
    let ports = network.incoming_ports.iter().filter(|port| port.attachment.is_none());
    ports
        .filter_map(|incoming| {
            let port = incoming.port.as_ref()?;
            let address: IpAddr = port.address.parse().ok()?;
            let published = PublishedPort {
                protocol: Protocol::named(&port.protocol)?,
                address: Some(address),
                v6: address.is_ipv6(),
                port: u16::try_from(port.port).ok()?,
            };
            Some((published, u16::try_from(incoming.incoming_port).ok()?))
        })
        .collect()
}

/// A hardware address in the low 48 bits; none if the text is none.
pub(super) fn mac(text: &str) -> Option<u64> {
    let mut mac = 0;
    let mut count = 0;
    for part in text.split(':') {
        mac = mac << 8 | u64::from(u8::from_str_radix(part, 16).ok()?);
        count += 1;
        if count > 6 {
            return None;
        }
    }
    (count == 6).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_has_six_bytes() {
        assert_eq!(mac("02:00:00:00:01:ff"), Some(0x0200_0000_01ff));
        for text in ["", "02:00:00:00:01", "02:00:00:00:01:ff:00", "02:00:00:00:01:zz"] {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn routes_lead_to_peers_and_to_what_services_publish() {
        let cidrs = ["10.244.0.0/24".parse().unwrap()];
        let routes = [
            Route { to: "10.244.1.0/24".parse().unwrap(), via: None },
            Route { to: "10.244.2.0/24".parse().unwrap(), via: Some("172.30.0.12".parse().unwrap()) },
        ];
        let port = PublishedPort { protocol: Protocol::Udp, address: None, v6: false, port: 30_053 };
        let published = Published { routes: ["192.0.2.7".parse().unwrap()].into(), ports: [port].into() };
        let spec = spec(&Config::default(), &cidrs, 1450, &routes.into(), &published);
        assert_eq!(spec.gateway, ["10.244.0.1/24"]);
        assert_eq!(spec.masquerade, ["10.244.0.0/24"]);
        let routes: Vec<_> = spec.routes.iter().map(|route| format!("{} {}", route.to, route.via)).collect();
        assert_eq!(routes, ["10.244.1.0/24 ", "10.244.2.0/24 172.30.0.12", "192.0.2.7/32 "]);
        assert_eq!((spec.service_ports[0].protocol.as_str(), spec.service_ports[0].port), ("udp", 30_053));
        assert!(spec.keep && spec.confirm && spec.make_bridge);
    }
}
