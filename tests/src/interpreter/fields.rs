//! Reading and writing fields, headers and the stack.

use super::Run;
use sluice_flows::action::{Action, ModAction, MultipathAlgorithm, Subfield};
use sluice_flows::field::{Field, Prereq};
use sluice_flows::key::{FRAG_LATER, VLAN_PRESENT, slot};

impl Run<'_> {
    pub(super) fn has(&self, prereq: Prereq) -> bool {
        let key = self.key();
        let eth_type = key.get(slot::ETH_TYPE);
        let (v4, v6) = (eth_type == 0x0800, eth_type == 0x86dd);
        let proto = key.get(slot::IP_PROTO);
        let first = key.get(slot::IP_FRAG) as u8 & FRAG_LATER == 0;
        let icmp6 = v6 && first && proto == 58;
        let (kind, code) = (key.get(slot::TP_SRC), key.get(slot::TP_DST));
        match prereq {
            Prereq::None => true,
            Prereq::Vlan => key.get(slot::VLAN_TCI) as u16 & VLAN_PRESENT != 0,
            Prereq::Arp => eth_type == 0x0806 || eth_type == 0x8035,
            Prereq::Ipv4 => v4,
            Prereq::Ipv6 => v6,
            Prereq::Ip => v4 || v6,
            Prereq::Tcp => (v4 || v6) && first && proto == 6,
            Prereq::Udp => (v4 || v6) && first && proto == 17,
            Prereq::Sctp => (v4 || v6) && first && proto == 132,
            Prereq::Icmpv4 => v4 && first && proto == 1,
            Prereq::Icmpv6 => icmp6,
            Prereq::Nd => icmp6 && code == 0 && (kind == 135 || kind == 136),
            Prereq::NdSolicit => icmp6 && code == 0 && kind == 135,
            Prereq::NdAdvert => icmp6 && code == 0 && kind == 136,
            Prereq::Mpls => matches!(eth_type, 0x8847 | 0x8848),
            Prereq::Nsh => eth_type == 0x894f,
            Prereq::CtIpv4 => v4 && self.tracked(),
            Prereq::CtIpv6 => v6 && self.tracked(),
            Prereq::CtIp => (v4 || v6) && self.tracked(),
        }
    }

    pub(super) fn subfield(&self, source: Subfield) -> u128 {
        if !self.has(source.field.info().prereq) {
            return 0;
        }
        let low = if source.bits == 128 { u128::MAX } else { (1 << source.bits) - 1 };
        let ecn = if source.field == Field::NwTos { 3 } else { 0 };
        (self.key().get(source.field.slot()) & !ecn) >> source.ofs & low
    }

    pub(super) fn set(&mut self, field: Field, value: u128, mask: u128) {
        match field {
            Field::VlanTci | Field::VlanVid | Field::VlanPcp => {
                self.packet.key.set_masked(field.slot(), value, mask);
                let tci = self.key().get(slot::VLAN_TCI) as u16;
                if tci & VLAN_PRESENT == 0 {
                    self.implied_pops.push(*self.key());
                    self.packet.pop_vlan();
                } else if self.key().get(slot::VLAN_TPID) == 0 {
                    self.packet.key.set(slot::VLAN_TPID, 0x8100);
                }
            }
            Field::NwTos if self.has(Prereq::Ip) => self.packet.key.set_masked(field.slot(), value, mask & 0xfc),
            _ if self.has(field.info().prereq) => self.packet.key.set_masked(field.slot(), value, mask),
            _ => {}
        }
    }

    /// An action that changes the packet and sends it nowhere, or does nothing to it.
    pub(super) fn change(&mut self, action: &Action) {
        let all = u128::MAX;
        match action {
            Action::SetField { field, value, mask } => self.set(*field, *value, *mask),
            Action::Load { value, dst } => self.set(dst.field, *value << dst.ofs, dst.mask()),
            Action::Move { src, dst } => {
                let value = self.subfield(*src);
                self.set(dst.field, value << dst.ofs, dst.mask());
            }
            Action::Push(source) => self.stack.push(self.subfield(*source)),
            Action::Pop(dst) => {
                if let Some(value) = self.stack.pop() {
                    self.set(dst.field, value << dst.ofs, dst.mask());
                }
            }
            Action::Mod(change) => self.modify(*change),
            Action::PushVlan(tpid) => self.packet.push_vlan(*tpid, 0),
            Action::PopVlan { .. } => self.packet.pop_vlan(),
            Action::PushMpls(eth_type) => self.push_mpls(*eth_type),
            Action::PopMpls(eth_type) if self.has(Prereq::Mpls) => self.packet.pop_mpls(*eth_type),
            Action::SetMplsLabel(label) => self.set(Field::MplsLabel, (*label).into(), all),
            Action::SetMplsTc(tc) => self.set(Field::MplsTc, (*tc).into(), all),
            Action::SetMplsTtl(ttl) => self.set(Field::MplsTtl, (*ttl).into(), all),
            Action::SetTunnel { id, .. } => self.set(Field::TunId, (*id).into(), all),
            Action::SetQueue(queue) => self.packet.key.set(slot::SKB_PRIORITY, (*queue).into()),
            Action::PopQueue => self.packet.key.set(slot::SKB_PRIORITY, self.priority),
            Action::WriteMetadata { value, mask } => {
                self.packet.key.set_masked(slot::METADATA, (*value).into(), (*mask).into());
            }
            Action::Multipath(multipath) => {
                let one =
                    multipath.links == 1 || multipath.algorithm == MultipathAlgorithm::Hrw && multipath.links == 0;
                assert!(one, "the choice between several links is not known here");
                self.set(multipath.dst.field, 0, multipath.dst.mask());
            }
            Action::PopMpls(_)
            | Action::DecTtl(_)
            | Action::DecMplsTtl
            | Action::Conjunction(_)
            | Action::Note(_)
            | Action::Sample(_)
            | Action::FinTimeout { .. } => {}
            other => panic!("{other:?} is not interpreted"),
        }
    }

    /// A new entry: that of a packet with a label is like the outermost, others take TTL and traffic class from IP.
    fn push_mpls(&mut self, eth_type: u16) {
        let key = self.key();
        let lse = if self.has(Prereq::Mpls) && key.get(slot::MPLS_LSE) != 0 {
            key.get(slot::MPLS_LSE) & !0x100
        } else if self.has(Prereq::Ip) {
            let label: u128 = if self.has(Prereq::Ipv6) { 2 } else { 0 };
            let (dscp, ttl) = (key.get(slot::IP_DSCP), key.get(slot::IP_TTL));
            label << 12 | (dscp & 7) << 9 | 0x100 | if ttl == 0 { 64 } else { ttl }
        } else {
            0x100 | 64
        };
        self.packet.push_mpls(eth_type, lse as u32);
    }

    fn modify(&mut self, change: ModAction) {
        let all = u128::MAX;
        match change {
            ModAction::DlSrc(v) => self.set(Field::EthSrc, v.into(), all),
            ModAction::DlDst(v) => self.set(Field::EthDst, v.into(), all),
            ModAction::NwSrc(v) => self.set(Field::IpSrc, v.into(), all),
            ModAction::NwDst(v) => self.set(Field::IpDst, v.into(), all),
            ModAction::NwTos(v) => self.set(Field::NwTos, v.into(), all),
            ModAction::NwEcn(v) => self.set(Field::IpEcn, v.into(), all),
            ModAction::NwTtl(v) => self.set(Field::IpTtl, v.into(), all),
            ModAction::TpSrc(v) => {
                for field in [Field::TcpSrc, Field::UdpSrc, Field::SctpSrc, Field::IcmpType, Field::Icmpv6Type] {
                    self.set(field, v.into(), all);
                }
            }
            ModAction::TpDst(v) => {
                for field in [Field::TcpDst, Field::UdpDst, Field::SctpDst, Field::IcmpCode, Field::Icmpv6Code] {
                    self.set(field, v.into(), all);
                }
            }
            ModAction::SetVlanVid(_) | ModAction::SetVlanPcp(_) if !self.has(Prereq::Vlan) => {}
            ModAction::VlanVid(v) | ModAction::SetVlanVid(v) => {
                self.set(Field::VlanVid, (v | VLAN_PRESENT).into(), all)
            }
            ModAction::VlanPcp(v) | ModAction::SetVlanPcp(v) => {
                let tci = u16::from(v) << 13 | VLAN_PRESENT;
                self.set(Field::VlanTci, tci.into(), 0xf000);
            }
        }
    }
}
