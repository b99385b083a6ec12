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
