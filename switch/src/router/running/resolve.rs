//! Neighbours: asking for them, and the flows that send to them.

use super::{Running, Surroundings, mac_bytes, mac_number};
use crate::datapath::NO_INGRESS;
use crate::router::event::RouterEventKind;
use crate::router::neighbors::{Key, NeighborState, Todo, Waiting};
use crate::router::outbox::Outbox;
use crate::router::packets::{Mac, arp, nd};
use sluice_flows::DpPort;
use sluice_flows::router::{Interface, Neighbor, Punt, go_on, send_by_interface};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Running {
    /// Does what is to be done about neighbours.
    pub(in crate::router) fn resolve(&mut self, todo: Vec<Todo>, around: Surroundings<'_>, out: &mut Outbox) {
        for what in todo {
            match what {
                Todo::Ask(key, believed) => self.ask(key, believed, out),
                Todo::Resolved(key, mac) => {
                    self.learn(key, Neighbor::Resolved(mac_number(mac)), out);
                    let state = self.neighbors.state(&key);
                    self.tell_neighbor(key, Some(mac), state, around);
                    self.judge(key, around, out);
                }
                Todo::Release(packets) => packets.into_iter().for_each(|packet| self.release(packet, out)),
                Todo::Failed(key, packets) => {
                    self.counters.failed += 1;
                    self.learn(key, Neighbor::Failed, out);
                    self.tell_neighbor(key, None, Some(NeighborState::Failed), around);
                    self.judge(key, around, out);
                    // The flow that is there now drops them, counts them, and has their senders told.
                    packets.into_iter().for_each(|packet| self.release(packet, out));
                }
                Todo::Forgotten(key) => {
                    if let Some(was) = self.state.neighbors.remove(&key) {
                        out.delete_flow(&self.stages.neighbor_flow(key.0, key.1, was));
                        self.tell_neighbor(key, None, None, around);
                    }
                }
                Todo::Overflow(packets) => {
                    self.counters.overflowed += packets.len() as u64;
                    packets.iter().for_each(|packet| out.lose(self.came_by(&packet.punt, around)));
                }
            }
        }
    }

    /// The port by which a packet came in; that of nobody for the router's own.
    fn came_by(&self, punt: &Punt, around: Surroundings<'_>) -> DpPort {
        let interface = punt.in_interface.and_then(|id| self.stages.interface(id));
        let port = interface.and_then(|interface| around.bridge.ports.get(&interface.port));
        port.map_or(NO_INGRESS, |port| port.dp)
    }

    fn learn(&mut self, key: Key, neighbor: Neighbor, out: &mut Outbox) {
        if self.state.neighbors.insert(key, neighbor) != Some(neighbor) {
            out.add_flow(self.own(self.stages.neighbor_flow(key.0, key.1, neighbor)));
        }
    }

    fn tell_neighbor(&self, key: Key, mac: Option<Mac>, state: Option<NeighborState>, around: Surroundings<'_>) {
        let interface = self.interface_name(key.0);
        self.publish(around, RouterEventKind::NeighborChanged { interface, address: key.1, mac, state });
    }

    /// A packet that waited goes on.
    fn release(&mut self, packet: Waiting, out: &mut Outbox) {
        let punt = packet.punt;
        if let (Some(interface), Some(next_hop)) = (punt.out_interface, punt.next_hop) {
            let actions = go_on(self.stages.pipeline(), punt.vrf, punt.in_interface, interface, next_hop);
            out.send_frame(packet.frame, actions);
        }
    }

    /// Asks who has an address.
    fn ask(&mut self, key: Key, believed: Option<Mac>, out: &mut Outbox) {
        let Some(interface) = self.stages.interface(key.0).filter(|interface| !interface.layer3) else { return };
        let mac = mac_bytes(interface.mac);
        let frame = match key.1 {
            IpAddr::V4(target) => arp::request(mac, own_v4(interface, target), target, believed),
            IpAddr::V6(target) => {
                let Some(own) = own_v6(interface, target) else { return };
                nd::solicitation(mac, own, target, believed)
            }
        };
        out.send(&frame, send_by_interface(self.stages.pipeline(), key.0));
        self.counters.asked += 1;
    }
}

/// The address that an interface asks from: of the target's network, else any that it has, else none.
fn own_v4(interface: &Interface, target: Ipv4Addr) -> Ipv4Addr {
    source(interface, target.into()).map_or(Ipv4Addr::UNSPECIFIED, |own| match own {
        IpAddr::V4(own) => own,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    })
}

fn own_v6(interface: &Interface, target: Ipv6Addr) -> Option<Ipv6Addr> {
    match source(interface, target.into()) {
        Some(IpAddr::V6(own)) => Some(own),
        _ => interface.link_local(),
    }
}

/// The address of an interface that fits `to` best: one of its network, else one that others than its link can reach, else
/// any of its IP version.
pub(super) fn source(interface: &Interface, to: IpAddr) -> Option<IpAddr> {
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
    if is_link_local(&to) {
        return interface.link_local().map(IpAddr::V6);
    }
    let of_network = interface.addresses.iter().find(|net| net.contains(&to)).map(|net| net.addr());
    let mut others = interface.own_addresses().filter(|own| own.is_ipv4() == to.is_ipv4());
    of_network.or_else(|| {
        let first = others.next()?;
        if is_link_local(&first) { others.find(|own| !is_link_local(own)).or(Some(first)) } else { Some(first) }
    })
}

/// Whether an interface has this address.
pub(super) fn has(interface: &Interface, address: IpAddr) -> bool {
    interface.own_addresses().any(|own| own == address)
}
