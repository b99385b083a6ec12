//! Action texts, how they print, and what is refused. Those without a remark print the same under `ovs-ofctl`.

use super::errors::refused;
use crate::action::{Action, ControllerAction, Ct, CtZone, ModAction, Nat, NatDirection, Subfield};
use crate::field::Field;
use crate::text::*;

#[track_caller]
fn actions_print(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        match parse_actions(text, Names::NONE) {
            Ok(actions) => assert_eq!(show_actions(&actions, Names::NONE).to_string(), *want, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn outputs_print_as_in_ovs() {
    actions_print(&[
        ("", "drop"),
        ("drop", "drop"),
        ("2", "output:2"),
        ("output:2 OUTPUT=3", "output:2,output:3"),
        ("0", "output:0"),
        ("ALL,Flood,NORMAL,local,in_port,table", "ALL,FLOOD,NORMAL,LOCAL,IN_PORT,TABLE"),
        ("output:reg0,output:NXM_NX_REG1[5..10]", "output:NXM_NX_REG0[],output:NXM_NX_REG1[5..10]"),
        ("controller", "CONTROLLER:65535"),
        ("controller:100,controller(max_len=128)", "CONTROLLER:100,CONTROLLER:128"),
        ("controller(reason=no_match,max_len=128,id=7)", "controller(reason=no_match,max_len=128,id=7)"),
        ("controller(id=3)", "controller(id=3)"),
        ("output:controller", "CONTROLLER:65535"),
        (
            "resubmit(,2),resubmit:3,resubmit(3,4),resubmit(3,),resubmit(, 5)",
            "resubmit(,2),resubmit:3,resubmit(3,4),resubmit:3,resubmit(,5)",
        ),
        ("resubmit(in_port,2),goto_table:3", "resubmit(,2),goto_table:3"),
        ("note:01.02,note:0a0B,note", "note:01.02,note:0a.0b,note:"),
    ]);
}

#[test]
fn field_actions_print_as_in_ovs() {
    actions_print(&[
        ("load:5->NXM_NX_REG0[0..15],load:0x1->reg0[31]", "load:0x5->NXM_NX_REG0[0..15],load:0x1->NXM_NX_REG0[31]"),
        ("set_field:5/0xff->reg0,set_field:0->reg1", "set_field:0x5/0xff->reg0,set_field:0->reg1"),
        ("move:eth_src->eth_dst", "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]"),
        ("move:NXM_OF_ARP_OP[]->NXM_NX_REG0[0..15]", "move:NXM_OF_ARP_OP[]->NXM_NX_REG0[0..15]"),
        ("move:OXM_OF_VLAN_VID[]->NXM_NX_REG0[0..11]", "move:OXM_OF_VLAN_VID[]->NXM_NX_REG0[0..11]"),
        ("set_field:4101->vlan_vid,set_field:3->vlan_pcp", "set_field:4101->vlan_vid,set_field:3->vlan_pcp"),
        ("set_field:5->vlan_vid", "set_field:4101->vlan_vid"),
        ("set_field:0x1234->vlan_tci", "set_field:0x1234->vlan_tci"),
        (
            "set_field:4->nw_tos,set_field:3->ip_dscp,set_field:1->ip_ecn",
            "set_field:4->nw_tos,set_field:3->ip_dscp,set_field:1->nw_ecn",
        ),
        (
            "set_field:::1/::f->ipv6_src,set_field:5->ipv6_label",
            "set_field:::1/::f->ipv6_src,set_field:0x5->ipv6_label",
        ),
        ("set_field:80->tp_dst,set_field:0x50/0xf0->tcp_src", "set_field:80->tcp_dst,set_field:80/0xf0->tcp_src"),
        ("set_field:LOCAL->in_port,load:0->NXM_OF_IN_PORT[]", "set_field:LOCAL->in_port,load:0->NXM_OF_IN_PORT[]"),
        (
            "set_field:01:02:03:04:05:06/ff:00:00:00:00:00->eth_dst",
            "set_field:01:00:00:00:00:00/ff:00:00:00:00:00->eth_dst",
        ),
        ("set_field:1.2.3.4/24->ip_src", "set_field:1.2.3.0/24->ip_src"),
        // OVS prints ANY, which it does not read back.
        ("set_field:*->reg0", "set_field:*->reg0"),
        ("mod_dl_src:1:2:3:4:5:6,mod_nw_dst:1.2.3.4", "mod_dl_src:01:02:03:04:05:06,mod_nw_dst:1.2.3.4"),
        ("mod_nw_tos:252,mod_nw_ecn:3,set_nw_ttl:5", "mod_nw_tos:252,mod_nw_ecn:3,mod_nw_ttl:5"),
        ("mod_tp_src:80,mod_vlan_vid:5,mod_vlan_pcp:7", "mod_tp_src:80,mod_vlan_vid:5,mod_vlan_pcp:7"),
        (
            "push_vlan:0x8100,push_vlan:0x88a8,pop_vlan,strip_vlan",
            "push_vlan:0x8100,push_vlan:0x88a8,pop_vlan,strip_vlan",
        ),
        ("dec_ttl,dec_ttl()", "dec_ttl,dec_ttl"),
    ]);
}

#[test]
fn a_whole_set_has_a_whole_mask() {
    let read = |text| parse_actions(text, Names::NONE).unwrap().into_vec();
    let whole = Action::SetField { field: Field::Reg0, value: 5, mask: u128::MAX };
    assert_eq!(read("set_field:5->reg0"), std::slice::from_ref(&whole));
    assert_eq!(read("set_field:5/0xffffffff->reg0"), [whole]);
    assert_eq!(read("mod_nw_src:10.0.0.1"), [Action::Mod(ModAction::NwSrc(0x0a00_0001))]);
}

#[test]
fn every_way_out_prints_as_in_ovs() {
    actions_print(&[
        ("output(max_len=100, port=local)", "output(port=LOCAL,max_len=100)"),
        ("enqueue(1,2),enqueue:local:0x10", "enqueue:1:2,enqueue:LOCAL:16"),
        ("group:0x10", "group:16"),
        ("resubmit(in_port,2,ct),resubmit(1,2,ct)", "resubmit(,2,ct),resubmit(1,2,ct)"),
        // OVS prints resubmit:1, which means less.
        ("resubmit(1,,ct)", "resubmit(1,,ct)"),
        (
            "controller(meter_id=1,pause,userdata=0001ff,id=2,max_len=3,reason=packet_out)",
            "controller(reason=packet_out,max_len=3,id=2,userdata=00.01.ff,pause,meter_id=1)",
        ),
        ("controller(userdata=,max_len=5)", "CONTROLLER:5"),
        ("bundle(Symmetric_L4,60,HRW,ofport,slaves:[1,local])", "bundle(symmetric_l4,60,hrw,ofport,members:1,LOCAL)"),
        ("bundle_load(nw_src 0 hrw ofport reg0 members:)", "bundle_load(nw_src,0,hrw,ofport,NXM_NX_REG0[],members:)"),
        ("multipath(eth_src,1,iter_hash,4,3,reg0[0..1])", "multipath(eth_src,1,iter_hash,4,3,NXM_NX_REG0[0..1])"),
    ]);
}

#[test]
fn headers_and_instructions_print_as_in_ovs() {
    actions_print(&[
        ("push_mpls:0x8847,pop_mpls:0x800", "push_mpls:0x8847,pop_mpls:0x0800"),
        (
            "set_mpls_label:5,set_mpls_tc(3),set_mpls_ttl:1,dec_mpls_ttl",
            "set_mpls_label(5),set_mpls_tc(3),set_mpls_ttl(1),dec_mpls_ttl",
        ),
        ("dec_ttl(0),dec_ttl(1, 2),dec_ttl:3", "dec_ttl(0),dec_ttl(1,2),dec_ttl(3)"),
        (
            "set_tunnel:5,set_tunnel64:5,set_tunnel:0x100000000",
            "set_tunnel:0x5,set_tunnel64:0x5,set_tunnel64:0x100000000",
        ),
        ("set_vlan_vid:5,set_vlan_pcp:3", "set_vlan_vid:5,set_vlan_pcp:3"),
        ("encap(nsh()),encap(ethernet),encap:mpls", "encap(nsh),encap(ethernet),encap(mpls)"),
        (
            "encap(nsh(tlv(0x1,255,0xAB),md_type=2)),dec_nsh_ttl",
            "encap(nsh(md_type=2,tlv(0x0001,255,0xab))),dec_nsh_ttl",
        ),
        ("decap,decap(packet_type(ns=1,type=2048))", "decap(),decap(packet_type(ns=1,type=0x800))"),
        (
            "meter:1,2,clear_actions,write_actions(drop),write_metadata:5/0xf,goto_table:5",
            "meter:1,output:2,clear_actions,write_actions(drop),write_metadata:0x5/0xf,goto_table:5",
        ),
        ("clone(),clone(1,clone(drop))", "clone(drop),clone(output:1,clone(drop))"),
        (
            "sample(egress,probability=5)",
            "sample(probability=5,collector_set_id=0,obs_domain_id=0,obs_point_id=0,egress)",
        ),
        ("fin_timeout(hard_timeout=5),fin_timeout", "fin_timeout(hard_timeout=5),fin_timeout()"),
        ("check_pkt_larger(1500)->reg0[1]", "check_pkt_larger(1500)->NXM_NX_REG0[1]"),
        ("fragment(userdata=52.54,mtu=0x5dc,id=0)", "fragment(mtu=1500,userdata=52.54)"),
        ("fragment(mtu=68,id=7)", "fragment(mtu=68,id=7)"),
        ("REJECT", "reject"),
        ("push:reg0,pop:NXM_NX_REG1[0..3]", "push:NXM_NX_REG0[],pop:NXM_NX_REG1[0..3]"),
        (
            "delete_field:tun_metadata3,set_queue:5,pop_queue,exit",
            "delete_field:tun_metadata3,set_queue:5,pop_queue,exit",
        ),
    ]);
    actions_print(&[("note:01,conjunction(0x10, 2 / 3)", "note:01,conjunction(16,2/3)")]);
}

#[test]
fn connection_tracking_prints_in_one_order() {
    actions_print(&[
        ("ct,ct(),ct_clear", "ct(),ct(),ct_clear"),
        (
            "ct(alg=ftp,exec(load:1->ct_mark),nat(hash,src=10.0.0.1-10.0.0.9:5-9),zone=5,table=1,force,commit)",
            "ct(commit,force,table=1,zone=5,nat(src=10.0.0.1-10.0.0.9:5-9,hash),exec(load:0x1->NXM_NX_CT_MARK[]),alg=ftp)",
        ),
        ("ct(nat,zone=reg0[0..15])", "ct(zone=NXM_NX_REG0[0..15],nat)"),
        ("ct(commit,nat(dst=[fe80::1]-[fe80::9]:80))", "ct(commit,nat(dst=[fe80::1]-[fe80::9]:80))"),
        ("ct(commit,nat(dst=[fe80::1]))", "ct(commit,nat(dst=fe80::1))"),
        ("ct(commit,nat(src=1.2.3.4-1.2.3.4:5-5))", "ct(commit,nat(src=1.2.3.4:5))"),
        ("ct(commit,exec(nat(src),set_field:1->ct_label))", "ct(commit,nat(src),exec(set_field:0x1->ct_label))"),
    ]);
}

#[test]
fn learning_prints_its_options_first() {
    actions_print(&[
        ("learn()", "learn(table=1)"),
        (
            "learn(reg0=5,limit=3,result_dst=reg0[8],cookie=7,delete_learned,send_flow_rem,priority=9,fin_hard_timeout=4,\
             fin_idle_timeout=3,hard_timeout=2,idle_timeout=1,table=9)",
            "learn(table=9,idle_timeout=1,hard_timeout=2,fin_idle_timeout=3,fin_hard_timeout=4,priority=9,send_flow_rem,\
             delete_learned,cookie=0x7,limit=3,result_dst=NXM_NX_REG0[8],reg0=0x5)",
        ),
        (
            "learn(eth_type=0x800,ip_src=1.2.3.4,reg1[0..7]=0x12,reg0[],reg2=reg3,in_port=local)",
            "learn(table=1,eth_type=0x800,ip_src=1.2.3.4,NXM_NX_REG1[0..7]=0x12,NXM_NX_REG0[],\
             NXM_NX_REG2[]=NXM_NX_REG3[],in_port=LOCAL)",
        ),
        (
            "learn(load:5->reg0[0..3],load:in_port->reg1[16..31],output:reg2)",
            "learn(table=1,load:0x5->NXM_NX_REG0[0..3],load:NXM_OF_IN_PORT[]->NXM_NX_REG1[16..31],\
             output:NXM_NX_REG2[])",
        ),
    ]);
}

#[test]
fn a_controller_of_only_a_length_is_the_plain_one() {
    let read = |text| parse_actions(text, Names::NONE).unwrap().into_vec();
    let plain = ControllerAction { max_len: 5, ..ControllerAction::default() };
    assert_eq!(read("controller(max_len=5)"), [Action::Controller(Box::new(plain))]);
    assert_eq!(read("controller"), read("output:controller"));
}

#[test]
fn ranges_of_nat_are_read_as_in_ovs() {
    let same = [
        "nat",
        "nat(src)",
        "nat(dst)",
        "nat(src=10.0.0.1)",
        "nat(src=10.0.0.1-10.0.0.9:1-2,random)",
        "nat(dst=10.0.0.1:80,hash)",
        "nat(src=10.0.0.1:65535)",
        "nat(src=10.0.0.1,persistent,random)",
        "nat(src=10.0.0.1-10.0.0.9:5-6,persistent,hash)",
        "nat(src=fd00::1-fd00::9)",
        "nat(src=[fd00::1]-[fd00::9]:80-90,persistent)",
        "nat(src=[fd00::1]:80)",
        "nat(src=fd00::1:80)",
        "nat(src=[::ffff:10.0.0.1]:80)",
        "nat(dst=255.255.255.255)",
    ];
    for nat in same {
        let text = format!("ct(commit,{nat})");
        actions_print(&[(&text, &text)]);
    }
    let others = [
        ("nat()", "nat"),
        ("nat(src=10.0.0.9-10.0.0.9)", "nat(src=10.0.0.9)"),
        ("nat(random,persistent,src=10.0.0.1)", "nat(src=10.0.0.1,persistent,random)"),
        ("nat(src=10.0.0.1,hash,hash)", "nat(src=10.0.0.1,hash)"),
        ("nat(src=[fd00::1])", "nat(src=fd00::1)"),
        ("nat(src=[fd00::1]-[fd00::9])", "nat(src=fd00::1-fd00::9)"),
        ("nat(src=[fd00::1]-fd00::9)", "nat(src=fd00::1-fd00::9)"),
        ("nat(src=fd00::1-[fd00::9]:80)", "nat(src=[fd00::1]-[fd00::9]:80)"),
    ];
    for (nat, shown) in others {
        actions_print(&[(&format!("ct(commit,{nat})"), &format!("ct(commit,{shown})"))]);
    }
    let refused = [
        "nat(src=10.0.0.1:80-70)",
        "nat(src=10.0.0.9-10.0.0.1)",
        "nat(src=fd00::9-fd00::1)",
        "nat(src,hash,random)",
        "nat(hash)",
        "nat(persistent)",
        "nat(src=10.0.0.1:1-65536)",
        "nat(src,dst)",
        "nat(src=10.0.0.1,dst=10.0.0.2)",
        "nat(src=10.0.0.1:)",
        "nat(src=10.0.0.1-)",
        "nat(src=10.0.0.1-:80)",
        "nat(src=10.0.0.1:80-)",
        "nat(src=10.0.0.1-fd00::1)",
        "nat(src=10.0.0.1/24)",
        "nat(src=10.0.0.1,foo)",
        "nat(src=[fd00::1-fd00::9]:80)",
        "nat(src=[fd00::1)",
        // OVS reads these as something else than they say, or sends what its switch refuses.
        "nat(src=10.0.0)",
        "nat(src=:80)",
        "nat(src=10.0.0.1:0-10)",
        "nat(src=10.0.0.1:65536)",
        "nat(src=10.0.0.1-10.0.0.300)",
        "nat(src=0.0.0.0-10.0.0.1)",
    ];
    for nat in refused {
        assert!(parse_actions(&format!("ct(commit,{nat})"), Names::NONE).is_err(), "{nat}");
    }
}

#[test]
fn a_zone_is_a_number_or_a_field() {
    let read = |text| match parse_actions(text, Names::NONE).unwrap().first() {
        Some(Action::Ct(ct)) => (**ct).clone(),
        other => panic!("{other:?}"),
    };
    let part = Subfield { field: Field::Reg3, ofs: 16, bits: 16 };
    assert_eq!(read("ct(zone=reg3[16..31])"), Ct { zone: CtZone::Field(part), ..Ct::default() });
    assert_eq!(read("ct(zone=0x10)"), Ct { zone: CtZone::Number(16), ..Ct::default() });
    let nat = Nat { direction: Some(NatDirection::Dst), ..Nat::default() };
    assert_eq!(read("ct(commit,nat(dst))").nat, Some(nat));
}

#[test]
fn too_many_lists_within_each_other_are_refused_at_once() {
    let nested = |levels: usize| format!("{}1{}", "clone(".repeat(levels), ")".repeat(levels));
    let deepest = parse_actions(&nested(64), Names::NONE).unwrap();
    let printed = show_actions(&deepest, Names::NONE).to_string();
    assert_eq!(parse_actions(&printed, Names::NONE).unwrap(), deepest);
    for levels in [65, 100_000] {
        for text in [nested(levels), "clone(".repeat(levels), "write_actions(clone(".repeat(levels)] {
            let error = parse_actions(&text, Names::NONE).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::TooDeep(64) | ErrorKind::NotAllowed(_)), "{error}");
        }
    }
}

#[test]
fn a_refusal_says_what_would_do() {
    for (text, message) in [
        (
            "ip,actions=ct(comit)",
            "column 15: `comit`: bad value for ct: want commit, force, zone=, table=, nat, alg= and exec(..); did you \
             mean `commit`?",
        ),
        ("actions=grup:1", "column 9: `grup`: unknown action; did you mean `group`?"),
        (
            "actions=ct(commit)",
            "column 9: `ct(commit)`: action 1: ct is for IPv4 and IPv6 packets only, which the match does not ask for: \
             add ip or ipv6 to the match",
        ),
        (
            "actions=1,meter:1",
            "column 11: `meter:1`: action 2: meter must stand before output: OpenFlow's order is meter, actions, \
             clear_actions, write_actions, write_metadata, goto_table",
        ),
        (
            "actions=1,clone(2,set_field:1->ct_mark)",
            "column 19: `set_field:1->ct_mark`: action 2: ct_mark is the connection's: set it within ct(commit,exec(..))",
        ),
    ] {
        assert_eq!(parse_flow(text, Names::NONE).unwrap_err().to_string(), message);
    }
}

#[test]
fn errors_in_actions_name_the_word_and_the_nearest_one() {
    refused(
        |text| parse_actions(text, Names::NONE),
        &[
            ("output:2,outptu:3", "outptu", 10, Some("output")),
            ("foo", "foo", 1, None),
            ("apply_actions(drop)", "apply_actions", 1, None),
            ("output:none", "none", 8, None),
            ("65280", "65280", 1, None),
            ("output:", "", 8, None),
            ("drop,2", "drop", 1, None),
            ("goto_table:3,output:2", "output:2", 14, None),
            ("goto_table:255", "255", 12, None),
            ("resubmit(,255)", ",255", 10, None),
            ("resubmit:in_port", "in_port", 10, None),
            ("set_field:5->reg16", "reg16", 14, None),
            ("set_field:5->rge1", "rge1", 14, Some("reg1")),
            ("set_field:5", "5", 11, None),
            ("set_field:5->", "5->", 11, None),
            ("set_field:6->nw_proto", "nw_proto", 14, None),
            ("set_field:3->nw_tos", "3", 11, None),
            ("set_field:5->dl_vlan", "dl_vlan", 14, None),
            ("set_field:5/0xff->vlan_vid", "5/0xff", 11, None),
            ("set_field:256->arp_op", "256", 11, None),
            ("load:0x10->reg0[0..3]", "0x10", 6, None),
            ("load:-1->reg0", "-1", 6, None),
            ("load:1->eth_type", "eth_type", 9, None),
            ("move:reg0[0..3]->reg1", "reg0[0..3]->reg1", 6, None),
            ("move:reg0[]->nw_proto", "reg0[]->nw_proto", 6, None),
            ("mod_vlan_vid:4096", "4096", 14, None),
            ("mod_nw_tos:3", "3", 12, None),
            ("push_vlan:0x8847", "0x8847", 11, None),
            ("note:0102.3", "0102.3", 6, None),
            ("controller(reason=bogus)", "bogus", 19, None),
            ("controller(max_lne=1)", "max_lne", 12, Some("max_len")),
            ("normal:foo", "foo", 8, None),
        ],
    );
}

#[test]
fn errors_within_actions_name_the_word_and_the_nearest_one() {
    refused(
        |text| parse_actions(text, Names::NONE),
        &[
            ("nat(src=1.2.3.4)", "nat", 1, None),
            ("clone(1,clone(foo))", "foo", 15, None),
            ("clone(1,write_actions(2))", "write_actions(2)", 9, None),
            ("write_actions(note:00)", "note:00", 15, None),
            ("conjunction(1,1/2),2", "2", 20, None),
            ("conjunction(1,3/2)", "3", 15, None),
            ("controller(useradta=00)", "useradta", 12, Some("userdata")),
            ("output(port=1,max_len=5)", "5", 23, None),
            ("output(port=1,max_lne=100)", "port=1,max_lne=100", 8, None),
            ("enqueue:1", "1", 9, None),
            ("enqueue:normal:1", "normal", 9, None),
            ("resubmit(,2,cd)", "cd", 13, None),
            ("bundle(eth_scr,0,hrw,ofport,members:1)", "eth_scr", 8, Some("eth_src")),
            ("bundle(eth_src,0,hrw,ofport)", "", 28, None),
            ("multipath(eth_src,50,modulo_m,1,0,reg0)", "modulo_m", 22, Some("modulo_n")),
            ("multipath(eth_src,50,modulo_n,1024,0,reg0[0..7])", "reg0[0..7]", 38, None),
            ("learn(tabel=3)", "tabel", 7, Some("table")),
            ("learn(reg0[0..7]=256)", "256", 18, None),
            ("learn(reg0=reg1[0..7])", "reg1[0..7]", 12, None),
            ("learn(load:1->reg99)", "reg99", 15, Some("reg9")),
            ("learn(output:reg0,result_dst=reg0)", "reg0", 30, None),
            ("ct(commit,exec(load:1->reg0))", "load:1->reg0", 16, None),
            ("ct(commit,exec(output:1))", "output", 16, None),
            ("ct(force)", "force", 4, None),
            ("ct(nat(src=1.2.3.4))", "nat", 4, None),
            ("ct(zone=reg0)", "reg0", 9, None),
            ("ct(commit,nat(src=1.2.3.9-1.2.3.4))", "1.2.3.9-1.2.3.4", 19, None),
            ("ct(commit,nat(src=1.2.3.4x))", "x", 26, None),
            ("ct(commit,nat(src=1.2.3.4,randon))", "randon", 27, Some("random")),
            ("encap(nhs)", "nhs", 7, Some("nsh")),
            ("encap(nsh(md_type=3))", "3", 19, None),
            ("decap(packet_type(ns=5,type=0))", "5", 22, None),
            ("sample(collector_set_id=1)", "", 26, None),
            ("meter:0", "0", 7, None),
            ("push_mpls:0x800", "0x800", 11, None),
            ("check_pkt_larger(5)->reg0", "reg0", 22, None),
            ("fragment(mtu=67)", "67", 14, None),
            ("fragment(mut=1500)", "mut", 10, Some("mtu")),
            ("fragment(id=1)", "", 14, None),
            ("delete_field:reg0", "reg0", 14, None),
            ("fin_timeout(idel_timeout=5)", "idel_timeout", 13, Some("idle_timeout")),
            ("dec_ttl(x)", "x", 9, None),
            ("write_metadata:1/", "", 18, None),
            ("meter:1,meter:2", "meter:2", 9, None),
            ("group:4294967295", "4294967295", 7, None),
        ],
    );
}
