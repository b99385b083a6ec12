use super::*;
use crate::key::{TUN_FLAG_OAM, tun_flag_option};
use crate::packet::checksum;
use crate::packet::testing::{eth, ipv4, ipv6, udp};
use crate::packet::tunnel::ecn;
use crate::tunnel::Tlv;
use proptest::prelude::*;

/// `tun_metadata0`, 1 and 7, the last of them critical.
const TLVS: TlvMap = TlvMap([
    Some(Tlv { class: 0xffff, kind: 1 }),
    Some(Tlv { class: 0x0104, kind: 2 }),
    None,
    None,
    None,
    None,
    None,
    Some(Tlv { class: 0x0104, kind: 0x83 }),
]);

fn params(kind: TunnelKind, payload: Payload) -> Params<'static> {
    Params { kind, payload, keyed: false, checksum: false, gbp: false, tlvs: &TLVS }
}

fn frame() -> Vec<u8> {
    eth(&[], 0x0800, &ipv4(17, &udp(b"data")))
}

/// The header with a frame behind it.
fn written(key: &TunnelKey, params: &Params<'_>, inner: &[u8]) -> Vec<u8> {
    let mut header = [0xa5; MAX_HEADER_LEN];
    let len = write(key, params, &mut header);
    let header = &mut header[..len];
    if params.kind == TunnelKind::Gre {
        gre::fill(header, [&inner[..1], &inner[1..]]);
    }
    [header, inner].concat()
}

fn key(id: u64) -> TunnelKey {
    let mut key = TunnelKey::NONE;
    key.set_id(id);
    key
}

/// Header bytes with an Ethernet frame behind them.
fn read_over(kind: TunnelKind, header: &[u8]) -> Result<Inner, Refused> {
    read(kind, &[header, &frame()].concat(), &TLVS)
}

#[test]
fn vxlan_is_as_in_rfc_7348_and_group_policy_as_linux_sends_it() {
    let mut key = key(0x12_3456);
    let header = |key: &TunnelKey, gbp| {
        written(key, &Params { gbp, ..params(TunnelKind::Vxlan, Payload::Ethernet) }, &frame())[..8].to_vec()
    };
    assert_eq!(header(&key, true), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    key.set_gbp(0x0203, 0xff);
    assert_eq!(header(&key, false), [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]);
    assert_eq!(header(&key, true), [0x88, 0x48, 2, 3, 0x12, 0x34, 0x56, 0]);
    let inner = read_over(TunnelKind::Vxlan, &[0x88, 0x48, 2, 3, 0x12, 0x34, 0x56, 0]).unwrap();
    assert_eq!((inner.key.gbp(), inner.gbp, inner.keyed, inner.key.id()), ((0x203, 0x48), true, true, 0x12_3456));
}

/// An echo request that Linux 6 sent through a `vxlan` device with `gbp` and packet mark 0x80203: the outer packet from
/// its IPv4 header on.
const FROM_LINUX: &[u8] = b"\x45\x02\x00\x86\x0e\x25\x00\x00\x40\x11\xe8\x3c\xc0\x00\x02\x01\xc0\x00\x02\x02\
\x9f\x37\x12\xb5\x00\x72\x84\x87\x88\x08\x02\x03\x00\x14\x8f\x00\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00\
\x45\xba\x00\x54\x21\xfe\x40\x00\x40\x01\x03\xdd\x0a\x09\x00\x01\x0a\x09\x00\x02\x08\x00\x32\x42\x03\xc1\x00\x01\xb5\xfe\x01\x6b\
\x00\x00\x00\x00\x48\xbf\x03\x00\x00\x00\x00\x00\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x20\x21\x22\x23\
\x24\x25\x26\x27\x28\x29\x2a\x2b\x2c\x2d\x2e\x2f\x30\x31\x32\x33\x34\x35\x36\x37";

#[test]
fn what_linux_sends_is_read_and_would_be_sent_alike() {
    let (outer, datagram) = FROM_LINUX.split_at(28);
    let inner = read(TunnelKind::Vxlan, datagram, &TLVS).unwrap();
    assert_eq!((inner.key.id(), inner.key.gbp()), (5263, (0x203, 0x08)));
    let packet = &datagram[inner.offset..];
    let params = Params { gbp: true, ..params(TunnelKind::Vxlan, Payload::Ethernet) };
    assert_eq!(written(&inner.key, &params, packet), datagram);
    let (tos, ttl) = ecn::tos_ttl(packet, Payload::Ethernet).unwrap();
    assert_eq!((tos, ttl, ecn::encapsulate(0, tos)), (0xba, 64, outer[1]));
    let mtu = packet.len() - ETH_LEN;
    assert_eq!(mtu + overhead(TunnelKind::Vxlan, false, Payload::Ethernet, (false, false), 0), FROM_LINUX.len());
}

#[test]
fn vxlan_without_a_vni_or_with_unknown_flags_is_refused() {
    for header in [
        [0x00, 0, 0, 0, 0, 0, 1, 0],
        [0x0c, 0, 0, 0, 0, 0, 1, 0],
        [0x08, 0, 1, 0, 0, 0, 1, 0],
        [0x08, 0, 0, 3, 0, 0, 1, 0],
        [0x80, 0, 0, 0, 0, 0, 1, 0],
        [0x8a, 0, 0, 0, 0, 0, 1, 0],
        [0x08, 0, 0, 0, 0, 0, 1, 1],
    ] {
        assert_eq!(read_over(TunnelKind::Vxlan, &header), Err(Refused::Flags), "{header:x?}");
    }
}

#[test]
fn geneve_is_as_in_rfc_8926() {
    let mut key = key(0xff_0001);
    key.set_flags(TUN_FLAG_OAM);
    key.set_option(1, 0x0a0b_0c0d);
    key.set_option(2, 5);
    key.set_option(7, 0);
    let bytes = written(&key, &params(TunnelKind::Geneve, Payload::Ethernet), &frame());
    let want = [
        [0x04, 0xc0, 0x65, 0x58, 0xff, 0x00, 0x01, 0x00],
        [0x01, 0x04, 0x02, 0x01, 0x0a, 0x0b, 0x0c, 0x0d],
        [0x01, 0x04, 0x83, 0x01, 0, 0, 0, 0],
    ];
    assert_eq!(bytes[..24], *want.concat());
    let inner = read(TunnelKind::Geneve, &bytes, &TLVS).unwrap();
    assert_eq!((inner.offset, inner.payload, inner.key.id()), (24, Payload::Ethernet, 0xff_0001));
    assert_eq!((inner.key.option(1), inner.key.option(2), inner.key.option(7)), (Some(0x0a0b_0c0d), None, Some(0)));
    assert_eq!(inner.key.flags(), TUN_FLAG_OAM | tun_flag_option(1) | tun_flag_option(7));
}

#[test]
fn every_geneve_option_has_room() {
    let all = TlvMap(std::array::from_fn(|n| Some(Tlv { class: 7, kind: n as u8 })));
    let mut key = key(1);
    (0..8).for_each(|n| key.set_option(n, u32::from(n)));
    let params = Params { tlvs: &all, ..params(TunnelKind::Geneve, Payload::Ipv6) };
    let bytes = written(&key, &params, &ipv6(17, &udp(b"")));
    assert_eq!(bytes[..4], [16, 0, 0x86, 0xdd]);
    assert_eq!(read(TunnelKind::Geneve, &bytes, &all).map(|inner| (inner.offset, inner.key)), Ok((72, key)));
}

#[test]
fn geneve_that_cannot_be_understood_is_refused() {
    let read = |header: &[u8]| read_over(TunnelKind::Geneve, header).map(|inner| inner.offset);
    let base = |first, flags, rest: &[u8]| [&[first, flags, 0x65, 0x58, 0, 0, 1, 0], rest].concat();
    assert_eq!(read(&base(0x40, 0, &[])), Err(Refused::Version));
    assert_eq!(read(&[0, 0, 0x88, 0x47, 0, 0, 1, 0]), Err(Refused::Protocol));
    // Unknown: skipped, unless critical.
    assert_eq!(read(&base(1, 0, &[9, 9, 9, 0])), Ok(12));
    assert_eq!(read(&base(1, 0x40, &[9, 9, 0x89, 0])), Err(Refused::CriticalOption));
    // Known, but of no or eight bytes.
    assert_eq!(read(&base(1, 0, &[1, 4, 2, 0])), Err(Refused::Options));
    assert_eq!(read(&base(3, 0, &[1, 4, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0])), Err(Refused::Options));
    // Past the end of the options, and options past the end of the packet.
    assert_eq!(read(&base(1, 0, &[9, 9, 9, 1, 0, 0, 0, 0])), Err(Refused::Options));
    assert_eq!(read(&base(2, 0, &[9, 9, 9, 0, 9, 9, 9, 31])), Err(Refused::Options));
    assert_eq!(read(&base(63, 0, &[])), Err(Refused::Truncated));
    // The three bits in front of an option's length are reserved.
    assert_eq!(read(&base(2, 0, &[1, 4, 2, 0xe1, 0, 0, 0, 7])), Ok(16));
}

#[test]
fn gre_is_as_in_rfc_2784_and_rfc_2890() {
    let plain = params(TunnelKind::Gre, Payload::Ethernet);
    assert_eq!(written(&key(7), &plain, &frame())[..4], [0, 0, 0x65, 0x58]);
    let keyed = Params { keyed: true, payload: Payload::Ipv4, ..plain };
    assert_eq!(written(&key(0x0102_0304), &keyed, &ipv4(17, b""))[..8], [0x20, 0, 8, 0, 1, 2, 3, 4]);
    let both = written(&key(9), &Params { checksum: true, ..keyed }, &ipv4(17, b"odd"));
    assert_eq!((&both[..4], &both[6..12]), (&[0xa0, 0, 8, 0][..], &[0, 0, 0, 0, 0, 9][..]));
    assert!(checksum::verify(&both, 0));
    let inner = read(TunnelKind::Gre, &both, &TLVS).unwrap();
    assert_eq!((inner.offset, inner.keyed, inner.key.id()), (12, true, 9));
    // Checksum, key and sequence number.
    let inner = read_over(TunnelKind::Gre, &[0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    assert_eq!((inner.offset, inner.key.id()), (12, 1));
    assert!(!read_over(TunnelKind::Gre, &[0, 0, 0x65, 0x58]).unwrap().keyed);
}

#[test]
fn gre_with_routing_another_version_or_a_wrong_checksum_is_refused() {
    let read = |header: &[u8]| read_over(TunnelKind::Gre, header).map(|_| ());
    for routing in [0x40, 0x08, 0x04] {
        assert_eq!(read(&[routing, 0, 0x65, 0x58]), Err(Refused::Flags));
    }
    // PPTP is version 1.
    assert_eq!(read(&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 0]), Err(Refused::Version));
    assert_eq!(read(&[0, 0, 0x88, 0x47]), Err(Refused::Protocol));
    assert_eq!(read(&[0x80, 0, 0x65, 0x58, 0, 1, 0, 0]), Err(Refused::Checksum));
}

#[test]
fn ip_in_ip_is_of_the_version_that_its_tunnel_carries() {
    let (v4, v6) = (ipv4(17, &udp(b"")), ipv6(17, &udp(b"")));
    let read = |kind, bytes: &[u8]| read(kind, bytes, &TLVS).map(|inner| (inner.offset, inner.payload));
    assert_eq!(read(TunnelKind::Ipip, &v4), Ok((0, Payload::Ipv4)));
    assert_eq!(read(TunnelKind::Ipip, &v6), Err(Refused::Protocol));
    assert_eq!(read(TunnelKind::Sit, &v6), Ok((0, Payload::Ipv6)));
    assert_eq!(read(TunnelKind::Sit, &v4), Err(Refused::Protocol));
    assert_eq!(read(TunnelKind::BareUdp, &v4), Ok((0, Payload::Ipv4)));
    assert_eq!(read(TunnelKind::Wireguard, &v6), Ok((0, Payload::Ipv6)));
    assert_eq!(read(TunnelKind::BareUdp, &v4[..19]), Err(Refused::Truncated));
    assert_eq!(read(TunnelKind::BareUdp, &[]), Err(Refused::Truncated));
    assert_eq!(read(TunnelKind::BareUdp, &frame()), Err(Refused::Protocol));
}

#[test]
fn overheads_are_those_that_everyone_subtracts() {
    use TunnelKind::{BareUdp, Geneve, Gre, Ipip, Sit, Vxlan, Wireguard};
    let plain = |kind, v6, payload| overhead(kind, v6, payload, (false, false), 0);
    assert_eq!([false, true].map(|v6| plain(Vxlan, v6, Payload::Ethernet)), [50, 70]);
    assert_eq!([false, true].map(|v6| plain(Geneve, v6, Payload::Ethernet)), [50, 70]);
    assert_eq!(overhead(Geneve, false, Payload::Ethernet, (false, false), 3), 74);
    assert_eq!([false, true].map(|v6| plain(Gre, v6, Payload::Ethernet)), [38, 58]);
    assert_eq!(overhead(Gre, false, Payload::Ethernet, (true, false), 0), 42);
    assert_eq!(overhead(Gre, false, Payload::Ipv4, (true, true), 0), 32);
    assert_eq!([false, true].map(|v6| plain(Ipip, v6, Payload::Ipv4)), [20, 40]);
    assert_eq!(plain(Sit, false, Payload::Ipv6), 20);
    assert_eq!([false, true].map(|v6| plain(BareUdp, v6, Payload::Ipv4)), [28, 48]);
    assert_eq!([false, true].map(|v6| plain(Wireguard, v6, Payload::Ethernet)), [60, 80]);
}

/// A header that any peer may send, with what it says.
fn any_header() -> impl Strategy<Value = (TunnelKind, Payload, bool, bool, bool, TunnelKey)> {
    let kind = (0..TunnelKind::ALL.len()).prop_map(|n| TunnelKind::ALL[n]);
    let payload = (0..3usize).prop_map(|n| [Payload::Ethernet, Payload::Ipv4, Payload::Ipv6][n]);
    let fields = (any::<u32>(), any::<bool>(), any::<u16>(), any::<u8>(), any::<[Option<u32>; 8]>());
    (kind, payload, any::<[bool; 3]>(), fields).prop_map(|(kind, payload, flags, (id, oam, group, gbp, options))| {
        let payload = match (kind, payload) {
            (TunnelKind::Vxlan, _) => Payload::Ethernet,
            (TunnelKind::Ipip, _) => Payload::Ipv4,
            (TunnelKind::Sit, _) => Payload::Ipv6,
            (TunnelKind::BareUdp | TunnelKind::Wireguard, Payload::Ethernet) => Payload::Ipv4,
            (_, payload) => payload,
        };
        let [keyed, checksum, gbp_on] = flags;
        let mut key = TunnelKey::NONE;
        match kind {
            TunnelKind::Gre if keyed => key.set_id(id.into()),
            TunnelKind::Geneve => {
                key.set_id(u64::from(id >> 8));
                key.set_flags(if oam { TUN_FLAG_OAM } else { 0 });
                for n in [0, 1, 7] {
                    if let Some(value) = options[usize::from(n)] {
                        key.set_option(n, value);
                    }
                }
            }
            TunnelKind::Vxlan => {
                key.set_id(u64::from(id >> 8));
                if gbp_on {
                    key.set_gbp(group, gbp & 0x48);
                }
            }
            _ => {}
        }
        (kind, payload, keyed, checksum, gbp_on, key)
    })
}

fn inner_of(payload: Payload, body: &[u8]) -> Vec<u8> {
    match payload {
        Payload::Ethernet => eth(&[], 0x0800, body),
        Payload::Ipv4 => ipv4(17, body),
        Payload::Ipv6 => ipv6(17, body),
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read((kind, payload, keyed, checksum, gbp, key) in any_header(), body: Vec<u8>) {
        let inner = inner_of(payload, &body);
        let bytes = written(&key, &Params { kind, payload, keyed, checksum, gbp, tlvs: &TLVS }, &inner);
        let read = read(kind, &bytes, &TLVS).unwrap();
        prop_assert_eq!(&bytes[read.offset..], &inner[..]);
        prop_assert_eq!((read.payload, read.key), (payload, key));
        prop_assert_eq!(read.keyed, kind.has_key() && (keyed || kind != TunnelKind::Gre));
        let options = [0, 1, 7].into_iter().filter(|n| key.option(*n).is_some()).count();
        let whole = overhead(kind, false, payload, (keyed, checksum), options);
        let outer = if kind.default_port().is_some() { 28 } else { 20 };
        let eth_len = if payload == Payload::Ethernet { 14 } else { 0 };
        let seal = if kind == TunnelKind::Wireguard { 32 } else { 0 };
        prop_assert_eq!(whole, outer + read.offset + eth_len + seal);
    }

    #[test]
    fn any_damage_is_refused_or_read_within_the_bytes(
        (kind, payload, keyed, checksum, gbp, key) in any_header(),
        damage in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        len in 0usize..140,
    ) {
        let params = Params { kind, payload, keyed, checksum, gbp, tlvs: &TLVS };
        let mut bytes = written(&key, &params, &inner_of(payload, &[7; 40]));
        for (at, byte) in damage {
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
        }
        bytes.truncate(len);
        for kind in TunnelKind::ALL {
            if let Ok(inner) = read(kind, &bytes, &TLVS) {
                prop_assert!(inner.offset + inner.payload.min_len() <= bytes.len());
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read_within_them(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for kind in TunnelKind::ALL {
            if let Ok(inner) = read(kind, &bytes, &TLVS) {
                prop_assert!(inner.offset + inner.payload.min_len() <= bytes.len());
            }
        }
    }
}
