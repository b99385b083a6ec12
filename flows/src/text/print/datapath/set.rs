//! Printing the rewriting of headers: `set(HEADER(FIELD=VALUE[/MASK],..))`.

use crate::datapath::{Change, DpAction};
use crate::field::{ETH_TYPE_IPV6, Field};
use crate::key::{FlowKey, slot};
use crate::text::print::List;
use crate::text::print::value::{hex, ipv6, mac_masked};
use smallvec::SmallVec;
use std::fmt::{self, Display};
use std::net::Ipv4Addr;

/// Writes a `set(..)` for each header changed; `key` is the packet before that.
pub(super) fn write(list: &mut List<'_, '_>, changes: &[Change], key: &FlowKey) -> fmt::Result {
    let v6 = key.get(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV6;
    for part in changes.chunk_by(|a, b| header(a.field, v6).0 == header(b.field, v6).0) {
        let Some(first) = part.first() else { continue };
        match header(first.field, v6) {
            ("mpls", _) => {
                let mut after = *key;
                DpAction::Set(SmallVec::from_slice(part)).rewrite(&mut after);
                list.item(format_args!("set(mpls({}))", label(after.get(slot::MPLS_LSE) as u32)))?;
            }
            _ => list.item(format_args!("{}", set(part, v6)))?,
        }
    }
    Ok(())
}

/// An MPLS label stack entry: label, traffic class, TTL and bottom of stack.
pub(super) fn label(lse: u32) -> impl Display {
    let (label, tc, bos, ttl) = (lse >> 12, lse >> 9 & 7, lse >> 8 & 1, lse & 0xff);
    fmt::from_fn(move |f| write!(f, "label={label},tc={tc},ttl={ttl},bos={bos}"))
}

/// The datapath's names for the header of `field` and for the field in it.
fn header(field: Field, v6: bool) -> (&'static str, &'static str) {
    match field {
        Field::EthSrc => ("eth", "src"),
        Field::EthDst => ("eth", "dst"),
        Field::ArpSpa => ("arp", "sip"),
        Field::ArpTpa => ("arp", "tip"),
        Field::ArpOp => ("arp", "op"),
        Field::ArpSha => ("arp", "sha"),
        Field::ArpTha => ("arp", "tha"),
        Field::IpSrc => ("ipv4", "src"),
        Field::IpDst => ("ipv4", "dst"),
        Field::Ipv6Src => ("ipv6", "src"),
        Field::Ipv6Dst => ("ipv6", "dst"),
        Field::Ipv6Label => ("ipv6", "label"),
        Field::NwTos | Field::IpDscp | Field::IpEcn if v6 => ("ipv6", "tclass"),
        Field::NwTos | Field::IpDscp | Field::IpEcn => ("ipv4", "tos"),
        Field::IpTtl if v6 => ("ipv6", "hlimit"),
        Field::IpTtl => ("ipv4", "ttl"),
        Field::TcpSrc => ("tcp", "src"),
        Field::TcpDst => ("tcp", "dst"),
        Field::UdpSrc => ("udp", "src"),
        Field::UdpDst => ("udp", "dst"),
        Field::SctpSrc => ("sctp", "src"),
        Field::SctpDst => ("sctp", "dst"),
        Field::IcmpType => ("icmp", "type"),
        Field::IcmpCode => ("icmp", "code"),
        Field::Icmpv6Type => ("icmpv6", "type"),
        Field::Icmpv6Code => ("icmpv6", "code"),
        other => less_common(other),
    }
}

fn less_common(field: Field) -> (&'static str, &'static str) {
    match field {
        Field::NdTarget => ("nd", "target"),
        Field::NdSll => ("nd", "sll"),
        Field::NdTll => ("nd", "tll"),
        Field::NdReserved => ("nd_ext", "nd_reserved"),
        Field::NdOptionsType => ("nd_ext", "nd_options_type"),
        Field::PktMark => ("skb_mark", ""),
        Field::SkbPriority => ("skb_priority", ""),
        Field::MplsLabel => ("mpls", "label"),
        Field::MplsTc => ("mpls", "tc"),
        Field::MplsBos => ("mpls", "bos"),
        Field::MplsTtl => ("mpls", "ttl"),
        Field::NshFlags => ("nsh", "flags"),
        Field::NshTtl => ("nsh", "ttl"),
        Field::NshSpi => ("nsh", "spi"),
        Field::NshSi => ("nsh", "si"),
        Field::NshC1 => ("nsh", "c1"),
        Field::NshC2 => ("nsh", "c2"),
        Field::NshC3 => ("nsh", "c3"),
        Field::NshC4 => ("nsh", "c4"),
        Field::TunId => ("tunnel", "tun_id"),
        Field::TunSrc => ("tunnel", "src"),
        Field::TunDst => ("tunnel", "dst"),
        Field::TunIpv6Src => ("tunnel", "ipv6_src"),
        Field::TunIpv6Dst => ("tunnel", "ipv6_dst"),
        other if other.info().name.starts_with("tun_") => ("tunnel", other.info().name),
        other => (other.info().name, ""),
    }
}

/// `set(HEADER(FIELD=VALUE[/MASK],..))`.
fn set(changes: &[Change], v6: bool) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let Some(first) = changes.first() else {
            return Ok(());
        };
        write!(f, "set({}(", header(first.field, v6).0)?;
        let mut list = List::new(f);
        for change in changes {
            match header(change.field, v6).1 {
                "" => list.item(format_args!("{}", value(change)))?,
                name => list.item(format_args!("{name}={}", value(change)))?,
            }
        }
        f.write_str("))")
    })
}

/// The new value, with its mask if it is not whole.
fn value(change: &Change) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let slot = change.field.slot();
        let (value, mask) = (change.value & change.mask, change.mask & slot.max());
        match change.field {
            Field::EthSrc | Field::EthDst | Field::ArpSha | Field::ArpTha | Field::NdSll | Field::NdTll => {
                return mac_masked(value, mask).fmt(f);
            }
            Field::IpSrc | Field::IpDst | Field::ArpSpa | Field::ArpTpa | Field::TunSrc | Field::TunDst => {
                write!(f, "{}", Ipv4Addr::from_bits(value as u32))?;
                let mask = Ipv4Addr::from_bits(mask as u32);
                return if mask == Ipv4Addr::BROADCAST { Ok(()) } else { write!(f, "/{mask}") };
            }
            Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget | Field::TunIpv6Src | Field::TunIpv6Dst => {
                write!(f, "{}", ipv6(value))?;
                return if mask == u128::MAX { Ok(()) } else { write!(f, "/{}", ipv6(mask)) };
            }
            Field::NshFlags => {
                write!(f, "0x{value:02x}")?;
                return if mask == slot.max() { Ok(()) } else { write!(f, "/0x{mask:02x}") };
            }
            Field::NwTos | Field::Ipv6Label | Field::PktMark | Field::SkbPriority => write!(f, "{}", hex(value))?,
            Field::NshSpi | Field::NshC1 | Field::NshC2 | Field::NshC3 | Field::NshC4 => write!(f, "{value:#x}")?,
            Field::NdReserved | Field::TunId => write!(f, "{value:#x}")?,
            _ => write!(f, "{value}")?,
        }
        if mask == slot.max() { Ok(()) } else { write!(f, "/{mask:#x}") }
    })
}
