//! Reading and writing fields of the packet as the tables see it.

use super::wire::meant;
use super::{At, MacLookup, TraceSink, Walk};
use crate::action::{ModAction, Subfield};
use crate::field::{ETH_TYPE_VLAN, Field, Prereq};
use crate::key::{FlowMask, Slot, VLAN_PRESENT, slot, tun_flag_option};

/// The slots that describe the tags.
const TAG_SLOTS: [Slot; 4] = [slot::VLAN_TCI, slot::VLAN_TPID, slot::INNER_VLAN_TCI, slot::INNER_VLAN_TPID];

impl<'a, M: MacLookup, S: TraceSink> Walk<'a, M, S> {
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
        if self.unread && !matches!(prereq, Prereq::None | Prereq::Vlan) {
            return false;
        }
        let mut read = FlowMask::ZERO;
        let holds = prereq.holds(&self.flow.key, &mut read);
        self.absorb(&read);
        holds
    }

    /// Whether the packet is a part of one, the first included: its ports are not looked at then.
    pub(super) fn is_fragment(&mut self) -> bool {
        self.has(Prereq::Ip) && self.read(Field::IpFrag.slot()) != 0
    }

    /// Sets the bits of `field` in `mask`; nothing happens if the packet does not have the field.
    pub(super) fn set_field(&mut self, field: Field, value: u128, mask: u128) {
        let mask = match field {
            Field::VlanTci | Field::VlanVid | Field::VlanPcp => return self.set_vlan(field.slot(), value, mask),
            _ => mask & meant(field),
        };
        if field.info().prereq == Prereq::Mpls {
            self.read_labels();
        }
        if self.has(field.info().prereq) {
            self.write(field.slot(), value, mask);
            if let Some(flag) = option_flag(field) {
                self.write(slot::TUN_FLAGS, flag, flag);
            }
        }
    }

    /// Takes a Geneve option off.
    pub(super) fn delete_field(&mut self, field: Field) {
        self.write(field.slot(), 0, u128::MAX);
        if let Some(flag) = option_flag(field) {
            self.write(slot::TUN_FLAGS, 0, flag);
        }
    }

    pub(super) fn write(&mut self, slot: Slot, value: u128, mask: u128) {
        self.flow.key.set_masked(slot, value, mask);
        self.flow.written.set_masked(slot, u128::MAX, mask);
    }

    /// Whatever is done to tags depends on all of them.
    pub(super) fn read_tags(&mut self) {
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

    /// Decrements a TTL; at 0 or 1 it runs out.
    pub(super) fn dec_ttl_of(&mut self, field: Field, controllers: &[u16], at: At<'a>) {
        if !self.has(field.info().prereq) {
            return;
        }
        match self.read(field.slot()) {
            0 | 1 => self.ttl_expired(controllers, at),
            ttl => self.write(field.slot(), ttl - 1, u128::MAX),
        }
    }

    /// Gives `slot` the value back that the packet came with.
    pub(super) fn put_back(&mut self, slot: Slot) {
        let value = self.entered.get(slot);
        self.flow.key.set(slot, value);
        self.flow.written.set(slot, 0);
    }
}

/// The tunnel flag that says that the Geneve option is there, for a field that is one.
fn option_flag(field: Field) -> Option<u128> {
    let first = Field::TunMetadata0 as u8;
    let number = (Field::TunMetadata0..=Field::TunMetadata7).contains(&field).then(|| field as u8 - first);
    number.map(|n| tun_flag_option(n).into())
}
