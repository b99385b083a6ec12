//! What a router needs of the data path: fragments, packets that are too long, and the answers that flows make.

use crate::{bytes, flow, gso, out, secure};
use sluice_flows::action::{Action, Fragment};
use sluice_flows::bridge_mod::BridgeMod;
use sluice_flows::field::Field;
use sluice_flows::key::{FlowKey, Slot, slot};
use sluice_flows::packet::compose::compose;
use sluice_flows::packet::{Frame, GsoKind, Offload, checksum};
use sluice_flows::router::{
    Interface, InterfaceId, NextHops, Pipeline, PuntKind, RouterConfig, RouterState, Stages, StaticNeighbor, Vrf, VrfId,
};
use sluice_flows::{DropReason, PortNo};
use sluice_switch::{Config, FailMode};
use sluice_tests::switch::Switch;

fn fragment(mtu: u16) -> Action {
    let userdata = PuntKind::TooBig.userdata();
    Action::Fragment(Box::new(Fragment { mtu, controller_id: 0, userdata }))
}

fn key(values: &[(Slot, u128)]) -> FlowKey {
    let mut key = FlowKey::ZERO;
    for (slot, value) in values {
        key.set(*slot, *value);
    }
    key
}

/// UDP from 10.0.0.2 to 10.0.0.1 with this much payload, and flags as in bytes 6 and 7 of the header.
fn udp(payload: usize, flags: u16) -> Vec<u8> {
    let key = key(&[
        (slot::ETH_SRC, 4),
        (slot::ETH_DST, 2),
        (slot::ETH_TYPE, 0x0800),
        (slot::IP_PROTO, 17),
        (slot::IP_TTL, 64),
        (slot::IP_SRC, 0x0a00_0002),
        (slot::IP_DST, 0x0a00_0001),
        (slot::TP_SRC, 1000),
        (slot::TP_DST, 2000),
    ]);
    let payload: Vec<u8> = (0..payload).map(|i| (i % 251) as u8).collect();
    let mut frame = compose(&key, &payload);
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum::checksum(&frame[14..34]).to_be_bytes();
    frame[24..26].copy_from_slice(&sum);
    frame
}

const DF: u16 = 0x4000;

/// What the fragments of packets have behind their IP headers, packet by packet, by identification.
fn put_together(frames: &[Vec<u8>], mtu: usize) -> Vec<Vec<u8>> {
    let mut packets: Vec<(u16, Vec<u8>)> = Vec::new();
    for frame in frames {
        let ip = &frame[14..];
        assert!(ip.len() <= mtu && checksum::checksum(&ip[..20]) == 0);
        let (id, offset) = (u16::from_be_bytes([ip[4], ip[5]]), u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff);
        if offset == 0 {
            packets.push((id, Vec::new()));
        }
        let (last, whole) = packets.last_mut().unwrap();
        assert_eq!((*last, whole.len()), (id, usize::from(offset) * 8), "in order and without gaps");
        whole.extend_from_slice(&ip[20..]);
    }
    packets.into_iter().map(|(_, whole)| whole).collect()
}

#[test]
fn longer_packets_leave_in_fragments_by_every_output_and_are_whole_otherwise() {
    let mut switch = secure(4);
    let tag = [Action::PushVlan(0x8100), out(4)];
    switch
        .add_flows([flow([vec![out(2), fragment(600), fragment(576), fragment(800), out(3)], tag.to_vec()].concat())]);
    for len in [500, 549, 5000, 548] {
        // The second time the cache answers.
        for _ in 0..2 {
            let packet = udp(len, 0);
            switch.send(1, &packet);
            switch.wait();
            assert_eq!(bytes(switch.take(2)), std::slice::from_ref(&packet));
            let sent = bytes(switch.take(3));
            assert_eq!(sent.len(), (8 + len).div_ceil(if len > 548 { 552 } else { 556 }));
            assert_eq!(put_together(&sent, 576), [&packet[34..]]);
            let tagged = bytes(switch.take(4));
            assert!(tagged.iter().zip(&sent).all(|(tagged, plain)| tagged[16..] == plain[12..]));
            assert_eq!(tagged.len(), sent.len());
        }
    }
    assert_eq!(switch.totals().forwarded, 8);
    switch.check_accounts();
}

#[test]
fn packets_that_may_not_be_cut_are_dropped_and_told() {
    let mut switch = secure(3);
    let packet_ins = switch.datapath.packet_ins(10);
    switch.add_flows([flow([fragment(1280), out(2)])]);
    let ipv6 = |len: usize| {
        let key = key(&[(slot::ETH_TYPE, 0x86dd), (slot::IP_PROTO, 17), (slot::IP_TTL, 64)]);
        compose(&key, &vec![0; len])
    };
    for fits in [udp(1252, DF), ipv6(1232)] {
        assert_eq!(switch.send_and_see(1, &fits), [2]);
    }
    assert_eq!(packet_ins.len(), 0);
    for (n, long) in [udp(1253, DF), ipv6(1233), udp(1253, DF)].into_iter().enumerate() {
        assert_eq!(switch.send_and_see(1, &long), crate::NOWHERE);
        assert_eq!(switch.dropped(DropReason::MtuExceeded), n as u64 + 1);
        let told = packet_ins.try_recv().unwrap();
        assert_eq!((&*told.frame, told.about.in_port), (&*long, PortNo(1)));
        assert_eq!(PuntKind::from_userdata(&told.about.userdata), Some(PuntKind::TooBig));
        assert_eq!(told.about.drop, Some(DropReason::MtuExceeded));
    }
    switch.check_accounts();
}

#[test]
fn what_left_before_stays_sent_when_the_packet_is_too_long() {
    let mut switch = secure(3);
    switch.add_flows([flow([out(2), fragment(576), out(3)])]);
    assert_eq!(switch.send_and_see(1, &udp(1000, DF)), [2]);
    assert_eq!(switch.totals().forwarded, 1);
    switch.check_accounts();
}

#[test]
fn a_super_frame_counts_by_its_segments_and_each_is_cut_if_it_may_be() {
    let mut switch = secure(2);
    switch.add_flows([flow([fragment(1000), out(2)])]);
    let mut tcp = gso(10_000, 960);
    tcp.bytes_mut()[20] = 0x40;
    switch.send_frame(1, tcp);
    switch.wait();
    assert_eq!(switch.take(2).len(), 1, "segments of 1000 bytes pass: it goes on as it is");
    let mut long = gso(10_000, 961);
    long.bytes_mut()[20] = 0x40;
    switch.send_frame(1, long);
    switch.wait();
    assert_eq!((switch.take(2).len(), switch.dropped(DropReason::MtuExceeded)), (0, 1));

    let whole = udp(5000, 0);
    let mut datagrams = Frame::from_bytes(&whole);
    let partial = checksum::pseudo_v4([10, 0, 0, 2], [10, 0, 0, 1], 17, 5008).to_be_bytes();
    datagrams.bytes_mut()[40..42].copy_from_slice(&partial);
    let udp = Offload {
        gso: GsoKind::Udp,
        gso_size: 2000,
        csum_partial: true,
        csum_start: 34,
        csum_offset: 6,
        ..Offload::NONE
    };
    datagrams.offload = udp;
    switch.send_frame(1, datagrams);
    switch.wait();
    let packets = put_together(&bytes(switch.take(2)), 1000);
    assert_eq!(packets.iter().map(Vec::len).collect::<Vec<_>>(), [2008, 2008, 1008]);
    for (n, packet) in packets.iter().enumerate() {
        assert_eq!(packet[8..], whole[42..][n * 2000..][..packet.len() - 8]);
        let pseudo = checksum::pseudo_v4([10, 0, 0, 2], [10, 0, 0, 1], 17, packet.len() as u16);
        assert!(checksum::verify(packet, pseudo), "the checksum is that of the whole datagram");
    }
    switch.check_accounts();
}

#[test]
fn a_rule_with_a_reason_that_tells_the_controller_drops_whether_it_hears_or_not() {
    let mut switch = secure(2);
    let mut refused = flow([Action::Controller(Box::default())]);
    refused.drop_reason = Some(DropReason::NoRoute);
    switch.add_flows([refused]);
    assert_eq!(switch.send_and_see(1, &udp(10, 0)), crate::NOWHERE);
    let packet_ins = switch.datapath.packet_ins(10);
    switch.send_and_see(1, &udp(10, 0));
    assert_eq!(packet_ins.try_recv().unwrap().about.drop, Some(DropReason::NoRoute));
    assert_eq!((switch.dropped(DropReason::NoRoute), switch.totals().forwarded), (2, 0));
    switch.check_accounts();
}

/// Two links with a host on each, whose MAC address is known.
fn router() -> RouterConfig {
    let interface = |id: u16| Interface {
        id: InterfaceId(id),
        name: format!("eth{id}"),
        port: PortNo(id),
        vlan: None,
        vrf: VrfId(0),
        mac: 0x0200_0000_0000 | u64::from(id),
        addresses: vec![format!("10.0.{id}.1/24").parse().unwrap(), format!("fd00:{id}::1/64").parse().unwrap()],
        mtu: 1500,
        proxied: Vec::new(),
        layer3: false,
        ra: None,
    };
    let host = |id: u16| {
        [format!("10.0.{id}.9"), format!("fd00:{id}::9")].map(|address| StaticNeighbor {
            interface: InterfaceId(id),
            address: address.parse().unwrap(),
            mac: 0x0a00_0000_0000 | u64::from(id),
        })
    };
    RouterConfig {
        name: "r1".into(),
        vrfs: vec![Vrf { name: "main".into(), id: VrfId(0) }],
        interfaces: vec![interface(1), interface(2)],
        routes: Vec::new(),
        neighbors: [host(1), host(2)].concat(),
    }
}

fn routing() -> Switch {
    let mut switch = Switch::start(Config::default());
    switch.bridge("br0", 2, FailMode::Secure);
    let (config, pipeline) = (router(), Pipeline::default());
    config.check().unwrap();
    let program =
        Stages::new(pipeline, &config).program(&config, &RouterState::default(), &mut NextHops::new(&pipeline));
    let names: Vec<BridgeMod> = program.tables.into_iter().map(BridgeMod::from).collect();
    switch.datapath.apply_bundle("br0", &names).unwrap();
    switch.add_flows(program.flows);
    switch
}

const FD00_1: u128 = 0xfd00_0001 << 96;

/// A neighbour solicitation for fd00:1::1 by fd00:1::9.
fn solicitation() -> Vec<u8> {
    let mut key = key(&[
        (slot::ETH_SRC, 0x0a00_0000_0001),
        (slot::ETH_DST, 0x3333_ff00_0001),
        (slot::ETH_TYPE, 0x86dd),
        (slot::IPV6_SRC, FD00_1 | 9),
        (slot::IPV6_DST, 0xff02 << 112 | 0x1_ff00_0001),
        (slot::IP_PROTO, 58),
        (slot::IP_TTL, 255),
        (slot::ND_TARGET, FD00_1 | 1),
    ]);
    key.set(Field::Icmpv6Type.slot(), 135);
    key.set(Field::NdSll.slot(), 0x0a00_0000_0001);
    key.set(Field::NdOptionsType.slot(), 1);
    compose(&key, &[])
}

#[test]
fn the_answer_to_a_neighbour_solicitation_is_a_sound_advertisement() {
    let mut switch = routing();
    let asked = solicitation();
    assert_eq!(asked.len(), 14 + 40 + 24 + 8);
    for _ in 0..2 {
        switch.send(1, &asked);
        switch.wait();
        let answer = bytes(switch.take(1)).remove(0);
        assert_eq!(answer[..12], [[10, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 1]].concat());
        assert_eq!(answer[22..38], asked[62..78], "from the target");
        assert_eq!(answer[38..54], asked[22..38], "to who asked");
        let message = &answer[54..];
        assert_eq!(
            (message[0], message[1], &message[4..8]),
            (136, 0, &[0xe0, 0, 0, 0][..]),
            "router, solicited, override"
        );
        assert_eq!(message[8..24], asked[62..78]);
        assert_eq!(message[24..], [2, 1, 2, 0, 0, 0, 0, 1]);
        let (src, dst) = (answer[22..38].try_into().unwrap(), answer[38..54].try_into().unwrap());
        assert!(checksum::verify(message, checksum::pseudo_v6(src, dst, 58, message.len() as u32)));
    }
    switch.check_accounts();
}

#[test]
fn the_answer_to_a_ping_has_the_payload_and_sound_checksums() {
    let mut switch = routing();
    let ping = |v6: bool| {
        let mut key = key(&[(slot::ETH_SRC, 0x0a00_0000_0001), (slot::ETH_DST, 0x0200_0000_0001), (slot::IP_TTL, 3)]);
        if v6 {
            key.set(slot::ETH_TYPE, 0x86dd);
            key.set(slot::IPV6_SRC, FD00_1 | 9);
            key.set(slot::IPV6_DST, FD00_1 | 1);
            key.set(slot::IP_PROTO, 58);
            key.set(slot::TP_SRC, 128);
        } else {
            key.set(slot::ETH_TYPE, 0x0800);
            key.set(slot::IP_SRC, 0x0a00_0109);
            key.set(slot::IP_DST, 0x0a00_0101);
            key.set(slot::IP_PROTO, 1);
            key.set(slot::TP_SRC, 8);
        }
        compose(&key, b"\x12\x34\x00\x01data")
    };
    for v6 in [false, true] {
        let asked = ping(v6);
        switch.send(1, &asked);
        switch.wait();
        let answer = bytes(switch.take(1)).remove(0);
        let at = if v6 { 54 } else { 34 };
        let (message, pseudo) = (&answer[at..], if v6 { at - 32 } else { at - 8 });
        assert_eq!((message[0], answer.len()), (if v6 { 129 } else { 0 }, asked.len()));
        assert_eq!(message[4..], asked[at + 4..]);
        let half = (at - pseudo) / 2;
        assert_eq!(answer[pseudo..at], [&asked[pseudo + half..at], &asked[pseudo..pseudo + half]].concat());
        let sum = match v6 {
            true => checksum::pseudo_v6(
                answer[22..38].try_into().unwrap(),
                answer[38..54].try_into().unwrap(),
                58,
                message.len() as u32,
            ),
            false => {
                assert_eq!((checksum::checksum(&answer[14..34]), answer[22]), (0, 64));
                0
            }
        };
        assert!(checksum::verify(message, sum));
    }
    switch.check_accounts();
}

#[test]
fn a_routed_packet_has_the_next_link_addresses_and_a_lower_ttl() {
    let mut switch = routing();
    let mut packet = udp(10, DF);
    packet[..12].copy_from_slice(&[[2, 0, 0, 0, 0, 1], [10, 0, 0, 0, 0, 1]].concat());
    packet[30..34].copy_from_slice(&[10, 0, 2, 9]);
    packet[24..26].fill(0);
    let sum = checksum::checksum(&packet[14..34]).to_be_bytes();
    packet[24..26].copy_from_slice(&sum);
    for _ in 0..3 {
        switch.send(1, &packet);
        switch.wait();
        let sent = bytes(switch.take(2)).remove(0);
        assert_eq!(sent[..12], [[10, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 2]].concat());
        assert_eq!((sent[22], checksum::checksum(&sent[14..34])), (63, 0));
        assert_eq!(sent[34..], packet[34..]);
    }
    switch.check_accounts();
}
