//! The words are those of OVS 3.1's `ofproto/trace`; the differential suite asks it.

use super::*;
use crate::action::{CtAlg, MeterId, Nat, NatChoice, NatDirection, NshTlv};
use crate::bridge::BridgeId;
use crate::datapath::{Change, DpCt, MeterRef};
use crate::field::Field;
use crate::key::slot;
use crate::meter::{Meter, MeterSpec, MeterUnit};
use crate::owner::Owner;
use crate::packet::readdress::{Ends, Readdress};
use crate::port::PortNo;
use crate::rule::{Millis, TableId};
use crate::verdict::DropReason;
use smallvec::smallvec;
use std::net::IpAddr;
use std::sync::Arc;

fn key(eth_type: u16) -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(slot::ETH_TYPE, eth_type.into());
    key
}

#[track_caller]
fn check(actions: &[DpAction], eth_type: u16, text: &str) {
    assert_eq!(show_datapath_actions(actions, &key(eth_type), |_| None).to_string(), text);
}

fn change(field: Field, value: u128) -> Change {
    Change { field, value, mask: field.slot().max() }
}

fn set(field: Field, value: u128) -> DpAction {
    DpAction::Set(smallvec![change(field, value)])
}

fn out(port: u32) -> DpAction {
    DpAction::Output(DpPort(port))
}

fn ct() -> DpCt {
    DpCt { commit: false, force: false, zone: 0, mark: None, label: None, nat: None, alg: None, owner: None }
}

#[test]
fn nothing_to_do_is_a_drop() {
    check(&[], 0x0800, "drop");
    check(&[DpAction::Drop(DropReason::Meter)], 0x0800, "drop");
    check(&[out(2), DpAction::Drop(DropReason::Meter)], 0x0800, "2");
}

#[test]
fn headers_are_set_by_the_datapaths_names() {
    let changes = smallvec![change(Field::IpSrc, 0x0102_0304), Change { field: Field::NwTos, value: 8, mask: 0xfc }];
    check(&[DpAction::Set(changes)], 0x0800, "set(ipv4(src=1.2.3.4,tos=0x8/0xfc))");
    check(&[set(Field::IpTtl, 8)], 0x86dd, "set(ipv6(hlimit=8))");
    let ends = |src: &str, dst_port| Ends {
        src: src.parse().unwrap(),
        dst: if src.contains(':') { IpAddr::from([0; 16]) } else { IpAddr::from([0; 4]) },
        src_port: 5,
        dst_port,
    };
    for (eth_type, old, new, text) in [
        (0x0800, "10.0.0.1", "192.0.2.7", "set(ipv4(src=192.0.2.7)),set(udp(dst=53))"),
        (0x86dd, "fd00::1", "2001:db8::7", "set(ipv6(src=2001:db8::7)),set(udp(dst=53))"),
    ] {
        let new = Readdress::new(17, &ends(old, 80), &ends(new, 53)).unwrap();
        check(&[DpAction::Readdress(Box::new(new))], eth_type, text);
    }
    check(&[set(Field::PktMark, 7), out(2), set(Field::PktMark, 0)], 0x0800, "set(skb_mark(0x7)),2,set(skb_mark(0))");
    check(&[set(Field::SkbPriority, 7)], 0x0800, "set(skb_priority(0x7))");
    let nd = [set(Field::NdReserved, 3), set(Field::NdOptionsType, 2), set(Field::NdTll, 2)];
    let text = "set(nd_ext(nd_reserved=0x3)),set(nd_ext(nd_options_type=2)),set(nd(tll=00:00:00:00:00:02))";
    check(&nd, 0x86dd, text);
    let masked = Change { field: Field::NshFlags, value: 1, mask: 1 };
    let changes = smallvec![masked, change(Field::NshTtl, 8), change(Field::NshSpi, 6), change(Field::NshC4, 1)];
    check(&[DpAction::Set(changes)], 0x894f, "set(nsh(flags=0x01/0x01,ttl=8,spi=0x6,c4=0x1))");
    check(&[set(Field::TunDst, 0x0102_0304)], 0x0800, "set(tunnel(dst=1.2.3.4))");
}

#[test]
fn a_label_is_set_whole() {
    let mut packet = key(0x8847);
    packet.set(slot::MPLS_LSE, 5 << 12 | 1 << 8 | 7);
    let actions = [set(Field::MplsLabel, 78), set(Field::MplsTtl, 6)];
    let text = show_datapath_actions(&actions, &packet, |_| None).to_string();
    assert_eq!(text, "set(mpls(label=78,tc=0,ttl=7,bos=1)),set(mpls(label=78,tc=0,ttl=6,bos=1))");
}

#[test]
fn headers_are_pushed_and_popped() {
    let push = DpAction::PushMpls { eth_type: 0x8847, lse: 77 << 12 | 3 << 9 | 1 << 8 | 9 };
    check(&[push], 0x0800, "push_mpls(label=77,tc=3,ttl=9,bos=1,eth_type=0x8847)");
    // What is set after the label is gone is IPv6's.
    check(&[DpAction::PopMpls(0x86dd), set(Field::IpTtl, 3)], 0x8847, "pop_mpls(eth_type=0x86dd),set(ipv6(hlimit=3))");
    let push = DpAction::PushVlan { tpid: 0x88a8, tci: 0x6005 };
    check(&[push, DpAction::PopVlan], 0x0800, "push_vlan(tpid=0x88a8,vid=5,pcp=3),pop_vlan");
    let push = DpAction::PushEthernet { src: 1, dst: 2, eth_type: 0x0800 };
    check(&[DpAction::PopEthernet, push], 0x0800, "pop_eth,push_eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02)");
    let one = NshHeader {
        flags: 0,
        ttl: 63,
        md_type: 1,
        np: 3,
        path: 0x0012_34ff,
        context: [9, 0, 0, 0],
        tlvs: Box::default(),
    };
    let text = "push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x1234,si=255,c1=0x9,c2=0x0,c3=0x0,c4=0x0),pop_nsh()";
    check(&[DpAction::PushNsh(Box::new(one.clone())), DpAction::PopNsh], 0x0800, text);
    let tlv = |class, ty, value: &[u8]| NshTlv { class, ty, value: value.into() };
    let tlvs = [tlv(0x1000, 10, &[0x12, 0x34, 0x56, 0x78]), tlv(0x2000, 20, &[0xfe, 0xdc])].into();
    let two = NshHeader { md_type: 2, path: 255, tlvs, ..one };
    let text = "push_nsh(flags=0,ttl=63,mdtype=2,np=3,spi=0x0,si=255,md2=0x10000a041234567820001402fedc0000)";
    check(&[DpAction::PushNsh(Box::new(two))], 0x0800, text);
}

#[test]
fn lists_in_actions_are_in_parentheses() {
    let branch = |list: Vec<DpAction>| list.into_boxed_slice();
    let copy = DpAction::Clone(branch(vec![set(Field::IpTtl, 1), out(2)]));
    check(&[copy, out(3)], 0x0800, "clone(set(ipv4(ttl=1)),2),3");
    let check_len = DpAction::CheckPktLen { len: 1000, larger: branch(vec![]), otherwise: branch(vec![out(5)]) };
    check(&[check_len], 0x0800, "check_pkt_len(size=1000,gt(drop),le(5))");
}

#[test]
fn connection_tracking_is_told_as_ovs_tells_it() {
    let nat = |direction, addresses, ports| Nat { direction, addresses, ports, ..Nat::default() };
    let v4 = |text: &str| text.parse::<IpAddr>().unwrap();
    for (ct, text) in [
        (ct(), "ct"),
        (DpCt { nat: Some(Nat::default()), ..ct() }, "ct(nat)"),
        (DpCt { commit: true, mark: Some((5, 0xf)), ..ct() }, "ct(commit,mark=0x5/0xf)"),
        (
            DpCt {
                commit: true,
                zone: 5,
                mark: Some((7, u32::MAX)),
                label: Some((3, 0xf)),
                nat: Some(Nat {
                    choice: NatChoice::Random,
                    ..nat(Some(NatDirection::Src), Some((v4("10.0.0.1"), v4("10.0.0.9"))), Some((1000, 2000)))
                }),
                ..ct()
            },
            "ct(commit,zone=5,mark=0x7/0xffffffff,label=0x3/0xf,nat(src=10.0.0.1-10.0.0.9:1000-2000,random))",
        ),
        (
            DpCt {
                commit: true,
                force: true,
                zone: 5,
                alg: Some(CtAlg::Ftp),
                nat: Some(nat(Some(NatDirection::Dst), Some((v4("10.9.9.9"), v4("10.9.9.9"))), Some((80, 80)))),
                ..ct()
            },
            "ct(force_commit,zone=5,helper=ftp,nat(dst=10.9.9.9:80))",
        ),
        (DpCt { commit: true, nat: Some(nat(Some(NatDirection::Src), None, None)), ..ct() }, "ct(commit,nat(src))"),
    ] {
        check(&[DpAction::Ct(Box::new(ct))], 0x0800, text);
    }
    check(&[DpAction::CtClear, DpAction::Recirculate(0)], 0x0800, "ct_clear,recirc(0x1)");
}

#[test]
fn meters_cuts_and_controllers() {
    let spec = MeterSpec {
        id: MeterId(3),
        unit: MeterUnit::Pktps,
        burst: false,
        stats: false,
        bands: Vec::new(),
        owner: Owner::user(),
    };
    let meter = DpAction::Meter(MeterRef(Arc::new(Meter::new(spec, Millis(0)))));
    check(&[meter, DpAction::Truncate(100), out(3)], 0x0800, "meter(3),trunc(100),3");
    let packet_in = PacketIn {
        reason: PacketInReason::NoMatch,
        controller_id: 3,
        max_len: 50,
        bridge: BridgeId(0),
        in_port: PortNo(1),
        table: TableId::FIRST,
        cookie: 0x77,
        owner: Owner::user(),
        userdata: Box::default(),
        metadata: Box::default(),
        meter: None,
        drop: None,
        resume: Some(1),
    };
    let text = "userspace(pid=0,controller(reason=0,dont_send=1,continuation=1,recirc_id=2,rule_cookie=0x77,\
                controller_id=3,max_len=50))";
    check(&[DpAction::Controller(Box::new(packet_in))], 0x0800, text);
}
