//! What a router's flows hand over.

use super::resolve::{has, source};
use super::{Running, Surroundings, mac_bytes};
use crate::PacketIn;
use crate::router::event::RouterEventKind;
use crate::router::neighbors::{Heard, Key, Waiting};
use crate::router::outbox::Outbox;
use crate::router::packets::arp::{self, Arp};
use crate::router::packets::error::Problem;
use crate::router::packets::nd::{self, Asker, Nd};
use crate::router::packets::read::Datagram;
use crate::router::packets::{Link, Mac, echo};
use sluice_flows::field::{IP_PROTO_ICMP, IP_PROTO_ICMPV6, IP_PROTO_TCP, IP_PROTO_UDP};
use sluice_flows::packet::Frame;
use sluice_flows::router::{Interface, InterfaceId, Punt, PuntKind, send_by_interface};
use sluice_flows::rule::Millis;
use std::net::IpAddr;

/// Milliseconds between two answers to somebody who has one of our addresses (RFC 5227, 2.4).
const DEFEND_EVERY: u64 = 10_000;
/// Addresses that are remembered to be somebody else's too.
const MAX_DUPLICATES: usize = 256;

impl Running {
    /// Does what a packet asks for.
    pub(in crate::router) fn receive(
        &mut self,
        packet: &PacketIn,
        punt: Punt,
        around: Surroundings<'_>,
        out: &mut Outbox,
    ) {
        self.counters.punted += 1;
        let problem = match punt.kind {
            PuntKind::Resolve => return self.want(packet, punt, around, out),
            PuntKind::TtlExpired => Problem::TimeExceeded,
            PuntKind::NoRoute => Problem::NoRoute,
            PuntKind::Prohibited => Problem::Prohibited,
            PuntKind::NoNeighbor => Problem::HostUnreachable,
            PuntKind::TooBig => match punt.out_interface.and_then(|id| self.stages.interface(id)) {
                Some(interface) => Problem::TooBig { mtu: interface.mtu.into() },
                None => return,
            },
            _ => {
                if let Some(id) = punt.in_interface {
                    self.hear(&packet.frame, punt, id, around, out);
                }
                return;
            }
        };
        self.tell(&packet.frame, punt, problem, around.now, out);
    }

    /// A packet waits for its next hop's hardware address.
    fn want(&mut self, packet: &PacketIn, punt: Punt, around: Surroundings<'_>, out: &mut Outbox) {
        let (Some(interface), Some(next_hop)) = (punt.out_interface, punt.next_hop) else { return };
        let mut frame = Frame::from_bytes(&packet.frame);
        frame.offload = packet.offload;
        let mut todo = Vec::new();
        let key = (interface, next_hop);
        self.neighbors.wanted(key, Some(Waiting { frame, punt }), around.now, &mut todo);
        self.resolve(todo, around, out);
    }

    /// Something came for the router itself, or for everybody on a link.
    fn hear(&mut self, frame: &[u8], punt: Punt, id: InterfaceId, around: Surroundings<'_>, out: &mut Outbox) {
        if punt.kind == PuntKind::Arp {
            if let Some(arp) = Arp::read(frame) {
                self.hear_arp(&arp, id, around, out);
            }
            return;
        }
        let Some(datagram) = Datagram::read(frame) else { return };
        match punt.kind {
            PuntKind::Nd | PuntKind::Ra => {
                if let Some(message) = Nd::read(&datagram) {
                    self.hear_nd(message, datagram.eth_src, id, around, out);
                }
            }
            PuntKind::Local => self.hear_local(frame, &datagram, punt, id, around, out),
            _ => {}
        }
    }

    fn hear_arp(&mut self, arp: &Arp, id: InterfaceId, around: Surroundings<'_>, out: &mut Outbox) {
        let Some(interface) = self.stages.interface(id) else { return };
        let own = mac_bytes(interface.mac);
        if arp.sender_mac == own {
            return;
        }
        if has(interface, arp.sender.into()) {
            return self.defend((id, arp.sender.into()), arp.sender_mac, around, out);
        }
        if arp.sender.is_unspecified() || !interface.is_on_link(arp.sender.into()) {
            return;
        }
        let is_for_us = has(interface, arp.target.into());
        let heard = match arp.is_request {
            false if is_for_us && !arp.is_gratuitous() => Heard::Answer { replaces: true },
            true if is_for_us => Heard::Question,
            _ => Heard::Announcement { replaces: true },
        };
        self.hear_of((id, arp.sender.into()), arp.sender_mac, heard, around, out);
    }

    fn hear_nd(&mut self, message: Nd, from: Mac, id: InterfaceId, around: Surroundings<'_>, out: &mut Outbox) {
        let Some(interface) = self.stages.interface(id) else { return };
        let own = mac_bytes(interface.mac);
        if from == own {
            return;
        }
        match message {
            Nd::RouterSolicitation { src, mac } => {
                self.solicited(id, around.now);
                if let Some(mac) = mac.filter(|_| src.is_unicast_link_local()) {
                    self.hear_of((id, src.into()), mac, Heard::Question, around, out);
                }
            }
            Nd::NeighbourSolicitation { src, target, mac } => {
                if !has(interface, target.into()) {
                    return;
                }
                let asker = Asker { address: src, mac: mac.unwrap_or(from) };
                let answer = nd::advertisement(own, target, Some(asker));
                out.send(&answer, send_by_interface(self.stages.pipeline(), id));
                if src.is_unspecified() {
                    self.note_duplicate((id, target.into()), from, around);
                } else if let Some(mac) = mac.filter(|_| interface.is_on_link(src.into())) {
                    self.hear_of((id, src.into()), mac, Heard::Question, around, out);
                }
            }
            Nd::NeighbourAdvertisement { target, mac, is_solicited, is_override, .. } => {
                if has(interface, target.into()) {
                    return self.defend((id, target.into()), mac.unwrap_or(from), around, out);
                }
                let key = (id, target.into());
                // Without an address it confirms the one that is known.
                let Some(mac) = mac.or_else(|| self.neighbors.mac(&key)) else { return };
                let heard = match is_solicited {
                    true => Heard::Answer { replaces: is_override },
                    false => Heard::Announcement { replaces: is_override },
                };
                self.hear_of(key, mac, heard, around, out);
            }
        }
    }

    fn hear_of(&mut self, key: Key, mac: Mac, heard: Heard, around: Surroundings<'_>, out: &mut Outbox) {
        let mut todo = Vec::new();
        self.neighbors.heard(key, mac, heard, around.now, &mut todo);
        self.resolve(todo, around, out);
    }

    /// Somebody else says that it has one of our addresses: says that it is ours, now and then.
    fn defend(&mut self, key: Key, other: Mac, around: Surroundings<'_>, out: &mut Outbox) {
        if !self.note_duplicate(key, other, around) {
            return;
        }
        let Some(interface) = self.stages.interface(key.0) else { return };
        let own = mac_bytes(interface.mac);
        let frame = match key.1 {
            IpAddr::V4(address) => arp::gratuitous(own, address),
            IpAddr::V6(address) => nd::advertisement(own, address, None),
        };
        out.send(&frame, send_by_interface(self.stages.pipeline(), key.0));
    }

    /// Tells that somebody else has one of our addresses. Returns whether that was not told a short while ago.
    fn note_duplicate(&mut self, key: Key, other: Mac, around: Surroundings<'_>) -> bool {
        let told = self.duplicates.get(&key).copied();
        if told.is_some_and(|told| around.now.since(told) < DEFEND_EVERY) {
            return false;
        }
        if self.duplicates.len() >= MAX_DUPLICATES {
            self.duplicates.clear();
        }
        self.duplicates.insert(key, around.now);
        self.counters.duplicates += 1;
        let (interface, address) = (self.interface_name(key.0), key.1);
        tracing::warn!(router = &*self.name, interface, %address, mac = ?other, "another station has the router's address");
        self.publish(around, RouterEventKind::DuplicateAddress { interface, address, mac: other });
        true
    }

    /// A packet for the router itself.
    fn hear_local(
        &mut self,
        frame: &[u8],
        datagram: &Datagram<'_>,
        punt: Punt,
        id: InterfaceId,
        around: Surroundings<'_>,
        out: &mut Outbox,
    ) {
        let problem = match datagram.protocol {
            IP_PROTO_ICMP | IP_PROTO_ICMPV6 => return self.hear_icmp(datagram, punt, id, around, out),
            IP_PROTO_UDP => Problem::PortUnreachable,
            // Nobody listens, and a reset would have to be made of the connection's numbers.
            IP_PROTO_TCP => Problem::PortUnreachable,
            _ => Problem::ProtocolUnreachable,
        };
        self.tell(frame, punt, problem, around.now, out);
    }

    fn hear_icmp(
        &mut self,
        datagram: &Datagram<'_>,
        punt: Punt,
        id: InterfaceId,
        around: Surroundings<'_>,
        out: &mut Outbox,
    ) {
        if let Some(answer) = echo::read_reply(datagram) {
            if let Some(found) = self.probes.answered((id, datagram.src), answer) {
                self.found(found, around, out);
            }
            return;
        }
        // Flows answer pings of our addresses, but for those of groups.
        if let Some(own) = self.stages.interface(id).and_then(|interface| own_for(interface, datagram))
            && self.pong(around.now)
            && let Some(frame) = echo::reply(datagram, own, Link { src: [0; 6], dst: [0; 6] })
        {
            out.send(&frame, self.way_back(datagram.src, punt));
        }
    }

    /// Whether one more ping of a group may be answered now: everybody on the link may be asked to at once.
    fn pong(&mut self, now: Millis) -> bool {
        self.limits.admit(std::net::Ipv6Addr::UNSPECIFIED.into(), Problem::TooBig { mtu: 0 }, now)
    }
}

/// The address that answers for an interface.
fn own_for(interface: &Interface, asked: &Datagram<'_>) -> Option<IpAddr> {
    if has(interface, asked.dst) { Some(asked.dst) } else { source(interface, asked.src) }
}
