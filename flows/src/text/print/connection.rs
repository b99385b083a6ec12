//! Printing what is known of a packet's connection.

use super::List;
use super::matching::{Source, write_decimal, write_hex, write_ipv4, write_ipv6};
use super::value::flags;
use crate::field::{ETH_TYPE_IPV6, Field};
use crate::key::slot;
use crate::text::parse::CT_FLAGS;
use std::fmt;

/// Writes the fields of the connection.
pub(super) fn write(list: &mut List<'_, '_>, from: Source<'_>) -> fmt::Result {
    if let Some((value, mask)) = from.counts(slot::CT_STATE) {
        list.item(format_args!("ct_state={}", flags(value, mask, &CT_FLAGS)))?;
    }
    write_decimal(list, from, slot::CT_ZONE, "ct_zone")?;
    write_hex(list, from, slot::CT_MARK, "ct_mark")?;
    write_hex(list, from, slot::CT_LABEL, "ct_label")?;
    let packet_type = from.value(slot::PACKET_TYPE) as u32;
    let eth_type = if packet_type == 0 { from.value(slot::ETH_TYPE) as u16 } else { packet_type as u16 };
    if eth_type == ETH_TYPE_IPV6 {
        write_ipv6(list, from, slot::CT_IPV6_SRC, "ct_ipv6_src")?;
        write_ipv6(list, from, slot::CT_IPV6_DST, "ct_ipv6_dst")?;
    } else {
        write_ipv4(list, from, slot::CT_NW_SRC, "ct_nw_src")?;
        write_ipv4(list, from, slot::CT_NW_DST, "ct_nw_dst")?;
    }
    write_decimal(list, from, Field::CtNwProto.slot(), "ct_nw_proto")?;
    write_decimal(list, from, slot::CT_TP_SRC, "ct_tp_src")?;
    write_decimal(list, from, slot::CT_TP_DST, "ct_tp_dst")
}
