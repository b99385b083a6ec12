//! What is refused, where, and what is suggested.

use crate::text::*;

/// Text, the word marked, its first column, the suggestion.
pub(super) type Case = (&'static str, &'static str, usize, Option<&'static str>);

#[track_caller]
pub(super) fn refused<T>(read: impl Fn(&str) -> Result<T, ParseError>, cases: &[Case]) {
    for (text, word, column, suggestion) in cases {
        let Err(error) = read(text) else { panic!("{text} was accepted") };
        assert_eq!(
            (error.word(), error.columns().start, error.suggestion()),
            (*word, *column, *suggestion),
            "{text}: {error}"
        );
    }
}

#[test]
fn errors_in_matches_name_the_word_and_the_nearest_one() {
    refused(
        |text| parse_match(text, Names::NONE),
        &[
            ("tcp,nw_scr=10.0.0.1", "nw_scr", 5, Some("nw_src")),
            ("tcp, tp_dts=80", "tp_dts", 6, Some("tp_dst")),
            ("foo=1", "foo", 1, None),
            ("reg16=1", "reg16", 1, None),
            ("ct_state=+trk+nwe", "nwe", 15, Some("new")),
            ("ct_state=0x100", "0x100", 10, None),
            ("ct_zone=1/1", "1/1", 9, None),
            ("ct_state=+trk,ip,ct_nw_src=1.2.3.4", "ct_nw_src", 18, None),
            ("nsh_spi=5", "nsh_spi", 1, None),
            ("packet_type=5", "5", 13, None),
            ("packet_type=(1,0x800),dl_src=02:00:00:00:00:01", "dl_src", 23, None),
            ("skb_priority=5", "skb_priority", 1, None),
            ("tun_metadata9=5", "tun_metadata9", 1, None),
            ("mpls,mpls_label=5/5", "5/5", 17, None),
            ("NXM_NX_REG0=5", "NXM_NX_REG0", 1, Some("reg0")),
            ("nxm_nx_reg0[]=5", "nxm_nx_reg0[]", 1, Some("reg0")),
            ("reg0=0x1ffffffff", "0x1ffffffff", 6, None),
            ("reg0=5/", "", 8, None),
            ("reg0=-1", "-1", 6, None),
            ("reg0[32]=1", "[32]", 5, None),
            ("reg0[7..0]=1", "[7..0]", 5, None),
            ("reg0[0..3]=16", "16", 12, None),
            ("in_port[0..3]=1", "in_port[0..3]", 1, None),
            ("in_port=eth9", "eth9", 9, None),
            ("in_port=LOCLA", "LOCLA", 9, Some("LOCAL")),
            ("in_port=0x1", "0x1", 9, None),
            ("in_port", "", 8, None),
            ("nw_proto=6/0xf,ip", "6/0xf", 10, None),
            ("ip,nw_src=10.0.0", "10.0.0", 11, None),
            ("ip,nw_src=1.2.3.4/33", "33", 19, None),
            ("ipv6,ipv6_label=0x112345", "0x112345", 17, None),
            ("dl_dst=multicast", "multicast", 8, None),
            ("tcp,tcp_flags=+syn+syn", "syn", 20, None),
            ("tcp,tcp_flags=+sny", "sny", 16, Some("syn")),
            ("ip,nw_frag=0", "0", 12, None),
            ("ip,nw_frag=latter", "latter", 12, Some("later")),
            ("icmp,tp_src=300", "tp_src", 6, None),
            ("tcp=1", "tcp", 1, None),
            ("arp,arp_opcode=1", "arp_opcode", 5, None),
        ],
    );
}

#[test]
fn errors_in_flows_name_the_word() {
    refused(
        |text| parse_flow(text, Names::NONE),
        &[
            ("tcp", "", 4, None),
            ("tcp,actions", "", 12, None),
            ("priority=70000,actions=drop", "70000", 10, None),
            ("priority=,actions=drop", "", 10, None),
            ("prioriti=1,actions=drop", "prioriti", 1, Some("priority")),
            ("table=256,actions=drop", "256", 7, None),
            ("table=0x1,actions=drop", "0x1", 7, None),
            ("cookie=1/2,actions=drop", "1/2", 8, None),
            ("out_port=2,actions=drop", "out_port", 1, None),
            ("drop_reason=policy_deney,actions=drop", "policy_deney", 13, Some("policy_deny")),
            ("table=2,actions=2,goto_table:2", "goto_table:2", 19, None),
            ("actions=set_field:1.2.3.4->ip_src", "set_field:1.2.3.4->ip_src", 9, None),
            ("tcp,actions=set_field:80->udp_dst", "set_field:80->udp_dst", 13, None),
            ("actions=load:1->vlan_pcp", "load:1->vlan_pcp", 9, None),
            ("actions=push_vlan:0x8100,push_vlan:0x8100,push_vlan:0x8100", "push_vlan:0x8100", 43, None),
            ("actions=foo", "foo", 9, None),
        ],
    );
    refused(
        |text| parse_flow_mod(text, Names::NONE),
        &[
            ("delete tcp actions=drop", "actions", 12, None),
            ("delete priority=3", "priority", 8, None),
            ("delete cookie=3", "3", 15, None),
            ("delete drop_reason=rule_drop", "drop_reason", 8, None),
            ("delete idle_timeout=3", "idle_timeout", 8, None),
            ("modify importance=3 actions=drop", "importance", 8, None),
        ],
    );
}

#[test]
fn a_message_says_place_word_and_what_would_do_and_marks_the_word() {
    let error = parse_flow_file("f.txt", "actions=drop\n tcp,nw_scr=10.0.0.1 actions=drop\n", Names::NONE).unwrap_err();
    assert_eq!(error.to_string(), "f.txt:2:6: `nw_scr`: unknown field or keyword; did you mean `nw_src`?");
    assert_eq!(
        format!("{error:#}"),
        "f.txt:2:6: `nw_scr`: unknown field or keyword; did you mean `nw_src`?\
         \n   tcp,nw_scr=10.0.0.1 actions=drop\n       ^^^^^^"
    );
    let error = parse_flow("actions=set_field:1.2.3.4->ip_src", Names::NONE).unwrap_err();
    assert!(error.to_string().starts_with("column 9: `set_field:1.2.3.4->ip_src`: "), "{error}");
    assert!(error.to_string().contains("ip"), "{error}");
}

#[test]
fn columns_count_characters_and_long_lines_are_cut() {
    let error = parse_match("in_port=\"é\",foo", Names::NONE).unwrap_err();
    assert_eq!(error.columns(), 9..12);
    let text = format!("{}foo=1", "ip,".repeat(1000));
    let error = parse_match(&text, Names::NONE).unwrap_err();
    assert_eq!(error.columns(), 3001..3004);
    assert!(format!("{error:#}").len() < 400, "{error:#}");
    let error = parse_match(&"x".repeat(100_000), Names::NONE).unwrap_err();
    assert!(format!("{error:#}").len() < 400, "{error:#}");
}
