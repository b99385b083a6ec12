//! Lists that work on a copy of the packet, outputs of a part of it, and the choice by its length.

use crate::{bytes, flow, gso, out, secure, segments_of, set_dst, with_dst};
use sluice_flows::action::{Action, Encap, Subfield};
use sluice_flows::field::Field;
use sluice_flows::packet::segment::fill_checksum;
use sluice_flows::packet::{Frame, GsoKind};
use sluice_flows::rule::{FlowSpec, TableId};

const REG0: Subfield = Subfield { field: Field::Reg0, ofs: 0, bits: 1 };

/// Takes the Ethernet header off and puts a new one on: nothing that could be undone without a copy.
fn new_header(dst: u128) -> [Action; 3] {
    [Action::Decap(None), Action::Encap(Encap::Ethernet), set_dst(dst)]
}

fn clone(actions: impl IntoIterator<Item = Action>) -> Action {
    Action::Clone(actions.into_iter().collect())
}

/// The frame behind [`new_header`], whose source is 0.
fn with_header(dst: u8) -> Vec<u8> {
    let mut frame = with_dst(dst);
    frame[..5].fill(0);
    frame[6..12].fill(0);
    frame
}

#[test]
fn what_a_clone_does_to_the_packet_ends_with_it() {
    let mut switch = secure(4);
    let inner = [&new_header(7)[..], &[out(3)]].concat();
    switch.add_flows([flow([out(2), clone(inner), set_dst(9), out(4), out(2)])]);
    for _ in 0..2 {
        switch.send(1, &with_dst(2));
        switch.wait();
        assert_eq!(bytes(switch.take(2)), [with_dst(2), with_dst(9)]);
        assert_eq!(bytes(switch.take(3)), [with_header(7)]);
        assert_eq!(bytes(switch.take(4)), [with_dst(9)]);
    }
    assert_eq!(switch.totals().cache.exact_hits, 1);
    switch.check_accounts();
}

#[test]
fn clones_within_clones_each_find_their_packet_again() {
    const LEVELS: u8 = 40;
    let mut switch = secure(3);
    let mut list = Vec::new();
    for level in (1..=LEVELS).rev() {
        let inner = std::mem::take(&mut list);
        list.extend(new_header(level.into()));
        list.push(out(2));
        if !inner.is_empty() {
            list.push(clone(inner));
        }
        list.extend([set_dst(u128::from(level) + 100), out(3)]);
    }
    switch.add_flows([flow(list)]);
    for _ in 0..7 {
        switch.send(1, &with_dst(2));
    }
    switch.wait();
    let down: Vec<_> = (0..7).flat_map(|_| (1..=LEVELS).map(with_header)).collect();
    let up: Vec<_> = (0..7).flat_map(|_| (1..=LEVELS).rev().map(|n| with_header(n + 100))).collect();
    assert_eq!(bytes(switch.take(2)), down);
    assert_eq!(bytes(switch.take(3)), up);
    assert_eq!(switch.totals().forwarded, 7);
    switch.check_accounts();
}

#[test]
fn only_the_next_output_is_cut_short() {
    let mut switch = secure(4);
    let cut = |no, max_len| Action::OutputTruncated { port: sluice_flows::PortNo(no), max_len };
    switch.add_flows([flow([cut(2, 20), out(3), set_dst(9), cut(4, 1000), cut(2, 14)])]);
    switch.send(1, &with_dst(2));
    switch.wait();
    assert_eq!(bytes(switch.take(2)), [&with_dst(2)[..20], &with_dst(9)[..14]]);
    assert_eq!(bytes(switch.take(3)), [with_dst(2)]);
    assert_eq!(bytes(switch.take(4)), [with_dst(9)]);
    switch.check_accounts();
}

#[test]
fn what_is_cut_short_is_what_the_wire_would_have_carried() {
    let mut switch = secure(3);
    let cut = Action::OutputTruncated { port: sluice_flows::PortNo(2), max_len: 70 };
    switch.add_flows([flow([cut, out(3)])]);
    let whole = gso(300, 100);
    let mut single = Frame::from_bytes(whole.bytes());
    single.offload = whole.offload;
    single.offload.gso = GsoKind::None;
    let mut finished = Frame::from_bytes(whole.bytes());
    finished.offload = single.offload;
    fill_checksum(&mut finished).unwrap();
    let metadata = [whole.offload, single.offload];
    let want: Vec<_> =
        segments_of(&whole).iter().chain([&finished.bytes().to_vec()]).map(|b| b[..70].to_vec()).collect();
    for frame in [whole, single] {
        switch.send_frame(1, frame);
    }
    switch.wait();
    assert_eq!(bytes(switch.take(2)), want);
    assert_eq!(switch.take(3).iter().map(|f| f.offload).collect::<Vec<_>>(), metadata);
    switch.check_accounts();
}

#[test]
fn more_segments_than_there_are_copies_for_all_leave() {
    let mut switch = secure(2);
    let cut = Action::OutputTruncated { port: sluice_flows::PortNo(2), max_len: 60 };
    switch.add_flows([flow([out(2), cut])]);
    for _ in 0..3 {
        switch.send_frame(1, gso(3000, 10));
    }
    switch.wait();
    let segments: Vec<_> = segments_of(&gso(3000, 10)).iter().map(|b| b[..60].to_vec()).collect();
    assert_eq!(segments.len(), 300);
    let sent = bytes(switch.take(2));
    for (n, sent) in sent.chunks(301).enumerate() {
        assert_eq!(sent[0].len(), gso(3000, 10).len(), "frame {n}, whole");
        assert_eq!(sent[1..], segments, "frame {n}, its parts");
    }
    assert_eq!(sent.len(), 903);
    assert_eq!(switch.totals().forwarded, 3);
    switch.check_accounts();
}

#[test]
fn the_length_on_the_wire_decides() {
    let mut switch = secure(3);
    let table1 = TableId::new(1).unwrap();
    let check = |len| Action::CheckPktLarger { len, dst: REG0 };
    let to = |value, port| {
        let mut spec = FlowSpec { table: table1, ..flow([out(port)]) };
        spec.matches.set_field(Field::Reg0, value);
        spec
    };
    let resubmit = Action::Resubmit { port: None, table: Some(table1), ct: false, extended: true };
    switch.add_flows([flow([check(153), resubmit.clone()]), to(1, 2), to(0, 3)]);
    let (longer, fits) = (gso(1000, 100), gso(1000, 99));
    assert_eq!(segments_of(&longer)[0].len(), 154);
    for round in 0..2 {
        for (frame, port) in [(&longer, 2), (&fits, 3)] {
            let mut copy = Frame::from_bytes(frame.bytes());
            copy.offload = frame.offload;
            switch.send_frame(1, copy);
            switch.wait();
            assert_eq!(
                (switch.take(2).len(), switch.take(3).len()),
                if port == 2 { (1, 0) } else { (0, 1) },
                "{round}"
            );
        }
        assert_eq!(switch.send_and_see(1, &longer.bytes()[..153]), [3]);
        assert_eq!(switch.send_and_see(1, &longer.bytes()[..154]), [2]);
    }
    switch.check_accounts();
}
