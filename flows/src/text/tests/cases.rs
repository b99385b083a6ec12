//! Texts and how they print. Those without a remark print the same under `ovs-ofctl parse-flow`.

use crate::DropReason;
use crate::filter::FlowFilter;
use crate::flow_mod::FlowMod;
use crate::owner::Owner;
use crate::port::PortNo;
use crate::rule::TableId;
use crate::text::*;

fn printed(text: &str) -> String {
    match parse_match(text, Names::NONE) {
        Ok(m) => show_match(&m, Names::NONE).to_string(),
        Err(e) => format!("{e}"),
    }
}

#[track_caller]
fn matches_print(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        assert_eq!(printed(text), *want, "{text}");
    }
}

#[test]
fn protocol_words_and_aliases_print_in_one_way() {
    matches_print(&[
        ("", ""),
        ("eth", ""),
        ("ipv4", "ip"),
        ("dl_type=0x800,nw_proto=6,tp_src=80", "tcp,tp_src=80"),
        ("eth_type=0x86dd,ip_proto=58,icmp_type=135", "icmp6,icmp_type=135"),
        ("tp_dst=80,tcp", "tcp,tp_dst=80"),
        ("udp,tcp_dst=80", "udp,tp_dst=80"),
        ("udp6,udp_src=0x50/0xf0", "udp6,tp_src=0x50/0xf0"),
        ("sctp,sctp_dst=7", "sctp,tp_dst=7"),
        (
            "arp,arp_op=2,arp_sha=00:00:00:00:00:01,arp_tpa=1.2.3.4",
            "arp,arp_tpa=1.2.3.4,arp_op=2,arp_sha=00:00:00:00:00:01",
        ),
        ("rarp", "rarp"),
        ("dl_type=0x1234", "dl_type=0x1234"),
        ("ip,nw_proto=250", "ip,nw_proto=250"),
        ("ip,nw_proto=0", "ip,nw_proto=0"),
        ("icmp,icmp_type=8,icmp_code=0", "icmp,icmp_type=8,icmp_code=0"),
    ]);
}

#[test]
fn a_later_word_replaces_an_earlier_one() {
    matches_print(&[
        ("tcp,udp", "udp"),
        ("tcp,arp", "arp,arp_op=6"),
        ("reg0=1,reg0=2", "reg0=0x2"),
        ("ip,nw_src=1.2.3.4,nw_src=*", "ip"),
        ("arp,nw_proto=3", "arp,arp_op=3"),
        ("ip,arp_spa=1.2.3.4", "ip,nw_src=1.2.3.4"),
    ]);
}

#[test]
fn vlan_words_become_a_tci_under_a_mask() {
    matches_print(&[
        ("dl_vlan=5", "dl_vlan=5"),
        ("vlan_vid=0x1005", "dl_vlan=5"),
        ("vlan_vid=0x1005/0x1fff", "dl_vlan=5"),
        ("vlan_vid=0x1000/0x1000", "vlan_tci=0x1000/0x1000"),
        ("vlan_tci=0x1005/0x1fff", "dl_vlan=5"),
        ("vlan_tci=0xf005/0xffff", "dl_vlan=5,dl_vlan_pcp=7"),
        ("vlan_tci=0", "vlan_tci=0x0000"),
        ("dl_vlan=0xffff", "vlan_tci=0x0000"),
        ("dl_vlan=5,dl_vlan_pcp=3", "dl_vlan=5,dl_vlan_pcp=3"),
        ("vlan_pcp=3", "dl_vlan_pcp=3"),
        ("vlan_pcp=3,dl_vlan=0xffff", "vlan_tci=0x0000"),
        ("dl_vlan=0xffff,vlan_pcp=3", "dl_vlan=0,dl_vlan_pcp=3"),
        // An OpenFlow 1.0 message would lose the mask; OVS says the same inside.
        ("vlan_vid=0", "vlan_tci=0x0000/0x1fff"),
        ("dl_vlan=5,vlan_pcp=3,vlan_vid=*", "dl_vlan_pcp=3"),
    ]);
}

#[test]
fn masks_cut_values_and_whole_masks_are_not_printed() {
    matches_print(&[
        ("ip,nw_src=10.1.2.3/8", "ip,nw_src=10.0.0.0/8"),
        ("ip,nw_src=10.1.2.3/255.0.255.0", "ip,nw_src=10.0.2.0/255.0.255.0"),
        ("ip,ip_dst=010.0.0.1", "ip,nw_dst=10.0.0.1"),
        ("ipv6,ipv6_src=fe80::1/10", "ipv6,ipv6_src=fe80::/10"),
        ("ipv6,ipv6_dst=::1.2.3.4", "ipv6,ipv6_dst=::1.2.3.4"),
        ("ipv6,ipv6_label=0x12345/0xfffff", "ipv6,ipv6_label=0x12345"),
        ("ipv6,ipv6_label=0x12345/0xff", "ipv6,ipv6_label=0x00045/0x000ff"),
        ("dl_src=01:02:03:04:05:06/ff:ff:00:00:00:00", "dl_src=01:02:00:00:00:00/ff:ff:00:00:00:00"),
        ("reg3=0x15/0xf,metadata=-1,pkt_mark=0", "pkt_mark=0,reg3=0x5/0xf,metadata=0xffffffffffffffff"),
        ("in_port=LOCAL", "in_port=LOCAL"),
        ("in_port_oxm=4294967294", "in_port=LOCAL"),
        ("in_port=*", ""),
    ]);
}

#[test]
fn subfields_add_up() {
    matches_print(&[
        ("reg0[3]=1", "reg0=0x8/0x8"),
        ("reg0[0..7]=5,reg0[8..15]=6", "reg0=0x605/0xffff"),
        ("NXM_NX_REG0[]=5", "reg0=0x5"),
        ("NXM_NX_REG0_W[]=5", "reg0=0x5"),
        ("tcp,tcp_flags[0..1]=3", "tcp,tcp_flags=+fin+syn"),
        ("ip,ip_frag[0]=1", "ip,nw_frag=yes"),
        ("nw_proto[]=6,ip", "tcp"),
    ]);
}

#[test]
fn flags_and_small_fields_print_as_in_ovs() {
    matches_print(&[
        ("ip,ip_dscp=5,nw_ecn=2,nw_ttl=64", "ip,nw_tos=20,nw_ecn=2,nw_ttl=64"),
        ("ip,nw_frag=FIRST", "ip,nw_frag=first"),
        ("ip,nw_frag=not_later", "ip,nw_frag=not_later"),
        ("ip,nw_frag=yes", "ip,nw_frag=yes"),
        ("ip,nw_frag=later", "ip,nw_frag=later"),
        ("tcp,tcp_flags=0x12", "tcp,tcp_flags=syn|ack"),
        ("tcp,tcp_flags=syn|ack", "tcp,tcp_flags=syn|ack"),
        ("tcp,tcp_flags=2/2", "tcp,tcp_flags=+syn"),
        ("tcp,tcp_flags=+syn-ack", "tcp,tcp_flags=+syn-ack"),
        ("tcp,tcp_flags=0", "tcp,tcp_flags=0"),
        ("tcp,tcp_flags=0x600", "tcp,tcp_flags=[200]|[400]"),
        (
            "icmp6,icmpv6_type=136,icmpv6_code=0,nd_target=::1:0,nd_tll=00:01:02:03:04:05",
            "icmp6,icmp_type=136,icmp_code=0,nd_target=::0.1.0.0,nd_tll=00:01:02:03:04:05",
        ),
    ]);
}

#[test]
fn fields_that_cannot_be_there_are_dropped_with_a_warning() {
    for (text, want, word) in [
        ("ip,tp_dst=80", "ip", "tcp_dst"),
        ("nw_src=1.2.3.4", "", "ip_src"),
        ("ip_frag=later", "", "ip_frag"),
        ("udp,tcp_flags=+syn", "udp", "tcp_flags"),
        ("icmp6,icmp_type=135,nd_tll=00:01:02:03:04:05", "icmp6,icmp_type=135", "nd_tll"),
        ("ipv6,nd_target=::1", "ipv6", "nd_target"),
        ("ipv6,nw_src=1.2.3.4", "ipv6", "ip_src"),
    ] {
        let read = parse_match(text, Names::NONE).unwrap();
        assert_eq!(show_match(&read, Names::NONE).to_string(), want, "{text}");
        assert_eq!(read.warnings.len(), 1, "{text}");
        assert!(read.warnings[0].message.contains(word), "{}", read.warnings[0]);
    }
}

#[test]
fn values_that_do_not_fit_are_cut_with_a_warning() {
    for (text, want) in [
        ("dl_vlan=4100", "dl_vlan=4"),
        ("ip,nw_tos=7", "ip,nw_tos=4"),
        ("vlan_pcp=9", "dl_vlan_pcp=1"),
        ("arp,arp_op=257", "arp,arp_op=1"),
    ] {
        let read = parse_match(text, Names::NONE).unwrap();
        assert_eq!(show_match(&read, Names::NONE).to_string(), want, "{text}");
        assert_eq!(read.warnings.len(), 1, "{text}");
    }
}

#[test]
fn names_are_read_and_printed() {
    let mut names = Names::new();
    names.add_port(PortNo(3), "eth0");
    names.add_port(PortNo(4), "2nd port");
    names.add_table(TableId::new(9).unwrap(), "acl");
    let flow = parse_flow("table=acl,in_port=eth0,actions=eth0,output:\"2nd port\",resubmit(eth0,)", &names).unwrap();
    assert_eq!(flow.table.get(), 9);
    assert_eq!(
        show_flow(&flow, None, &names).to_string(),
        "table=acl, in_port=eth0 actions=output:eth0,output:\"2nd port\",resubmit:eth0"
    );
    assert_eq!(
        show_flow(&flow, None, Names::NONE).to_string(),
        "table=9, in_port=3 actions=output:3,output:4,resubmit:3"
    );
}

#[test]
fn flows_print_as_in_dump_flows() {
    let stats = FlowStats { duration_ms: 1036, packets: 4, bytes: 320, idle_age: 1, hard_age: 1 };
    for (text, with, without) in [
        (
            "idle_timeout=60,priority=100,tcp,nw_src=10.0.0.0/8,tp_dst=80,actions=drop",
            "cookie=0x0, duration=1.036s, table=0, n_packets=4, n_bytes=320, idle_timeout=60, idle_age=1, \
             priority=100,tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=drop",
            "idle_timeout=60, priority=100,tcp,nw_src=10.0.0.0/8,tp_dst=80 actions=drop",
        ),
        (
            "table=3,cookie=0x1f,send_flow_rem,hard_timeout=5,importance=2 actions=normal",
            "cookie=0x1f, duration=1.036s, table=3, n_packets=4, n_bytes=320, hard_timeout=5, send_flow_rem \
             importance=2, idle_age=1, actions=NORMAL",
            "cookie=0x1f, table=3, hard_timeout=5, send_flow_rem importance=2, actions=NORMAL",
        ),
    ] {
        let flow = parse_flow(text, Names::NONE).unwrap();
        assert_eq!(show_flow(&flow, Some(stats), Names::NONE).to_string(), with);
        assert_eq!(show_flow(&flow, None, Names::NONE).to_string(), without);
        assert_eq!(parse_flow(with, Names::NONE).unwrap(), flow, "a dump reads back");
        assert_eq!(parse_flow(without, Names::NONE).unwrap(), flow, "a dump without figures reads back");
    }
}

#[test]
fn hard_age_is_printed_when_the_flow_was_modified() {
    let flow = parse_flow("actions=drop", Names::NONE).unwrap();
    let stats = FlowStats { duration_ms: 9000, hard_age: 2, ..FlowStats::default() };
    assert_eq!(
        show_flow(&flow, Some(stats), Names::NONE).to_string(),
        "cookie=0x0, duration=9s, table=0, n_packets=0, n_bytes=0, idle_age=0, hard_age=2, actions=drop"
    );
}

#[test]
fn verbs_and_keys_make_flow_mods() {
    let read = |line| parse_flow_mod(line, Names::NONE).unwrap().value;
    match read("modify_strict table=1,priority=7,cookie=5,reset_counts,ip actions=2") {
        FlowMod::Modify { filter, spec, set_cookie, reset_counts } => {
            assert_eq!((filter.strict, filter.table.map(TableId::get)), (Some(7), Some(1)));
            assert_eq!((spec.cookie, set_cookie, reset_counts), (5, true, true));
        }
        other => panic!("{other:?}"),
    }
    match read("mod cookie=5/-1 actions=2") {
        FlowMod::Modify { filter, set_cookie, .. } => {
            assert_eq!((filter.cookie, filter.cookie_mask, filter.table), (5, u64::MAX, None));
            assert!(!set_cookie);
        }
        other => panic!("{other:?}"),
    }
    match read("delete_strict priority=7,out_port=3") {
        FlowMod::Delete { filter } => assert_eq!((filter.strict, filter.out_port), (Some(7), Some(PortNo(3)))),
        other => panic!("{other:?}"),
    }
    assert_eq!(read("delete"), FlowMod::Delete { filter: FlowFilter::all() });
    assert!(matches!(read("add check_overlap,actions=2"), FlowMod::Add { check_overlap: true, .. }));
    assert!(matches!(read("tcp,actions=2"), FlowMod::Add { check_overlap: false, .. }));
}

#[test]
fn a_flow_may_say_why_it_drops() {
    let flow = parse_flow("drop_reason=spoof_guard,priority=0,actions=drop", Names::NONE).unwrap();
    assert_eq!(flow.drop_reason, Some(DropReason::SpoofGuard));
    assert_eq!(parse_flow("actions=drop", Names::NONE).unwrap().drop_reason, None);
}

#[test]
fn files_have_comments_blank_lines_and_an_owner_for_each_line() {
    let text =
        "# a file\n\n table=1,ip actions=2 # out\r\nowner=\"np:a/b#1\",priority=0,actions=drop\ndelete owner=lab:*\n";
    let read = parse_flow_file("flows.txt", text, Names::NONE).unwrap();
    let owners: Vec<_> = read
        .iter()
        .map(|m| match m {
            FlowMod::Add { spec, .. } => spec.owner.clone(),
            FlowMod::Delete { filter } => Owner::new(&format!("{:?}", filter.owner)),
            FlowMod::Modify { .. } => Owner::user(),
        })
        .collect();
    assert_eq!(owners[..2], [Owner::new("file:flows.txt:3"), Owner::new("np:a/b#1")]);
    assert_eq!(owners[2].text(), "Some(Prefix(\"lab:\"))");
}
