use super::*;
use crate::packet::testing::{eth, ipv4_frag, ipv6, udp};
use proptest::prelude::*;

/// The fragments of a frame.
fn fragments(frame: &Frame, mtu: u16) -> Vec<Frame> {
    let mut fragmenter = Fragmenter::new(frame, mtu).unwrap();
    let mut all = Vec::new();
    loop {
        let mut out = Frame::with_capacity(2000);
        if !fragmenter.next_into(&mut out) {
            return all;
        }
        all.push(out);
        assert!(all.len() <= 9000, "as many fragments as the payload has bytes");
    }
}

/// An IPv4 header and what is behind it, without the `link` bytes in front.
struct Ip<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    flags: u16,
}

fn ip(frame: &Frame, link: usize) -> Ip<'_> {
    let bytes = &frame.bytes()[link..];
    let (header, payload) = bytes.split_at(usize::from(bytes[0] & 0xf) * 4);
    assert_eq!(usize::from(be16(header, 2)), bytes.len(), "the length is that of the packet");
    assert_eq!(checksum::checksum(header), 0, "the header's checksum is right");
    Ip { header, payload, flags: be16(header, 6) }
}

/// Lists of options that are sound, with how many bytes of them are to be copied.
fn options() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let option = prop_oneof![
        Just(vec![OPTION_NOP]),
        (any::<bool>(), 2..8_u8).prop_map(|(copied, len)| {
            let kind = 0x44 | if copied { OPTION_COPIED } else { 0 };
            let mut option = vec![kind, len];
            option.resize(len.into(), 7);
            option
        }),
    ];
    prop::collection::vec(option, 0..5).prop_map(|list| {
        let copied = list.iter().filter(|o| o[0] & OPTION_COPIED != 0).flatten().copied().collect();
        let mut all: Vec<u8> = list.concat();
        all.resize(all.len().next_multiple_of(4), OPTION_END);
        (all, copied)
    })
}

proptest! {
    #[test]
    fn fragments_put_together_are_the_packet(
        payload in prop::collection::vec(any::<u8>(), 0..5000),
        mtu in 68_u16..1600,
        (options, copied) in options(),
        (offset, more) in (0_u16..1000, any::<bool>()),
        tags in prop::collection::vec(Just((0x8100_u16, 5_u16)), 0..2),
        padding in 0..20_usize,
    ) {
        let flags = offset | if more { MF } else { 0 };
        let mut bytes = eth(&tags, 0x0800, &ipv4_frag(200, flags, &options, &payload));
        let link = bytes.len() - payload.len() - options.len() - 20;
        bytes.resize(bytes.len() + padding, 0xee);
        let frame = Frame::from_bytes(&bytes);
        let all = fragments(&frame, mtu);
        let mut whole = Vec::new();
        for (i, fragment) in all.iter().enumerate() {
            prop_assert_eq!(&fragment.bytes()[..link], &bytes[..link]);
            let (part, last) = (ip(fragment, link), i + 1 == all.len());
            prop_assert!(part.header.len() + part.payload.len() <= mtu.into());
            prop_assert!(last || part.payload.len() % 8 == 0);
            // As much as fits, so that there are as few as can be.
            prop_assert!(last || part.header.len() + part.payload.len() + 8 > mtu.into());
            prop_assert_eq!(usize::from(part.flags & OFFSET), usize::from(offset) + whole.len() / 8);
            prop_assert_eq!(part.flags & MF != 0, more || !last);
            prop_assert_eq!(part.flags & DF, 0);
            // Identification, TTL, protocol and addresses.
            for same in [0..0, 4..6, 8..10, 12..20] {
                prop_assert_eq!(&part.header[same.clone()], &bytes[link..][same]);
            }
            let carried = &part.header[20..];
            if i == 0 {
                prop_assert_eq!(carried, &options[..]);
            } else {
                prop_assert_eq!(&carried[..copied.len()], &copied[..]);
                prop_assert!(carried.len() - copied.len() < 4 && carried[copied.len()..].iter().all(|b| *b == 0));
            }
            whole.extend_from_slice(part.payload);
        }
        prop_assert_eq!(whole, payload);
    }

    #[test]
    fn hostile_headers_give_sound_fragments_or_none(
        mut bytes in prop::collection::vec(any::<u8>(), 14..200),
        mtu in 68_u16..200,
    ) {
        bytes[12] = 8;
        bytes[13] = 0;
        if let Some(first) = bytes.get_mut(14) {
            *first = 0x40 | *first & 0xf;
        }
        let frame = Frame::from_bytes(&bytes);
        if Fragmenter::new(&frame, mtu).is_some() {
            for fragment in fragments(&frame, mtu) {
                ip(&fragment, 14);
            }
        }
    }
}

#[test]
fn only_longer_packets_are_cut_and_only_those_that_may_be() {
    let packet =
        |flags, len: usize| Frame::from_bytes(&eth(&[], 0x0800, &ipv4_frag(17, flags, &[], &vec![0; len - 20])));
    let fit_1000 = |frame: &Frame| {
        let layers = crate::packet::extract(frame.bytes(), 0, &mut PacketKey::default());
        fit(frame, &layers, 1000)
    };
    assert_eq!(fit_1000(&packet(0, 1000)), Fit::Whole);
    assert_eq!(fit_1000(&packet(0, 1001)), Fit::Cut);
    assert_eq!(fit_1000(&packet(DF, 1000)), Fit::Whole);
    assert_eq!(fit_1000(&packet(DF, 1001)), Fit::TooLong);
    assert_eq!(fit_1000(&Frame::from_bytes(&eth(&[(0x8100, 5)], 0x86dd, &ipv6(17, &[0; 960])))), Fit::Whole);
    assert_eq!(fit_1000(&Frame::from_bytes(&eth(&[(0x8100, 5)], 0x86dd, &ipv6(17, &[0; 961])))), Fit::TooLong);
    assert_eq!(fit_1000(&Frame::from_bytes(&eth(&[], 0x88b5, &[0; 1400]))), Fit::Whole);
    let mut padded = eth(&[], 0x0800, &ipv4_frag(17, DF, &[], &[0; 10]));
    padded.resize(1200, 0);
    assert_eq!(fit_1000(&Frame::from_bytes(&padded)), Fit::Whole, "padding does not count");
}

#[test]
fn a_super_frame_counts_by_its_segments() {
    let mut frame = Frame::from_bytes(&eth(&[], 0x0800, &ipv4_frag(17, DF, &[], &udp(&[0; 5000]))));
    frame.offload.gso = GsoKind::Udp;
    let layers = crate::packet::extract(frame.bytes(), 0, &mut PacketKey::default());
    frame.offload.gso_size = 972;
    assert_eq!(fit(&frame, &layers, 1000), Fit::Whole);
    frame.offload.gso_size = 973;
    assert_eq!(fit(&frame, &layers, 1000), Fit::TooLong);
}

#[test]
fn an_mtu_without_room_for_a_header_and_eight_bytes_is_refused() {
    let options = [OPTION_NOP; 40];
    let frame = Frame::from_bytes(&eth(&[], 0x0800, &ipv4_frag(17, 0, &options, &[0; 100])));
    assert!(Fragmenter::new(&frame, 67).is_none());
    assert_eq!(fragments(&frame, 68).len(), 1 + 92_usize.div_ceil(48));
}
