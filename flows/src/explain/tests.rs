use super::*;
use crate::bridge::{Bridge, BridgeId, BridgePort};
use crate::datapath::NshHeader;
use crate::port::{DpPort, PortNo};
use smallvec::smallvec;

fn change(field: Field, value: u128) -> DpAction {
    DpAction::Set(smallvec![Change { field, value, mask: field.slot().max() }])
}

fn out(port: u32) -> DpAction {
    DpAction::Output(DpPort(port))
}

fn tcp() -> FlowKey {
    let mut key = FlowKey::ZERO;
    key.set(slot::ETH_TYPE, 0x0800);
    key.set(slot::IP_PROTO, 6);
    key.set(slot::IP_TTL, 64);
    key.set(slot::TP_DST, 80);
    key
}

/// A bridge with ports 1 to 3, whose datapath numbers are the same.
fn model() -> Model {
    let mut model = Model::default();
    let mut bridge = Bridge::new(BridgeId(0), "br0");
    for no in 1..=3 {
        let (no, dp, name) = (PortNo(no), DpPort(no.into()), format!("p{no}"));
        let port = BridgePort::new(no, name, dp);
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (BridgeId(0), no));
    }
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
    model
}

fn exit(packet: FlowKey) -> Exit {
    let mut exits = exits(&model(), &[out(1)], &packet);
    exits.remove(0)
}

#[test]
fn changes_are_named_as_flows_print_them() {
    let mut packet = tcp();
    packet.set(slot::IP_TTL, 63);
    packet.set(slot::TP_DST, 8080);
    packet.set(slot::IP_TOS, 0xb9);
    let named: Vec<_> = exit(packet).changes(&tcp()).into_iter().map(|(f, v)| (f.info().match_name, v)).collect();
    assert_eq!(named, [("nw_tos", 0xb8), ("nw_ecn", 1), ("nw_ttl", 63), ("tp_dst", 8080)]);
}

#[test]
fn setting_what_is_there_already_is_left_out() {
    let actions = [change(Field::IpTtl, 64), change(Field::TcpDst, 81), out(1), change(Field::TcpDst, 81), out(2)];
    let kept = effective(&actions, &tcp());
    assert_eq!(kept, [actions[1].clone(), actions[2].clone(), actions[4].clone()]);
    let nested = [change(Field::TcpDst, 81), DpAction::Clone(actions.clone().into()), actions[0].clone()];
    let kept = effective(&nested, &tcp());
    assert_eq!(kept, [actions[1].clone(), DpAction::Clone([out(1), out(2)].into())]);
}

#[test]
fn a_copy_leaves_as_it_was_made_and_the_packet_as_it_was() {
    let copy = DpAction::Clone([change(Field::IpTtl, 1), out(2)].into());
    let exits = exits(&model(), &[change(Field::TcpDst, 81), copy, out(3)], &tcp());
    let seen: Vec<_> =
        exits.iter().map(|e| (e.port.no.0, e.packet.get(slot::IP_TTL), e.packet.get(slot::TP_DST))).collect();
    assert_eq!(seen, [(2, 1, 81), (3, 64, 81)]);
}

#[test]
fn both_ways_of_a_question_about_the_length_are_gone() {
    let inner = DpAction::CheckPktLen { len: 100, larger: [out(1)].into(), otherwise: [].into() };
    let both = DpAction::CheckPktLen { len: 1000, larger: [out(2)].into(), otherwise: [inner].into() };
    let exits = exits(&model(), &[both, DpAction::Truncate(60), out(3), out(2)], &tcp());
    let seen: Vec<_> = exits.iter().map(|e| (e.port.no.0, e.when.clone(), e.cut)).collect();
    assert_eq!(
        seen,
        [
            (2, vec![LenBound::Above(1000)], None),
            (1, vec![LenBound::AtMost(1000), LenBound::Above(100)], None),
            (3, vec![], Some(60)),
            (2, vec![], None),
        ]
    );
}

#[test]
fn tags_are_listed_outer_first() {
    let mut packet = tcp();
    DpAction::PushVlan { tpid: 0x8100, tci: 10 }.rewrite(&mut packet);
    DpAction::PushVlan { tpid: 0x88a8, tci: 0x6014 }.rewrite(&mut packet);
    assert_eq!(exit(packet).tags(), [(0x88a8, 0x6014), (0x8100, 10)]);
    DpAction::PopVlan.rewrite(&mut packet);
    assert_eq!(exit(packet).tags(), [(0x8100, 10)]);
}

#[test]
fn what_is_set_in_a_header_that_was_just_pushed_is_pushed_with_it() {
    let (context, tlvs) = ([0; 4], Box::default());
    let header = NshHeader { flags: 0, ttl: 63, md_type: 1, np: 3, path: 0xff, context, tlvs };
    let push = |path, c4| DpAction::PushNsh(Box::new(NshHeader { path, context: [0, 0, 0, c4], ..header.clone() }));
    let ethernet = |dst| DpAction::PushEthernet { src: 0, dst, eth_type: 0x894f };
    let sets = [change(Field::NshSpi, 0x1234), change(Field::NshC4, 9), ethernet(0), change(Field::EthDst, 7)];
    let actions = [&[push(0xff, 0)][..], &sets, &[out(1)]].concat();
    assert_eq!(effective(&actions, &tcp()), [push(0x0012_34ff, 9), ethernet(7), out(1)]);
}
