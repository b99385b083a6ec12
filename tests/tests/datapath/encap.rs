//! Headers put in front of frames and taken off, super-frames among them.

use crate::{bytes, flow, gso, out, secure, segments_of, set_dst};
use sluice_flows::action::{Action, Encap};
use sluice_flows::field::Field;
use sluice_flows::key::PacketKey;
use sluice_flows::packet::rewrite::set_field;
use sluice_flows::packet::{Frame, GsoKind, Offload, extract};
use sluice_flows::rule::TableId;

const LABEL: [u8; 6] = [0x88, 0x47, 0, 6, 0x41, 0x3f];

fn label() -> [Action; 3] {
    [Action::PushMpls(0x8847), Action::SetMplsLabel(100), Action::SetMplsTtl(63)]
}

/// The frame with the label of [`label`] behind its addresses.
fn labelled(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &LABEL, &frame[14..]].concat()
}

fn whole(frame: &Frame) -> Frame {
    let mut copy = Frame::from_bytes(frame.bytes());
    copy.offload = frame.offload;
    copy
}

#[test]
fn a_label_is_put_on_and_taken_off_again() {
    let mut switch = secure(3);
    let mut push = flow([&label()[..], &[out(2)]].concat());
    push.matches.set_field(Field::InPort, 1);
    let mut pop = flow([Action::PopMpls(0x0800), out(1)]);
    pop.matches.set_field(Field::InPort, 2);
    pop.matches.set_field(Field::EthType, 0x8847);
    switch.add_flows([push, pop]);
    let frame = segments_of(&gso(100, 100)).remove(0);
    for _ in 0..2 {
        switch.send(1, &frame);
        switch.wait();
        assert_eq!(bytes(switch.take(2)), [labelled(&frame)]);
        switch.send(2, &labelled(&frame));
        switch.wait();
        assert_eq!(bytes(switch.take(1)), [&frame[..]]);
    }
    switch.check_accounts();
}

#[test]
fn what_was_under_a_label_is_read_and_matched_in_another_pass() {
    let mut switch = secure(3);
    let resubmit = Action::Resubmit { port: None, table: TableId::new(1), ct: false, extended: true };
    let mut pop = flow([Action::PopMpls(0x0800), resubmit, out(3)]);
    pop.matches.set_field(Field::EthType, 0x8847);
    let mut under = flow([Action::DecTtl(Box::default()), out(2)]);
    under.table = TableId::new(1).unwrap();
    under.matches.set_field(Field::EthType, 0x0800);
    under.matches.set_field(Field::TcpDst, 80);
    let mut other = flow([]);
    other.table = TableId::new(1).unwrap();
    other.priority = 1;
    switch.add_flows([pop, under, other]);
    let mut web = segments_of(&gso(100, 100)).remove(0);
    rewrite(&mut web, Field::TcpDst, 80);
    let mut shell = web.clone();
    rewrite(&mut shell, Field::TcpDst, 22);
    let mut routed = web.clone();
    rewrite(&mut routed, Field::IpTtl, u128::from(web[22]) - 1);
    for _ in 0..3 {
        switch.send(1, &labelled(&web));
        switch.wait();
        assert_eq!(bytes(switch.take(2)), [&routed[..]]);
        assert_eq!(bytes(switch.take(3)), [&routed[..]], "the rest of the list is done in that pass too");
        switch.send(1, &labelled(&shell));
        switch.wait();
        assert!(switch.take(2).is_empty());
        assert_eq!(switch.take(3).len(), 1);
    }
    switch.check_accounts();
}

#[test]
fn passes_that_each_lead_to_two_more_are_bounded() {
    let mut switch = secure(3);
    let again = || Action::Resubmit { port: None, table: TableId::new(0), ct: false, extended: true };
    let twice = [Action::PushMpls(0x8847), Action::PopMpls(0x0800)];
    let copy = |list: &[Action]| Action::Clone(list.into());
    let list = [&twice[..], &[again()]].concat();
    switch.add_flows([flow([copy(&list), copy(&list), out(2)])]);
    let frame = segments_of(&gso(100, 100)).remove(0);
    switch.send(1, &frame);
    switch.wait();
    // Each pass that was begun sends the packet once, and the first one does.
    assert_eq!(switch.take(2).len(), 65);
    switch.check_accounts();
}

/// Sets a field of a frame, checksums included.
fn rewrite(frame: &mut [u8], field: Field, value: u128) {
    let mut copy = Frame::from_bytes(frame);
    let layers = extract(frame, 0, &mut PacketKey::default());
    set_field(&mut copy, &layers, field, value, u128::MAX);
    frame.copy_from_slice(copy.bytes());
}

#[test]
fn a_super_frame_leaves_under_a_label_as_segments_and_without_it_whole() {
    let mut switch = secure(4);
    switch
        .add_flows([flow([&[out(2)][..], &label(), &[out(3), Action::PopMpls(0x0800), set_dst(9), out(4)]].concat())]);
    let frame = gso(1000, 300);
    for _ in 0..2 {
        switch.send_frame(1, whole(&frame));
        switch.wait();
        let plain = switch.take(2);
        assert_eq!((plain[0].bytes(), plain[0].offload, plain.len()), (frame.bytes(), frame.offload, 1));
        let under: Vec<_> = segments_of(&frame).iter().map(|s| labelled(s)).collect();
        let sent = switch.take(3);
        assert!(sent.iter().all(|f| f.offload == Offload::NONE));
        assert_eq!(bytes(sent), under);
        let back = switch.take(4);
        assert_eq!((back[0].offload, back.len()), (frame.offload, 1));
        assert_eq!(back[0].bytes()[6..], frame.bytes()[6..]);
    }
    switch.check_accounts();
}

#[test]
fn a_partial_checksum_under_a_label_stays_partial() {
    let mut switch = secure(2);
    switch.add_flows([flow([&label()[..], &[out(2)]].concat())]);
    let mut frame = gso(100, 100);
    frame.offload = Offload { gso: GsoKind::None, gso_size: 0, ..frame.offload };
    switch.send_frame(1, whole(&frame));
    switch.wait();
    let sent = switch.take(2);
    assert_eq!(sent[0].bytes(), labelled(frame.bytes()));
    assert_eq!(sent[0].offload, Offload { csum_start: frame.offload.csum_start + 4, ..frame.offload });
}

#[test]
fn a_frame_goes_through_nsh_whole() {
    let mut switch = secure(4);
    let nsh = Action::Encap(Encap::Nsh { md_type: None, tlvs: Box::default() });
    let decap = Action::Decap(None);
    let list = [nsh, Action::Encap(Encap::Ethernet), set_dst(5), out(2), decap.clone(), decap, out(3)];
    switch.add_flows([flow(list)]);
    let frame = gso(500, 200);
    let segments = segments_of(&frame);
    switch.send_frame(1, whole(&frame));
    switch.send(1, &segments[0]);
    switch.wait();
    let header = [0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0x89, 0x4f, 0x0f, 0xc6, 1, 3, 0, 0, 0, 255];
    let under = |s: &Vec<u8>| [&header[..], &[0; 16], s].concat();
    assert_eq!(bytes(switch.take(2)), segments.iter().chain([&segments[0]]).map(under).collect::<Vec<_>>());
    let back = switch.take(3);
    assert_eq!((back[0].bytes(), back[0].offload), (frame.bytes(), frame.offload));
    assert_eq!(back[1].bytes(), segments[0]);
    switch.check_accounts();
}

#[test]
fn a_packet_without_an_ethernet_header_is_not_sent() {
    let mut switch = secure(2);
    switch.add_flows([flow([Action::Decap(None), out(2)])]);
    switch.send(1, &segments_of(&gso(100, 100))[0]);
    switch.wait();
    assert_eq!(switch.take(2).len(), 0);
    switch.check_accounts();
}
