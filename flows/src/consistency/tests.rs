//! What Open vSwitch 3.1.0's `ovs-ofctl parse-flow` accepts and refuses.

use super::*;
use crate::action::{ModAction, Subfield};
use crate::field::Field;
use crate::port::PortNo;

fn table(n: u8) -> TableId {
    TableId::new(n).unwrap()
}

fn fields(fields: &[(Field, u128)]) -> Match {
    let mut m = Match::any();
    for (field, value) in fields {
        m.set_field(*field, *value);
    }
    m
}

fn ip() -> Match {
    fields(&[(Field::EthType, 0x0800)])
}

fn proto(number: u128) -> Match {
    fields(&[(Field::EthType, 0x0800), (Field::IpProto, number)])
}

fn vlan() -> Match {
    fields(&[(Field::VlanVid, 0x1005)])
}

fn set(field: Field, value: u128) -> Action {
    Action::SetField { field, value, mask: field.slot().max() }
}

fn check_in(n: u8, matches: &Match, actions: &[Action]) -> Result<(), ConsistencyError> {
    check(table(n), matches, actions)
}

fn ok(matches: &Match, actions: &[Action]) -> bool {
    check_in(0, matches, actions).is_ok()
}

#[test]
fn a_set_needs_the_match_to_guarantee_its_field() {
    let set_ip = [set(Field::IpSrc, 1)];
    let error = check_in(0, &Match::any(), &set_ip).unwrap_err();
    assert_eq!(
        error.to_string(),
        "action 1: ip_src exists only in IPv4 packets, which the match does not ask for: add ip to the match"
    );
    assert!(ok(&ip(), &set_ip));
    assert!(!ok(&fields(&[(Field::EthType, 0x0806)]), &set_ip));
    assert!(ok(&fields(&[(Field::EthType, 0x0806)]), &[set(Field::ArpSpa, 1)]));
    let load = Action::Load { value: 1, dst: Subfield { field: Field::IpSrc, ofs: 0, bits: 8 } };
    assert!(!ok(&Match::any(), std::slice::from_ref(&load)));
    assert!(ok(&ip(), &[load]));
}

#[test]
fn a_port_needs_its_protocol_and_no_later_fragment() {
    let set_port = [set(Field::TcpSrc, 5)];
    assert!(ok(&proto(6), &set_port));
    assert!(!ok(&proto(17), &set_port));
    let mut later = proto(6);
    later.set_field(Field::IpFrag, 3);
    assert!(!ok(&later, &set_port));
    let mut any_fragment = proto(6);
    any_fragment.set(Field::IpFrag.slot(), 1, 1);
    assert!(ok(&any_fragment, &set_port));
}

#[test]
fn a_neighbour_discovery_field_needs_the_icmpv6_type() {
    let icmp6 = [(Field::EthType, 0x86dd), (Field::IpProto, 58)];
    let solicit = [icmp6[0], icmp6[1], (Field::Icmpv6Type, 135)];
    assert!(!ok(&fields(&icmp6), &[set(Field::NdTarget, 1)]));
    assert!(ok(&fields(&solicit), &[set(Field::NdTarget, 1)]));
    assert!(!ok(&fields(&solicit), &[set(Field::NdTll, 1)]));
}

#[test]
fn openflow_1_0_actions_are_accepted_under_any_match() {
    let lenient = [
        Action::Mod(ModAction::NwSrc(1)),
        Action::Mod(ModAction::NwTos(4)),
        Action::Mod(ModAction::TpSrc(5)),
        Action::Mod(ModAction::VlanVid(5)),
        Action::Mod(ModAction::VlanPcp(5)),
        Action::DecTtl(Box::default()),
        Action::PopVlan { modern: true },
        Action::PopVlan { modern: false },
    ];
    for action in lenient {
        assert!(ok(&Match::any(), std::slice::from_ref(&action)), "{action:?}");
    }
}

#[test]
fn a_tag_must_be_there_to_be_set_and_actions_make_and_take_it() {
    let (vid, pcp) = (set(Field::VlanVid, 0x1002), set(Field::VlanPcp, 3));
    let pop = Action::PopVlan { modern: true };
    assert!(!ok(&Match::any(), std::slice::from_ref(&vid)));
    assert!(!ok(&Match::any(), std::slice::from_ref(&pcp)));
    assert!(ok(&vlan(), &[vid.clone(), pcp.clone()]));
    assert!(!ok(&vlan(), &[pop.clone(), vid.clone()]));
    assert!(ok(&Match::any(), &[Action::PushVlan(0x8100), vid.clone()]));
    assert!(ok(&Match::any(), &[Action::Mod(ModAction::VlanVid(5)), vid.clone()]));
    assert!(ok(&vlan(), &[Action::PushVlan(0x88a8), pop.clone(), vid.clone()]));
    assert!(!ok(&vlan(), &[Action::PushVlan(0x88a8), pop.clone(), pop, vid]));
    assert!(!ok(&vlan(), &[set(Field::VlanTci, 0), pcp.clone()]));
    assert!(ok(&Match::any(), &[set(Field::VlanTci, 0x1005), pcp]));
}

#[test]
fn a_move_to_vlan_vid_is_accepted_without_a_tag_but_not_one_to_vlan_pcp() {
    let from = |bits| Subfield { field: Field::Reg0, ofs: 0, bits };
    let to_vid = Action::Move { src: from(12), dst: Subfield { field: Field::VlanVid, ofs: 0, bits: 12 } };
    let to_pcp = Action::Move { src: from(3), dst: Subfield::whole(Field::VlanPcp) };
    assert!(ok(&Match::any(), &[to_vid]));
    assert!(!ok(&Match::any(), &[to_pcp]));
}

#[test]
fn both_ends_of_a_move_are_checked() {
    let reg = Subfield::whole(Field::Reg0);
    let src = Subfield::whole(Field::IpSrc);
    assert!(!ok(&Match::any(), &[Action::Move { src, dst: reg }]));
    assert!(ok(&ip(), &[Action::Move { src, dst: reg }]));
    assert!(!ok(&Match::any(), &[Action::OutputField(src)]));
    let wide = Action::Move { src: reg, dst: Subfield { field: Field::Reg1, ofs: 0, bits: 8 } };
    assert_eq!(check_in(0, &Match::any(), &[wide]), Err(ConsistencyError::MoveWidths { action: 1, from: 32, to: 8 }));
    let beyond = Subfield { field: Field::Reg1, ofs: 30, bits: 8 };
    let error = check_in(0, &Match::any(), &[Action::Load { value: 0, dst: beyond }]).unwrap_err();
    assert_eq!(error.to_string(), "action 1: reg1 has 32 bits, so it has no bits 30..37");
}

#[test]
fn fields_that_decide_what_a_packet_is_cannot_be_set() {
    assert_eq!(
        check_in(0, &Match::any(), &[set(Field::EthType, 1)]),
        Err(ConsistencyError::NotWritable { action: 1, field: "eth_type" })
    );
    assert!(!ok(&ip(), &[set(Field::IpProto, 6)]));
}

#[test]
fn a_packet_has_at_most_two_tags() {
    let push = Action::PushVlan(0x8100);
    assert!(ok(&Match::any(), &[push.clone(), push.clone()]));
    assert!(ok(&vlan(), std::slice::from_ref(&push)));
    assert_eq!(check_in(0, &vlan(), &[push.clone(), push]), Err(ConsistencyError::TooManyTags { action: 2 }));
    assert!(!ok(&Match::any(), &[Action::PushVlan(0x1234)]));
}

#[test]
fn goto_table_leads_forward_and_comes_last() {
    assert!(check_in(3, &Match::any(), &[Action::GotoTable(table(4))]).is_ok());
    for to in [2, 3] {
        assert!(check_in(3, &Match::any(), &[Action::GotoTable(table(to))]).is_err());
    }
    let output = Action::Output(PortNo(1));
    assert!(ok(&Match::any(), &[output.clone(), Action::GotoTable(table(4))]));
    assert_eq!(
        check_in(0, &Match::any(), &[Action::GotoTable(table(4)), output]),
        Err(ConsistencyError::Order { action: 2, name: "output", before: "goto_table" })
    );
    let resubmit = Action::Resubmit { port: None, table: Some(table(3)), ct: false, extended: true };
    assert!(check_in(3, &Match::any(), &[resubmit]).is_ok());
}

#[test]
fn ports_between_the_ordinary_and_the_reserved_ones_are_refused() {
    for (port, accepted) in [
        (PortNo(0), true),
        (PortNo(65279), true),
        (PortNo(65280), false),
        (PortNo::UNSET, false),
        (PortNo::IN_PORT, true),
        (PortNo::TABLE, true),
        (PortNo::CONTROLLER, true),
        (PortNo::LOCAL, true),
        (PortNo::NONE, false),
    ] {
        assert_eq!(ok(&Match::any(), &[Action::Output(port)]), accepted, "{port}");
    }
}

/// What is wrong with the actions of a flow text, if anything.
fn wrong(flow: &str) -> Option<String> {
    use crate::text::{ErrorKind, Names, parse_flow};
    match parse_flow(flow, Names::NONE).map_err(|error| error.kind().clone()) {
        Ok(_) => None,
        Err(ErrorKind::Inconsistent(error)) => Some(error.to_string()),
        Err(other) => panic!("{flow}: {other}"),
    }
}

#[track_caller]
fn asks_for(cases: &[(&str, Option<&str>)]) {
    for (flow, part) in cases {
        let wrong = wrong(flow);
        match (&wrong, part) {
            (None, None) => {}
            (Some(wrong), Some(part)) if wrong.contains(part) => {}
            _ => panic!("{flow}: {wrong:?} instead of {part:?}"),
        }
    }
}

#[test]
fn connection_tracking_needs_ip_and_a_packet_that_can_be_tracked() {
    asks_for(&[
        ("actions=ct(commit)", Some("add ip or ipv6")),
        ("arp,actions=ct(table=1)", Some("add ip or ipv6")),
        ("ip,actions=ct(commit)", None),
        ("ct_state=+trk+inv,ip,actions=ct(commit)", Some("ct_state=+inv")),
        ("ct_state=+trk+inv,ip,actions=ct(table=1)", None),
        ("ct_state=+trk-inv,ip,actions=ct(commit)", None),
        ("udp,actions=ct(alg=ftp)", Some("add tcp or tcp6")),
        ("tcp6,actions=ct(alg=ftp)", None),
        ("ipv6,actions=ct(commit,nat(src=1.2.3.4))", Some("nat to an IPv4 address is for IPv4 packets")),
        ("ip,actions=ct(commit,nat(dst=::1))", Some("add ipv6 to the match")),
        // OVS looks at nat no more when the zone comes from a field.
        ("ip,actions=ct(commit,zone=reg0[0..15],nat(dst=::1))", None),
        ("ip,actions=ct(zone=tcp_src)", Some("add tcp or tcp6")),
        ("ip,actions=ct(commit,exec(move:tcp_src->ct_mark[0..15]))", Some("add tcp or tcp6")),
    ]);
}

#[test]
fn fields_of_the_connection_need_a_state_that_says_there_is_one() {
    let known = "add ct_state=+trk-inv";
    asks_for(&[
        ("ip,actions=resubmit(,2,ct)", Some(known)),
        ("ct_state=+trk,ip,actions=resubmit(,2,ct)", Some(known)),
        ("ct_state=+trk-inv,ip,actions=resubmit(,2,ct)", None),
        ("ct_state=+trk+rpl,ip,actions=resubmit(,2,ct)", None),
        ("ct_state=+trk+inv,ip,actions=resubmit(,2,ct)", Some(known)),
        ("ct_state=+trk,ip,actions=move:ct_nw_src->reg0", Some(known)),
        ("ct_state=+trk+est,ip,actions=move:ct_nw_src->reg0", None),
        ("ip,actions=move:ct_mark->reg0,move:ct_label->xxreg0", None),
    ]);
}

#[test]
fn labels_and_headers_change_what_a_packet_is() {
    asks_for(&[
        ("actions=set_field:5->mpls_label", Some("add mpls or mplsm")),
        ("actions=push_mpls:0x8847,set_field:5->mpls_label", None),
        ("tcp,actions=push_mpls:0x8847,set_field:5->tcp_src", Some("add tcp")),
        ("tcp,actions=push_mpls:0x8847,pop_mpls:0x0800,set_field:5->tcp_src", Some("add tcp")),
        ("mpls,actions=pop_mpls:0x0800,set_field:1.2.3.4->ip_src", None),
        ("actions=encap(nsh),set_field:5->nsh_spi", None),
        ("actions=encap(nsh),set_field:00:00:00:00:00:01->eth_dst", Some("Ethernet packets")),
        ("actions=encap(nsh),encap(ethernet),set_field:00:00:00:00:00:01->eth_dst", None),
        ("ip,actions=decap,set_field:1.2.3.4->ip_dst", None),
        ("ip,actions=decap,set_field:00:00:00:00:00:01->eth_dst", Some("Ethernet packets")),
        ("ip,actions=decap,decap,set_field:1.2.3.4->ip_dst", Some("add ip to the match")),
    ]);
}

#[test]
fn what_a_list_within_another_changes_is_forgotten_behind_it() {
    asks_for(&[
        ("actions=push_vlan:0x8100,clone(pop_vlan),set_field:5->vlan_vid", None),
        ("actions=clone(push_vlan:0x8100,set_field:5->vlan_vid)", None),
        ("actions=clone(push_vlan:0x8100),set_field:5->vlan_vid", Some("action 2: vlan_vid")),
        ("actions=1,clone(2,clone(set_field:1.2.3.4->ip_src))", Some("action 2: ip_src")),
        ("actions=write_actions(set_field:1.2.3.4->ip_src)", Some("add ip to the match")),
        ("actions=push_vlan:0x8100,write_actions(set_field:5->vlan_vid)", None),
    ]);
}

#[test]
fn a_learned_flow_needs_what_its_own_match_says_before() {
    asks_for(&[
        ("actions=learn(ip_src=1.2.3.4)", Some("add ip to the match")),
        ("actions=learn(ip_src=1.2.3.4,eth_type=0x800)", Some("add ip to the match")),
        ("actions=learn(eth_type=0x800,ip_src=1.2.3.4,nw_proto=6,tcp_src=5)", None),
        ("ip,actions=learn(eth_type,ip_src=1.2.3.4)", Some("add ip to the match")),
        ("ip,actions=learn(eth_type=0x800,ip_src=ip_dst)", None),
        ("actions=learn(eth_type=0x800,ip_src=ip_dst)", Some("add ip to the match")),
        ("actions=learn(eth_type=0x800,load:1->ip_dst)", None),
        ("actions=learn(load:1->ip_dst)", Some("add ip to the match")),
        ("actions=learn(output:ip_dst)", Some("add ip to the match")),
        ("actions=learn(ct_state=0x21,ct_nw_src=1.2.3.4)", None),
    ]);
}

#[test]
fn instructions_stand_in_their_order_and_once() {
    asks_for(&[
        ("actions=1,meter:1", Some("meter must stand before output")),
        ("actions=goto_table:1,2", Some("output must stand before goto_table")),
        ("actions=clear_actions,write_actions(1),write_metadata:1,goto_table:1", None),
        ("actions=write_actions(1),clear_actions", Some("clear_actions must stand before write_actions")),
        ("actions=meter:1,meter:2", Some("meter can stand once only")),
        ("actions=clone(goto_table:1)", Some("goto_table cannot stand within clone")),
        ("actions=write_actions(learn())", Some("learn cannot stand within write_actions")),
        ("actions=conjunction(1,1/2),2", Some("output cannot stand beside conjunction")),
        ("actions=conjunction(1,1/2),note:00,conjunction(2,1/2)", None),
        ("actions=load:1->ct_mark", Some("within ct(commit,exec(..))")),
        ("ip,actions=ct(commit,exec(load:1->reg0))", Some("not reg0")),
    ]);
}

#[test]
fn actions_that_no_text_can_say_are_refused_too() {
    use crate::action::*;
    let part = |field, ofs, bits| Subfield { field, ofs, bits };
    let nat = |addresses, ports| Nat { direction: Some(NatDirection::Src), addresses, ports, ..Nat::default() };
    let with_nat = |nat| Action::Ct(Box::new(Ct { commit: true, nat: Some(nat), ..Ct::default() }));
    let address = std::net::IpAddr::from([10, 0, 0, 1]);
    let deep = |levels| (0..levels).fold(Action::Exit, |inner, _| Action::Clone([inner].into()));
    for action in [
        Action::Group(GroupId(u32::MAX)),
        Action::Meter(MeterId(0)),
        Action::OutputTruncated { port: PortNo(1), max_len: 13 },
        Action::OutputTruncated { port: PortNo::NORMAL, max_len: 100 },
        Action::Enqueue { port: PortNo::NORMAL, queue: 0 },
        Action::DeleteField(Field::Reg0),
        Action::CheckPktLarger { len: 0, dst: part(Field::Reg0, 0, 2) },
        Action::CheckPktLarger { len: 0, dst: part(Field::EthType, 0, 1) },
        Action::Push(part(Field::Reg0, 30, 8)),
        Action::Pop(part(Field::EthType, 0, 1)),
        Action::Conjunction(Conjunction { id: 1, clause: 2, clauses: 2 }),
        Action::Conjunction(Conjunction { id: 1, clause: 0, clauses: 65 }),
        Action::PushMpls(0x0800),
        Action::Ct(Box::new(Ct { force: true, ..Ct::default() })),
        Action::Ct(Box::new(Ct { zone: CtZone::Field(part(Field::Reg0, 0, 8)), ..Ct::default() })),
        with_nat(nat(None, Some((1, 2)))),
        with_nat(nat(Some((address, address)), Some((2, 1)))),
        deep(66),
    ] {
        assert!(!ok(&ip(), std::slice::from_ref(&action)), "{action:?}");
    }
    assert!(ok(&ip(), &[deep(64)]));
    assert!(ok(&ip(), &[with_nat(nat(Some((address, address)), Some((1, 2))))]));
}
