//! Packets, megaflows and datapath actions.

use crate::action::PacketInReason;
use crate::bridge::BridgeId;
use crate::datapath::{Change, DpAction, PacketIn};
use crate::field::Field;
use crate::key::{FlowKey, FlowMask, slot};
use crate::owner::Owner;
use crate::port::{DpPort, PortNo};
use crate::rule::TableId;
use crate::text::*;
use smallvec::smallvec;

fn packet(text: &str) -> FlowKey {
    parse_packet(text, Names::NONE).unwrap_or_else(|error| panic!("{text}: {error:#}"))
}

fn shown(text: &str) -> String {
    show_packet(&packet(text), Names::NONE).to_string()
}

const NO_MACS: &str = "dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00";

#[test]
fn packets_print_as_in_a_trace() {
    let macs = NO_MACS;
    let v4 = "nw_src=0.0.0.0,nw_dst=0.0.0.0";
    for (text, want) in [
        (
            "in_port=1,tcp,nw_src=1.1.1.1,nw_dst=10.1.1.1,tp_dst=80",
            format!(
                "tcp,in_port=1,vlan_tci=0x0000,{macs},nw_src=1.1.1.1,nw_dst=10.1.1.1,nw_tos=0,nw_ecn=0,nw_ttl=0,\
                     nw_frag=no,tp_src=0,tp_dst=80,tcp_flags=0"
            ),
        ),
        (
            "in_port=1,udp,nw_ttl=5,dl_vlan=7,dl_vlan_pcp=2,udp_dst=53",
            format!(
                "udp,in_port=1,dl_vlan=7,dl_vlan_pcp=2,vlan_tci1=0x0000,{macs},{v4},nw_tos=0,nw_ecn=0,nw_ttl=5,\
                     nw_frag=no,tp_src=0,tp_dst=53"
            ),
        ),
        (
            "in_port=1,arp,arp_op=1,arp_spa=10.0.0.1,arp_sha=02:00:00:00:00:01,arp_tpa=10.0.0.2",
            format!(
                "arp,in_port=1,vlan_tci=0x0000,{macs},arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_op=1,\
                     arp_sha=02:00:00:00:00:01,arp_tha=00:00:00:00:00:00"
            ),
        ),
        (
            "in_port=1,ipv6,ipv6_src=fe80::1,nw_proto=59,ipv6_label=0x12345",
            format!(
                "ipv6,in_port=1,vlan_tci=0x0000,{macs},ipv6_src=fe80::1,ipv6_dst=::,ipv6_label=0x12345,\
                     nw_proto=59,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no"
            ),
        ),
        (
            "in_port=2,icmp6,icmpv6_type=135,icmpv6_code=0,nd_target=fe80::9,nd_sll=02:00:00:00:00:03,nw_ttl=255",
            format!(
                "icmp6,in_port=2,vlan_tci=0x0000,{macs},ipv6_src=::,ipv6_dst=::,ipv6_label=0x00000,nw_tos=0,\
                     nw_ecn=0,nw_ttl=255,nw_frag=no,icmp_type=135,icmp_code=0,nd_target=fe80::9,\
                     nd_sll=02:00:00:00:00:03,nd_tll=00:00:00:00:00:00"
            ),
        ),
        (
            "in_port=2,ip,nw_frag=later,nw_proto=17",
            format!("udp,in_port=2,vlan_tci=0x0000,{macs},{v4},nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=later"),
        ),
        ("in_port=3", format!("in_port=3,vlan_tci=0x0000,{macs},dl_type=0x0000")),
        ("in_port=3,dl_vlan=0xffff", format!("in_port=3,vlan_tci=0x0000,{macs},dl_type=0x0000")),
        ("pkt_mark=5,dl_type=0x1234", format!("pkt_mark=0x5,in_port=ANY,vlan_tci=0x0000,{macs},dl_type=0x1234")),
        (
            "in_port=1,ip,nw_proto=89,nw_tos=16,nw_ecn=1",
            format!("ip,in_port=1,vlan_tci=0x0000,{macs},{v4},nw_proto=89,nw_tos=16,nw_ecn=1,nw_ttl=0,nw_frag=no"),
        ),
    ] {
        assert_eq!(shown(text), want, "{text}");
    }
}

#[test]
fn a_printed_packet_reads_back() {
    for text in [
        "in_port=1,tcp6,tp_src=4,tp_dst=5,tcp_flags=syn|ack",
        "in_port=1,sctp,tp_src=4,nw_frag=first",
        "in_port=LOCAL,icmp,icmp_type=8,nw_ttl=64",
        "icmp6,icmp_type=136,nd_tll=02:00:00:00:00:03,nd_target=::5",
        "rarp,arp_tha=02:00:00:00:00:03",
        "dl_vlan=5,dl_vlan_pcp=1,dl_vlan1=6,ip,in_port=7",
        "udp6,nw_frag=later,in_port=7",
        "in_port=7,dl_type=0x5ff",
    ] {
        let key = packet(text);
        assert_eq!(packet(&shown(text)), key, "{text}");
    }
}

#[test]
fn tags_have_tpids_and_their_present_bit() {
    let one = packet("in_port=1,dl_vlan=5");
    assert_eq!((one.get(slot::VLAN_TCI), one.get(slot::VLAN_TPID)), (0x1005, 0x8100));
    let two = packet("in_port=1,vlan_tci=0x1005,vlan_tci1=0x3006");
    assert_eq!((two.get(slot::VLAN_TPID), two.get(slot::INNER_VLAN_TPID)), (0x88a8, 0x8100));
    assert_eq!(packet("in_port=1,vlan_pcp=3,dl_vlan=0").get(slot::VLAN_TCI), 0x7000);
    assert_eq!(packet("in_port=1,dl_vlan=0xffff").get(slot::VLAN_TPID), 0);
}

#[test]
fn errors_in_packets_name_the_word() {
    for (text, word) in [
        ("in_port=1,ip,tp_src=5", "tp_src"),
        ("in_port=1,ip,tcp", "tcp"),
        ("in_port=1,tcp,nw_proto=6", "nw_proto"),
        ("in_port=1,ip,nw_src=1.2.3.4,nw_src=1.2.3.4", "nw_src"),
        ("in_port=1,tcp,nw_src=10.0.0.0/8", "10.0.0.0/8"),
        ("in_port=1,tcp,tcp_flags=+syn", "+syn"),
        ("in_port=1,ip,nw_frag=yes", "yes"),
        ("in_port=1,udp,nw_frag=later,udp_dst=5", "udp_dst"),
        ("in_port=1,ip,tunnel_id=5/7", "5/7"),
        ("in_port=1,tcp,ct_state=trk,ct_nw_src=1.2.3.4", "ct_nw_src"),
        ("in_port=1,foo", "foo"),
        ("in_port=1,tcp,tp_dst", ""),
        ("dl_vlan=4096", "4096"),
        ("vlan_tci=5", "vlan_tci=5"),
        ("vlan_tci1=0x1005", "vlan_tci1=0x1005"),
        ("ip,nw_tos=3", "3"),
        ("arp,arp_op=256", "256"),
        ("ipv6,ipv6_label=0x100000", "0x100000"),
    ] {
        let error = parse_packet(text, Names::NONE).unwrap_err();
        assert_eq!(error.word(), word, "{text}: {error}");
    }
}

#[test]
fn megaflows_print_the_bits_that_count() {
    let key = packet("in_port=1,tcp,nw_dst=10.1.1.1,tp_dst=80,nw_ttl=9");
    let mut mask = FlowMask::ZERO;
    for slot in [slot::IN_PORT, slot::ETH_TYPE, slot::IP_PROTO, slot::IP_FRAG, slot::TP_DST, slot::ETH_DST] {
        mask.set(slot, u128::MAX);
    }
    mask.set(slot::IP_DST, 0xff00_0000);
    assert_eq!(
        show_megaflow(&key, &mask, Names::NONE).to_string(),
        "recirc_id=0,eth,tcp,in_port=1,dl_dst=00:00:00:00:00:00,nw_dst=10.0.0.0/8,nw_frag=no,tp_dst=80"
    );
    let mut port = FlowMask::ZERO;
    port.set(slot::IN_PORT, u128::MAX);
    port.set(slot::PKT_MARK, u128::MAX);
    assert_eq!(show_megaflow(&key, &port, Names::NONE).to_string(), "pkt_mark=0,recirc_id=0,eth,in_port=1");
}

fn set(changes: &[(Field, u128, u128)]) -> DpAction {
    DpAction::Set(changes.iter().map(|&(field, value, mask)| Change { field, value, mask }).collect())
}

#[track_caller]
fn actions_print(packet_text: &str, actions: &[DpAction], want: &str) {
    assert_eq!(show_datapath_actions(actions, &packet(packet_text), |_| None).to_string(), want);
}

#[test]
fn datapath_actions_print_in_ovs_wording() {
    let whole = u128::MAX;
    actions_print("tcp", &[], "drop");
    actions_print(
        "tcp",
        &[
            set(&[(Field::EthDst, 0x0200_0000_0002, whole)]),
            set(&[(Field::IpSrc, 0x0102_0304, whole), (Field::NwTos, 8, 0xfc), (Field::IpTtl, 8, whole)]),
            set(&[(Field::TcpSrc, 5, whole), (Field::TcpDst, 0x10, 0xf0)]),
            DpAction::PushVlan { tpid: 0x8100, tci: 5 },
            DpAction::Output(DpPort(2)),
        ],
        "set(eth(dst=02:00:00:00:00:02)),set(ipv4(src=1.2.3.4,tos=0x8/0xfc,ttl=8)),set(tcp(src=5,dst=16/0xf0)),\
         push_vlan(vid=5,pcp=0),2",
    );
    actions_print(
        "tcp6",
        &[set(&[
            (Field::Ipv6Dst, 5, 15),
            (Field::Ipv6Label, 5, whole),
            (Field::IpTtl, 9, whole),
            (Field::NwTos, 0, 3),
        ])],
        "set(ipv6(dst=::5/::f,label=0x5,hlimit=9,tclass=0/0x3))",
    );
    actions_print(
        "icmp6,icmp_type=135",
        &[set(&[(Field::Icmpv6Code, 0, whole), (Field::NdTarget, 7, whole), (Field::NdSll, 7, whole)])],
        "set(icmpv6(code=0)),set(nd(target=::7,sll=00:00:00:00:00:07))",
    );
    actions_print(
        "arp",
        &[
            DpAction::PopVlan,
            set(&[(Field::ArpSpa, 0x0a00_0009, whole), (Field::ArpOp, 2, whole)]),
            DpAction::PushVlan { tpid: 0x88a8, tci: 0x6007 },
        ],
        "pop_vlan,set(arp(sip=10.0.0.9,op=2)),push_vlan(tpid=0x88a8,vid=7,pcp=3)",
    );
    actions_print("arp", &[set(&[(Field::PktMark, 5, whole)])], "set(skb_mark(0x5))");
}

#[test]
fn controllers_and_port_names_print() {
    let packet_in = PacketIn {
        reason: PacketInReason::InvalidTtl,
        controller_id: 3,
        max_len: 128,
        bridge: BridgeId(0),
        in_port: PortNo(1),
        table: TableId::FIRST,
        cookie: 0x1f,
        owner: Owner::user(),
        userdata: Box::default(),
        metadata: Box::default(),
        meter: None,
        drop: None,
        resume: None,
    };
    let actions = [DpAction::Controller(Box::new(packet_in)), DpAction::Output(DpPort(1)), DpAction::Output(DpPort(9))];
    let name = |port: DpPort| (port == DpPort(1)).then_some("p1");
    assert_eq!(
        show_datapath_actions(&actions, &packet("tcp"), name).to_string(),
        "userspace(pid=0,controller(reason=2,dont_send=1,continuation=0,recirc_id=0,rule_cookie=0x1f,controller_id=3,\
         max_len=128)),p1,9"
    );
    let changes = smallvec![Change { field: Field::EthSrc, value: 1, mask: 1 }];
    assert_eq!(
        show_datapath_actions(&[DpAction::Set(changes)], &packet("tcp"), name).to_string(),
        "set(eth(src=00:00:00:00:00:01/00:00:00:00:00:01))"
    );
}

/// What every packet below has behind its context.
const EMPTY: &str = "vlan_tci=0x0000,dl_src=00:00:00:00:00:00,dl_dst=00:00:00:00:00:00";

#[test]
fn packets_with_connections_tunnels_and_labels_print_as_in_a_trace() {
    let ip = "nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_proto=0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no";
    let tcp = "nw_src=0.0.0.0,nw_dst=0.0.0.0,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,tp_src=0,tp_dst=0,tcp_flags=0";
    for (text, before, behind) in [
        (
            "in_port=1,ct_state=trk|new,ct_zone=5,ct_mark=0x10,ct_label=0x20,tcp",
            "ct_state=new|trk,ct_zone=5,ct_mark=0x10,ct_label=0x20,tcp,in_port=1",
            tcp,
        ),
        (
            "in_port=1,tcp,ct_state=trk|new,ct_nw_src=1.2.3.4,ct_nw_dst=1.2.3.5,ct_nw_proto=6,ct_tp_src=1,ct_tp_dst=2",
            "ct_state=new|trk,ct_nw_src=1.2.3.4,ct_nw_dst=1.2.3.5,ct_nw_proto=6,ct_tp_src=1,ct_tp_dst=2,tcp,in_port=1",
            tcp,
        ),
        (
            "in_port=1,ip,tun_src=1.2.3.4,tun_dst=1.2.3.5,tun_tos=4,tun_ttl=64,tun_flags=oam,tun_gbp_id=3,tun_gbp_flags=1",
            "ip,tun_src=1.2.3.4,tun_dst=1.2.3.5,tun_ipv6_src=::,tun_ipv6_dst=::,tun_gbp_id=3,tun_gbp_flags=0x1,tun_tos=4,\
             tun_ttl=64,tun_erspan_ver=0,gtpu_flags=0,gtpu_msgtype=0,tun_flags=oam,in_port=1",
            ip,
        ),
        (
            "in_port=1,ip,tun_ipv6_src=::1,tun_ipv6_dst=::2",
            "ip,tun_src=0.0.0.0,tun_dst=0.0.0.0,tun_ipv6_src=::1,tun_ipv6_dst=::2,tun_gbp_id=0,tun_gbp_flags=0,tun_tos=0,\
             tun_ttl=0,tun_erspan_ver=0,gtpu_flags=0,gtpu_msgtype=0,tun_flags=0,in_port=1",
            ip,
        ),
        (
            "in_port=1,ip,metadata=5,reg0=1,reg15=7,xreg1=0x300000004,xxreg2=5,pkt_mark=9,skb_priority=8,dp_hash=7",
            "pkt_mark=0x9,dp_hash=0x7,skb_priority=0x8,ip,reg0=0x1,reg2=0x3,reg3=0x4,reg11=0x5,reg15=0x7,metadata=0x5,\
             in_port=1",
            ip,
        ),
        ("in_port=1,ip,recirc_id=5", "recirc_id=0x5,eth,ip,in_port=1", ip),
        ("in_port=1,ip,conj_id=5,actset_output=2", "ip,in_port=1", ip),
        (
            "in_port=1,mpls,mpls_label=5,mpls_tc=3,mpls_bos=1,mpls_ttl=64",
            "mpls,in_port=1",
            "mpls_label=5,mpls_tc=3,mpls_ttl=64,mpls_bos=1",
        ),
        ("in_port=1,mpls", "mpls,in_port=1", "mpls_label=0,mpls_tc=0,mpls_ttl=0,mpls_bos=0,mpls_lse1=0,mpls_lse2=0"),
        (
            "in_port=1,dl_type=0x894f,nsh_flags=1,nsh_ttl=5,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123,nsh_si=255,nsh_c1=1",
            "in_port=1",
            "dl_type=0x894f,nsh_flags=1,nsh_ttl=5,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123,nsh_si=255,nsh_c1=0x1,nsh_c2=0x0,\
             nsh_c3=0x0,nsh_c4=0x0",
        ),
    ] {
        assert_eq!(shown(text), format!("{before},{EMPTY},{behind}"), "{text}");
    }
}

#[test]
fn packets_without_ethernet_print_their_type() {
    assert_eq!(
        shown("in_port=1,packet_type=(1,0x800),nw_src=1.2.3.4,nw_proto=6"),
        "packet_type=(1,0x800),in_port=1,nw_src=1.2.3.4,nw_dst=0.0.0.0,nw_proto=6,nw_tos=0,nw_ecn=0,nw_ttl=0,nw_frag=no,\
         tp_src=0,tp_dst=0,tcp_flags=0"
    );
}

#[test]
fn flags_of_packets_are_those_that_are_set() {
    let state = |text: &str| packet(text).get(slot::CT_STATE);
    assert_eq!(state("in_port=1,ct_state=trk|new"), state("in_port=1,ct_state=+trk+new-est"));
    assert_eq!(state("in_port=1,ct_state=0x21"), 0x21);
    assert_eq!(packet("tun_flags=+oam").get(slot::TUN_FLAGS), 1);
}

#[test]
fn the_outer_tos_reads_back_whatever_it_is() {
    for tos in [0x04_u128, 0x0c, 0xb8, 0xff] {
        let mut key = FlowKey::ZERO;
        key.set(slot::TUN_DST, 1);
        key.set(slot::TUN_TOS, tos);
        let text = show_packet(&key, Names::NONE).to_string();
        assert_eq!(parse_packet(&text, Names::NONE).unwrap().get(slot::TUN_TOS), tos, "{text}");
    }
}
