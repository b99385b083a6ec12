//! From what is asked for to the gateways that there are to be.

use super::{Key, NetworkGateway, NetworkLink, NetworkPort, State};
use crate::host::HostPort;
use crate::host::desired::RouteSpec;
use crate::host::gateway::{GatewayConfig, GatewayError, Inside, MasqueradeConfig, Share, stable_mac};
use ipnet::IpNet;
use sluice_flows::gateway::{FIRST_TABLE, Gateway, Service};
use sluice_flows::rule::TableId;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The zone of the first bridge's gateways; others are below.
const ZONE: u16 = 65_520;
/// Most pairs of addresses: those of IPv4 stay below 169.254.160.0.
const PAIRS: u16 = 10_000;
/// Longest name of an interface.
const NAME: usize = 15;
/// Ports at the link for ports of the host whose own number is taken there.
const LINK_PORTS: std::ops::RangeInclusive<u16> = 1024..=u16::MAX;

/// Which port at the link each port of the host has.
pub(super) type LinkPorts = BTreeMap<(Key, HostPort), u16>;

/// Which side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// What goes out comes from it.
    Out = 2,
    /// What comes in goes to it.
    In = 3,
}

/// An address of the Nth pair.
fn address(pair: u16, side: Side, v4: bool) -> IpAddr {
    let offset = 2 * pair + side as u16;
    if v4 {
        let [high, low] = offset.to_be_bytes();
        return Ipv4Addr::new(169, 254, 77_u8.saturating_add(high), low).into();
    }
    Ipv6Addr::new(0xfd73, 0x6c75, 0x6963, 0, 0, 0, 0, offset).into()
}

/// The interface of a gateway that no configuration speaks of.
fn link_of((bridge, vlan): &Key) -> String {
    vlan.map_or_else(|| bridge.clone(), |vlan| format!("{bridge}.{vlan}"))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn conflict<T>(what: String) -> Result<T, GatewayError> {
    Err(GatewayError::Conflict(what))
}

impl State {
    /// The gateways that there are to be. Notes which addresses, zones and ports they have.
    ///
    /// # Errors
    /// What is asked for does not go together.
    pub(super) fn wanted(&mut self) -> Result<BTreeMap<Key, GatewayConfig>, GatewayError> {
        self.check()?;
        let keys: BTreeSet<Key> = self
            .file
            .keys()
            .map(|bridge| (bridge.clone(), None))
            .chain(self.networks.iter().filter(|n| !n.addresses.is_empty()).map(|n| (n.bridge.clone(), n.vlan)))
            .collect();
        self.assign_zones(&keys);
        self.assign_pairs(&keys)?;
        self.assign_link_ports()?;
        keys.into_iter().map(|key| Ok((key.clone(), self.compose(&key)))).collect()
    }

    /// Whether networks go together, with each other and with the configuration.
    fn check(&self) -> Result<(), GatewayError> {
        for (i, network) in self.networks.iter().enumerate() {
            let link = link_of(&(network.bridge.clone(), network.vlan));
            if !network.addresses.is_empty() && link.len() > NAME {
                return conflict(format!(
                    "the gateway of network {} would be the interface {link}, and names of interfaces have at most {NAME} \
                     letters: give the bridge a shorter name",
                    network.name
                ));
            }
            let said = self.file.iter().map(|(bridge, config)| {
                ((bridge.as_str(), None), format!("the configuration's gateway of {bridge}"), &config.addresses, false)
            });
            let others = self.networks[..i].iter().map(|other| {
                let key = (other.bridge.as_str(), other.vlan);
                (key, format!("network {}", other.name), &other.addresses, other.internal)
            });
            for (key, name, addresses, internal) in said.chain(others) {
                for (a, b) in network.addresses.iter().flat_map(|a| addresses.iter().map(move |b| (a, b))) {
                    let same = key == (network.bridge.as_str(), network.vlan);
                    let what = if !same && overlap(a, b) {
                        "is on another bridge or VLAN and overlaps"
                    } else if same && a.addr() == b.addr() && a.prefix_len() != b.prefix_len() {
                        "has the same address with another prefix:"
                    } else if same && overlap(a, b) && internal != network.internal {
                        "is internal where the other is not, with the same addresses:"
                    } else {
                        continue;
                    };
                    return conflict(format!("network {} ({a}) {what} {name} ({b})", network.name));
                }
            }
        }
        Ok(())
    }

    /// One zone for each bridge: the configuration's, or one that nobody has.
    fn assign_zones(&mut self, keys: &BTreeSet<Key>) {
        let of_file = |config: &GatewayConfig| config.masquerade.as_ref().map(|masquerade| masquerade.zone);
        let said: BTreeMap<_, _> =
            self.file.iter().filter_map(|(bridge, config)| Some((bridge.clone(), of_file(config)?))).collect();
        let mut zones = said;
        for (bridge, _) in keys {
            if zones.contains_key(bridge) {
                continue;
            }
            let before = self.zones.get(bridge).copied().filter(|zone| !zones.values().any(|taken| taken == zone));
            let free = || {
                (1..=ZONE).rev().find(|zone| {
                    !zones.values().any(|taken| taken == zone) && !self.zones.values().any(|taken| taken == zone)
                })
            };
            let zone = before.or_else(free).unwrap_or(ZONE);
            zones.insert(bridge.clone(), zone);
        }
        self.zones = zones;
    }

    /// One pair of addresses for each gateway. One that the configuration gives an address of a pair has that pair.
    fn assign_pairs(&mut self, keys: &BTreeSet<Key>) -> Result<(), GatewayError> {
        let said: Vec<_> = self
            .file
            .iter()
            .flat_map(|(bridge, config)| {
                config.masquerade.iter().flat_map(move |m| m.addresses.iter().map(move |a| (bridge, *a)))
            })
            .collect();
        let holder = |pair: u16| {
            let of = |address: IpAddr| said.iter().find(|(_, a)| *a == address).map(|(bridge, _)| *bridge);
            let all = [(Side::Out, true), (Side::Out, false), (Side::In, true), (Side::In, false)];
            all.into_iter().find_map(|(side, v4)| of(address(pair, side, v4)))
        };
        let free_for = |pair: u16, key: &Key| holder(pair).is_none_or(|bridge| *bridge == key.0 && key.1.is_none());
        let mut pairs: BTreeMap<Key, u16> = BTreeMap::new();
        // Those that are held by the configuration first, and those that there are.
        for key in keys {
            // Most have few addresses, and none of a pair.
            let held = (0..PAIRS.min(64)).find(|pair| key.1.is_none() && holder(*pair) == Some(&key.0));
            let before = self.pairs.get(key).copied().filter(|pair| free_for(*pair, key));
            if let Some(pair) = held.or(before) {
                pairs.insert(key.clone(), pair);
            }
        }
        let mut taken: BTreeSet<u16> = pairs.values().copied().collect();
        for key in keys {
            if pairs.contains_key(key) {
                continue;
            }
            let Some(pair) = (0..PAIRS).find(|pair| !taken.contains(pair) && free_for(*pair, key)) else {
                return conflict(format!("there are {PAIRS} gateways already"));
            };
            taken.insert(pair);
            pairs.insert(key.clone(), pair);
        }
        self.pairs = pairs;
        Ok(())
    }

    /// One port at the link for each port of the host. A port of all addresses has its own number there: whoever makes flows
    /// for it need not ask. One of a single address has its own as well if that is free, else one that it keeps.
    fn assign_link_ports(&mut self) -> Result<(), GatewayError> {
        let before = std::mem::take(&mut self.link_ports);
        let networks: BTreeMap<&str, &NetworkGateway> = self.networks.iter().map(|n| (n.name.as_str(), n)).collect();
        let mut owners: BTreeMap<HostPort, &NetworkPort> = BTreeMap::new();
        let mut wanted = Vec::new();
        for port in &self.ports {
            let Some(network) = networks.get(port.network.as_str()) else {
                return conflict(format!("host port {} is of network {}, which is not there", port.port, port.network));
            };
            can_be(network, port, self.first_table(&network.bridge))?;
            if let Some(other) = owners.insert(port.port, port) {
                return conflict(format!("host port {} belongs to {} already", port.port, other.owner));
            }
            wanted.push(((network.bridge.clone(), network.vlan), port.port));
        }
        let keys: BTreeSet<Key> = wanted.iter().map(|(key, _)| key.clone()).collect();
        let index: BTreeMap<&Key, usize> = keys.iter().enumerate().map(|(n, key)| (key, n)).collect();
        let group = |(key, port): &(Key, HostPort)| (index.get(key).copied(), port.v6, port.protocol);
        let mut taken = HashSet::new();
        let (all, single): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, port)| port.address.is_none());
        for place in all {
            taken.insert((group(&place), place.1.port));
            let number = place.1.port;
            self.link_ports.insert(place, number);
        }
        let mut new = Vec::new();
        for place in single {
            match before.get(&place).filter(|number| taken.insert((group(&place), **number))) {
                Some(number) => _ = self.link_ports.insert(place, *number),
                None => new.push(place),
            }
        }
        // What was taken once stays taken: each number is looked at once, however many ports there are.
        let mut left = BTreeMap::new();
        for place in new {
            let rest = left.entry(group(&place)).or_insert(LINK_PORTS);
            let mut numbers = std::iter::once(place.1.port).chain(rest);
            let Some(number) = numbers.find(|number| taken.insert((group(&place), *number))) else {
                return conflict(format!("host port {}: the gateway has no port left", place.1));
            };
            self.link_ports.insert(place, number);
        }
        Ok(())
    }

    /// The first table of a bridge's gateways.
    fn first_table(&self, bridge: &str) -> TableId {
        let masquerade = self.file.get(bridge).and_then(|config| config.masquerade.as_ref());
        masquerade.map_or(FIRST_TABLE, |masquerade| masquerade.first_table)
    }

    fn compose(&self, key: &Key) -> GatewayConfig {
        let (bridge, vlan) = key;
        let name = link_of(key);
        let file = self.file.get(bridge).filter(|_| vlan.is_none());
        let of_key = |network: &&NetworkGateway| network.bridge == *bridge && network.vlan == *vlan;
        let networks: Vec<_> = self.networks.iter().filter(of_key).filter(|n| !n.addresses.is_empty()).collect();
        let mut config = file.cloned().unwrap_or_else(|| GatewayConfig {
            port: name.clone(),
            link: name.clone(),
            packet_links: Vec::new(),
            addresses: Vec::new(),
            // Not of its addresses: those who know it are not to learn another one when a network comes.
            mac: stable_mac(&name, &[]),
            mtu: None,
            routes: Vec::new(),
            rules: Vec::new(),
            neighbours: Vec::new(),
            forward: false,
            masquerade: None,
            vlan: *vlan,
            share: Share::default(),
        });
        for network in &networks {
            for address in &network.addresses {
                if !config.addresses.iter().any(|there| there.addr() == address.addr()) {
                    config.addresses.push(*address);
                }
            }
            config.forward |= !network.internal;
        }
        config.mtu = config.mtu.or_else(|| networks.iter().filter_map(|network| network.mtu).min());
        if !networks.is_empty() {
            config.share = self.share(key, file, &networks);
            self.masquerade(key, &mut config);
            self.routes(key, &networks, &mut config);
        }
        // A gateway that only routes passes on what it gets, with addresses that the other gateway knows.
        if config.masquerade.is_some() {
            config.share.closed = self.closed(key, &config);
        }
        config
    }

    /// The switch's address on the link of a gateway: the configuration's, or that of its pair.
    fn link_address(&self, key: &Key, v4: bool) -> IpAddr {
        let file = self.file.get(&key.0).filter(|_| key.1.is_none()).and_then(|config| config.masquerade.as_ref());
        let said = file.and_then(|m| m.addresses.iter().find(|address| address.is_ipv4() == v4)).copied();
        said.unwrap_or_else(|| address(self.pairs.get(key).copied().unwrap_or_default(), Side::Out, v4))
    }

    /// What a network's gateway is to whoever makes flows for it.
    pub(super) fn link(&self, name: &str) -> Option<NetworkLink> {
        let network = self.networks.iter().find(|network| network.name == name && !network.addresses.is_empty())?;
        let key = (network.bridge.clone(), network.vlan);
        let config = self.made.get(&key)?;
        let has = |v4: &bool| network.addresses.iter().any(|address| address.addr().is_ipv4() == *v4);
        let families: Vec<_> = [true, false].into_iter().filter(has).collect();
        let pair = self.pairs.get(&key).copied().unwrap_or_default();
        let ports = self.ports.iter().filter(|port| port.network == name).map(|port| port.port);
        let numbered = |port: HostPort| Some((port, *self.link_ports.get(&(key.clone(), port))?));
        let mut ports: Vec<_> = ports.filter_map(numbered).collect();
        ports.sort_unstable();
        Some(NetworkLink {
            port: config.port.clone(),
            mac: config.mac,
            addresses: families.iter().map(|v4| self.link_address(&key, *v4)).collect(),
            incoming: families.iter().map(|v4| address(pair, Side::In, *v4)).collect(),
            ports,
        })
    }

    /// The host's routes to the switch, and what they need: next hop is the switch's address on the link, and the host sends
    /// with the gateway's.
    fn routes(&self, key: &Key, networks: &[&NetworkGateway], config: &mut GatewayConfig) {
        let mut known = BTreeSet::new();
        config.share.hops =
            networks.iter().flat_map(|network| &network.hops).filter(|(to, _)| known.insert(*to)).copied().collect();
        config.share.steered = networks.iter().any(|network| network.steered);
        for v4 in [true, false] {
            let own = |network: &NetworkGateway| {
                let mut own = network.addresses.iter().map(IpNet::addr);
                own.find(|address| address.is_ipv4() == v4)
            };
            let needs = |n: &&NetworkGateway| n.steered || n.routes.iter().any(|to| to.addr().is_ipv4() == v4);
            let concerned: Vec<_> = networks.iter().copied().filter(needs).filter(|n| own(n).is_some()).collect();
            if concerned.is_empty() {
                continue;
            }
            let link = self.link_address(key, v4);
            config.share.link.push(link);
            let mut known: BTreeSet<IpNet> = config.routes.iter().map(|route| route.to.trunc()).collect();
            for network in concerned {
                for to in network.routes.iter().filter(|to| to.addr().is_ipv4() == v4 && known.insert(**to)) {
                    let (via, source) = (Some(link), own(network));
                    config.routes.push(RouteSpec { via, source, ..RouteSpec::on_link(*to) });
                }
            }
        }
    }

    /// Internal networks behind other gateways, but those whose addresses are this one's too.
    fn closed(&self, key: &Key, config: &GatewayConfig) -> Vec<IpNet> {
        let elsewhere = self.networks.iter().filter(|n| n.internal && (n.bridge != key.0 || n.vlan != key.1));
        let mut closed: Vec<_> = elsewhere.flat_map(|n| &n.addresses).map(IpNet::trunc).collect();
        closed.retain(|net| !config.addresses.iter().any(|here| net.contains(&here.addr())));
        closed.sort_unstable();
        closed.dedup();
        closed
    }

    /// What its networks add to a gateway.
    fn share(&self, key: &Key, file: Option<&GatewayConfig>, networks: &[&NetworkGateway]) -> Share {
        let open = || networks.iter().filter(|network| !network.internal);
        let inside: Vec<_> = open()
            .filter(|network| !network.masquerade.is_empty())
            .map(|n| Inside { networks: n.masquerade.clone(), except: n.except.clone() })
            .collect();
        let own = file.and_then(|config| config.masquerade.as_ref()).map(|m| m.inside.clone()).unwrap_or_default();
        let hidden: Vec<IpNet> = inside.iter().flat_map(|i| i.networks.clone()).chain(own).collect();
        let nets = |addresses: &[IpNet]| addresses.iter().map(IpNet::trunc).collect::<Vec<_>>();
        let mut routed: Vec<_> = open().flat_map(|network| nets(&network.addresses)).collect();
        // A gateway without masquerade lets everything pass; with one, what it lets pass has to be said.
        routed
            .extend(file.filter(|config| config.masquerade.is_none()).map(|c| nets(&c.addresses)).unwrap_or_default());
        routed.retain(|net| !hidden.iter().any(|hidden| hidden.contains(net)));
        routed.sort_unstable();
        routed.dedup();
        let mut internal: Vec<_> =
            networks.iter().filter(|network| network.internal).flat_map(|n| nets(&n.addresses)).collect();
        internal.sort_unstable();
        internal.dedup();
        let mut share = Share {
            networks: networks.iter().map(|network| network.name.clone()).collect(),
            inside,
            routed,
            internal,
            zone: self.zones.get(&key.0).copied().unwrap_or(ZONE),
            first_table: Some(self.first_table(&key.0)),
            ..Share::default()
        };
        let pair = self.pairs.get(key).copied().unwrap_or_default();
        for port in self.ports.iter().filter(|port| share.networks.contains(&port.network)) {
            let Some(number) = self.link_ports.get(&(key.clone(), port.port)).copied() else { continue };
            let incoming = address(pair, Side::In, !port.port.v6);
            if !share.incoming.contains(&incoming) {
                share.incoming.push(incoming);
            }
            share.ports.insert(port.port, number);
            let Some(leads) = port.leads else { continue };
            let [a, b, c, d, e, f] = leads.mac;
            share.services.push(Service {
                address: incoming,
                protocol: port.port.protocol,
                port: number,
                to: leads.to,
                to_port: leads.port,
                mac: u64::from_be_bytes([0, 0, a, b, c, d, e, f]),
            });
        }
        share.incoming.sort_unstable();
        share.services.sort_unstable();
        share
    }

    /// The masquerade of a gateway, as far as its networks need more than the configuration gives.
    fn masquerade(&self, key: &Key, config: &mut GatewayConfig) {
        let pair = self.pairs.get(key).copied().unwrap_or_default();
        let inside: Vec<_> = config.share.inside.iter().flat_map(|inside| &inside.networks).collect();
        let families = [true, false].into_iter().filter(|v4| inside.iter().any(|net| net.addr().is_ipv4() == *v4));
        let families: Vec<_> = families.collect();
        if families.is_empty() {
            return;
        }
        let masquerade = config.masquerade.get_or_insert_with(|| MasqueradeConfig {
            inside: Vec::new(),
            addresses: Vec::new(),
            except: Vec::new(),
            ports: None,
            zone: config.share.zone,
            first_table: self.first_table(&key.0),
            host_rule: true,
        });
        for v4 in families {
            if !masquerade.addresses.iter().any(|address| address.is_ipv4() == v4) {
                masquerade.addresses.push(address(pair, Side::Out, v4));
            }
        }
    }
}

/// Whether a port of the host can lead into a network.
fn can_be(network: &NetworkGateway, port: &NetworkPort, first_table: TableId) -> Result<(), GatewayError> {
    let has = network.addresses.iter().any(|address| address.addr().is_ipv4() != port.port.v6);
    let refused = if network.internal {
        "which is internal"
    } else if !has {
        "whose gateway has no address of this family"
    } else if port.port.address.is_some_and(|a| a.is_ipv6() && a.is_loopback()) {
        "and the kernel sends nothing from ::1 to other interfaces: take 127.0.0.1 or another address"
    } else if port.port.address.is_some_and(|a| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())) {
        "and the kernel forwards nothing to link-local addresses: take another address"
    } else if port.leads.is_some() && !Gateway::serves(first_table) {
        "whose bridge's gateway has no table left for it: lower `first_table`"
    } else {
        return Ok(());
    };
    conflict(format!("host port {} of {} is of network {}, {refused}", port.port, port.owner, network.name))
}

#[cfg(test)]
mod tests;
