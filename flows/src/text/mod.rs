//! Flow text, both ways, in Open vSwitch's syntax.
//!
//! [`parse_match`], [`parse_actions`] and [`parse_flow`] read what `ovs-ofctl` reads, for the fields and actions that the
//! model has; [`show_match`], [`show_actions`] and the others print what `ovs-ofctl dump-flows` prints, so that two texts
//! that mean the same print the same. What is printed reads back as what was printed.
//!
//! [`parse_group`], [`parse_meter`], [`parse_table_mod`] and their kin do the same for what flows share, and
//! [`parse_bundle_file`] for all of it at once; [`show_group`], [`show_meter`] and [`show_table_desc`] print them.
//!
//! Where OVS quietly changes a flow (a field without its prerequisite is dropped, a value is cut to the field's width),
//! so does this parser, and says so in a [`Warning`]. Errors name the place, the word and the nearest word that would
//! have done: see [`ParseError`].
//!
//! # Where it differs from Open vSwitch 3.1
//!
//! Refused, although OVS takes it: an argument where none belongs (`normal:x`, `tcp=1`, `load:5x->reg0`, `exit:1`), numbers
//! of an IPv4 address above 255, an ICMP type above 255 given as `tp_src`, `goto_table` that does not lead to a later
//! table, and setting `dl_vlan`, which OVS turns into setting `in_port`. Numbers that OVS cuts to their width or reads as
//! 0 (`set_queue:4294967296`, `learn(priority=0x10)`, `dec_ttl(65536)`, `learn(limit)`), a learned value that does not fit
//! its field, `nat` to port 0, groups above 0xffffff00, half a byte in `tlv(..)`, and `nat` or `md_type` given twice.
//!
//! Taken, although OVS refuses it: IPv6 masks that begin with a decimal digit, `owner=`, `drop_reason=`, and OpenFlow 1.0's setters and
//! MPLS actions without their protocol in the match beside actions of later versions. What is more lenient in packets
//! stands at [`parse_packet`].
//!
//! A match on a field of the connection's first packet, or of NSH, is refused without what it needs, as in OVS; other
//! fields without their protocol are dropped. `tun_metadata` is eight numbers of 32 bits, without a map of options.
//! Numbers too large for a field's bits are cut, also where OVS keeps them (ERSPAN). Buckets have numbers below 0xffffff00.
//!
//! Printed otherwise: actions print as they were written, where OVS prints what the OpenFlow version of the connection
//! makes of them (notes are not padded, `goto_table` stays `goto_table`, `load` stays `load`); what is printed is what
//! `ovs-ofctl diff-flows` prints of a file, but for these. A set of no bits is `*`, and a learned match on `ct_state` is a
//! list of flags, where OVS prints words that it does not read; bits outside a mask are not kept; a load of more than 64
//! bits stays one; `nat` stands before `exec`, and keeps its flags without an address; `resubmit(1,,ct)` keeps its `ct`;
//! a `tlv` keeps the zeros that it begins with; `md_type` stands before `tlv`; `in_port_oxm` is `in_port`.
//!
//! Of matches and packets, these print otherwise: masks of `tun_gbp_flags`, GTP-U and ERSPAN fields are kept, which OVS
//! loses; ERSPAN and NSH context fields are not hidden where OVS wants another field matched too; `tun_id` of packets is
//! there whenever it is not 0, and the empty IP header that OVS prints of NSH packets is not.
//!
//! Limits: fields that the model does not have are refused as [`ErrorKind::Unsupported`]; of Geneve options there are
//! `tun_metadata0` to `tun_metadata7`. 64 lists of actions can stand within each other, where OVS has 100. Of one-bit
//! matches on `ip_frag`, those that print as `no` and `later` read back as matches on both bits, as in OVS; packets tell
//! no difference.

mod names;
mod parse;
mod print;

pub use names::Names;
pub use parse::{
    ErrorKind, GroupCommand, MeterCommand, ParseError, Parsed, Warning, flow_lines, parse_actions, parse_bundle_file,
    parse_filter, parse_flow, parse_flow_file, parse_flow_mod, parse_flow_mod_of, parse_group, parse_group_file,
    parse_group_line, parse_group_mod, parse_match, parse_meter, parse_meter_mod, parse_packet, parse_table_mod,
};
pub use print::{
    FlowStats, show_action, show_actions, show_datapath_actions, show_flow, show_group, show_group_stats, show_match,
    show_megaflow, show_meter, show_meter_stats, show_packet, show_table_desc, show_table_stats, show_value,
};

#[cfg(test)]
mod tests;
