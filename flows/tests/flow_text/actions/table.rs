//! The texts.

mod conntrack;
mod fields;
mod learning;
mod lists;
mod outputs;

use conntrack::{CT_REFUSED, IP_CT, IPV6_CT, TCP_CT};
use fields::{FIELDS, FIELDS_REFUSED, HEADERS, HEADERS_REFUSED, MPLS, TCP_FIELDS, VLAN};
use learning::{LEARN, LEARN_REFUSED, TCP_LEARN};
use lists::{NESTED, NESTED_REFUSED, ORDER, ORDER_REFUSED, SMALL, SMALL_REFUSED};
use outputs::{OUTPUTS, OUTPUTS_REFUSED, SELECT, SELECT_REFUSED};

/// Action lists behind a match, which OVS and we both take, and then print alike, or both refuse.
pub(super) const AGREED: &[(&str, &[&str])] = &[
    ("", OUTPUTS),
    ("", OUTPUTS_REFUSED),
    ("", FIELDS),
    ("tcp", TCP_FIELDS),
    ("", FIELDS_REFUSED),
    ("", HEADERS),
    ("", HEADERS_REFUSED),
    ("mpls", MPLS),
    ("", SELECT),
    ("", SELECT_REFUSED),
    ("", LEARN),
    ("tcp", TCP_LEARN),
    ("", LEARN_REFUSED),
    ("", SMALL),
    ("", SMALL_REFUSED),
    ("ip", IP_CT),
    ("tcp", TCP_CT),
    ("ipv6", IPV6_CT),
    ("ip", CT_REFUSED),
    ("", &["ct", "ct(commit)", "ct(table=1)", "ct_clear"]),
    ("udp", &["ct(alg=tftp)", "ct(alg=ftp)", "ct(commit,alg=tftp)"]),
    ("ct_state=+trk+inv,ip", &["ct", "ct(commit)", "resubmit(,2,ct)", "ct(force,commit)"]),
    ("ct_state=+trk-inv,ip", &["ct(commit)", "resubmit(,2,ct)", "resubmit(1,2,ct)", "move:ct_nw_src->reg0"]),
    ("ct_state=+trk,ip", &["resubmit(,2,ct)", "move:ct_nw_src->reg0", "move:ct_mark->reg0"]),
    ("ct_state=+trk+est,ip", &["resubmit(,2,ct)", "move:ct_nw_proto->reg0[0..7]", "move:ct_tp_src->reg0[0..15]"]),
    ("ct_state=+trk+new,ipv6", &["move:ct_ipv6_src->xxreg0", "move:ct_nw_src->reg0"]),
    ("", NESTED),
    ("", NESTED_REFUSED),
    ("", ORDER),
    ("", ORDER_REFUSED),
    ("table=3", &["goto_table:4", "goto_table:3", "goto_table:2", "goto_table:254", "resubmit(,3)", "resubmit(,2)"]),
    ("dl_vlan=5", VLAN),
    ("dl_type=0x894f", &["dec_nsh_ttl", "set_field:5->nsh_ttl", "set_field:64->nsh_ttl", "set_field:1->nsh_np"]),
    ("dl_type=0x894f", &["set_field:0x123456->nsh_spi", "set_field:1->nsh_c4", "set_field:5/7->nsh_c1", "decap"]),
];

/// What OVS takes and we refuse, with the reason.
pub(super) const TAKEN_BY_OVS_ONLY: &[(&str, &str, &str)] = &[
    ("", "set_queue:4294967296", "OVS cuts the number to 32 bits: queue 0"),
    ("", "group:4294967041", "no group can have this number, so that no switch has it"),
    ("", "exit(4),pop_queue:5", "arguments where none belongs"),
    ("", "learn(reg0[0..7]=0x)", "a number without digits is 0 to OVS"),
    ("", "learn(priority=0x10)", "OVS reads decimal numbers here: this is 0 to it"),
    ("", "learn(priority=65536)", "OVS cuts the number to 16 bits: 0"),
    ("", "learn(idle_timeout=5x)", "OVS stops at what is no digit"),
    ("", "learn(limit)", "a missing number is 0 to OVS"),
    ("", "encap(nsh(tlv(0x1000,256,0x00)))", "OVS cuts the type to 8 bits: 0"),
    ("", "goto_table:255", "there is no such table: the packet would be dropped"),
    ("", "learn(eth_type=0x800,nw_ecn=7)", "the value does not fit into the field"),
    ("", "bundle(eth_src,0x10,hrw,ofport,members:1)", "OVS reads decimal numbers here: this is 0 to it"),
    ("", "multipath(eth_src,65536,modulo_n,1,0,reg0)", "OVS cuts the number to 16 bits: 0"),
    ("", "multipath(eth_src,50,modulo_n,1,0,reg0,foo)", "OVS does not look at what follows"),
    ("ip", "dec_ttl(1x)", "OVS stops at what is no digit"),
    ("ip", "dec_ttl(65536)", "OVS cuts the number to 16 bits: 0"),
    ("ip", "ct(commit,nat(src=10.0.0.1:0))", "no connection has port 0: OVS drops the port"),
    ("ip", "ct(nat,nat)", "nat twice"),
    ("", "encap(nsh(md_type=1,md_type=2))", "md_type twice"),
    ("", "encap(nsh(tlv(0x1,2,0x123)))", "half a byte, which OVS drops"),
    ("", "encap(ethernet,nsh)", "OVS does not look at what follows"),
    ("", "sample(probability=5,egress=5)", "arguments where none belongs"),
];

/// What we take and OVS refuses, with the reason.
pub(super) const TAKEN_BY_US_ONLY: &[(&str, &str, &str)] = &[
    ("", "reject", "an action of ours"),
    ("", "mod_nw_src:1.2.3.4,push_vlan:0x8100", "only later versions check the match for OpenFlow 1.0's actions"),
    (
        "",
        "set_mpls_ttl:5,goto_table:1",
        "only later versions check the match for this, and OpenFlow 1.0 has no goto_table",
    ),
];

/// What both take and print in different ways, with the reason.
pub(super) const PRINTED_OTHERWISE: &[(&str, &str, &str)] = &[
    ("", "set_field:0xff00/0xf000->reg15", "bits outside the mask mean nothing and are not kept"),
    ("", "load:0x112233445566778899->xxreg0", "OVS prints a load of more than 64 bits as several"),
    ("", "learn(ct_state=0x21,ct_nw_src=1.2.3.4)", "OVS prints a list with unknown flags, which it does not read"),
    ("ip", "ct(commit,nat(src,random))", "OVS prints no flags where there is no address"),
    ("ip", "ct(commit,exec(load:1->ct_mark),nat(src=10.0.0.1))", "OVS prints nat within exec when it comes second"),
    ("", "encap(nsh(md_type=2,tlv(0x1,2,0x0012)))", "OVS leaves out the zeros that a value begins with"),
    ("", "set_field:+oam->tun_flags", "flags print with their sign, as in matches"),
    ("", "set_field:1->in_port_oxm", "it is the same field as in_port"),
    ("ct_state=+trk-inv,ip", "resubmit(1,,ct)", "OVS prints resubmit:1, which means less"),
];
