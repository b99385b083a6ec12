use super::*;
use crate::packet::segment::Segmenter;
use crate::packet::testing::*;
use crate::packet::tunnel::cut::{Cutter, ip_payload};
use proptest::prelude::*;

/// The packets that a frame is cut into.
fn cut(frame: &Frame, payload: Payload) -> Vec<Vec<u8>> {
    let mut cutter = Cutter::new(frame, &[], payload).unwrap();
    let mut scratch = vec![0; cutter.headers_len()];
    let mut all = Vec::new();
    while let Some((headers, payload)) = cutter.next(&mut scratch).unwrap() {
        all.push([&scratch[..headers], payload].concat());
    }
    all
}

/// The frames that packets become.
fn merge(packets: &[Vec<u8>], payload: Payload) -> Vec<Frame> {
    merge_keyed(&packets.iter().map(|packet| (TunnelKey::NONE, &packet[..])).collect::<Vec<_>>(), payload)
}

fn merge_keyed(packets: &[(TunnelKey, &[u8])], payload: Payload) -> Vec<Frame> {
    let mut merger = Merger::new();
    let mut all: Vec<Frame> = Vec::new();
    for (key, packet) in packets {
        if !merger.is_empty() {
            let frame = all.last_mut().unwrap();
            match merger.push(frame, packet, payload, key) {
                Pushed::Taken => continue,
                Pushed::Full => merger.finish(frame),
                Pushed::TooLong => panic!("too long to follow"),
            }
        }
        let mut frame = Frame::with_capacity(crate::packet::MAX_FRAME_LEN);
        assert_eq!(merger.push(&mut frame, packet, payload, key), Pushed::Taken);
        all.push(frame);
    }
    if let Some(frame) = all.last_mut() {
        merger.finish(frame);
    }
    assert!(merger.is_empty());
    all
}

fn tcp4(flags: u16, payload: &[u8]) -> Vec<u8> {
    eth(&[], 0x0800, &ipv4(6, &tcp(flags, &[1; 12], payload)))
}

/// Three segments of four bytes, as frames.
fn three() -> Vec<Vec<u8>> {
    cut(&super_frame(&tcp4(0x10, b"0123456789ab"), GsoKind::Tcp4, 4), Payload::Ethernet)
}

/// Makes the checksums of a TCP or UDP packet in IPv4 behind an untagged Ethernet header right.
fn fix(packet: &mut [u8]) {
    let udp = packet[23] == 17;
    let field = if udp { 40 } else { 50 };
    put16(packet, 24, 0);
    put16(packet, 24, checksum::checksum(&packet[14..34]));
    put16(packet, field, 0);
    let pseudo = checksum::pseudo_v4(A4, B4, packet[23], (packet.len() - 34) as u16);
    let sum = !checksum::add(pseudo, checksum::sum(&packet[34..]));
    put16(packet, field, if udp { checksum::udp(sum) } else { sum });
}

#[test]
fn segments_that_do_not_continue_go_on_alone() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 16] = [
        ("other MAC address", |p| p[5] ^= 1),
        ("other TOS", |p| p[15] ^= 4),
        ("identification skips", |p| p[19] += 5),
        ("no DF", |p| p[20] = 0),
        ("more fragments", |p| p[20] |= 0x20),
        ("other TTL", |p| p[22] -= 1),
        ("other source address", |p| p[26] ^= 1),
        ("other port", |p| p[35] ^= 1),
        ("sequence number skips", |p| p[41] += 1),
        ("other acknowledgement", |p| p[45] ^= 1),
        ("SYN", |p| p[47] |= 2),
        ("RST", |p| p[47] |= 4),
        ("URG", |p| p[47] |= 0x20),
        ("CWR", |p| p[47] |= 0x80),
        ("other window", |p| p[48] ^= 1),
        ("other option", |p| p[54] ^= 3),
    ];
    assert_eq!(merge(&three(), Payload::Ethernet).len(), 1);
    for (what, change) in changes {
        let mut packets = three();
        change(&mut packets[1]);
        fix(&mut packets[1]);
        let frames = merge(&packets, Payload::Ethernet);
        assert_eq!(frames[0].bytes(), packets[0], "{what}");
        let again: Vec<_> = frames.iter().flat_map(|frame| cut(frame, Payload::Ethernet)).collect();
        assert_eq!(again, packets, "{what}");
    }
}

#[test]
fn a_segment_with_a_wrong_checksum_goes_on_alone_and_unvouched() {
    // Of the IP header, of the TCP header, and in the payload.
    for at in [24, 50, 67] {
        for wrong in 0..3 {
            let mut packets = three();
            packets[wrong][at] ^= 0x40;
            let frames = merge(&packets, Payload::Ethernet);
            let alone = frames.iter().find(|frame| frame.bytes() == packets[wrong]).unwrap();
            assert_eq!(alone.offload, Offload::NONE);
            let again: Vec<_> = frames.iter().flat_map(|frame| cut(frame, Payload::Ethernet)).collect();
            assert_eq!(again, packets);
        }
    }
}

#[test]
fn a_lone_packet_is_as_it_came_and_vouched_for() {
    let frames = merge(&three()[..1], Payload::Ethernet);
    assert_eq!((frames[0].bytes(), frames[0].tunnel), (&three()[0][..], Some(TunnelKey::NONE)));
    assert_eq!(frames[0].offload, Offload { csum_valid: true, ..Offload::NONE });
}

#[test]
fn a_short_segment_and_one_with_psh_or_fin_are_the_last() {
    let mut short = three();
    short[1].truncate(69);
    short[1][17] -= 1;
    fix(&mut short[1]);
    // As if sequence numbers went on behind the short one.
    short[2][41] -= 1;
    fix(&mut short[2]);
    assert_eq!(merge(&short, Payload::Ethernet).len(), 2);
    for flag in [FIN, PSH] {
        let mut packets = three();
        packets[1][47] |= flag;
        fix(&mut packets[1]);
        let frames = merge(&packets, Payload::Ethernet);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].bytes()[47], ACK | flag);
    }
    let mut longer = three();
    longer[2].push(0);
    longer[2][17] += 1;
    fix(&mut longer[2]);
    assert_eq!(merge(&longer, Payload::Ethernet).len(), 2);
}

#[test]
fn what_carries_nothing_or_has_padding_goes_on_alone() {
    let mut empty = tcp4(0x10, b"");
    fix(&mut empty);
    assert_eq!(merge(&[empty.clone(), empty], Payload::Ethernet).len(), 2);
    let mut padded = three();
    padded[1].push(0);
    assert_eq!(merge(&padded, Payload::Ethernet).len(), 3);
}

#[test]
fn identifications_stand_still_only_under_dont_fragment() {
    let still = |df: u8| {
        let mut packets = three();
        for packet in &mut packets {
            packet[19] = 0x34;
            packet[20] = df;
            fix(packet);
        }
        merge(&packets, Payload::Ethernet).len()
    };
    assert_eq!((still(0x40), still(0)), (1, 3));
    let mut both = three();
    both[2][19] -= 1;
    fix(&mut both[2]);
    assert_eq!(merge(&both, Payload::Ethernet).len(), 2);
}

#[test]
fn udp_is_merged_unless_it_has_no_checksum() {
    let frame = super_frame(&eth(&[], 0x0800, &ipv4(17, &udp(b"0123456789"))), GsoKind::Udp, 4);
    let mut packets = cut(&frame, Payload::Ethernet);
    let merged = merge(&packets, Payload::Ethernet);
    assert_eq!((merged.len(), merged[0].bytes()), (1, frame.bytes()));
    packets.iter_mut().for_each(|packet| put16(packet, 40, 0));
    assert_eq!(merge(&packets, Payload::Ethernet).len(), 3);
}

#[test]
fn packets_of_two_networks_stay_apart() {
    let packets = three();
    let mut other = TunnelKey::NONE;
    other.set_id(7);
    let keyed = [(TunnelKey::NONE, &packets[0][..]), (other, &packets[1]), (other, &packets[2])];
    let frames = merge_keyed(&keyed, Payload::Ethernet);
    assert_eq!(frames.iter().map(|frame| frame.tunnel).collect::<Vec<_>>(), [Some(TunnelKey::NONE), Some(other)]);
}

#[test]
fn a_frame_grows_no_longer_than_ip_can_say() {
    let packet = |n: u32| {
        let mut message = tcp(0x10, &[], &[n as u8; 30_000]);
        message[4..8].copy_from_slice(&(n * 30_000).to_be_bytes());
        let mut packet = eth(&[], 0x0800, &ipv4(6, &message));
        put16(&mut packet, 18, n as u16);
        fix(&mut packet);
        packet
    };
    let packets: Vec<_> = (0..4).map(packet).collect();
    let lens: Vec<_> = merge(&packets, Payload::Ethernet).iter().map(Frame::len).collect();
    assert_eq!(lens, [60_054, 60_054]);
}

#[test]
fn what_is_longer_than_the_frame_is_said_to_be() {
    let mut small = Frame::with_capacity(60);
    let mut merger = Merger::new();
    let push = |merger: &mut Merger, out: &mut Frame, packet: &[u8]| {
        merger.push(out, packet, Payload::Ethernet, &TunnelKey::NONE)
    };
    assert_eq!(push(&mut merger, &mut small, &[0; 61]), Pushed::TooLong);
    assert!(merger.is_empty() && small.is_empty());
    let mut frame = Frame::with_capacity(three()[0].len() + 5);
    let pushed: Vec<_> = three().iter().map(|packet| push(&mut merger, &mut frame, packet)).collect();
    assert_eq!(pushed, [Pushed::Taken, Pushed::Taken, Pushed::Full]);
}

/// A super-frame as a guest sends it, and the IP version to carry it as where it can be without Ethernet header.
fn mergeable() -> impl Strategy<Value = Frame> {
    let flags = prop_oneof![Just(0x010u16), Just(0x018), Just(0x019), Just(0x090), Just(0x0d0)];
    (some_super_frame(), flags).prop_map(|((mut frame, _), flags)| {
        let ip = usize::from(frame.offload.csum_start);
        if frame.offload.gso != GsoKind::Udp {
            frame.bytes_mut()[ip + 12] &= 0xf0;
            frame.bytes_mut()[ip + 13] = flags as u8;
            frame.offload.gso_ecn = flags & 0x80 != 0;
        }
        let udp = frame.offload.gso == GsoKind::Udp;
        let header_len = if udp { 8 } else { usize::from(frame.bytes()[ip + 12] >> 4) * 4 };
        frame.offload.hdr_len = (ip + header_len) as u16;
        frame
    })
}

proptest! {
    #[test]
    fn what_was_cut_and_merged_is_what_it_was(frame in mergeable()) {
        let payload_len = frame.len() - usize::from(frame.offload.hdr_len);
        prop_assume!(payload_len > usize::from(frame.offload.gso_size));
        let again = merge(&cut(&frame, Payload::Ethernet), Payload::Ethernet);
        prop_assert_eq!(again.len(), 1);
        prop_assert_eq!(again[0].bytes(), frame.bytes());
        prop_assert_eq!(again[0].offload, frame.offload);
        if let Some(payload) = ip_payload(frame.bytes()) {
            let again = merge(&cut(&frame, payload), payload);
            prop_assert_eq!(again.len(), 1);
            prop_assert_eq!(&again[0].bytes()[..12], [0; 12]);
            prop_assert_eq!(&again[0].bytes()[12..], &frame.bytes()[12..]);
            prop_assert_eq!(again[0].offload, frame.offload);
        }
    }

    #[test]
    fn whatever_is_merged_is_cut_into_what_came(
        mut trains in proptest::collection::vec(mergeable(), 1..4),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..90, any::<u8>()), 0..6),
        swap in any::<Option<proptest::sample::Index>>(),
        cut_short in any::<Option<(proptest::sample::Index, proptest::sample::Index)>>(),
    ) {
        // Where identifications stand still, those of the segments differ from what came.
        for (n, frame) in trains.iter_mut().enumerate().filter(|(_, frame)| frame.offload.gso != GsoKind::Tcp6) {
            let at = usize::from(frame.offload.csum_start) - 20 + 4;
            if frame.bytes()[at - 4] == 0x45 {
                put16(frame.bytes_mut(), at, n as u16 * 0x1000);
            }
        }
        let mut packets: Vec<_> = trains.iter().flat_map(|frame| cut(frame, Payload::Ethernet).into_iter().take(30)).collect();
        for (packet, at, byte) in damage {
            if let Some(b) = packet.get_mut(&mut packets).get_mut(at) { *b = byte; }
        }
        if let Some(at) = swap {
            let (at, len) = (at.index(packets.len()), packets.len());
            packets.swap(at, (at + 1) % len);
        }
        if let Some((packet, at)) = cut_short {
            let packet = packet.get_mut(&mut packets);
            packet.truncate(at.index(packet.len()));
        }
        let again: Vec<_> = merge(&packets, Payload::Ethernet).iter().flat_map(|frame| {
            if frame.offload.gso == GsoKind::None {
                assert!(!frame.offload.csum_partial);
                return vec![frame.bytes().to_vec()];
            }
            let mut segmenter = Segmenter::new(frame).unwrap();
            let mut out = Frame::with_capacity(segmenter.max_len());
            let mut all = Vec::new();
            while segmenter.next_into(&mut out).unwrap() { all.push(out.bytes().to_vec()); }
            all
        }).collect();
        prop_assert!(again == packets, "{again:x?} instead of {packets:x?}");
    }

    #[test]
    fn any_bytes_are_taken_as_they_are(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 1..5)) {
        for payload in [Payload::Ethernet, Payload::Ipv4, Payload::Ipv6] {
            let frames = merge(&packets, payload);
            prop_assert_eq!(frames.len(), packets.len());
            let front = if payload == Payload::Ethernet { 0 } else { 14 };
            prop_assert!(frames.iter().zip(&packets).all(|(frame, packet)| &frame.bytes()[front..] == packet));
        }
    }
}
