//! How the data path is wired: which bridges a topology needs, and which port of which bridge each end of a link is.
//!
//! A switch or a router is a bridge. A host's interface is a port of it, and a link of two bridges is a pair of ports:
//! a patch, which costs nothing, or a wire where the link has impairments. What is neither gets small bridges of its own, one
//! for each end that is a device: a host's link that has impairments, and a routed link, whose ends are interfaces of the two
//! switches' own namespaces. Such a bridge has two ports and nothing to decide.

use super::topology::Topology;
use super::topology::resolved::dhcp::DhcpServer;
use super::topology::resolved::{Carried, End, Host, Impairment, Interface, Link, Router, TunnelKind};
use sluice_flows::bridge::VlanMode;
use sluice_switch::port::show_time;

/// A port that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its bridge.
    pub(crate) bridge: String,
    /// Its OpenFlow number there.
    pub(crate) number: u16,
    /// Its name in the data path.
    pub(crate) name: String,
    /// Which VLANs it carries.
    pub(crate) vlan: VlanMode,
    /// Whether it carries anything.
    pub(crate) up: bool,
}

/// The port that an interface of a namespace is at the other end of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePort {
    /// The host, or the switch for one in its own namespace.
    pub(crate) host: String,
    /// The interface.
    pub(crate) interface: String,
    /// The port.
    pub(crate) place: Place,
}

/// Two ports of two bridges that are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joint {
    /// The link's name; none inside of a switch.
    pub(crate) link: Option<String>,
    /// The ports.
    pub(crate) ends: [Place; 2],
    /// What happens to frames from the first port to the second, and the other way.
    pub(crate) impairment: [Impairment; 2],
    /// Whether something may happen to them; else they just cross, by a patch.
    pub(crate) is_wire: bool,
    /// Largest packet, in bytes.
    pub(crate) mtu: u32,
}

/// What stands between a router that translates and its link: a bridge that does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Translator {
    /// The router.
    pub(crate) router: String,
    /// The bridge. The router is behind its port 1, the link behind its port 2.
    pub(crate) bridge: String,
}

/// The wiring of a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wiring {
    /// Bridges besides those of switches and routers.
    pub(crate) bridges: Vec<String>,
    /// Those of them that lead to a host which gets copies: whoever sent what is copied is not behind any port of theirs.
    pub(crate) unlearned: Vec<String>,
    /// Where interfaces are plugged in.
    pub(crate) devices: Vec<DevicePort>,
    /// What is joined.
    pub(crate) joints: Vec<Joint>,
    /// The bridges that translate, in the order of the routers.
    pub(crate) translators: Vec<Translator>,
}

impl Wiring {
    /// The wiring of a topology.
    pub(crate) fn of(topology: &Topology) -> Self {
        let mut wiring = Self::default();
        for link in &topology.links {
            let [a, b] = &link.ends;
            match [device(a), device(b)] {
                [None, None] => wiring.join(link, place(topology, link, a, b), place(topology, link, b, a)),
                [Some(_), Some(_)] => {
                    let near = wiring.add_small(link, a);
                    let far = wiring.add_small(link, b);
                    wiring.join(link, near, far);
                }
                [Some(interface), None] => wiring.host(topology, link, [a, b], interface, false),
                [None, Some(interface)] => wiring.host(topology, link, [b, a], interface, true),
            }
        }
        for router in &topology.routers {
            wiring.translate(router);
        }
        let mirrors = topology.switches.iter().filter_map(|switch| topology.mirror(switch));
        wiring.unlearned.extend(mirrors.map(|(link, [_, host])| small_bridge(link, host)));
        wiring.unlearned.retain(|bridge| wiring.bridges.contains(bridge));
        for router in &topology.routers {
            let Some(inside) = &router.inside else { continue };
            let own = router.interfaces.iter().filter_map(|i| i.vlan.clone()).collect();
            let vlan = topology.vlan_mode(&Carried::Trunk { vlans: own, native: None });
            let (bridge, name) = (inside.switch.clone(), inside.port_name());
            let at_switch = Place { bridge, number: inside.port, name, vlan, up: true };
            let (bridge, name) = (router.name.clone(), inside.peer_name());
            let at_router = Place { bridge, number: 1, name, vlan: VlanMode::default(), up: true };
            let mtu = router.interfaces.iter().map(|i| i.mtu).max().unwrap_or_default();
            let ends = [at_switch, at_router];
            wiring.joints.push(Joint { link: None, ends, impairment: Default::default(), is_wire: false, mtu });
        }
        for server in &topology.dhcp {
            let vlan = topology.vlan_mode(&server.carried());
            let (bridge, name) = (server.switch.clone(), server.port_name());
            let place = Place { bridge, number: server.port, name, vlan, up: true };
            let (host, interface) = (server.namespace_name(), DhcpServer::INTERFACE.to_owned());
            wiring.devices.push(DevicePort { host, interface, place });
        }
        wiring
    }

    /// A link of a host, `ends[0]`; `reversed` when it is the link's second end.
    fn host(&mut self, topology: &Topology, link: &Link, ends: [&End; 2], interface: &str, reversed: bool) {
        let place = place(topology, link, ends[1], ends[0]);
        if !link.is_wire() {
            let (host, interface) = (ends[0].node().to_owned(), interface.to_owned());
            self.devices.push(DevicePort { host, interface, place });
            return;
        }
        let small = self.add_small(link, ends[0]);
        let (first, second) = if reversed { (place, small) } else { (small, place) };
        self.join(link, first, second);
    }

    /// Adds a bridge for an end that is an interface; returns its port for the other end.
    fn add_small(&mut self, link: &Link, end: &End) -> Place {
        let bridge = small_bridge(link, end);
        let port = |number, name, up| Place { bridge: bridge.clone(), number, name, vlan: VlanMode::default(), up };
        let interface = device(end).unwrap_or_default().to_owned();
        self.devices.push(DevicePort {
            host: end.node().to_owned(),
            interface,
            place: port(1, device_port(&bridge), true),
        });
        let place = port(2, wire_port(&bridge), !link.down);
        self.bridges.push(bridge);
        place
    }

    /// Puts the bridge that translates into the way between a router and the link of the interface where it does that. The link's
    /// port keeps its name, and is the bridge's from then on.
    fn translate(&mut self, router: &Router) {
        let Some(interface) = router.nat_interface() else { return };
        let bridge = translator(&router.name);
        let ends = self.joints.iter_mut().flat_map(|joint| joint.ends.iter_mut());
        let mut at = ends.filter(|end| end.bridge == router.name && end.number == interface.port);
        let Some(end) = at.next() else { return };
        let outside = Place { bridge: bridge.clone(), number: TRANSLATOR_OUTSIDE, ..end.clone() };
        let own = Place { name: format!("{bridge}.out"), up: true, ..std::mem::replace(end, outside) };
        let (number, vlan) = (TRANSLATOR_INSIDE, VlanMode::default());
        let inside = Place { bridge: bridge.clone(), number, name: format!("{bridge}.in"), vlan, up: true };
        let (impairment, mtu) = (Default::default(), interface.mtu);
        self.joints.push(Joint { link: None, ends: [inside, own], impairment, is_wire: false, mtu });
        self.translators.push(Translator { router: router.name.clone(), bridge });
    }

    fn join(&mut self, link: &Link, first: Place, second: Place) {
        let (name, ends) = (Some(link.name.clone()), [first, second]);
        self.joints.push(Joint {
            link: name,
            ends,
            impairment: link.impairment,
            is_wire: link.is_wire(),
            mtu: link.mtu,
        });
    }
}

/// The bridge that an end which is an interface has for itself: `core.s1` for the end of the link core at s1.
pub(crate) fn small_bridge(link: &Link, end: &End) -> String {
    format!("{}.{}", link.name, end.node())
}

/// The port of such a bridge that its interface is.
pub(crate) fn device_port(small: &str) -> String {
    format!("{small}.tap")
}

/// The port of such a bridge that leads to the other end of the link.
pub(crate) fn wire_port(small: &str) -> String {
    format!("{small}.wire")
}

/// The port of a bridge that translates with the router behind it, and the one with the link.
pub(crate) const TRANSLATOR_INSIDE: u16 = 1;
pub(crate) const TRANSLATOR_OUTSIDE: u16 = 2;

/// The bridge that translates for a router.
pub(crate) fn translator(router: &str) -> String {
    format!("{router}.nat")
}

/// The interface, if the end is one.
fn device(end: &End) -> Option<&str> {
    match end {
        End::Host { interface, .. } | End::Stack { interface, .. } => Some(interface),
        End::Switch { .. } | End::Router { .. } => None,
    }
}

/// The port of a switch or router at its end of a link.
fn place(topology: &Topology, link: &Link, end: &End, peer: &End) -> Place {
    let (number, vlan) = match end {
        End::Switch { port, .. } => (*port, topology.vlan_mode(&link.carried)),
        End::Router { port, .. } => (*port, VlanMode::default()),
        End::Host { .. } | End::Stack { .. } => (0, VlanMode::default()),
    };
    Place { bridge: end.node().to_owned(), number, name: link.port_name(end, peer), vlan, up: !link.down }
}

/// A way from port to port that a frame takes outside of translation: a wire, or a tunnel whose ends are both here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crossing {
    /// Bridge and number of the port that it leaves by.
    pub(crate) from: (String, u16),
    /// Bridge and number of the port that it comes in by.
    pub(crate) to: (String, u16),
    /// The tunnel's name, or the link's.
    pub(crate) name: String,
    /// The link with its delay: `core 5ms`.
    pub(crate) way: String,
    /// It leads to the small bridge of a host's end.
    pub(crate) to_host: bool,
    /// For a tunnel, what tells its network apart: `vni 100`, `key 7` or nothing.
    pub(crate) tunnel: Option<String>,
}

/// Every crossing of a lab, in both directions.
pub(crate) fn crossings(topology: &Topology) -> Vec<Crossing> {
    let mut crossings = Vec::new();
    let wiring = Wiring::of(topology);
    for joint in wiring.joints.iter().filter(|joint| joint.is_wire) {
        let name = joint.link.clone().unwrap_or_default();
        for (from, to, impairment) in [(0, 1, joint.impairment[0]), (1, 0, joint.impairment[1])] {
            let side = |index: usize| (joint.ends[index].bridge.clone(), joint.ends[index].number);
            let way = way(&name, impairment);
            let (from, to) = (side(from), side(to));
            let to_host = wiring.bridges.contains(&to.0);
            crossings.push(Crossing { from, to, name: name.clone(), way, to_host, tunnel: None });
        }
    }
    for tunnel in &topology.tunnels {
        let over = tunnel.over.as_ref().and_then(|over| topology.links.iter().find(|l| l.name == *over));
        let (Some(link), [a, b]) = (over, tunnel.ends.as_slice()) else { continue };
        let key = match tunnel.kind {
            TunnelKind::Vxlan | TunnelKind::Geneve => "vni",
            TunnelKind::Gre => "key",
        };
        let number = tunnel.vni.map_or(String::new(), |vni| format!(" {key} {vni}"));
        for (from, to) in [(a, b), (b, a)] {
            let forward = link.ends[0].node() == from.switch;
            let impairment = link.impairment[usize::from(!forward)];
            crossings.push(Crossing {
                from: (from.switch.clone(), from.port),
                to: (to.switch.clone(), to.port),
                name: tunnel.name.clone(),
                way: way(&link.name, impairment),
                to_host: false,
                tunnel: Some(number.clone()),
            });
        }
    }
    crossings
}

fn way(link: &str, impairment: Impairment) -> String {
    match impairment.delay.is_zero() {
        true => link.to_owned(),
        false => format!("{link} {}", show_time(impairment.delay)),
    }
}

/// Every network namespace of a lab: those of the hosts, then those of switches, in which routed links end, then those of
/// servers of DHCP.
pub(crate) fn namespaces(topology: &Topology) -> Vec<Host> {
    let stacks = topology.stacks().into_iter().map(|name| {
        let mut interfaces = Vec::new();
        for link in &topology.links {
            let Some(underlay) = &link.underlay else { continue };
            for (end, own) in link.ends.iter().zip(underlay).filter(|(end, _)| end.node() == name) {
                let End::Stack { interface, .. } = end else { continue };
                interfaces.push(Interface {
                    name: interface.clone(),
                    mac: own.mac,
                    mtu: link.mtu,
                    addresses: own.addresses.clone(),
                    switch: small_bridge(link, end),
                    port: 1,
                    vlan: None,
                    gateways: Vec::new(),
                    dhcp: false,
                });
            }
        }
        Host { name: name.to_owned(), env: Default::default(), run: None, interfaces }
    });
    let servers = topology.dhcp.iter().map(DhcpServer::as_host);
    topology.hosts.iter().cloned().chain(stacks).chain(servers).collect()
}

#[cfg(test)]
mod tests {
    use super::super::topology;
    use super::*;

    fn wiring(links: &str) -> Wiring {
        let file = format!("lab: a\nlinks: [{links}]\n");
        Wiring::of(&topology::parse(&file, "t.yml").map_err(crate::failure::Failure::from).unwrap())
    }

    /// Bridge and name of each port of the joints.
    fn joints(wiring: &Wiring) -> Vec<(bool, Vec<String>)> {
        let name = |place: &Place| format!("{}/{}:{}", place.bridge, place.number, place.name);
        wiring.joints.iter().map(|joint| (!joint.is_wire, joint.ends.iter().map(name).collect())).collect()
    }

    fn devices(wiring: &Wiring) -> Vec<String> {
        let device = |d: &DevicePort| format!("{}:{} {}/{}", d.host, d.interface, d.place.bridge, d.place.number);
        wiring.devices.iter().map(device).collect()
    }

    #[test]
    fn links_without_a_delay_are_ports_and_patches() {
        let wiring = wiring("[h1, s1], [s1, s2]");
        assert_eq!(wiring.bridges, [""; 0]);
        assert_eq!(devices(&wiring), ["h1:eth0 s1/1"]);
        assert_eq!(joints(&wiring), [(true, vec!["s1/2:s1.s2".to_owned(), "s2/1:s2.s1".to_owned()])]);
    }

    #[test]
    fn a_host_with_a_delay_is_behind_a_wire_whichever_end_it_is() {
        let wiring = wiring("{ends: [s1, h1], delay: 1ms, back: {delay: 2ms}}");
        assert_eq!(wiring.bridges, ["s1-h1.h1"]);
        assert_eq!(devices(&wiring), ["h1:eth0 s1-h1.h1/1"]);
        assert_eq!(joints(&wiring), [(false, vec!["s1/1:h1".to_owned(), "s1-h1.h1/2:s1-h1.h1.wire".to_owned()])]);
        assert_eq!(
            wiring.joints[0].impairment.map(|i| i.delay.as_millis()),
            [1, 2],
            "the first end is still the first"
        );
    }

    #[test]
    fn a_routed_link_has_a_small_bridge_for_each_end() {
        let wiring = wiring("{ends: [s1, s2], name: core, ips: [192.0.2.1/30, 192.0.2.2/30]}");
        assert_eq!(wiring.bridges, ["core.s1", "core.s2"]);
        assert_eq!(devices(&wiring), ["s1:core core.s1/1", "s2:core core.s2/1"]);
        let ends = ["core.s1/2:core.s1.wire", "core.s2/2:core.s2.wire"].map(str::to_owned);
        assert_eq!(joints(&wiring), [(true, ends.to_vec())]);
    }
}
