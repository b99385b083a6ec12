//! Writing fields, and committing what was written to the wire before the packet is sent.

use super::{MacLookup, TraceSink, Walk};
use crate::action::{ModAction, Subfield};
use crate::datapath::{Change, DpAction};
use crate::field::{
    ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_RARP, ETH_TYPE_VLAN, Field, IP_PROTO_ICMP, IP_PROTO_ICMPV6,
    IP_PROTO_SCTP, IP_PROTO_TCP, IP_PROTO_UDP, ND_ADVERT, ND_SOLICIT, Prereq,
};
use crate::key::{FRAME_WORDS, FlowKey, FlowMask, Slot, VLAN_PRESENT, slot};
use crate::rule::{Rule, TableId};
use smallvec::SmallVec;
use std::sync::Arc;

/// The packet as the actions emitted so far leave it.
pub(super) struct Wire {
    key: FlowKey,
    /// Bits of `key` that emitted actions have set.
    written: FlowMask,
    /// Tags on the wire, outermost first.
    tags: Tags,
}

/// VLAN tags as (TPID, TCI), outermost first.
type Tags = SmallVec<[(u16, u16); 2]>;

impl Wire {
    pub(super) fn new(key: &FlowKey) -> Self {
        Self { key: *key, written: FlowMask::ZERO, tags: tags(key) }
    }
}

/// The slots that describe the tags.
const TAG_SLOTS: [Slot; 4] = [slot::VLAN_TCI, slot::VLAN_TPID, slot::INNER_VLAN_TCI, slot::INNER_VLAN_TPID];

/// The bits of its slot that a field means: `nw_tos` means the DSCP bits of the byte that its slot is.
const fn meant(field: Field) -> u128 {
    if matches!(field, Field::NwTos) { 0xfc } else { u128::MAX }
}

fn tags(key: &FlowKey) -> Tags {
    [(slot::VLAN_TPID, slot::VLAN_TCI), (slot::INNER_VLAN_TPID, slot::INNER_VLAN_TCI)]
        .into_iter()
        .map(|(tpid, tci)| (key.get(tpid) as u16, key.get(tci) as u16))
        .take_while(|(_, tci)| tci & VLAN_PRESENT != 0)
        .collect()
}

/// The fields of each header that actions can set, for the packet that `key` describes.
fn settable_fields(key: &FlowKey) -> impl Iterator<Item = &'static [Field]> {
    const ETH: &[Field] = &[Field::EthSrc, Field::EthDst];
    const ARP: &[Field] = &[Field::ArpOp, Field::ArpSpa, Field::ArpTpa, Field::ArpSha, Field::ArpTha];
    const IPV4: &[Field] = &[Field::IpSrc, Field::IpDst, Field::NwTos, Field::IpTtl];
    const IPV6: &[Field] = &[Field::Ipv6Src, Field::Ipv6Dst, Field::Ipv6Label, Field::NwTos, Field::IpTtl];
    let (l3, v6): (&[Field], bool) = match key.get(slot::ETH_TYPE) as u16 {
        ETH_TYPE_IPV4 => (IPV4, false),
        ETH_TYPE_IPV6 => (IPV6, true),
        ETH_TYPE_ARP | ETH_TYPE_RARP => (ARP, false),
        _ => (&[], false),
    };
    let is_ip = l3 == IPV4 || v6;
    let kind = key.get(slot::TP_SRC) as u8;
    let l4: &[Field] = match key.get(slot::IP_PROTO) as u8 {
        _ if !is_ip => &[],
        IP_PROTO_TCP => &[Field::TcpSrc, Field::TcpDst],
        IP_PROTO_UDP => &[Field::UdpSrc, Field::UdpDst],
        IP_PROTO_SCTP => &[Field::SctpSrc, Field::SctpDst],
        IP_PROTO_ICMP if !v6 => &[Field::IcmpType, Field::IcmpCode],
        IP_PROTO_ICMPV6 if v6 && (kind == ND_SOLICIT || kind == ND_ADVERT) => {
            &[Field::Icmpv6Type, Field::Icmpv6Code, Field::NdTarget, Field::NdSll, Field::NdTll]
        }
        IP_PROTO_ICMPV6 if v6 => &[Field::Icmpv6Type, Field::Icmpv6Code],
        _ => &[],
    };
    [ETH, l3, l4].into_iter()
}

impl<M: MacLookup, S: TraceSink> Walk<'_, M, S> {
    /// The value of `slot`; its original bits go into the mask.
    pub(super) fn read(&mut self, slot: Slot) -> u128 {
        let mut read = FlowMask::ZERO;
        read.add(slot);
        self.absorb(&read);
        self.flow.key.get(slot)
    }

    /// The value of a subfield; 0 if the packet does not have the field.
    pub(super) fn read_subfield(&mut self, source: Subfield) -> u128 {
        if !self.has(source.field.info().prereq) {
            return 0;
        }
        let slot = source.field.slot();
        let mask = source.mask() & meant(source.field);
        let mut read = FlowMask::ZERO;
        read.set(slot, mask);
        self.absorb(&read);
        (self.flow.key.get(slot) & mask) >> source.ofs
    }

    /// Whether the packet is one that has the fields that need `prereq`.
    pub(super) fn has(&mut self, prereq: Prereq) -> bool {
        let mut read = FlowMask::ZERO;
        let holds = prereq.holds(&self.flow.key, &mut read);
        self.absorb(&read);
        holds
    }

    /// Sets the bits of `field` in `mask`; nothing happens if the packet does not have the field.
    pub(super) fn set_field(&mut self, field: Field, value: u128, mask: u128) {
        let mask = match field {
            Field::VlanTci | Field::VlanVid | Field::VlanPcp => return self.set_vlan(field.slot(), value, mask),
            _ => mask & meant(field),
        };
        if self.has(field.info().prereq) {
            self.write(field.slot(), value, mask);
        }
    }

    fn write(&mut self, slot: Slot, value: u128, mask: u128) {
        self.flow.key.set_masked(slot, value, mask);
        self.flow.written.set_masked(slot, u128::MAX, mask);
    }

    /// Whatever is done to tags depends on all of them.
    fn read_tags(&mut self) {
        for slot in TAG_SLOTS {
            self.read(slot);
        }
    }

    fn set_vlan(&mut self, slot: Slot, value: u128, mask: u128) {
        self.read_tags();
        let key = &mut self.flow.key;
        key.set_masked(slot, value, mask);
        if key.get(slot::VLAN_TCI) as u16 & VLAN_PRESENT == 0 {
            self.shift_tags_out();
        } else if key.get(slot::VLAN_TPID) == 0 {
            key.set(slot::VLAN_TPID, ETH_TYPE_VLAN.into());
        }
    }

    pub(super) fn push_vlan(&mut self, tpid: u16) {
        self.read_tags();
        let key = &mut self.flow.key;
        let (outer_tci, outer_tpid) = (key.get(slot::VLAN_TCI), key.get(slot::VLAN_TPID));
        // Two tags fit the key: of a packet that has both, the inner one gives way, as in OVS.
        key.set(slot::INNER_VLAN_TCI, outer_tci);
        key.set(slot::INNER_VLAN_TPID, outer_tpid);
        key.set(slot::VLAN_TCI, VLAN_PRESENT.into());
        key.set(slot::VLAN_TPID, tpid.into());
    }

    pub(super) fn pop_vlan(&mut self) {
        self.read_tags();
        self.shift_tags_out();
    }

    /// The inner tag takes the outer one's place.
    fn shift_tags_out(&mut self) {
        let key = &mut self.flow.key;
        let (tci, tpid) = (key.get(slot::INNER_VLAN_TCI), key.get(slot::INNER_VLAN_TPID));
        key.set(slot::VLAN_TCI, tci);
        key.set(slot::VLAN_TPID, tpid);
        key.set(slot::INNER_VLAN_TCI, 0);
        key.set(slot::INNER_VLAN_TPID, 0);
    }

    /// Makes the outer tag `tci` (0 for none), pushing or popping as needed. Inner tags stay. The caller has read the
    /// outer TCI.
    pub(super) fn put_vlan(&mut self, tci: u16) {
        if self.flow.key.get(slot::VLAN_TCI) as u16 == tci {
            return;
        }
        if tci & VLAN_PRESENT != 0 {
            return self.set_vlan(slot::VLAN_TCI, tci.into(), 0xffff);
        }
        self.pop_vlan();
    }

    pub(super) fn modify(&mut self, change: ModAction) {
        match change {
            ModAction::DlSrc(mac) => self.set_field(Field::EthSrc, mac.into(), u128::MAX),
            ModAction::DlDst(mac) => self.set_field(Field::EthDst, mac.into(), u128::MAX),
            ModAction::NwSrc(ip) => self.set_field(Field::IpSrc, ip.into(), u128::MAX),
            ModAction::NwDst(ip) => self.set_field(Field::IpDst, ip.into(), u128::MAX),
            ModAction::NwTos(tos) => self.set_field(Field::NwTos, tos.into(), u128::MAX),
            ModAction::NwEcn(ecn) => self.set_field(Field::IpEcn, ecn.into(), u128::MAX),
            ModAction::NwTtl(ttl) => self.set_field(Field::IpTtl, ttl.into(), u128::MAX),
            ModAction::TpSrc(port) => self.modify_port(slot::TP_SRC, port),
            ModAction::TpDst(port) => self.modify_port(slot::TP_DST, port),
            ModAction::VlanVid(vid) => {
                self.set_vlan(Field::VlanVid.slot(), u128::from(vid | VLAN_PRESENT), u128::MAX);
            }
            ModAction::SetVlanVid(vid) if self.has(Prereq::Vlan) => {
                self.set_vlan(Field::VlanVid.slot(), u128::from(vid | VLAN_PRESENT), u128::MAX);
            }
            ModAction::SetVlanPcp(pcp) if self.has(Prereq::Vlan) => {
                self.set_vlan(Field::VlanPcp.slot(), pcp.into(), u128::MAX);
            }
            ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_) => {}
            ModAction::VlanPcp(pcp) => {
                let value = u128::from(u16::from(pcp) << 13 | VLAN_PRESENT);
                self.set_vlan(slot::VLAN_TCI, value, 0xf000);
            }
        }
    }

    fn modify_port(&mut self, slot: Slot, port: u16) {
        // OpenFlow 1.0's ports are ICMP's type and code too.
        let protocols = [Prereq::Tcp, Prereq::Udp, Prereq::Sctp, Prereq::Icmpv4, Prereq::Icmpv6];
        if protocols.into_iter().any(|protocol| self.has(protocol)) {
            self.write(slot, port.into(), u128::MAX);
        }
    }

    pub(super) fn dec_ttl(&mut self, rule: Option<&Arc<Rule>>, table: TableId) {
        if !self.has(Prereq::Ip) {
            return;
        }
        match self.read(slot::IP_TTL) {
            0 | 1 => self.ttl_expired(rule, table),
            ttl => self.write(slot::IP_TTL, ttl - 1, u128::MAX),
        }
    }

    /// Emits what makes the wire equal to the packet as the tables see it.
    pub(super) fn commit(&mut self) {
        self.commit_fields();
        self.commit_tags();
    }

    fn commit_fields(&mut self) {
        let mut need = FlowMask::ZERO;
        // The first word is the ingress port and the mark, which are not on the wire.
        for i in 1..FRAME_WORDS {
            let (written, sent) = (self.flow.written.0[i], self.wire.written.0[i]);
            // Original again, but changed on the wire: the original bits have to be put back, so they matter.
            let back = sent & !written;
            self.mask.0[i] |= back;
            need.0[i] = back | written & (!sent | self.flow.key.0[i] ^ self.wire.key.0[i]);
        }
        if need == FlowMask::ZERO {
            return;
        }
        for fields in settable_fields(&self.flow.key) {
            let changes: SmallVec<[Change; 2]> = fields
                .iter()
                .map(|&field| Change {
                    field,
                    value: self.flow.key.get(field.slot()) & need.get(field.slot()),
                    mask: need.get(field.slot()),
                })
                .filter(|change| change.mask != 0)
                .collect();
            if !changes.is_empty() {
                self.out.actions.push(DpAction::Set(changes));
            }
        }
        for i in 1..FRAME_WORDS {
            self.wire.key.0[i] = self.wire.key.0[i] & !need.0[i] | self.flow.key.0[i] & need.0[i];
            self.wire.written.0[i] |= need.0[i];
        }
    }

    fn commit_tags(&mut self) {
        let want = tags(&self.flow.key);
        let have = &self.wire.tags;
        if want == *have {
            return;
        }
        let kept = want.iter().rev().zip(have.iter().rev()).take_while(|(a, b)| a == b).count();
        self.out.actions.extend((kept..have.len()).map(|_| DpAction::PopVlan));
        let pushed = want[..want.len() - kept].iter().rev();
        self.out.actions.extend(pushed.map(|&(tpid, tci)| DpAction::PushVlan { tpid, tci: tci & !VLAN_PRESENT }));
        self.wire.tags = want;
    }
}
