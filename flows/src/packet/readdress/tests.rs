use super::{Ends, Readdress};
use crate::key::PacketKey;
use crate::packet::rewrite::set_field;
use crate::packet::segment::{Segmenter, fill_checksum};
use crate::packet::testing::*;
use crate::packet::{Frame, GsoKind, L3, L4, Layers, Offload, checksum, extract};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A transport protocol, by IP version 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    UdpWithoutChecksum,
    Sctp,
    Echo,
    Gre,
}

/// What stands in front of the transport header besides the IP header.
#[derive(Clone, Copy, Debug)]
enum Extra {
    Nothing,
    /// IPv4 options, or a hop-by-hop header.
    Options,
    /// A routing header with a segment left; options in IPv4.
    Routing,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sum {
    Right,
    Wrong,
    Partial,
}

fn some_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Tcp),
        Just(Kind::Udp),
        Just(Kind::UdpWithoutChecksum),
        Just(Kind::Sctp),
        Just(Kind::Echo),
        Just(Kind::Gre)
    ]
}

fn some_extra() -> impl Strategy<Value = Extra> {
    prop_oneof![3 => Just(Extra::Nothing), 1 => Just(Extra::Options), 1 => Just(Extra::Routing)]
}

fn some_sum() -> impl Strategy<Value = Sum> {
    prop_oneof![Just(Sum::Right), Just(Sum::Wrong), Just(Sum::Partial)]
}

fn proto(kind: Kind, v6: bool) -> u8 {
    match kind {
        Kind::Tcp => 6,
        Kind::Udp | Kind::UdpWithoutChecksum => 17,
        Kind::Sctp => 132,
        Kind::Echo if v6 => 58,
        Kind::Echo => 1,
        Kind::Gre => 47,
    }
}

/// Where the checksum is in the transport header.
fn csum_offset(kind: Kind) -> u16 {
    match kind {
        Kind::Tcp => 16,
        Kind::Udp | Kind::UdpWithoutChecksum => 6,
        Kind::Sctp => 8,
        Kind::Echo => 2,
        Kind::Gre => 0,
    }
}

fn read(bytes: &[u8]) -> Layers {
    extract(bytes, 1, &mut PacketKey::default())
}

/// A frame from 1000 to 2000, or with identifier 1000, from and to the addresses of `testing`.
fn frame(kind: Kind, v6: bool, extra: Extra, sum: Sum, payload: &[u8]) -> Frame {
    let message = match kind {
        Kind::Tcp => tcp(0x18, &[], payload),
        Kind::Udp | Kind::UdpWithoutChecksum => udp(payload),
        Kind::Sctp => sctp(payload),
        Kind::Echo => [&[if v6 { 128 } else { 8 }, 0, 0, 0, 0x03, 0xe8, 0, 1], payload].concat(),
        Kind::Gre => [&[0, 0, 8, 0], payload].concat(),
    };
    let proto = proto(kind, v6);
    let (eth_type, packet) = match (v6, extra) {
        (false, Extra::Nothing) => (0x0800, ipv4(proto, &message)),
        (false, _) => (0x0800, ipv4_frag(proto, 0, &[1, 1, 1, 0], &message)),
        (true, Extra::Nothing) => (0x86dd, ipv6(proto, &message)),
        (true, Extra::Options) => (0x86dd, ipv6(0, &[&[proto, 0, 1, 4, 0, 0, 0, 0], &message[..]].concat())),
        (true, Extra::Routing) => (0x86dd, ipv6(43, &[&[proto, 0, 4, 1, 0, 0, 0, 0], &message[..]].concat())),
    };
    let mut frame = Frame::from_bytes(&eth(&[(0x8100, 5)], eth_type, &packet));
    let layers = read(frame.bytes());
    if matches!(kind, Kind::UdpWithoutChecksum | Kind::Gre) {
        return frame;
    }
    let csum_offset = csum_offset(kind);
    frame.offload = Offload { csum_partial: true, csum_start: layers.l4_ofs, csum_offset, ..Offload::NONE };
    set_partial(frame.bytes_mut(), &layers);
    if sum != Sum::Partial {
        fill_checksum(&mut frame).unwrap();
    }
    if sum == Sum::Wrong {
        frame.bytes_mut()[usize::from(layers.l4_ofs + csum_offset)] ^= 0x55;
    }
    frame
}

fn shown(v6: bool) -> Ends {
    let (src, dst): (IpAddr, IpAddr) = if v6 { (A6.into(), B6.into()) } else { (A4.into(), B4.into()) };
    Ends { src, dst, src_port: 1000, dst_port: 2000 }
}

/// New ends; each is the old one for about a third of the cases.
fn some_ends(v6: bool) -> impl Strategy<Value = Ends> {
    let keep = || prop::sample::select(vec![false, true, true]);
    (any::<[(u128, u16); 2]>(), [keep(), keep(), keep(), keep()]).prop_map(move |(new, keep)| {
        let old = shown(v6);
        let address = |bits: u128| match v6 {
            true => IpAddr::from(Ipv6Addr::from_bits(bits)),
            false => Ipv4Addr::from_bits(bits as u32).into(),
        };
        Ends {
            src: if keep[0] { address(new[0].0) } else { old.src },
            dst: if keep[1] { address(new[1].0) } else { old.dst },
            src_port: if keep[2] { new[0].1 } else { old.src_port },
            dst_port: if keep[3] { new[1].1 } else { old.dst_port },
        }
    })
}

fn some_family_and_ends() -> impl Strategy<Value = (bool, Ends)> {
    any::<bool>().prop_flat_map(|v6| some_ends(v6).prop_map(move |ends| (v6, ends)))
}

/// The new ends by [`set_field`], one field after the other.
fn set_one_by_one(frame: &mut Frame, new: &Readdress) {
    let layers = read(frame.bytes());
    for change in new.changes() {
        assert!(set_field(frame, &layers, change.field, change.value, change.mask), "{change:?}");
    }
}

/// What a reader sees of a frame.
fn ends_of(bytes: &[u8]) -> Ends {
    let layers = read(bytes);
    let (l3, l4) = (usize::from(layers.l3_ofs), usize::from(layers.l4_ofs));
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (src, dst): (IpAddr, IpAddr) = match layers.l3 {
        L3::Ipv4 => (
            bytes[l3 + 12..].first_chunk::<4>().copied().unwrap().into(),
            bytes[l3 + 16..].first_chunk::<4>().copied().unwrap().into(),
        ),
        _ => (
            bytes[l3 + 8..].first_chunk::<16>().copied().unwrap().into(),
            bytes[l3 + 24..].first_chunk::<16>().copied().unwrap().into(),
        ),
    };
    let (src_port, dst_port) = match layers.l4 {
        L4::Icmp | L4::Icmpv6 => (number(l4 + 4), 2000),
        L4::None => (1000, 2000),
        _ => (number(l4), number(l4 + 2)),
    };
    Ends { src, dst, src_port, dst_port }
}

#[test]
fn nothing_to_change_is_none() {
    for v6 in [false, true] {
        let old = shown(v6);
        assert_eq!(Readdress::new(6, &old, &old), None);
        assert_eq!(Readdress::new(47, &old, &Ends { src_port: 7, ..old }), None, "GRE has no ports");
        assert_eq!(Readdress::new(if v6 { 58 } else { 1 }, &old, &Ends { dst_port: 7, ..old }), None);
    }
    assert_eq!(Readdress::new(6, &shown(false), &shown(true)), None, "no family turns into the other");
}

#[test]
fn a_packet_of_another_protocol_stays_as_it_is() {
    let old = shown(false);
    let new = Ends { src: [192, 0, 2, 1].into(), src_port: 7, ..old };
    let tcp = Readdress::new(6, &old, &new).unwrap();
    for mut other in [
        frame(Kind::Udp, false, Extra::Nothing, Sum::Right, b"data"),
        frame(Kind::Tcp, true, Extra::Nothing, Sum::Right, b"data"),
        Frame::from_bytes(&eth(&[], 0x0806, &arp(1))),
    ] {
        let (before, layers) = (other.bytes().to_vec(), read(other.bytes()));
        assert!(!tcp.apply(&mut other, &layers));
        assert_eq!(other.bytes(), before);
    }
}

#[test]
fn a_later_fragment_has_new_addresses_only() {
    let old = shown(false);
    let new = Ends { src: [192, 0, 2, 1].into(), dst: old.dst, src_port: 7, dst_port: 8 };
    let mut later = Frame::from_bytes(&eth(&[], 0x0800, &ipv4_frag(17, 0x0010, &[], &[0xaa; 32])));
    let layers = read(later.bytes());
    assert!(Readdress::new(17, &old, &new).unwrap().apply(&mut later, &layers));
    assert_eq!(ends_of(later.bytes()).src, new.src);
    assert_eq!(&later.bytes()[34..], [0xaa; 32]);
    assert_eq!(check(later.bytes(), &layers), Ok(()));
}

#[test]
fn a_datagram_in_fragments_has_a_right_checksum_when_it_is_whole_again() {
    let mut whole = frame(Kind::Udp, false, Extra::Nothing, Sum::Right, &[0x5a; 40]);
    let old = shown(false);
    let new = Ends { dst: [198, 51, 100, 9].into(), dst_port: 53, ..old };
    let udp = Readdress::new(17, &old, &new).unwrap();
    let message = whole.bytes()[38..].to_vec();
    let mut pieces = Vec::new();
    for (flags_offset, range) in [(0x2000, 0..24), (0x0003, 24..48)] {
        let mut piece = Frame::from_bytes(&eth(&[], 0x0800, &ipv4_frag(17, flags_offset, &[], &message[range])));
        let layers = read(piece.bytes());
        assert!(udp.apply(&mut piece, &layers));
        pieces.extend_from_slice(&piece.bytes()[34..]);
    }
    let layers = read(whole.bytes());
    assert!(udp.apply(&mut whole, &layers));
    assert_eq!(pieces, whole.bytes()[38..]);
    assert_eq!(check(whole.bytes(), &layers), Ok(()));
}

#[test]
fn a_super_frame_is_rewritten_whole_as_its_segments_would_be() {
    for (kind, v6, gso) in [
        (Kind::Tcp, false, GsoKind::Tcp4),
        (Kind::Tcp, true, GsoKind::Tcp6),
        (Kind::Udp, false, GsoKind::Udp),
        (Kind::Udp, true, GsoKind::Udp),
    ] {
        let mut whole = frame(kind, v6, Extra::Nothing, Sum::Partial, &[0xa5; 3000]);
        whole.offload = Offload { gso, gso_size: 1000, ..whole.offload };
        let (old, layers) = (shown(v6), read(whole.bytes()));
        let dst: IpAddr = if v6 { Ipv6Addr::from_bits(77).into() } else { Ipv4Addr::from_bits(77).into() };
        let new = Readdress::new(proto(kind, v6), &old, &Ends { dst, dst_port: 8080, ..old }).unwrap();
        let mut parts = segments(&whole);
        for part in &mut parts {
            assert!(new.apply(part, &layers));
        }
        let offload = whole.offload;
        assert!(new.apply(&mut whole, &layers));
        assert_eq!(whole.offload, offload, "what is left to do stays");
        let (of_whole, parts): (Vec<_>, Vec<_>) =
            segments(&whole).iter().zip(&parts).map(|(a, b)| (a.bytes().to_vec(), b.bytes().to_vec())).unzip();
        assert_eq!(of_whole.len(), 3);
        assert_eq!(of_whole, parts, "{kind:?}");
        assert!(of_whole.iter().all(|part| check(part, &layers).is_ok()));
    }
}

fn segments(frame: &Frame) -> Vec<Frame> {
    let mut segmenter = Segmenter::new(frame).unwrap();
    std::iter::from_fn(|| {
        let mut part = Frame::with_capacity(2000);
        segmenter.next_into(&mut part).unwrap().then_some(part)
    })
    .collect()
}

#[test]
fn the_first_ipv6_fragment_has_ports_and_a_later_one_addresses() {
    let old = shown(true);
    let new = Ends { src: Ipv6Addr::from_bits(7).into(), src_port: 7, ..old };
    let new = Readdress::new(17, &old, &new).unwrap();
    for (offset_flags, at) in [([0, 1], 62), ([0, 16], 0)] {
        let body = [&[17, 0, offset_flags[0], offset_flags[1], 0, 0, 0, 9], &udp(&[1; 16])[..]].concat();
        let mut piece = Frame::from_bytes(&eth(&[], 0x86dd, &ipv6(44, &body)));
        let before = piece.bytes().to_vec();
        let layers = read(piece.bytes());
        assert!(new.apply(&mut piece, &layers));
        let after = piece.bytes();
        assert_eq!(after[22..38], Ipv6Addr::from_bits(7).octets());
        match at {
            0 => assert_eq!(after[38..], before[38..]),
            at => assert_eq!((&after[at..at + 2], &after[at + 2..]), (&[0, 7][..], &before[at + 2..])),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn it_equals_setting_the_fields_one_by_one(
        kind in some_kind(), (v6, new) in some_family_and_ends(), extra in some_extra(), sum in some_sum(),
        payload in canonical_payload()
    ) {
        let Some(new) = Readdress::new(proto(kind, v6), &shown(v6), &new) else { return Ok(()) };
        // An identifier is no field, and in no key.
        prop_assume!(kind != Kind::Echo || new.changed & super::SRC_PORT == 0);
        let [mut one, mut other] = [(); 2].map(|()| frame(kind, v6, extra, sum, &payload));
        let layers = read(one.bytes());
        let mut keys = [PacketKey::default(); 2];
        extract(one.bytes(), 1, &mut keys[0]);
        prop_assert!(new.apply(&mut one, &layers));
        set_one_by_one(&mut other, &new);
        prop_assert_eq!(one.bytes(), other.bytes());
        prop_assert_eq!(one.offload, other.offload);
        extract(one.bytes(), 1, &mut keys[1]);
        let told = Readdress::between(&keys[0], &keys[1]).map(|told| told.changes());
        prop_assert_eq!(told, Some(new.changes()));
    }

    #[test]
    fn checksums_are_those_of_a_full_computation(
        kind in some_kind(), (v6, new) in some_family_and_ends(), options: bool, partial: bool,
        payload in canonical_payload()
    ) {
        let old = shown(v6);
        let wanted = match kind {
            Kind::Gre => Ends { src_port: 1000, dst_port: 2000, ..new },
            Kind::Echo => Ends { dst_port: 2000, ..new },
            _ => new,
        };
        let Some(new) = Readdress::new(proto(kind, v6), &old, &new) else { return Ok(()) };
        let extra = if options { Extra::Options } else { Extra::Nothing };
        let sum = if partial { Sum::Partial } else { Sum::Right };
        let mut frame = frame(kind, v6, extra, sum, &payload);
        let layers = read(frame.bytes());
        prop_assert!(new.apply(&mut frame, &layers));
        fill_checksum(&mut frame).unwrap();
        prop_assert_eq!(check(frame.bytes(), &layers), Ok(()));
        prop_assert_eq!(ends_of(frame.bytes()), wanted);
        let offset = usize::from(layers.l4_ofs);
        if kind == Kind::UdpWithoutChecksum {
            prop_assert_eq!(&frame.bytes()[offset + 6..offset + 8], [0, 0]);
        }
    }

    #[test]
    fn there_and_back_is_the_same_packet(
        kind in some_kind(), (v6, new) in some_family_and_ends(), extra in some_extra(), sum in some_sum(),
        payload in canonical_payload()
    ) {
        let (proto, old) = (proto(kind, v6), shown(v6));
        let Some(there) = Readdress::new(proto, &old, &new) else { return Ok(()) };
        let back = Readdress::new(proto, &new, &old).unwrap();
        let mut frame = frame(kind, v6, extra, sum, &payload);
        let (before, layers) = (frame.bytes().to_vec(), read(frame.bytes()));
        prop_assert!(there.apply(&mut frame, &layers));
        prop_assert!(back.apply(&mut frame, &layers));
        let mut after = frame.bytes().to_vec();
        // A checksum of 0xffff comes back as 0, the same number.
        let at = usize::from(layers.l4_ofs + csum_offset(kind));
        if kind != Kind::Gre && before[at..at + 2] == [0xff; 2] && after[at..at + 2] == [0; 2] {
            after[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(after, before);
    }

    #[test]
    fn a_quoted_packet_is_the_one_that_was_sent(
        kind in some_kind(), (v6, new) in some_family_and_ends(), extra in some_extra(),
        payload in proptest::collection::vec(any::<u8>(), 24..64), quoted_len in 8usize..80
    ) {
        let old = shown(v6);
        let Some(there) = Readdress::new(proto(kind, v6), &old, &new) else { return Ok(()) };
        let mut sent = frame(kind, v6, extra, Sum::Right, &payload);
        let mut layers = read(sent.bytes());
        let error = error_about(&sent, &layers, quoted_len);
        prop_assert!(there.apply(&mut sent, &layers));
        // Of a checksum that is there by half nothing is changed, and the CRC of what is not whole cannot be told.
        let whole = sent.len() - usize::from(layers.l4_ofs) <= quoted_len;
        prop_assume!(kind != Kind::Tcp || quoted_len != 17);
        prop_assume!(kind != Kind::Sctp || whole || quoted_len <= 8);
        let mut wanted = error_about(&sent, &layers, quoted_len);
        let mut error = Frame::from_bytes(&error);
        layers = read(error.bytes());
        prop_assert!(there.apply_quoted(&mut error, &layers));
        prop_assert_eq!(check(error.bytes(), &layers), Ok(()));
        // Of 0 and 0xffff, the same number, either may be the checksum of the error.
        let at = usize::from(layers.l4_ofs) + 2;
        let is_zero = |bytes: &[u8]| [[0; 2], [0xff; 2]].contains(&[bytes[at], bytes[at + 1]]);
        if is_zero(&wanted) && is_zero(error.bytes()) {
            wanted[at..at + 2].copy_from_slice(&error.bytes()[at..at + 2]);
        }
        prop_assert_eq!(error.bytes(), wanted);
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), offsets: [u16; 2], v6: bool, l4 in 0usize..6,
        (_, new) in some_family_and_ends(), cut in any::<prop::sample::Index>(), kind in some_kind()
    ) {
        let l4 = [L4::None, L4::Tcp, L4::Udp, L4::Sctp, L4::Icmp, L4::Icmpv6][l4];
        let l3 = if v6 { L3::Ipv6 } else { L3::Ipv4 };
        let layers = Layers { l3_ofs: offsets[0] % 256, l4_ofs: offsets[1] % 256, l3, l4, ..Layers::NONE };
        let v6 = new.src.is_ipv6();
        let Some(new) = Readdress::new(proto(kind, v6), &shown(v6), &new) else { return Ok(()) };
        let mut frame_ = Frame::from_bytes(&bytes);
        new.apply(&mut frame_, &layers);
        new.apply_quoted(&mut frame_, &layers);
        prop_assert_eq!(frame_.len(), bytes.len());
        // An error cut short anywhere, with layers as they are read.
        let about = frame(kind, v6, Extra::Routing, Sum::Right, &bytes);
        let error = error_about(&about, &read(about.bytes()), 100);
        let mut error = Frame::from_bytes(&error[..cut.index(error.len())]);
        let layers = read(error.bytes());
        new.apply_quoted(&mut error, &layers);
    }
}

/// An ICMP or ICMPv6 error that quotes the packet in a frame up to `quoted_len` bytes of its transport message.
fn error_about(sent: &Frame, layers: &Layers, quoted_len: usize) -> Vec<u8> {
    let end = sent.len().min(usize::from(layers.l4_ofs) + quoted_len);
    let quoted = &sent.bytes()[usize::from(layers.l3_ofs)..end];
    let (proto, eth_type, kind) = if layers.l3 == L3::Ipv6 { (58, 0x86dd, 3) } else { (1, 0x0800, 11) };
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
    let packet = if layers.l3 == L3::Ipv6 { ipv6(proto, &message) } else { ipv4(proto, &message) };
    let mut frame = Frame::from_bytes(&eth(&[], eth_type, &packet));
    let layers = read(frame.bytes());
    frame.offload = Offload { csum_partial: true, csum_start: layers.l4_ofs, csum_offset: 2, ..Offload::NONE };
    set_partial(frame.bytes_mut(), &layers);
    fill_checksum(&mut frame).unwrap();
    frame.bytes().to_vec()
}

#[test]
fn the_crc_that_a_flip_gives_is_that_of_the_new_packet() {
    for len in [12, 13, 511, 516, 1500, 65_000] {
        let mut packet: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        packet[8..12].fill(0);
        let before = u32::from_le_bytes(checksum::sctp(&packet));
        packet[..4].copy_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        let flips = [0x12, 0x34 ^ 7, 0x56 ^ 14, 0x78 ^ 21];
        let after = before ^ u32::from_le_bytes(checksum::sctp_flips(flips, len - 4));
        assert_eq!(after.to_le_bytes(), checksum::sctp(&packet), "{len} bytes");
    }
}
