//! Matches and actions in the words that a gateway's flows need.

use crate::action::{Action, Subfield};
use crate::field::{ETH_TYPE_IPV4, ETH_TYPE_IPV6, Field};
use crate::key::{FlowKey, FlowMask};
use crate::matching::Match;
use ipnet::IpNet;
use std::net::IpAddr;

/// Source and destination fields, IPv4's first.
pub(super) const SRC: [Field; 2] = [Field::IpSrc, Field::Ipv6Src];
pub(super) const DST: [Field; 2] = [Field::IpDst, Field::Ipv6Dst];

/// A match being written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Matching {
    value: FlowKey,
    mask: FlowMask,
}

impl Matching {
    /// Every packet.
    pub(super) fn any() -> Self {
        Self::default()
    }

    /// IPv4 or IPv6.
    pub(super) fn ip(v4: bool) -> Self {
        Self::any().is(Field::EthType, if v4 { ETH_TYPE_IPV4 } else { ETH_TYPE_IPV6 })
    }

    pub(super) fn is(self, field: Field, value: impl Into<u128>) -> Self {
        self.masked(field, value.into(), u128::MAX)
    }

    pub(super) fn masked(mut self, field: Field, value: u128, mask: u128) -> Self {
        self.value.set_masked(field.slot(), value, mask);
        self.mask.set_masked(field.slot(), u128::MAX, mask);
        self
    }

    /// An IP source or destination in a network.
    pub(super) fn within(self, [v4, v6]: [Field; 2], net: IpNet) -> Self {
        let (field, all) = if net.addr().is_ipv4() { (v4, u128::from(u32::MAX)) } else { (v6, u128::MAX) };
        let host_bits = net.max_prefix_len() - net.prefix_len();
        let mask = if host_bits == 128 { 0 } else { all >> host_bits << host_bits };
        self.masked(field, bits(net.network()), mask)
    }

    /// These flags of the connection's state are set, those are not.
    pub(super) fn state(self, set: u8, clear: u8) -> Self {
        self.masked(Field::CtState, set.into(), u128::from(set | clear))
    }

    pub(super) fn done(self) -> Match {
        Match::new(&self.value, &self.mask)
    }
}

/// An address as the number that a key has for it.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

pub(super) fn set(field: Field, value: impl Into<u128>) -> Action {
    Action::SetField { field, value: value.into(), mask: u128::MAX }
}

/// Copies a whole field.
pub(super) fn copy(src: Field, dst: Field) -> Action {
    copy_part(Subfield::whole(src), Subfield::whole(dst))
}

pub(super) fn copy_part(src: Subfield, dst: Subfield) -> Action {
    Action::Move { src, dst }
}
