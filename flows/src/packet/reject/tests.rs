use super::answer;
use crate::key::{PacketKey, slot};
use crate::packet::compose::compose;
use crate::packet::readdress::{Ends, Readdress};
use crate::packet::segment::fill_checksum;
use crate::packet::testing::*;
use crate::packet::{Frame, GsoKind, L4, Layers, MAX_FRAME_LEN, Offload, checksum, extract};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const OUTER: (u16, u16) = (0x88a8, 0x6005);
const INNER: (u16, u16) = (0x8100, 7);

fn read(bytes: &[u8]) -> (PacketKey, Layers) {
    let mut key = PacketKey::ZERO;
    let layers = extract(bytes, 0, &mut key);
    (key, layers)
}

/// The answer to a frame as it arrived.
fn told_frame(frame: &Frame) -> Option<Vec<u8>> {
    told_as(frame, &read(frame.bytes()).0)
}

fn told_as(frame: &Frame, arrived: &PacketKey) -> Option<Vec<u8>> {
    let mut out = Frame::with_capacity(MAX_FRAME_LEN);
    answer(frame, arrived, &mut out).then(|| {
        assert_eq!((out.offload, out.tunnel), (Offload::NONE, None));
        out.bytes().to_vec()
    })
}

fn told(bytes: &[u8]) -> Option<Vec<u8>> {
    told_frame(&Frame::from_bytes(bytes))
}

/// The frame with its transport checksum.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let (_, layers) = read(bytes);
    let mut frame = Frame::from_bytes(bytes);
    set_partial(frame.bytes_mut(), &layers);
    let csum_offset = if layers.l4 == L4::Tcp { 16 } else { 6 };
    frame.offload = Offload { csum_partial: true, csum_start: layers.l4_ofs, csum_offset, ..Offload::NONE };
    fill_checksum(&mut frame).unwrap();
    frame.bytes().to_vec()
}

/// What follows the IP header of an answer whose checksums are right.
fn message(answer: &[u8]) -> Vec<u8> {
    let (_, layers) = read(answer);
    check(answer, &layers).unwrap();
    answer[usize::from(layers.l4_ofs)..].to_vec()
}

fn segment(flags: u16, payload: &[u8]) -> Vec<u8> {
    summed(&eth(&[], 0x0800, &ipv4(6, &tcp(flags, &[1; 4], payload))))
}

#[test]
fn a_segment_without_an_acknowledgement_is_reset_and_acknowledged_whole() {
    let answer = told(&segment(0x002, b"abc")).unwrap();
    assert_eq!(answer[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00], "back to the sender's station");
    assert_eq!((&answer[26..30], &answer[30..34]), (&B4[..], &A4[..]), "from the address that was asked");
    let reset = message(&answer);
    assert_eq!(reset[..4], [0x07, 0xd0, 0x03, 0xe8]);
    // SYN at 1 with 3 bytes: 0, and 5 is acknowledged.
    assert_eq!(reset[4..14], [0, 0, 0, 0, 0, 0, 0, 5, 0x50, 0x14]);
    assert_eq!(reset.len(), 20);
    assert_eq!(message(&told(&segment(0x001, b"")).unwrap())[8..12], [0, 0, 0, 2], "FIN counts");
}

#[test]
fn a_segment_with_an_acknowledgement_is_reset_with_what_that_expects() {
    let reset = message(&told(&segment(0x012, b"abc")).unwrap());
    assert_eq!(reset[4..14], [0, 0, 0, 2, 0, 0, 0, 0, 0x50, 0x04]);
}

#[test]
fn nobody_answers_a_reset_or_a_segment_that_is_not_whole() {
    assert_eq!(told(&segment(0x004, b"")), None);
    assert_eq!(told(&segment(0x014, b"")), None);
    let mut wrong = segment(0x002, b"abc");
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(told(&wrong), None, "its checksum is wrong");
    let fragment = ipv4_frag(6, 0x2000, &[], &tcp(0x002, &[], &[0; 20]));
    assert_eq!(told(&eth(&[], 0x0800, &fragment)), None);
}

#[test]
fn all_of_a_super_frame_is_acknowledged_by_its_reset() {
    let frame = super_frame(&eth(&[INNER], 0x86dd, &ipv6(6, &tcp(0x002, &[], &[7; 3000]))), GsoKind::Tcp6, 1000);
    let answer = told_frame(&frame).unwrap();
    assert_eq!(answer[12..18], [0x81, 0x00, 0x00, 0x07, 0x86, 0xdd]);
    assert_eq!(message(&answer)[8..12], 3002u32.to_be_bytes());
}

fn sctp_frame(tag: u32, chunks: &[u8]) -> Vec<u8> {
    let mut packet = sctp(chunks);
    packet[4..8].copy_from_slice(&tag.to_be_bytes());
    packet[8..12].fill(0);
    let crc = checksum::sctp(&packet);
    packet[8..12].copy_from_slice(&crc);
    eth(&[], 0x86dd, &ipv6(132, &packet))
}

fn init(tag: u32) -> Vec<u8> {
    let mut chunk = vec![1, 0, 0, 20];
    chunk.extend(tag.to_be_bytes());
    chunk.resize(20, 1);
    chunk
}

#[test]
fn an_init_is_aborted_with_its_initiate_tag_and_other_packets_with_their_own() {
    let abort = message(&told(&sctp_frame(0, &init(0x1122_3344))).unwrap());
    assert_eq!(abort[..8], [0x07, 0xd0, 0x03, 0xe8, 0x11, 0x22, 0x33, 0x44]);
    assert_eq!(abort[12..], [6, 0, 0, 4]);
    let data = [0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'a', 0, 0, 0];
    let abort = message(&told(&sctp_frame(0x99, &data)).unwrap());
    assert_eq!((&abort[4..8], &abort[12..]), (&[0, 0, 0, 0x99][..], &[6, 1, 0, 4][..]));
}

#[test]
fn sctp_packets_that_end_an_association_or_are_not_sound_are_not_aborted() {
    let refused: [(u32, &[u8]); 9] = [
        (0, &init(0)),
        (5, &init(7)),
        (0, &init(7)[..19]),
        (9, &[6, 0, 0, 4]),
        (9, &[14, 0, 0, 4]),
        (9, &[11, 0, 0, 4]),
        (9, &[9, 0, 0, 12, 0, 3, 0, 8, 0, 0, 0, 0]),
        (9, &[0, 3, 0, 6, 0, 0, 0, 0, 6, 0, 0, 4]),
        (0, &[7, 0, 0, 8, 0, 0, 0, 0]),
    ];
    for (tag, chunks) in refused {
        assert_eq!(told(&sctp_frame(tag, chunks)), None, "{tag} {chunks:?}");
    }
    let mut wrong = sctp_frame(0, &init(7));
    *wrong.last_mut().unwrap() ^= 1;
    assert_eq!(told(&wrong), None, "its checksum is wrong");
    assert!(told(&sctp_frame(9, &[9, 0, 0, 8, 0, 1, 0, 4])).is_some(), "another error");
    assert_eq!(told(&sctp_frame(9, &[0, 3, 0, 0])), None, "a chunk of no length");
}

#[test]
fn a_datagram_is_told_that_its_port_is_unreachable_and_quoted_without_padding() {
    let mut frame = summed(&eth(&[OUTER, INNER], 0x0800, &ipv4(17, &udp(b"x"))));
    let packet = frame[22..].to_vec();
    frame.extend([0xee; 17]);
    let answer = told(&frame).unwrap();
    assert_eq!(answer[12..22], [0x88, 0xa8, 0x60, 0x05, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00]);
    assert_eq!((&answer[34..38], &answer[38..42]), (&B4[..], &A4[..]));
    let error = message(&answer);
    assert_eq!((&error[..2], &error[4..8]), (&[3, 3][..], &[0; 4][..]));
    assert_eq!(error[8..], packet);
    let long = told(&summed(&eth(&[], 0x0800, &ipv4(17, &udp(&[1; 1000]))))).unwrap();
    assert_eq!(long.len(), 14 + 576);
}

#[test]
fn an_ipv6_datagram_is_quoted_up_to_1280_bytes() {
    let frame = summed(&eth(&[], 0x86dd, &ipv6(17, &udp(&[1; 2000]))));
    let answer = told(&frame).unwrap();
    assert_eq!(answer.len(), 14 + 1280);
    let error = message(&answer);
    assert_eq!((&error[..2], &error[8..]), (&[1, 4][..], &frame[14..14 + 1232]));
}

#[test]
fn errors_groups_later_fragments_and_senders_without_an_address_are_not_told() {
    let v4 = |proto, body: &[u8]| eth(&[], 0x0800, &ipv4(proto, body));
    assert!(told(&v4(47, &[0; 8])).is_some(), "any protocol is told of");
    assert!(told(&v4(1, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])).is_some(), "an echo request is none");
    assert_eq!(told(&v4(1, &[3, 3, 0xfc, 0xfc, 0, 0, 0, 0])), None, "an error");
    let later = |offset| told(&eth(&[], 0x0800, &ipv4_frag(17, offset, &[], &udp(&[0; 16]))));
    assert!(later(0x2000).is_some(), "the first fragment speaks for all");
    assert_eq!(later(0x0003), None);
    for (at, bytes) in [(0, [1, 0, 0, 0]), (30, [224, 0, 0, 1]), (30, [255; 4]), (26, [0; 4]), (26, [127, 0, 0, 1])] {
        let mut frame = v4(17, &udp(b"x"));
        frame[at..at + 4].copy_from_slice(&bytes);
        assert_eq!(told(&frame), None, "{bytes:?} at {at}");
    }
    let v6 = |at: usize, byte| {
        let mut frame = eth(&[], 0x86dd, &ipv6(17, &udp(b"x")));
        frame[at] = byte;
        told(&frame)
    };
    assert_eq!(v6(38, 0xff), None, "to a group");
    assert_eq!(v6(22, 0xff), None, "from a group");
    assert_eq!(told(&eth(&[], 0x0806, &arp(1))), None);
    assert_eq!(told(&[0; 13]), None);
}

/// Other ends of the same family.
fn others(v6: bool, [a, b]: [u128; 2], [p, q]: [u16; 2]) -> Ends {
    let address = |n: u128| match v6 {
        true => IpAddr::from(Ipv6Addr::from_bits(n)),
        false => IpAddr::from(Ipv4Addr::from_bits(n as u32)),
    };
    Ends { src: address(a), dst: address(b), src_port: p, dst_port: q }
}

proptest! {
    #[test]
    fn answers_are_sound_and_are_never_answered(key in canonical_key(), payload in canonical_payload()) {
        let mut bytes = compose(&key, &payload);
        bytes[0] &= 0xfe;
        bytes[6] &= 0xfe;
        if let Some(answer) = told(&bytes) {
            let (_, layers) = read(&answer);
            prop_assert_eq!(check(&answer, &layers), Ok(()));
            prop_assert_eq!(told(&answer), None);
        }
    }

    #[test]
    fn translated_or_not_a_packet_gets_the_same_answer(
        key in canonical_key(), payload in canonical_payload(), addresses: [u128; 2], ports: [u16; 2]
    ) {
        let mut bytes = compose(&key, &payload);
        // No groups: they get no answer.
        bytes[0] &= 0xfe;
        bytes[6] &= 0xfe;
        let (arrived, layers) = read(&bytes);
        prop_assume!(arrived.get(slot::IP_FRAG) == 0);
        let Some(now) = Ends::of(&arrived) else { return Ok(()) };
        let new = others(now.src.is_ipv6(), addresses, ports);
        let mut frame = Frame::from_bytes(&bytes);
        if let Some(translation) = Readdress::new(arrived.get(slot::IP_PROTO) as u8, &now, &new) {
            // The identifier of ICMP is in no key, so nothing could put it back.
            prop_assume!(!matches!(layers.l4, L4::Icmp | L4::Icmpv6));
            translation.apply(&mut frame, &layers);
        }
        let (plain, translated) = (told(&bytes), told_as(&frame, &arrived));
        prop_assert_eq!(plain.is_some(), translated.is_some());
        if let (Some(plain), Some(translated)) = (plain, translated) {
            // Checksums that a quotation cuts off, or that were 0 or wrong before, may have another form.
            prop_assert_eq!(plain.len(), translated.len());
            let (_, at) = read(&plain);
            let quoted = usize::from(at.l4_ofs) + if at.l4 == L4::Tcp || at.l4 == L4::Sctp { 0 } else { 8 };
            prop_assert_eq!(&plain[..usize::from(at.l4_ofs) + 2], &translated[..usize::from(at.l4_ofs) + 2]);
            prop_assert_eq!(plain.get(quoted..quoted + 10), translated.get(quoted..quoted + 10));
            prop_assert_eq!(plain.get(quoted + 12..quoted + 24), translated.get(quoted + 12..quoted + 24));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), eth_type in 0..3usize, proto: u8, cut: u8) {
        let mut bytes = bytes;
        let eth_type = [0x0800u16, 0x86dd, 0x8100][eth_type].to_be_bytes();
        if bytes.len() > 24 {
            bytes[12..14].copy_from_slice(&eth_type);
            bytes[14] = if eth_type[0] == 8 { 0x45 } else { 0x60 };
            bytes[if eth_type[0] == 8 { 23 } else { 20 }] = proto;
        }
        let frame = Frame::from_bytes(&bytes);
        let (arrived, _) = read(&bytes[usize::from(cut).min(bytes.len())..]);
        for key in [arrived, read(&bytes).0] {
            if let Some(answer) = told_as(&frame, &key) {
                let (_, layers) = read(&answer);
                prop_assert_eq!(check(&answer, &layers), Ok(()));
            }
        }
    }
}
