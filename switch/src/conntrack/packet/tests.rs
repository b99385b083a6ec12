use super::super::testing::{Ends, Tcp, V4, V6};
use super::*;
use proptest::prelude::*;
use sluice_flows::packet::extract;

fn with_packet<T>(frame: &Frame, look: impl FnOnce(Option<Packet<'_>>) -> T) -> T {
    let mut key = PacketKey::ZERO;
    let layers = extract(frame.bytes(), 0, &mut key);
    look(Packet::read(frame, &layers, &key, 3))
}

/// Whether a frame is read, and whether it is sound.
fn verdict(frame: &Frame) -> (bool, bool) {
    with_packet(frame, |packet| (packet.is_some(), packet.is_some_and(|packet| packet.is_sound())))
}

/// One frame of each kind.
fn frames() -> Vec<(&'static str, Frame)> {
    let mut all = Vec::new();
    for ends in [V4, V6] {
        let quoted = ends.packet(17, &ends.udp_message(40));
        let error = if ends.src.is_ipv4() { 3 } else { 1 };
        all.extend([
            ("TCP", ends.tcp(&Tcp { options: &[1, 3, 3, 7], len: 11, ..Tcp::new(0x18, 7, 9) })),
            ("UDP", ends.udp(11)),
            ("SCTP", ends.sctp(9, &[(0, 3, &[1; 14])])),
            ("ICMP", ends.echo(false, 77)),
            ("error", ends.back().icmp(error, 0, [0; 4], &quoted)),
            ("other", ends.frame(89, b"hello")),
        ]);
    }
    all
}

#[test]
fn every_protocol_is_read_and_sums_up() {
    for (what, frame) in frames() {
        assert_eq!(verdict(&frame), (true, true), "{what}");
        // Padding behind the datagram is not read.
        let padded = Frame::from_bytes(&[frame.bytes(), &[0xff; 7]].concat());
        assert_eq!(verdict(&padded), (true, true), "{what} with padding");
    }
}

#[test]
fn a_flipped_bit_in_what_is_summed_is_found() {
    for (what, frame) in frames().into_iter().filter(|(what, _)| *what != "other") {
        let last = frame.len() - 1;
        for at in [last, last - 3] {
            let mut broken = Frame::from_bytes(frame.bytes());
            broken.bytes_mut()[at] ^= 0x10;
            assert!(!verdict(&broken).1, "{what} {at}");
            broken.offload.csum_valid = true;
            let sound = verdict(&broken).1;
            assert!(sound, "{what} {at}: the sender vouches for it");
        }
    }
}

#[test]
fn a_udp_datagram_without_checksum_is_sound_in_ipv4_only() {
    for (ends, sound) in [(V4, true), (V6, false)] {
        let mut frame = ends.udp(4);
        let at = frame.len() - 4 - 2;
        frame.bytes_mut()[at..at + 2].fill(0);
        assert_eq!(verdict(&frame), (true, sound));
    }
}

#[test]
fn the_length_of_a_udp_datagram_has_to_fit() {
    for (len, sound) in [(7, false), (8, true), (12, true), (13, false)] {
        let mut frame = V4.udp(4);
        frame.offload.csum_valid = true;
        let at = frame.len() - 4 - 4;
        frame.bytes_mut()[at + 1] = len;
        assert_eq!(verdict(&frame), (true, sound), "{len}");
    }
}

#[test]
fn guards_look_at_what_the_tracker_looks_at() {
    for (what, frame) in frames() {
        let mut key = PacketKey::ZERO;
        let layers = extract(frame.bytes(), 0, &mut key);
        let read = Segment::read(frame.bytes(), &layers);
        assert_eq!(Packet::read(&frame, &layers, &key, 0).unwrap().segment, read, "{what}");
        match (what, read) {
            ("TCP", Some(Segment::Tcp(segment))) => {
                assert_eq!((segment.seq, segment.ack, segment.len, segment.flags), (7, 9, 11, 0x18));
            }
            ("SCTP", read) => assert_eq!(read, Some(Segment::Sctp(9))),
            (_, read) => assert_eq!(read, None, "{what}"),
        }
    }
}

#[test]
fn what_is_not_whole_is_not_read() {
    for (what, frame) in frames() {
        for len in 0..frame.len() {
            // The IP header says how long it should be.
            assert_eq!(verdict(&Frame::from_bytes(&frame.bytes()[..len])), (false, false), "{what} {len}");
        }
    }
    for (proto, least) in [(6, 20), (17, 8), (132, 12), (1, 8)] {
        for len in 0..least {
            let mut message = [8, 0, 0, 9].repeat(10);
            message.truncate(len);
            let whole = Ends { ..V4 }.frame(47, &message);
            let mut frame = Frame::from_bytes(whole.bytes());
            frame.bytes_mut()[14 + 9] = proto;
            assert!(!verdict(&frame).0, "protocol {proto}, {len} bytes");
        }
    }
}

#[test]
fn mixed_families_have_no_ports() {
    let read = |frame: &Frame| with_packet(frame, |packet| packet.map(|p| (p.tuple.src_port, p.tuple.dst_port)));
    assert_eq!(read(&V6.frame(1, &[8, 0, 0, 0, 0, 9, 0, 0])), Some((0, 0)), "ICMP in IPv6");
    assert_eq!(read(&V4.frame(58, &[128, 0, 0, 0, 0, 9, 0, 0])), Some((0, 0)), "ICMPv6 in IPv4");
}

proptest! {
    #[test]
    fn changed_frames_are_taken_in(
        which in 0..12_usize, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6), len in 0..200_usize
    ) {
        let (_, mut frame) = frames().swap_remove(which);
        for (at, to) in changes {
            let at = usize::from(at) % frame.len();
            frame.bytes_mut()[at] = to;
        }
        frame.set_len(frame.len().min(14 + len));
        with_packet(&frame, |packet| packet.map(|packet| (packet.is_sound(), packet.may_begin())));
    }
}
