//! Telling senders what is wrong with their packets.

use super::Running;
use super::resolve::source;
use crate::router::outbox::Outbox;
use crate::router::packets::Link;
use crate::router::packets::error::{self, Problem};
use crate::router::packets::read::Datagram;
use sluice_flows::action::Action;
use sluice_flows::router::{Punt, send_by_route, send_to_neighbor};
use sluice_flows::rule::Millis;
use std::net::IpAddr;

impl Running {
    /// Sends an ICMP error about a packet, if its sender may be told and was not told too often.
    pub(super) fn tell(&mut self, frame: &[u8], punt: Punt, problem: Problem, now: Millis, out: &mut Outbox) {
        // What the router itself sent needs no answer.
        if punt.in_interface.is_none() {
            return;
        }
        let Some(about) = Datagram::read(frame) else { return };
        if punt.to_many && !matches!(problem, Problem::TooBig { .. }) || !error::may_tell(&about, problem) {
            return;
        }
        let Some(own) = self.speaks_for(&punt, about.src) else { return };
        if !self.limits.admit(about.src, problem, now) {
            self.counters.errors_limited += 1;
            return;
        }
        self.identification = self.identification.wrapping_add(1);
        let link = Link { src: [0; 6], dst: [0; 6] };
        if let Some(error) = error::frame(&about, problem, own, link, self.identification) {
            self.counters.errors += 1;
            out.send(&error, self.way_back(about.src, punt));
        }
    }

    /// The address that errors come from: of the interface that the packet came by, else of another one of its VRF.
    fn speaks_for(&self, punt: &Punt, to: IpAddr) -> Option<IpAddr> {
        let interface = self.stages.interface(punt.in_interface?)?;
        let own = source(interface, to);
        own.or_else(|| {
            let others = self.spec.config.interfaces.iter().filter(|other| other.vrf == punt.vrf);
            others.flat_map(|other| &other.addresses).map(|net| net.addr()).find(|own| own.is_ipv4() == to.is_ipv4())
        })
    }

    /// How a packet is sent back: by the routes, or by the link that it came by where no route leads.
    pub(super) fn way_back(&self, to: IpAddr, punt: Punt) -> Vec<Action> {
        let pipeline = self.stages.pipeline();
        match (to, punt.in_interface) {
            (IpAddr::V6(address), Some(interface)) if address.is_unicast_link_local() => {
                send_to_neighbor(pipeline, punt.vrf, interface, to)
            }
            _ => send_by_route(pipeline, punt.vrf),
        }
    }
}
