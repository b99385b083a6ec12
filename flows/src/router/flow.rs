//! Writing down a router's flows: matches and actions in the words that the stages need.

use super::config::Interface;
use super::pipeline::{Pipeline, Stage};
use super::punt::PuntKind;
use crate::action::{Action, ControllerAction, Subfield};
use crate::field::{ETH_TYPE_ARP, ETH_TYPE_IPV4, ETH_TYPE_IPV6, Field, IP_PROTO_ICMP, IP_PROTO_ICMPV6};
use crate::key::{FlowKey, FlowMask, VLAN_PRESENT};
use crate::matching::Match;
use crate::owner::Owner;
use crate::rule::FlowSpec;
use crate::verdict::DropReason;
use ipnet::IpNet;
use std::net::IpAddr;

/// The bit of a MAC address that says it is one of a group.
const GROUP_MAC: u128 = 1 << 40;

/// A match being written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Matching {
    value: FlowKey,
    mask: FlowMask,
}

impl Matching {
    /// Every packet.
    pub(crate) fn any() -> Self {
        Self::default()
    }

    pub(crate) fn arp() -> Self {
        Self::any().is(Field::EthType, ETH_TYPE_ARP)
    }

    /// IPv4 or IPv6.
    pub(crate) fn ip(v4: bool) -> Self {
        Self::any().is(Field::EthType, if v4 { ETH_TYPE_IPV4 } else { ETH_TYPE_IPV6 })
    }

    /// ICMP or ICMPv6 of this type and code 0.
    pub(crate) fn icmp(v4: bool, kind: u8) -> Self {
        let (proto, ty, code) = match v4 {
            true => (IP_PROTO_ICMP, Field::IcmpType, Field::IcmpCode),
            false => (IP_PROTO_ICMPV6, Field::Icmpv6Type, Field::Icmpv6Code),
        };
        Self::ip(v4).is(Field::IpProto, proto).is(ty, kind).is(code, 0_u8)
    }

    /// What comes in by the interface.
    pub(super) fn entering(self, interface: &Interface) -> Self {
        self.part(super::pipeline::IN_INTERFACE, interface.id.0.into())
    }

    pub(crate) fn is(self, field: Field, value: impl Into<u128>) -> Self {
        self.part(Subfield::whole(field), value.into())
    }

    pub(crate) fn masked(mut self, field: Field, value: u128, mask: u128) -> Self {
        self.value.set_masked(field.slot(), value, mask);
        self.mask.set_masked(field.slot(), u128::MAX, mask);
        self
    }

    pub(crate) fn part(self, part: Subfield, value: u128) -> Self {
        self.masked(part.field, value << part.ofs, part.mask())
    }

    /// An IP source or destination in a network.
    pub(crate) fn within(self, [v4, v6]: [Field; 2], net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => self.masked(v4, bits(net.network().into()), bits(net.netmask().into())),
            IpNet::V6(net) => self.masked(v6, bits(net.network().into()), bits(net.netmask().into())),
        }
    }

    /// An IP destination.
    pub(super) fn to(self, address: IpAddr) -> Self {
        self.is(if address.is_ipv4() { Field::IpDst } else { Field::Ipv6Dst }, bits(address))
    }

    /// A MAC address of a group, broadcast included.
    pub(super) fn group_mac(self, field: Field) -> Self {
        self.masked(field, GROUP_MAC, GROUP_MAC)
    }

    /// The tag with this VLAN, or none.
    pub(super) fn tag(self, vlan: Option<u16>) -> Self {
        let tci = vlan.map_or(0, |vlan| vlan | VLAN_PRESENT);
        self.masked(Field::VlanTci, tci.into(), u128::from(VLAN_PRESENT | 0xfff))
    }

    pub(crate) fn done(self) -> Match {
        Match::new(&self.value, &self.mask)
    }
}

pub(crate) const DST: [Field; 2] = [Field::IpDst, Field::Ipv6Dst];
pub(crate) const SRC: [Field; 2] = [Field::IpSrc, Field::Ipv6Src];

/// An address as the number that a key has for it.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Makes flows of one owner.
#[derive(Clone)]
pub(super) struct Writer<'a> {
    pub(super) pipeline: &'a Pipeline,
    pub(super) owner: Owner,
}

impl Writer<'_> {
    pub(super) fn flow(&self, stage: Stage, priority: u16, matching: Matching, actions: Vec<Action>) -> FlowSpec {
        FlowSpec {
            table: self.pipeline.table(stage),
            priority,
            ..FlowSpec::new(matching.done(), actions, self.owner.clone())
        }
    }

    /// A flow that drops, silently.
    pub(super) fn drop(&self, stage: Stage, priority: u16, matching: Matching, reason: DropReason) -> FlowSpec {
        FlowSpec { drop_reason: Some(reason), ..self.flow(stage, priority, matching, Vec::new()) }
    }

    /// A flow that hands packets over.
    pub(super) fn punt(&self, stage: Stage, priority: u16, matching: Matching, kind: PuntKind) -> FlowSpec {
        self.flow(stage, priority, matching, vec![tell(kind)])
    }

    /// A flow that drops, and tells the running side.
    pub(super) fn refuse(
        &self,
        stage: Stage,
        priority: u16,
        matching: Matching,
        kind: PuntKind,
        reason: DropReason,
    ) -> FlowSpec {
        FlowSpec { drop_reason: Some(reason), ..self.punt(stage, priority, matching, kind) }
    }

    pub(super) fn go(&self, stage: Stage) -> Action {
        Action::GotoTable(self.pipeline.table(stage))
    }
}

pub(super) fn tell(kind: PuntKind) -> Action {
    let userdata = kind.userdata();
    Action::Controller(Box::new(ControllerAction { userdata, extended: true, ..ControllerAction::default() }))
}

pub(crate) fn set(field: Field, value: impl Into<u128>) -> Action {
    Action::SetField { field, value: value.into(), mask: u128::MAX }
}

/// Copies a whole field.
pub(crate) fn copy(src: Field, dst: Field) -> Action {
    copy_part(Subfield::whole(src), Subfield::whole(dst))
}

pub(crate) fn copy_part(src: Subfield, dst: Subfield) -> Action {
    Action::Move { src, dst }
}
