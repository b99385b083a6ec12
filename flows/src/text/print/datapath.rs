//! Printing datapath actions in the words of OVS's trace.
//!
//! What is set by a `set(..)` depends on the packet as it is by then (an MPLS header is printed whole), so the packet
//! is changed along with the actions. Where the two switches differ, the words are OVS's all the same: a meter has its
//! OpenFlow number, and a `recirc(..)` counts the places where one packet goes on, from 1.

mod ct;
mod set;
#[cfg(test)]
mod tests;

use super::List;
use super::value::{hex, mac};
use crate::action::PacketInReason;
use crate::datapath::{DpAction, NshHeader, PacketIn};
use crate::field::ETH_TYPE_VLAN;
use crate::key::{FlowKey, TUN_FLAG_OAM};
use crate::port::DpPort;
use crate::tunnel::{TUN_OPTIONS, TunnelKey};
use std::fmt::{self, Display};
use std::net::IpAddr;

/// Datapath actions for the packet `key` as OVS's trace prints them behind `Datapath actions: `; `drop` for none.
///
/// `name` gives the names of ports; a port without one is its number.
pub fn show_datapath_actions<'a, N>(actions: &'a [DpAction], key: &FlowKey, name: N) -> impl Display + 'a
where
    N: Fn(DpPort) -> Option<&'a str> + 'a,
{
    let key = *key;
    fmt::from_fn(move |f| write_all(f, actions, key, &|port| name(port)))
}

/// Gives the names of ports.
type PortNames<'n, 'a> = &'n dyn Fn(DpPort) -> Option<&'a str>;

/// Writes a list for the packet `key`.
fn write_all(
    f: &mut fmt::Formatter<'_>,
    actions: &[DpAction],
    mut key: FlowKey,
    name: PortNames<'_, '_>,
) -> fmt::Result {
    if actions.iter().all(|action| matches!(action, DpAction::Drop(_))) {
        return f.write_str("drop");
    }
    let mut list = List::new(f);
    for action in actions {
        write(&mut list, action, &key, name)?;
        action.rewrite(&mut key);
    }
    Ok(())
}

fn write(list: &mut List<'_, '_>, action: &DpAction, key: &FlowKey, name: PortNames<'_, '_>) -> fmt::Result {
    let nested = |actions| fmt::from_fn(move |f| write_all(f, actions, *key, name));
    match action {
        DpAction::Output(port) | DpAction::Mirror(port) => match name(*port) {
            Some(name) => list.item(format_args!("{name}")),
            None => list.item(format_args!("{port}")),
        },
        DpAction::Set(changes) => set::write(list, changes, key),
        DpAction::Readdress(new) => set::write(list, &new.changes(), key),
        DpAction::PushVlan { tpid, tci } => {
            let (vid, pcp) = (tci & 0xfff, tci >> 13);
            match *tpid {
                ETH_TYPE_VLAN => list.item(format_args!("push_vlan(vid={vid},pcp={pcp})")),
                tpid => list.item(format_args!("push_vlan(tpid=0x{tpid:04x},vid={vid},pcp={pcp})")),
            }
        }
        DpAction::PopVlan => list.item(format_args!("pop_vlan")),
        DpAction::Controller(packet_in) => list.item(format_args!("{}", controller(packet_in))),
        DpAction::Tunnel(key) => list.item(format_args!("set(tunnel({}))", tunnel(key))),
        DpAction::Snoop(_) => list.item(format_args!("userspace(mcast_snooping)")),
        DpAction::Truncate(len) => list.item(format_args!("trunc({len})")),
        DpAction::PushMpls { eth_type, lse } => {
            list.item(format_args!("push_mpls({},eth_type={eth_type:#x})", set::label(*lse)))
        }
        DpAction::PopMpls(eth_type) => list.item(format_args!("pop_mpls(eth_type={eth_type:#x})")),
        DpAction::PushEthernet { src, dst, .. } => {
            list.item(format_args!("push_eth(src={},dst={})", mac(*src), mac(*dst)))
        }
        DpAction::PopEthernet => list.item(format_args!("pop_eth")),
        DpAction::PushNsh(header) => list.item(format_args!("push_nsh({})", service_header(header))),
        DpAction::PopNsh => list.item(format_args!("pop_nsh()")),
        DpAction::Meter(meter) => list.item(format_args!("meter({})", meter.id())),
        DpAction::Clone(actions) => list.item(format_args!("clone({})", nested(actions))),
        DpAction::CheckPktLen { len, larger, otherwise } => {
            list.item(format_args!("check_pkt_len(size={len},gt({}),le({}))", nested(larger), nested(otherwise)))
        }
        DpAction::Fragment { mtu, .. } => list.item(format_args!("fragment(mtu={mtu})")),
        DpAction::Reject => list.item(format_args!("reject")),
        DpAction::Ct(action) => list.item(format_args!("{}", ct::show(action))),
        DpAction::CtClear => list.item(format_args!("ct_clear")),
        DpAction::Recirculate(index) => list.item(format_args!("recirc({:#x})", u64::from(*index) + 1)),
        DpAction::Drop(_) => Ok(()),
    }
}

/// The outer headers that flows decide, in the order in which Open vSwitch prints them.
fn tunnel(key: &TunnelKey) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        write!(f, "tun_id={:#x}", key.id())?;
        for (ends, name4, name6) in [(key.src(), "src", "ipv6_src"), (key.dst(), "dst", "ipv6_dst")] {
            match ends {
                Some(IpAddr::V4(v4)) => write!(f, ",{name4}={v4}")?,
                Some(IpAddr::V6(v6)) => write!(f, ",{name6}={v6}")?,
                None => {}
            }
        }
        if key.tos() != 0 {
            write!(f, ",tos={:#x}", key.tos())?;
        }
        if key.ttl() != 0 {
            write!(f, ",ttl={}", key.ttl())?;
        }
        let (id, flags) = key.gbp();
        if id != 0 || flags != 0 {
            write!(f, ",vxlan(gbp(id={id},flags={flags:#x}))")?;
        }
        for n in 0..TUN_OPTIONS as u8 {
            if let Some(value) = key.option(n) {
                write!(f, ",tun_metadata{n}={value:#x}")?;
            }
        }
        if key.flags() & TUN_FLAG_OAM != 0 { f.write_str(",flags(oam)") } else { Ok(()) }
    })
}

fn service_header(header: &NshHeader) -> impl Display + '_ {
    fmt::from_fn(move |f| {
        let (spi, si) = (header.path >> 8, header.path & 0xff);
        let NshHeader { flags, ttl, md_type, np, context: [c1, c2, c3, c4], tlvs, .. } = header;
        write!(f, "flags={flags},ttl={ttl},mdtype={md_type},np={np},spi={spi:#x},si={si}")?;
        if *md_type == 1 {
            return write!(f, ",c1={c1:#x},c2={c2:#x},c3={c3:#x},c4={c4:#x}");
        }
        if tlvs.is_empty() {
            return Ok(());
        }
        f.write_str(",md2=0x")?;
        for tlv in tlvs {
            write!(f, "{:04x}{:02x}{:02x}", tlv.class, tlv.ty, tlv.value.len())?;
            tlv.value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            // Each value is filled up to whole words of 32 bits.
            let padding = tlv.value.len().next_multiple_of(4) - tlv.value.len();
            (0..padding).try_for_each(|_| f.write_str("00"))?;
        }
        Ok(())
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
    let (continuation, recirc_id) = match packet_in.resume {
        Some(index) => (1, u64::from(index) + 1),
        None => (0, 0),
    };
    fmt::from_fn(move |f| {
        write!(
            f,
            "userspace(pid=0,controller(reason={reason},dont_send=1,continuation={continuation},recirc_id={recirc_id},\
             rule_cookie={},controller_id={},max_len={}))",
            hex(packet_in.cookie.into()),
            packet_in.controller_id,
            packet_in.max_len
        )
    })
}
