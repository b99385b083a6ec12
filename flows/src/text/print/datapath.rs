//! Printing datapath actions in OVS's wording.

use super::List;
use super::value::{hex, ipv6, mac_masked};
use crate::action::PacketInReason;
use crate::datapath::{Change, DpAction, PacketIn};
use crate::field::{ETH_TYPE_IPV6, ETH_TYPE_VLAN, Field};
use crate::key::{FlowKey, slot};
use crate::port::DpPort;
use std::fmt::{self, Display};
use std::net::Ipv4Addr;

/// Datapath actions for the packet `key` as OVS's trace prints them behind `Datapath actions: `; `drop` for none.
///
/// `name` gives the names of ports; a port without one is its number.
pub fn show_datapath_actions<'a, N>(actions: &'a [DpAction], key: &FlowKey, name: N) -> impl Display + 'a
where
    N: Fn(DpPort) -> Option<&'a str> + 'a,
{
    let v6 = key.get(slot::ETH_TYPE) as u16 == ETH_TYPE_IPV6;
    fmt::from_fn(move |f| {
        if actions.is_empty() {
            return f.write_str("drop");
        }
        let mut list = List::new(f);
        actions.iter().try_for_each(|action| match action {
            DpAction::Output(port) => match name(*port) {
                Some(name) => list.item(format_args!("{name}")),
                None => list.item(format_args!("{port}")),
            },
            DpAction::Set(changes) => write_set(&mut list, changes, v6),
            DpAction::PushVlan { tpid: ETH_TYPE_VLAN, tci } => {
                list.item(format_args!("push_vlan(vid={},pcp={})", tci & 0xfff, tci >> 13))
            }
            DpAction::PushVlan { tpid, tci } => {
                list.item(format_args!("push_vlan(tpid=0x{tpid:04x},vid={},pcp={})", tci & 0xfff, tci >> 13))
            }
            DpAction::PopVlan => list.item(format_args!("pop_vlan")),
            DpAction::Controller(packet_in) => list.item(format_args!("{}", controller(packet_in))),
            _ => Ok(()),
        })
    })
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
        Field::NdTarget => ("nd", "target"),
        Field::NdSll => ("nd", "sll"),
        Field::NdTll => ("nd", "tll"),
        Field::PktMark => ("skb_mark", ""),
        other => (other.info().name, ""),
    }
}

/// Writes a `set(..)` for each header changed.
fn write_set(list: &mut List<'_, '_>, changes: &[Change], v6: bool) -> fmt::Result {
    for part in changes.chunk_by(|a, b| header(a.field, v6).0 == header(b.field, v6).0) {
        list.item(format_args!("{}", set(part, v6)))?;
    }
    Ok(())
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
            Field::IpSrc | Field::IpDst | Field::ArpSpa | Field::ArpTpa => {
                write!(f, "{}", Ipv4Addr::from_bits(value as u32))?;
                let mask = Ipv4Addr::from_bits(mask as u32);
                return if mask == Ipv4Addr::BROADCAST { Ok(()) } else { write!(f, "/{mask}") };
            }
            Field::Ipv6Src | Field::Ipv6Dst | Field::NdTarget => {
                write!(f, "{}", ipv6(value))?;
                return if mask == u128::MAX { Ok(()) } else { write!(f, "/{}", ipv6(mask)) };
            }
            Field::NwTos | Field::Ipv6Label | Field::PktMark => write!(f, "{}", hex(value))?,
            _ => write!(f, "{value}")?,
        }
        if mask == slot.max() { Ok(()) } else { write!(f, "/{mask:#x}") }
    })
}

fn controller(packet_in: &PacketIn) -> impl Display + '_ {
    let reason = match packet_in.reason {
        PacketInReason::NoMatch => 0,
        PacketInReason::Action => 1,
        PacketInReason::InvalidTtl => 2,
        PacketInReason::ActionSet => 3,
        PacketInReason::Group => 4,
        PacketInReason::PacketOut => 5,
    };
    fmt::from_fn(move |f| {
        write!(
            f,
            "userspace(pid=0,controller(reason={reason},dont_send=0,continuation=0,recirc_id=0,rule_cookie={},\
             controller_id={},max_len={}))",
            hex(packet_in.cookie.into()),
            packet_in.controller_id,
            packet_in.max_len
        )
    })
}
