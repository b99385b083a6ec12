//! Interfaces: up and down with their ports, announced, advertised.

use super::{Running, Surroundings, mac_bytes};
use crate::router::event::RouterEventKind;
use crate::router::neighbors::NeighborState;
use crate::router::outbox::Outbox;
use crate::router::packets::{ALL_NODES, Link, advert, arp, multicast_mac, nd};
use sluice_flows::router::{Interface, InterfaceId, send_by_interface};
use sluice_flows::rule::Millis;
use std::net::IpAddr;

/// Times that an interface says who it is when it comes up (RFC 5227, 1.1; RFC 4861, 10), and the time between them.
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_EVERY: u64 = 2000;

impl Running {
    /// Looks which interfaces' ports are up, and does what follows from a change.
    pub(in crate::router) fn watch_ports(&mut self, around: Surroundings<'_>, out: &mut Outbox) {
        let is_up = |interface: &Interface| around.bridge.ports.get(&interface.port).is_some_and(|port| port.up);
        let states: Vec<_> = self.spec.config.interfaces.iter().map(|i| (i.id, is_up(i))).collect();
        for (id, up) in states {
            if up != self.up.contains(&id) {
                self.turn(id, up, around, out);
            }
        }
    }

    fn turn(&mut self, id: InterfaceId, up: bool, around: Surroundings<'_>, out: &mut Outbox) {
        let hops = self.routes.hops_by(id);
        if up {
            self.up.insert(id);
            self.state.down.remove(&id);
            self.announcements.insert(id, (around.now, ANNOUNCEMENTS));
            let interval = self.stages.interface(id).and_then(|i| i.ra.as_ref()).map(|ra| ra.max_interval);
            if let Some(interval) = interval {
                self.advertiser.start(id, interval, around.now);
            }
        } else {
            self.up.remove(&id);
            self.state.down.insert(id);
            self.announcements.remove(&id);
            self.advertiser.stop(id);
            let known = |key: &(InterfaceId, IpAddr), state| key.0 == id && state != NeighborState::Permanent;
            let mut todo = Vec::new();
            for key in self.neighbors.keys(known) {
                self.neighbors.forget(key, &mut todo);
            }
            self.resolve(todo, around, out);
        }
        self.refresh(&hops, out);
        self.publish(around, RouterEventKind::InterfaceChanged { interface: self.interface_name(id), up });
        tracing::info!(router = &*self.name, interface = self.interface_name(id), up, "a router's interface changed");
    }

    /// Whether the interface's port was up when it was last looked at.
    pub(in crate::router) fn is_up(&self, id: InterfaceId) -> bool {
        self.up.contains(&id)
    }

    /// Says who the interfaces are that came up, or that changed.
    pub(super) fn announce(&mut self, around: Surroundings<'_>, out: &mut Outbox) {
        let due: Vec<_> =
            self.announcements.iter().filter(|(_, (due, _))| *due <= around.now).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(interface) = self.stages.interface(id) {
                announce(&self.stages, interface, out);
            }
            match self.announcements.get_mut(&id) {
                Some((due, left)) if *left > 1 => {
                    *left -= 1;
                    *due = Millis(around.now.0 + ANNOUNCE_EVERY);
                }
                _ => drop(self.announcements.remove(&id)),
            }
        }
    }

    /// Advertises the interfaces that are due.
    pub(super) fn advertise(&mut self, now: Millis, out: &mut Outbox) {
        for id in self.advertiser.due(&mut self.dice, now) {
            self.send_advertisement(id, false, out);
        }
    }

    /// Somebody asked for routers.
    pub(super) fn solicited(&mut self, id: InterfaceId, now: Millis) {
        self.advertiser.asked(id, &mut self.dice, now);
    }

    /// Says on all interfaces that this is no router any more (RFC 4861, 6.2.5).
    pub(in crate::router) fn say_goodbye(&mut self, out: &mut Outbox) {
        let ids: Vec<_> = self.spec.config.interfaces.iter().map(|interface| interface.id).collect();
        for id in ids {
            if self.advertiser.stop(id) {
                self.send_advertisement(id, true, out);
            }
        }
    }

    fn send_advertisement(&mut self, id: InterfaceId, is_last: bool, out: &mut Outbox) {
        let Some(interface) = self.stages.interface(id) else { return };
        let (Some(ra), Some(own)) = (&interface.ra, interface.link_local()) else { return };
        let link = Link { src: mac_bytes(interface.mac), dst: multicast_mac(ALL_NODES) };
        let frame = advert::frame(interface, ra, link, (own, ALL_NODES), is_last);
        out.send(&frame, send_by_interface(self.stages.pipeline(), id));
        self.counters.advertisements += 1;
    }
}

/// Says who has the interface's addresses.
fn announce(stages: &sluice_flows::router::Stages, interface: &Interface, out: &mut Outbox) {
    if interface.layer3 {
        return;
    }
    let mac = mac_bytes(interface.mac);
    for address in interface.own_addresses() {
        let frame = match address {
            IpAddr::V4(own) => arp::gratuitous(mac, own),
            IpAddr::V6(own) => nd::advertisement(mac, own, None),
        };
        out.send(&frame, send_by_interface(stages.pipeline(), interface.id));
    }
}
