//! Printing the headers of a packet's tunnel.

use super::List;
use super::matching::{Reader, Source, write_decimal, write_hex, write_ipv4, write_ipv6};
use super::value::{flags, tunnel_flags};
use crate::field::Field;
use crate::key::slot;
use crate::text::parse::TUN_FLAGS;
use std::fmt;

/// Writes the fields of the tunnel.
pub(super) fn write(list: &mut List<'_, '_>, from: Source<'_>, reader: Reader) -> fmt::Result {
    write_hex(list, from, slot::TUN_ID, "tun_id")?;
    write_ipv4(list, from, slot::TUN_SRC, "tun_src")?;
    write_ipv4(list, from, slot::TUN_DST, "tun_dst")?;
    write_ipv6(list, from, slot::TUN_IPV6_SRC, "tun_ipv6_src")?;
    write_ipv6(list, from, slot::TUN_IPV6_DST, "tun_ipv6_dst")?;
    write_decimal(list, from, slot::TUN_GBP_ID, "tun_gbp_id")?;
    write_hex(list, from, slot::TUN_GBP_FLAGS, "tun_gbp_flags")?;
    // OVS prints the outer TOS in hexadecimal without `0x`, which it reads as decimal.
    match from.counts(slot::TUN_TOS) {
        Some((value, _)) if value > 9 => list.item(format_args!("tun_tos={value:#x}"))?,
        Some((value, _)) => list.item(format_args!("tun_tos={value}"))?,
        None => {}
    }
    write_decimal(list, from, slot::TUN_TTL, "tun_ttl")?;
    write_decimal(list, from, Field::TunErspanVer.slot(), "tun_erspan_ver")?;
    write_hex(list, from, Field::TunErspanIdx.slot(), "tun_erspan_idx")?;
    write_decimal(list, from, Field::TunErspanDir.slot(), "tun_erspan_dir")?;
    write_hex(list, from, Field::TunErspanHwid.slot(), "tun_erspan_hwid")?;
    write_hex(list, from, slot::TUN_GTPU_FLAGS, "gtpu_flags")?;
    write_decimal(list, from, slot::TUN_GTPU_MSGTYPE, "gtpu_msgtype")?;
    if let Some((value, mask)) = from.counts(Field::TunFlags.slot()) {
        match reader {
            Reader::Packet => list.item(format_args!("tun_flags={}", flags(value, mask, &TUN_FLAGS)))?,
            _ => list.item(format_args!("tun_flags={}", tunnel_flags(value, mask)))?,
        }
    }
    for n in 0..8 {
        if let Some((value, mask)) = from.counts(slot::tun_metadata(n)) {
            match mask == slot::tun_metadata(n).max() {
                true => list.item(format_args!("tun_metadata{n}={value:#x}"))?,
                false => list.item(format_args!("tun_metadata{n}={value:#x}/{mask:#x}"))?,
            }
        }
    }
    Ok(())
}
