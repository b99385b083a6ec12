//! Frames that a router builds, read back and decoded by hand; and hostile ones.

use super::echo::Echo;
use super::error::Problem;
use super::nd::{Asker, Nd};
use super::read::Datagram;
use super::*;
use etherparse::{Icmpv4Type, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use sluice_flows::packet::checksum;
use sluice_flows::router::{Interface, InterfaceId, RouterAdvertisement, VrfId};
use std::net::IpAddr;

const OURS: Mac = [2, 0, 0, 0, 0, 1];
const THEIRS: Mac = [2, 0, 0, 0, 0, 9];
const TO_THEM: Link = Link { src: OURS, dst: THEIRS };

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
}

/// A UDP datagram of a host, of so many payload bytes.
fn udp(src: IpAddr, dst: IpAddr, len: usize) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(THEIRS, OURS);
    let builder = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => link.ipv4(src.octets(), dst.octets(), 1).udp(4000, 33434),
        (IpAddr::V6(src), IpAddr::V6(dst)) => link.ipv6(src.octets(), dst.octets(), 1).udp(4000, 33434),
        _ => panic!("two versions"),
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, &vec![7; len]).unwrap();
    frame
}

fn error_about(frame: &[u8], problem: Problem, own: IpAddr) -> Option<Vec<u8>> {
    error::frame(&Datagram::read(frame)?, problem, own, TO_THEM, 77)
}

#[test]
fn arp_requests_and_replies_read_back() {
    let asked = arp::Arp::read(&arp::request(THEIRS, v4(9), v4(1), None)).unwrap();
    assert_eq!((asked.is_request, asked.sender, asked.target, asked.is_gratuitous()), (true, v4(9), v4(1), false));
    assert_eq!((asked.sender_mac, asked.target_mac), (THEIRS, [0; 6]));
    let mut answer = arp::request(THEIRS, v4(9), v4(1), None);
    answer[21] = 2;
    assert!(!arp::Arp::read(&answer).unwrap().is_request);
    answer[21] = 3;
    assert_eq!(arp::Arp::read(&answer), None, "neither request nor reply");
    let probe = arp::request(THEIRS, v4(9), v4(1), Some(OURS));
    assert_eq!(probe[..6], OURS);
    let gratuitous = arp::gratuitous(OURS, v4(1));
    assert_eq!(gratuitous[..6], BROADCAST);
    assert!(arp::Arp::read(&gratuitous).unwrap().is_gratuitous());
}

#[test]
fn arp_from_a_group_is_not_taken_in() {
    let frame = arp::request(BROADCAST, v4(9), v4(1), None);
    assert_eq!(arp::Arp::read(&frame), None);
}

#[test]
fn groups_and_their_hardware_addresses_are_those_of_the_rfcs() {
    let address: Ipv6Addr = "4037::1:800:200e:8c6c".parse().unwrap();
    assert_eq!(solicited_node(address), "ff02::1:ff0e:8c6c".parse::<Ipv6Addr>().unwrap());
    assert_eq!(multicast_mac(solicited_node(address)), [0x33, 0x33, 0xff, 0x0e, 0x8c, 0x6c]);
}

#[test]
fn solicitations_and_advertisements_read_back() {
    let read = |frame: &[u8]| Nd::read(&Datagram::read(frame).unwrap()).unwrap();
    let question = nd::solicitation(THEIRS, v6(9), v6(1), None);
    assert_eq!(question[..6], [0x33, 0x33, 0xff, 0, 0, 1]);
    let asked = Nd::NeighbourSolicitation { src: v6(9), target: v6(1), mac: Some(THEIRS) };
    assert_eq!(read(&question), asked);
    assert_eq!(nd::solicitation(THEIRS, v6(9), v6(1), Some(OURS))[..6], OURS);
    let probe = read(&nd::duplicate_probe(THEIRS, v6(1)));
    let looks = Nd::NeighbourSolicitation { src: Ipv6Addr::UNSPECIFIED, target: v6(1), mac: None };
    assert_eq!(probe, looks);
    let answer = |is_solicited| Nd::NeighbourAdvertisement {
        src: v6(1),
        target: v6(1),
        mac: Some(OURS),
        is_solicited,
        is_override: true,
    };
    let asker = |address| Some(Asker { address, mac: THEIRS });
    assert_eq!(read(&nd::advertisement(OURS, v6(1), asker(v6(9)))), answer(true));
    let to_all = nd::advertisement(OURS, v6(1), asker(Ipv6Addr::UNSPECIFIED));
    assert_eq!((read(&to_all), &to_all[..6]), (answer(false), &[0x33, 0x33, 0, 0, 0, 1][..]));
    assert_eq!(to_all, nd::advertisement(OURS, v6(1), None));
    let whom = read(&nd::router_solicitation(THEIRS, v6(9)));
    assert_eq!(whom, Nd::RouterSolicitation { src: v6(9), mac: Some(THEIRS) });
}

#[test]
fn neighbour_discovery_that_may_have_been_forwarded_or_forged_is_not_taken_in() {
    let sound = nd::solicitation(THEIRS, v6(9), v6(1), None);
    let read = |frame: &[u8]| Datagram::read(frame).and_then(|datagram| Nd::read(&datagram));
    assert!(read(&sound).is_some());
    let mut forwarded = sound.clone();
    forwarded[21] = 254;
    assert_eq!(read(&forwarded), None, "hop limit");
    let mut torn = sound.clone();
    torn[70] ^= 1;
    assert_eq!(read(&torn), None, "checksum");
    let rebuilt = |src: Ipv6Addr, dst: Ipv6Addr, kind, word, body: &[u8]| {
        read(&nd::message(Link { src: THEIRS, dst: OURS }, (src, dst), kind, word, body))
    };
    let to = |target: Ipv6Addr, rest: &[u8]| [&target.octets()[..], rest].concat();
    let group = solicited_node(v6(1));
    assert!(rebuilt(v6(9), group, 135, [0; 4], &to(v6(1), &[])).is_some());
    assert_eq!(rebuilt(v6(9), group, 135, [0; 4], &to(ALL_NODES, &[])), None, "asks for a group");
    assert_eq!(rebuilt(v6(9), group, 135, [0; 4], &to(v6(1), &[1, 0, 0, 0, 0, 0, 0, 0])), None, "empty option");
    assert_eq!(rebuilt(v6(9), group, 135, [0; 4], &to(v6(1), &[1, 2, 0, 0, 0, 0, 0, 0])), None, "option cut short");
    assert_eq!(rebuilt(v6(9), group, 135, [0; 4], &to(v6(1), &[1])), None, "a lone byte");
    assert_eq!(rebuilt(v6(9), group, 135, [0; 4], &v6(1).octets()[..15]), None, "no whole target");
    let unspecified = Ipv6Addr::UNSPECIFIED;
    let with_mac = to(v6(1), &nd::source_option(THEIRS));
    assert_eq!(rebuilt(unspecified, group, 135, [0; 4], &with_mac), None, "an address of nobody");
    assert_eq!(rebuilt(unspecified, v6(1), 135, [0; 4], &to(v6(1), &[])), None, "not to the group");
    assert_eq!(rebuilt(v6(9), ALL_NODES, 136, [0x40, 0, 0, 0], &to(v6(9), &[])), None, "solicited, to everybody");
    assert_eq!(rebuilt(unspecified, ALL_NODES, 133, [0; 4], &nd::source_option(THEIRS)), None, "asks from nowhere");
    assert_eq!(rebuilt(v6(9), ALL_NODES, 134, [0; 4], &[0; 8]), None, "another router");
}

#[test]
fn echo_requests_are_answered_with_what_they_carry() {
    let echo = Echo { id: 5, sequence: 6 };
    for (host, own) in [(IpAddr::from(v4(9)), IpAddr::from(v4(1))), (v6(9).into(), v6(1).into())] {
        let link = Link { src: THEIRS, dst: OURS };
        let request = echo::request(link, host, own, echo, b"hello").unwrap();
        let reply = echo::reply(&Datagram::read(&request).unwrap(), own, TO_THEM).unwrap();
        let read = Datagram::read(&reply).unwrap();
        assert_eq!((read.src, read.dst, read.eth_dst), (own, host, THEIRS));
        assert_eq!((echo::read_reply(&read), read.icmp().unwrap().body), (Some(echo), &b"hello"[..]));
        assert_eq!(echo::reply(&read, host, TO_THEM), None, "a reply is not answered");
        let mut torn = request.clone();
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(echo::reply(&Datagram::read(&torn).unwrap(), own, TO_THEM), None);
    }
    let from_nobody = echo::request(TO_THEM, Ipv6Addr::UNSPECIFIED.into(), ALL_ROUTERS.into(), echo, b"").unwrap();
    assert_eq!(echo::reply(&Datagram::read(&from_nobody).unwrap(), v6(1).into(), TO_THEM), None);
    assert_eq!(echo::request(TO_THEM, v4(9).into(), v6(1).into(), echo, b""), None);
}

#[test]
fn errors_in_ipv4_are_what_the_rfcs_say_and_quote_up_to_576_bytes() {
    let cases = [
        (Problem::NoRoute, (3, 0)),
        (Problem::HostUnreachable, (3, 1)),
        (Problem::ProtocolUnreachable, (3, 2)),
        (Problem::PortUnreachable, (3, 3)),
        (Problem::Prohibited, (3, 13)),
        (Problem::TimeExceeded, (11, 0)),
        (Problem::TooBig { mtu: 1400 }, (3, 4)),
    ];
    for (problem, kind) in cases {
        for len in [0, 100, 520, 521, 1400] {
            let about = udp(v4(9).into(), v4(99).into(), len);
            let frame = error_about(&about, problem, v4(1).into()).unwrap();
            let read = Datagram::read(&frame).unwrap();
            assert_eq!((read.src, read.dst, read.tos), (v4(1).into(), v4(9).into(), 0xc0));
            let message = read.icmp().expect("a right checksum");
            assert_eq!((message.kind, message.code), kind);
            let mtu = if let Problem::TooBig { mtu } = problem { mtu } else { 0 };
            assert_eq!(message.word, mtu.to_be_bytes());
            assert_eq!(message.body, &about[14..][..message.body.len()]);
            assert_eq!(message.body.len(), (28 + len).min(548));
            assert!(checksum::verify(&read.bytes[..20], 0));
            assert_eq!(read.bytes[4..8], [0, 77, 0, 0], "its number, and may be fragmented");
        }
    }
}

#[test]
fn errors_in_ipv6_are_what_the_rfc_says_and_quote_up_to_1280_bytes() {
    let cases = [
        (Problem::NoRoute, (1, 0)),
        (Problem::HostUnreachable, (1, 3)),
        (Problem::ProtocolUnreachable, (4, 1)),
        (Problem::PortUnreachable, (1, 4)),
        (Problem::Prohibited, (1, 1)),
        (Problem::TimeExceeded, (3, 0)),
        (Problem::TooBig { mtu: 1400 }, (2, 0)),
    ];
    for (problem, kind) in cases {
        for len in [0, 100, 1184, 1185, 1400] {
            let about = udp(v6(9).into(), v6(99).into(), len);
            let frame = error_about(&about, problem, v6(1).into()).unwrap();
            let read = Datagram::read(&frame).unwrap();
            let message = read.icmp().expect("a right checksum");
            assert_eq!((message.kind, message.code), kind);
            assert_eq!(message.body.len(), (48 + len).min(1232));
            assert_eq!(message.body, &about[14..][..message.body.len()]);
        }
    }
    let about = udp(v6(9).into(), v6(99).into(), 10);
    let word = |problem| {
        let frame = error_about(&about, problem, v6(1).into()).unwrap();
        Datagram::read(&frame).unwrap().icmp().unwrap().word
    };
    assert_eq!(word(Problem::TooBig { mtu: 1400 }), 1400_u32.to_be_bytes());
    assert_eq!(word(Problem::ProtocolUnreachable), [0, 0, 0, 6]);
}

#[test]
fn another_decoder_agrees() {
    let frame = error_about(&udp(v4(9).into(), v4(99).into(), 10), Problem::TooBig { mtu: 576 }, v4(1).into()).unwrap();
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(NetSlice::Ipv4(_)) = packet.net else { panic!("{packet:?}") };
    let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("{packet:?}") };
    let Icmpv4Type::DestinationUnreachable(kind) = icmp.icmp_type() else { panic!("{icmp:?}") };
    assert_eq!(kind, etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 576 });
}

#[test]
fn padding_is_not_quoted() {
    let mut about = udp(v4(9).into(), v4(99).into(), 1);
    let len = about.len() - 14;
    about.resize(60, 0xee);
    let frame = error_about(&about, Problem::NoRoute, v4(1).into()).unwrap();
    assert_eq!(Datagram::read(&frame).unwrap().icmp().unwrap().body.len(), len);
}

/// The frame with these bytes changed, and its IPv4 header's checksum as it is: nobody on the way checks it.
fn changed(frame: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    changes.iter().for_each(|(at, byte)| frame[*at] = *byte);
    frame
}

#[test]
fn nobody_is_told_of_errors_fragments_groups_or_from_nowhere_in_ipv4() {
    let told = |frame: &[u8]| error_about(frame, Problem::TimeExceeded, v4(1).into()).is_some();
    let sound = udp(v4(9).into(), v4(99).into(), 64);
    assert!(told(&sound));
    assert!(told(&changed(&sound, &[(20, 0x20)])), "the first fragment");
    assert!(!told(&changed(&sound, &[(21, 1)])), "a later fragment");
    assert!(!told(&changed(&sound, &[(0, 0xff)])), "a frame to everybody");
    assert!(!told(&changed(&sound, &[(6, 0x03)])), "a frame from a group");
    for dst in [[224, 0, 0, 1], [239, 255, 0, 1], [255, 255, 255, 255]] {
        assert!(!told(&udp(v4(9).into(), Ipv4Addr::from(dst).into(), 64)), "{dst:?}");
    }
    for src in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [240, 0, 0, 1]] {
        assert!(!told(&udp(Ipv4Addr::from(src).into(), v4(99).into(), 64)), "{src:?}");
    }
    let icmp = |kind| {
        let body = &sound[14..50];
        icmpv4(TO_THEM, ipv4_header((v4(9), v4(99)), 0, 0), Icmp { kind, code: 0, word: [0; 4] }, body)
    };
    for kind in 0..=255 {
        let is_query = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43].contains(&kind);
        assert_eq!(told(&icmp(kind)), is_query, "type {kind}");
    }
    let bare = changed(&icmp(8)[..34], &[(17, 20)]);
    assert!(Datagram::read(&bare).is_some() && !told(&bare), "ICMP without a type");
}

#[test]
fn nobody_is_told_of_errors_groups_or_from_nowhere_in_ipv6() {
    let told_of = |frame: &[u8], problem| error_about(frame, problem, v6(1).into()).is_some();
    let told = |frame: &[u8]| told_of(frame, Problem::NoRoute);
    let big = Problem::TooBig { mtu: 1280 };
    assert!(told(&udp(v6(9).into(), v6(99).into(), 64)));
    let to_many = udp(v6(9).into(), "ff0e::1".parse().unwrap(), 64);
    assert!(!told(&to_many) && told_of(&to_many, big), "groups may be told of the path's MTU");
    for src in ["::", "::1", "ff02::1"] {
        let frame = udp(src.parse().unwrap(), v6(99).into(), 64);
        assert!(!told(&frame) && !told_of(&frame, big), "{src}");
    }
    for (kind, is_told) in [(1, false), (2, false), (3, false), (4, false), (127, false), (128, true), (137, false)] {
        let icmp = Icmp { kind, code: 0, word: [0; 4] };
        assert_eq!(told(&icmpv6(TO_THEM, (v6(9), v6(99)), 64, icmp, &[0; 40])), is_told, "type {kind}");
    }
    assert_eq!(error_about(&udp(v6(9).into(), v6(99).into(), 1), big, v4(1).into()), None, "two versions");
}

fn advertised(ra: &RouterAdvertisement, is_last: bool) -> Vec<u8> {
    let interface = Interface {
        id: InterfaceId(1),
        name: "lan".into(),
        port: sluice_flows::PortNo(1),
        vlan: None,
        vrf: VrfId(0),
        mac: 0x0200_0000_0001,
        addresses: ["fd00::1/64", "10.0.0.1/24", "fe80::9/64"].map(|net| net.parse().unwrap()).into(),
        mtu: 1400,
        proxied: vec![],
        layer3: false,
        ra: Some(ra.clone()),
    };
    let own = interface.link_local().unwrap();
    let link = Link { src: OURS, dst: multicast_mac(ALL_NODES) };
    let frame = advert::frame(&interface, ra, link, (own, ALL_NODES), is_last);
    let read = Datagram::read(&frame).unwrap();
    assert_eq!((read.src, read.dst), ("fe80::9".parse().unwrap(), ALL_NODES.into()));
    assert_eq!((read.hop_limit, read.icmp().map(|m| (m.kind, m.code))), (255, Some((134, 0))));
    frame[14 + 40 + 4..].to_vec()
}

#[test]
fn an_advertisement_says_what_the_interface_is() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let said = hex(&advertised(&RouterAdvertisement::default(), false));
    let want = [
        "400007080000000000000000",
        "0101020000000001",
        "0501000000000578",
        "030440c000278d0000093a8000000000fd000000000000000000000000000000",
    ];
    assert_eq!(said, want.concat());
    let last = hex(&advertised(&RouterAdvertisement::default(), true));
    assert_eq!(last[..8], *"40000000");
    let ra = RouterAdvertisement {
        managed: true,
        other: true,
        mtu: false,
        max_interval: 100,
        dns_servers: vec![v6(0x53)],
        dns_search: vec!["lab.example.".into(), "..".into()],
        ..RouterAdvertisement::default()
    };
    let said = hex(&advertised(&ra, false));
    assert!(said.starts_with("40c007080000000000000000010102000000000103"), "{said}");
    let dns = "190300000000012cfd000000000000000000000000000053";
    let search = "1f0300000000012c036c6162076578616d706c650000000000";
    assert!(said.contains(dns) && said.contains(&search[..40]), "{said}");
}

#[test]
fn more_than_an_option_can_hold_is_left_out() {
    let ra = RouterAdvertisement {
        dns_servers: vec![v6(0x53); 1000],
        dns_search: vec!["a-name-of-some-length.example".into(); 1000],
        ..RouterAdvertisement::default()
    };
    let said = advertised(&ra, false);
    // Each option's length is that of what follows it.
    let mut options = &said[12..];
    while let [_, units, ..] = *options {
        options = options.split_at_checked(usize::from(units) * 8).filter(|(option, _)| !option.is_empty()).unwrap().1;
    }
    assert!(options.is_empty());
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4) {
        let eth_type: Option<[u8; 2]> = [None, Some([8, 6]), Some([8, 0]), Some([0x86, 0xdd])][kind as usize];
        if let (Some(eth_type), Some(place)) = (eth_type, bytes.get_mut(12..14)) {
            place.copy_from_slice(&eth_type);
        }
        _ = arp::Arp::read(&bytes);
        if let Some(datagram) = Datagram::read(&bytes) {
            _ = (Nd::read(&datagram), echo::reply(&datagram, v6(1).into(), TO_THEM), echo::read_reply(&datagram));
            for own in [IpAddr::from(v4(1)), v6(1).into()] {
                _ = error::frame(&datagram, Problem::TimeExceeded, own, TO_THEM, 0);
            }
        }
    }

    #[test]
    fn torn_messages_are_read_or_refused(at in 0usize..90, byte: u8, len in 0usize..90, kind in 0..5) {
        let mut frame = match kind {
            0 => arp::request(THEIRS, v4(9), v4(1), None),
            1 => nd::solicitation(THEIRS, v6(9), v6(1), None),
            2 => nd::advertisement(THEIRS, v6(9), None),
            3 => udp(v4(9).into(), v4(99).into(), 40),
            _ => udp(v6(9).into(), v6(99).into(), 30),
        };
        if let Some(place) = frame.get_mut(at) {
            *place = byte;
        }
        frame.truncate(len);
        _ = arp::Arp::read(&frame);
        if let Some(datagram) = Datagram::read(&frame) {
            _ = Nd::read(&datagram);
            for own in [IpAddr::from(v4(1)), v6(1).into()] {
                _ = error::frame(&datagram, Problem::NoRoute, own, TO_THEM, 0);
            }
        }
    }
}
