//! Multicast snooping in NORMAL (RFC 4541): messages about groups are noted, and packets to a group go to those who want
//! it.
//!
//! What is flooded nevertheless: groups that nobody is known to want, groups of link-local scope (224.0.0.0/24, ff01::/16
//! and ff02::/16, which hosts need not ask for), and what is not IP.

use super::{MacLookup, TraceSink, Walk};
use crate::bridge::{BridgePort, VlanId};
use crate::datapath::{DpAction, McastQuery, McastSighting};
use crate::field::{IP_PROTO_ICMPV6, Prereq};
use crate::key::slot;
use crate::packet::membership::{
    IGMP_QUERY, IP_PROTO_IGMP, IP_PROTO_PIM, MLD_DONE, MLD_QUERY, MLD_REPORT, MLD_V2_REPORT,
};
use crate::port::PortNo;
use smallvec::SmallVec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a packet is to snooping.
enum Kind {
    /// A message that routers alone have to hear.
    Report,
    /// A message that everybody has to hear.
    Query,
    /// A packet to a group.
    Data(IpAddr),
    /// A packet that everybody gets.
    Other,
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// The ports that a multicast packet goes to; `None` for all.
    pub(super) fn snoop(&mut self, in_port: &BridgePort, vlan: VlanId) -> Option<SmallVec<[PortNo; 4]>> {
        let bridge = self.bridge.id;
        match self.kind() {
            Kind::Other => None,
            Kind::Query => {
                self.out.actions.push(DpAction::Snoop(McastSighting { bridge, vlan, port: in_port.no }));
                None
            }
            Kind::Report => {
                self.out.actions.push(DpAction::Snoop(McastSighting { bridge, vlan, port: in_port.no }));
                self.note("NORMAL: what a host wants is noted, and passed on to multicast routers");
                // Without a router the message is done with.
                self.forwarded = true;
                Some(self.macs.members(McastQuery { bridge, vlan, group: None }).unwrap_or_default())
            }
            Kind::Data(group) => {
                let members = self.macs.members(McastQuery { bridge, vlan, group: Some(group) });
                if members.is_some() {
                    self.note("NORMAL: forwarding to the ports that want the group");
                }
                members
            }
        }
    }

    fn kind(&mut self) -> Kind {
        if self.has(Prereq::Ipv4) {
            match self.read(slot::IP_PROTO) as u8 {
                IP_PROTO_IGMP if self.read(slot::TP_SRC) as u8 == IGMP_QUERY => return Kind::Query,
                IP_PROTO_IGMP => return Kind::Report,
                IP_PROTO_PIM => return Kind::Query,
                _ => {}
            }
            let group = Ipv4Addr::from(self.read(slot::IP_DST) as u32);
            let is_local = group.octets()[..3] == [224, 0, 0];
            return if group.is_multicast() && !is_local { Kind::Data(group.into()) } else { Kind::Other };
        }
        if !self.has(Prereq::Ipv6) {
            return Kind::Other;
        }
        if self.read(slot::IP_PROTO) as u8 == IP_PROTO_ICMPV6 {
            match self.read(slot::TP_SRC) as u8 {
                MLD_QUERY => return Kind::Query,
                MLD_REPORT | MLD_DONE | MLD_V2_REPORT => return Kind::Report,
                _ => {}
            }
        }
        let group = Ipv6Addr::from(self.read(slot::IPV6_DST));
        let is_local = matches!(group.octets(), [0xff, scope, ..] if scope & 15 <= 2);
        if group.is_multicast() && !is_local { Kind::Data(group.into()) } else { Kind::Other }
    }
}
