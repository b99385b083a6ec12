//! Headers put in front of the packet and taken off: MPLS labels, NSH, Ethernet.

use super::wire::{LABEL_BOTTOM, LABEL_SLOTS, is_mpls, labels};
use super::{MacLookup, TraceSink, Walk};
use crate::action::{Action, Encap, ModAction};
use crate::datapath::{DpAction, NshHeader};
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_MPLS, ETH_TYPE_MPLS_MCAST, ETH_TYPE_NSH, Field, Prereq};
use crate::key::{FRAME_WORDS, slot};
use crate::port::PortNo;

/// TTL of a label on a packet that has none (OVS's choice), and of a new NSH header's field (RFC 8300, 2.2).
const DEFAULT_TTL: u128 = 64;
const NSH_TTL: u8 = 63;
/// Label that says "IPv6 follows" (RFC 3032, 2.1: IPv6 explicit null).
const IPV6_NULL_LABEL: u128 = 2;
/// First word of the network and transport headers in a key.
const L3_WORD: usize = slot::IP_SRC.word as usize;
/// OpenFlow's name space of packet types that are EtherTypes.
const NS_ETHERTYPE: u128 = 1 << 16;

/// NSH's numbers of what follows (RFC 8300, 2.2).
fn next_protocol(packet_type: u128, eth_type: u16) -> Option<u8> {
    match eth_type {
        _ if packet_type == 0 => Some(3),
        ETH_TYPE_IPV4 => Some(1),
        ETH_TYPE_IPV6 => Some(2),
        ETH_TYPE_NSH => Some(4),
        _ => None,
    }
}

/// Whether an action reads or changes headers behind Ethernet and VLAN tags, or may lead to one that does.
pub(super) fn looks_under_labels(action: &Action) -> bool {
    let is_under = |field: Field| !matches!(field.info().prereq, Prereq::None | Prereq::Vlan | Prereq::Mpls);
    match action {
        Action::GotoTable(_)
        | Action::Resubmit { .. }
        | Action::Group(_)
        | Action::Output(PortNo::TABLE)
        | Action::Ct(_)
        | Action::DecTtl(_)
        | Action::Learn(_)
        | Action::Multipath(_)
        | Action::Bundle(_)
        | Action::FinTimeout { .. } => true,
        Action::SetField { field, .. } => is_under(*field),
        Action::Load { dst, .. } | Action::Pop(dst) => is_under(dst.field),
        Action::Move { src, dst } => is_under(src.field) || is_under(dst.field),
        Action::Push(src) | Action::OutputField(src) => is_under(src.field),
        Action::Mod(change) => !matches!(
            change,
            ModAction::DlSrc(_)
                | ModAction::DlDst(_)
                | ModAction::VlanVid(_)
                | ModAction::VlanPcp(_)
                | ModAction::SetVlanVid(_)
                | ModAction::SetVlanPcp(_)
        ),
        _ => false,
    }
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// Whatever is done to labels depends on all of them.
    pub(super) fn read_labels(&mut self) {
        if is_mpls(self.read(slot::ETH_TYPE) as u16) {
            for slot in LABEL_SLOTS {
                self.read(slot);
            }
        }
    }

    pub(super) fn push_mpls(&mut self, eth_type: u16) {
        self.read_labels();
        let have = labels(&self.flow.key);
        if have.len() >= LABEL_SLOTS.len() {
            self.looped = true;
            return self.note("a packet has at most three labels");
        }
        let first = match have.first() {
            Some(outer) => u128::from(outer & !LABEL_BOTTOM),
            None => {
                self.commit();
                self.first_label()
            }
        };
        if have.is_empty() {
            self.cover_network_headers();
        }
        self.write(slot::ETH_TYPE, eth_type.into(), u128::MAX);
        for (slot, entry) in LABEL_SLOTS.into_iter().zip([first].into_iter().chain(have.iter().map(|e| u128::from(*e))))
        {
            self.write(slot, entry, u128::MAX);
        }
    }

    /// The entry of the first label: class and TTL come from the packet under it.
    fn first_label(&mut self) -> u128 {
        let (mut label, mut tc, mut ttl) = (0, 0, DEFAULT_TTL);
        if self.has(Prereq::Ip) {
            tc = self.read(slot::IP_DSCP) & 7;
            ttl = match self.read(slot::IP_TTL) {
                0 => DEFAULT_TTL,
                ttl => ttl,
            };
        }
        if self.has(Prereq::Ipv6) {
            label = IPV6_NULL_LABEL;
        }
        label << 12 | tc << 9 | u128::from(LABEL_BOTTOM) | ttl
    }

    /// Network and transport headers are out of the tables' sight.
    fn cover_network_headers(&mut self) {
        self.flow.key.0[L3_WORD..FRAME_WORDS].fill(0);
        self.flow.written.0[L3_WORD..FRAME_WORDS].fill(u64::MAX);
    }

    pub(super) fn pop_mpls(&mut self, eth_type: u16) {
        self.read_labels();
        let have = labels(&self.flow.key);
        let Some((_, under)) = have.split_first() else { return };
        if have.len() == LABEL_SLOTS.len() && under.last().is_some_and(|entry| entry & LABEL_BOTTOM == 0) {
            self.looped = true;
            return self.note("a packet of more than three labels: what is under the outermost is not known");
        }
        let entries = under.iter().map(|entry| u128::from(*entry)).chain(std::iter::repeat(0));
        for (slot, entry) in LABEL_SLOTS.into_iter().zip(entries) {
            self.write(slot, entry, u128::MAX);
        }
        self.write(slot::ETH_TYPE, eth_type.into(), u128::MAX);
        self.unread |= !is_mpls(eth_type);
    }

    pub(super) fn encap(&mut self, header: &Encap) {
        match header {
            Encap::Ethernet => self.encap_ethernet(),
            Encap::Mpls => self.push_mpls(ETH_TYPE_MPLS),
            Encap::MplsMulticast => self.push_mpls(ETH_TYPE_MPLS_MCAST),
            Encap::Nsh { md_type, tlvs } => {
                let (packet_type, eth_type) = (self.read(slot::PACKET_TYPE), self.read(slot::ETH_TYPE) as u16);
                let Some(np) = next_protocol(packet_type, eth_type) else {
                    return self.note("NSH has no number for what this packet is");
                };
                self.commit();
                let md_type = md_type.unwrap_or(1);
                self.cover_network_headers();
                self.set_header(NS_ETHERTYPE | u128::from(ETH_TYPE_NSH), ETH_TYPE_NSH);
                let fields = [
                    (Field::NshTtl, NSH_TTL.into()),
                    (Field::NshMdtype, md_type.into()),
                    (Field::NshNp, np.into()),
                    (Field::NshSi, 255),
                ];
                for (field, value) in fields {
                    self.write(field.slot(), value, u128::MAX);
                }
                let tlvs = tlvs.clone();
                let header = NshHeader { flags: 0, ttl: NSH_TTL, md_type, np, path: 255, context: [0; 4], tlvs };
                self.out.actions.push(DpAction::PushNsh(Box::new(header)));
                self.rest_on_wire();
            }
        }
    }

    fn encap_ethernet(&mut self) {
        if self.read(slot::PACKET_TYPE) == 0 {
            return self.note("the packet has an Ethernet header");
        }
        self.commit();
        let eth_type = self.read(slot::ETH_TYPE) as u16;
        self.set_header(0, eth_type);
        for slot in [slot::ETH_SRC, slot::ETH_DST] {
            self.write(slot, 0, u128::MAX);
        }
        self.out.actions.push(DpAction::PushEthernet { src: 0, dst: 0, eth_type });
        self.rest_on_wire();
    }

    pub(super) fn decap(&mut self) {
        let (packet_type, eth_type) = (self.read(slot::PACKET_TYPE), self.read(slot::ETH_TYPE) as u16);
        if packet_type == 0 {
            self.read_tags();
            if self.flow.key.get(slot::VLAN_TCI) != 0 {
                return self.note("the packet has VLAN tags, which are to be popped first");
            }
            self.commit();
            self.out.actions.push(DpAction::PopEthernet);
            self.set_header(NS_ETHERTYPE | u128::from(eth_type), eth_type);
            self.rest_on_wire();
        } else if eth_type == ETH_TYPE_NSH {
            let under = match self.read(slot::NSH_NP) {
                1 => NS_ETHERTYPE | u128::from(ETH_TYPE_IPV4),
                2 => NS_ETHERTYPE | u128::from(ETH_TYPE_IPV6),
                3 => 0,
                4 => NS_ETHERTYPE | u128::from(ETH_TYPE_NSH),
                _ => return self.note("what the NSH header carries is not known: it stays"),
            };
            self.commit();
            self.out.actions.push(DpAction::PopNsh);
            self.cover_network_headers();
            self.set_header(under, under as u16);
            self.rest_on_wire();
            self.unread = true;
        } else {
            self.note("there is no header to take off");
        }
    }

    fn set_header(&mut self, packet_type: u128, eth_type: u16) {
        self.write(slot::PACKET_TYPE, packet_type, u128::MAX);
        self.write(slot::ETH_TYPE, eth_type.into(), u128::MAX);
    }

    /// What the tables see is on the wire: a header was just put there or taken off.
    fn rest_on_wire(&mut self) {
        self.wire.follow(&self.flow.key, &self.flow.written);
    }
}
