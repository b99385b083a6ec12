use super::*;
use crate::action::Action;
use crate::bridge::{Bridge, BridgeId, BridgePort, Model};
use crate::bridge_mod::BridgeMod;
use crate::consistency;
use crate::datapath::{DpAction, Translation};
use crate::explain::{Options, Report};
use crate::flow_mod::FlowMod;
use crate::key::{FlowKey, PacketKey, slot};
use crate::matching::Match;
use crate::packet::extract;
use crate::packet::testing::*;
use crate::port::DpPort;
use crate::rule::Millis;
use crate::text::{Names, parse_packet, show_flow};
use crate::translate::{NoMacs, NoTrace, translate};
use crate::verdict::{DropReason, Verdict};
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

fn station() -> Station {
    Station {
        port: PortNo(5),
        mac: 0x0242_0a4d_0005,
        addresses: ["10.77.0.5", "10.78.0.5", "fd77::5", "fd78::5"].map(|a| a.parse().unwrap()).into(),
        guard: Guard::Full,
        hairpin: true,
        held: false,
        owner: Station::owner_of(Some(("shop", "cart-0")), "0123456789abcdef"),
    }
}

#[test]
fn every_flow_is_consistent_and_stands_alone_with_its_match_and_priority() {
    let flows = station().flows();
    for (i, flow) in flows.iter().enumerate() {
        consistency::check(flow.table, &flow.matches, &flow.actions)
            .unwrap_or_else(|error| panic!("{}: {error}", show_flow(flow, None, &Names::new())));
        let same = |other: &&FlowSpec| {
            (other.table, other.priority, &other.matches) == (flow.table, flow.priority, &flow.matches)
        };
        assert_eq!(flows.iter().position(|other| same(&other)), Some(i), "twice: {flow:?}");
        assert_eq!(flow.owner.text(), "pod:shop/cart-0");
    }
}

#[test]
fn a_link_local_address_is_made_of_the_mac_address() {
    assert_eq!(station().link_local().to_string(), "fe80::42:aff:fe4d:5");
}

#[test]
fn the_owner_is_the_pod_or_else_the_container() {
    assert_eq!(Station::owner_of(None, "0123456789abcdef").text(), "container:0123456789ab");
    assert_eq!(Station::owner_of(None, "web").text(), "container:web");
}

/// A learning switch with these stations, and a port 9 without one.
fn model(stations: &[Station]) -> Model {
    let mut bridge = Bridge::new(BridgeId(0), "br0");
    let mut model = Model::default();
    for no in stations.iter().map(|station| station.port).chain([PortNo(9)]) {
        let dp = DpPort(no.0.into());
        let port = BridgePort::new(no, format!("p{no}"), dp);
        bridge.ports.insert(no, Arc::new(port));
        model.ports.insert(dp, (BridgeId(0), no));
    }
    let normal =
        FlowSpec { priority: 0, ..FlowSpec::new(Match::any(), [Action::Output(PortNo::NORMAL)], Owner::user()) };
    let flows = stations.iter().flat_map(Station::flows).chain([normal]);
    let flows = flows.map(|flow| BridgeMod::from(FlowMod::add(flow)));
    for change in Stage::names().into_iter().map(BridgeMod::from).chain(flows) {
        bridge.apply(&change, Millis(0)).unwrap();
    }
    model.bridges.insert(BridgeId(0), Arc::new(bridge));
    model
}

fn key_of(frame: &[u8], port: PortNo) -> FlowKey {
    let mut packet = PacketKey::ZERO;
    extract(frame, port.0.into(), &mut packet);
    let mut key = FlowKey::ZERO;
    key.0[..packet.0.len()].copy_from_slice(&packet.0);
    key
}

fn send(model: &Model, port: PortNo, key: &FlowKey) -> Translation {
    translate(model, &NoMacs, DpPort(port.0.into()), key, &mut NoTrace)
}

/// An address of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Own(usize),
    LinkLocal,
    Nobodys,
    Foreign(u8),
}

impl Whose {
    fn v4(self) -> [u8; 4] {
        match self {
            Self::Own(n) => [10, 77 + n as u8 % 2, 0, 5],
            Self::LinkLocal => [169, 254, 0, 5],
            Self::Nobodys => [0; 4],
            Self::Foreign(n) => [10, 77, 0, if n == 5 { 6 } else { n }],
        }
    }

    fn v6(self) -> [u8; 16] {
        match self {
            Self::Own(n) => Ipv6Addr::new(0xfd77 + n as u16 % 2, 0, 0, 0, 0, 0, 0, 5).octets(),
            Self::LinkLocal => station().link_local().octets(),
            Self::Nobodys => [0; 16],
            Self::Foreign(n) => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, if n == 5 { 6 } else { n.into() }).octets(),
        }
    }

    fn is_v4(self) -> bool {
        matches!(self, Self::Own(_))
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::Own(_) | Self::LinkLocal)
    }
}

fn whose() -> impl Strategy<Value = Whose> {
    prop_oneof![
        3 => (0..2_usize).prop_map(Whose::Own),
        1 => Just(Whose::LinkLocal),
        1 => Just(Whose::Nobodys),
        2 => any::<u8>().prop_map(Whose::Foreign),
    ]
}

const OWN_MAC: [u8; 6] = [0x02, 0x42, 0x0a, 0x4d, 0x00, 0x05];
const OTHER_MAC: [u8; 6] = [0x02, 0x42, 0x0a, 0x4d, 0x00, 0x06];

/// The options of a neighbour discovery message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    None,
    Own,
    Other,
    Zero,
    OtherTwice,
    NonceThenOwn,
    TheWrongOne,
}

impl Link {
    fn bytes(self, kind: u8) -> Vec<u8> {
        let option = |kind: u8, mac: [u8; 6]| [&[kind, 1][..], &mac].concat();
        match self {
            Self::None => Vec::new(),
            Self::Own => option(kind, OWN_MAC),
            Self::Other => option(kind, OTHER_MAC),
            Self::Zero => option(kind, [0; 6]),
            Self::OtherTwice => [option(kind, OTHER_MAC), option(kind, OTHER_MAC)].concat(),
            Self::NonceThenOwn => [option(14, OTHER_MAC), option(kind, OWN_MAC)].concat(),
            Self::TheWrongOne => option(3 - kind, OTHER_MAC),
        }
    }

    fn is_proper(self) -> bool {
        matches!(self, Self::None | Self::Own | Self::NonceThenOwn)
    }
}

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![
        Just(Link::None),
        Just(Link::Own),
        Just(Link::Other),
        Just(Link::Zero),
        Just(Link::OtherTwice),
        Just(Link::NonceThenOwn),
        Just(Link::TheWrongOne),
    ]
}

/// What a frame says, and whether a station may say it.
#[derive(Clone, Debug)]
struct Saying {
    eth_type: u16,
    body: Vec<u8>,
    may: bool,
}

fn v4_of(source: Whose, destination: [u8; 4], proto: u8, frag: u16, body: &[u8]) -> Vec<u8> {
    let mut packet = ipv4_frag(proto, frag, &[], body);
    packet[12..16].copy_from_slice(&source.v4());
    packet[16..20].copy_from_slice(&destination);
    packet
}

fn v6_of(source: Whose, next: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = ipv6(next, body);
    packet[8..24].copy_from_slice(&source.v6());
    packet
}

/// Perhaps behind a header of options, which is how router advertisements are hidden from simple guards (RFC 7113).
fn behind_options(hidden: bool, next: u8, body: Vec<u8>) -> (u8, Vec<u8>) {
    if hidden { (60, [&[next, 0, 1, 4, 0, 0, 0, 0][..], &body].concat()) } else { (next, body) }
}

fn saying() -> impl Strategy<Value = Saying> {
    let v4 =
        (whose(), any::<[u8; 4]>(), prop_oneof![Just(6_u8), Just(17), Just(1), Just(2), any::<u8>()], any::<bool>());
    let v4 = v4.prop_map(|(source, to, proto, later)| {
        let body = [udp(b"to whom it may concern"), vec![0; 20]].concat();
        let may = source.is_v4() || source == Whose::Nobodys && proto == 2;
        Saying { eth_type: 0x0800, body: v4_of(source, to, proto, if later { 0x2010 } else { 0 }, &body), may }
    });
    let dhcp = (whose(), any::<bool>(), any::<bool>()).prop_map(|(source, to_all, to_server)| {
        let mut body = udp(b"discover");
        body[..4].copy_from_slice(&[0, 68, 0, if to_server { 67 } else { 68 }]);
        let to = if to_all { [255; 4] } else { [10, 77, 0, 1] };
        let may = source.is_v4() || source == Whose::Nobodys && to_all && to_server;
        Saying { eth_type: 0x0800, body: v4_of(source, to, 17, 0, &body), may }
    });
    let tunnel = whose().prop_map(|source| {
        let inner = eth(&[], 0x0800, &ipv4(6, b"from somebody else"));
        let body = udp(&[&[8, 0, 0, 0, 0, 0, 1, 0][..], &inner].concat());
        Saying { eth_type: 0x0800, body: v4_of(source, [10, 77, 0, 1], 17, 0, &body), may: source.is_v4() }
    });
    let v6 =
        (whose(), prop_oneof![Just(6_u8), Just(17), Just(132)], any::<bool>()).prop_map(|(source, proto, hidden)| {
            let (next, body) = behind_options(hidden, proto, tcp(2, &[], b"data"));
            Saying { eth_type: 0x86dd, body: v6_of(source, next, &body), may: source.is_v6() }
        });
    let arp = (whose(), whose(), any::<bool>(), 1..3_u8).prop_map(|(sender, target, own_mac, op)| {
        let mac = if own_mac { OWN_MAC } else { OTHER_MAC };
        let head = [0, 1, 8, 0, 6, 4, 0, op];
        let body = [&head[..], &mac, &sender.v4(), &DST, &target.v4()].concat();
        let may = own_mac && (sender.is_v4() || sender == Whose::Nobodys && target.is_v4());
        Saying { eth_type: 0x0806, body, may }
    });
    let nd = (whose(), whose(), link(), 133..138_u8, any::<bool>()).prop_map(|(source, target, link, kind, hidden)| {
        let mut message = nd(kind, 0, &link.bytes(if kind == 136 { 2 } else { 1 }));
        message[8..24].copy_from_slice(&target.v6());
        let from_own = source.is_v6();
        let may = match kind {
            133 => from_own || source == Whose::Nobodys,
            135 if source == Whose::Nobodys => target.is_v6() && link == Link::None,
            135 => from_own && link.is_proper(),
            136 => from_own && target.is_v6() && link.is_proper(),
            _ => false,
        };
        let (next, body) = behind_options(hidden, 58, message);
        Saying { eth_type: 0x86dd, body: v6_of(source, next, &body), may }
    });
    let icmpv6 = (whose(), prop_oneof![Just(128_u8), Just(1), Just(130), Just(131), Just(132), Just(143)]);
    let icmpv6 = icmpv6.prop_map(|(source, kind)| {
        let may = source.is_v6() || source == Whose::Nobodys && matches!(kind, 131 | 132 | 143);
        Saying { eth_type: 0x86dd, body: v6_of(source, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]), may }
    });
    const OTHERS: &[u16] = &[0x88cc, 0x8847, 0x8864, 0x8035, 0x894f, 0x9000, 0x0026];
    let other = (proptest::sample::select(OTHERS), whose()).prop_map(|(eth_type, source)| {
        let body = v4_of(source, [10, 77, 0, 1], 6, 0, &tcp(2, &[], b""));
        Saying { eth_type, body, may: false }
    });
    prop_oneof![4 => v4, 2 => dhcp, 1 => tunnel, 3 => v6, 4 => arp, 6 => nd, 3 => icmpv6, 1 => other]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_said_with_foreign_addresses_does_not_pass_and_the_rest_does(
        saying in saying(), own_mac in prop::bool::weighted(0.9), tags in 0..3_usize,
    ) {
        let stations = [station()];
        let (model, tags) = (model(&stations), &[(0x88a8_u16, 7_u16), (0x8100, 9)][2 - tags..]);
        let mut frame = eth(tags, saying.eth_type, &saying.body);
        frame[6..12].copy_from_slice(if own_mac { &OWN_MAC } else { &OTHER_MAC });
        let result = send(&model, PortNo(5), &key_of(&frame, PortNo(5)));
        if saying.may && own_mac {
            prop_assert_eq!(result.verdict, Verdict::Forward);
            prop_assert_eq!(&result.actions[..], [DpAction::Output(DpPort(9))]);
        } else {
            prop_assert_eq!(result.verdict, Verdict::Drop(DropReason::SpoofGuard));
            prop_assert_eq!(result.decider().unwrap().spec.owner.text(), "pod:shop/cart-0");
        }
        // Whoever compares MAC addresses alone looks at nothing else, and who compares nothing at nothing.
        for (guard, passes) in [(Guard::Mac, own_mac), (Guard::None, true)] {
            let model = self::model(&[Station { guard, ..station() }]);
            let result = send(&model, PortNo(5), &key_of(&frame, PortNo(5)));
            prop_assert_eq!(result.verdict == Verdict::Forward, passes);
        }
        for guard in [Guard::None, Guard::Mac, Guard::Full] {
            let model = self::model(&[Station { guard, held: true, ..station() }]);
            let result = send(&model, PortNo(5), &key_of(&frame, PortNo(5)));
            prop_assert_eq!(result.verdict, Verdict::Drop(DropReason::SpoofGuard));
            prop_assert_eq!(result.decider().unwrap().spec.owner.text(), "pod:shop/cart-0");
        }
    }
}

#[test]
fn letting_a_held_station_go_changes_one_flow_and_what_is_for_it_arrives_before() {
    let held = Station { held: true, ..station() };
    let (before, after) = (held.flows(), station().flows());
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    let [(before, after)] = changed[..] else { panic!("{changed:?}") };
    assert_eq!((before.table, before.priority, &before.matches), (after.table, after.priority, &after.matches));
    let unguarded = |held| Station { guard: Guard::None, held, ..station() }.flows().len();
    assert_eq!(unguarded(true), unguarded(false) + 1);
    let packet = "in_port=9,tcp,dl_src=02:00:00:00:00:01,dl_dst=02:42:0a:4d:00:05,nw_src=10.77.0.6,nw_dst=10.77.0.5";
    let key = parse_packet(packet, Names::NONE).unwrap();
    assert_eq!(&send(&model(&[held]), PortNo(9), &key).actions[..], [DpAction::Output(DpPort(5))]);
}

#[test]
fn a_trace_names_the_guard_and_the_owner() {
    let model = model(&[station()]);
    let packet = "in_port=5,tcp,dl_src=02:42:0a:4d:00:05,dl_dst=02:00:00:00:00:01,nw_src=10.77.0.6,nw_dst=10.77.0.1";
    let key = parse_packet(packet, Names::NONE).unwrap();
    let report =
        Report::trace(&model, &NoMacs, DpPort(5), &key, &Options { names: true, verbose: false, ct_next: vec![] });
    for part in ["station_guard", "station_source", "pod:shop/cart-0"] {
        assert!(report.walk.contains(part), "{part}: {}", report.walk);
    }
}

#[test]
fn a_frame_to_the_stations_own_address_comes_back_through_a_protected_port_too() {
    let mut model = model(&[station()]);
    let bridge = Arc::make_mut(model.bridges.get_mut(&BridgeId(0)).unwrap());
    bridge.ports = bridge
        .ports
        .values()
        .map(|port| (port.no, Arc::new(BridgePort { protected: true, ..BridgePort::clone(port) })))
        .collect();
    let packet = "in_port=5,tcp,dl_src=02:42:0a:4d:00:05,dl_dst=02:42:0a:4d:00:05,nw_src=10.77.0.5,nw_dst=10.77.0.5";
    let mut key = parse_packet(packet, Names::NONE).unwrap();
    assert_eq!(&send(&model, PortNo(5), &key).actions[..], [DpAction::Output(DpPort(5))]);
    key.set(slot::IP_SRC, 0x0a4d_0006);
    assert_eq!(send(&model, PortNo(5), &key).verdict, Verdict::Drop(DropReason::SpoofGuard));
}

#[test]
fn a_joined_port_talks_with_the_other_one_alone() {
    let station = station();
    let mut model = model(std::slice::from_ref(&station));
    let bridge = Arc::make_mut(model.bridges.get_mut(&BridgeId(0)).unwrap());
    for flow in station.joined(PortNo(9)) {
        bridge.apply(&FlowMod::add(flow).into(), Millis(0)).unwrap();
    }
    let packet = "in_port=5,tcp,dl_src=02:42:0a:4d:00:05,dl_dst=02:00:00:00:00:01,nw_src=10.77.0.5,nw_dst=10.77.0.1";
    let mut key = parse_packet(packet, Names::NONE).unwrap();
    assert_eq!(&send(&model, PortNo(5), &key).actions[..], [DpAction::Output(DpPort(9))]);
    assert_eq!(&send(&model, PortNo(9), &key).actions[..], [DpAction::Output(DpPort(5))]);
    key.set(slot::IP_SRC, 1);
    assert_eq!(send(&model, PortNo(5), &key).verdict, Verdict::Drop(DropReason::SpoofGuard));
}

#[test]
fn a_hundred_stations_share_their_masks() {
    let stations: Vec<_> = (10..110_u16)
        .map(|n| {
            let v4 = |net: u8| IpAddr::from([10, net, (n >> 8) as u8, n as u8]);
            let v6 = |net: u16| IpAddr::from([net, 0, 0, 0, 0, 0, 0, n]);
            let mac = 0x0242_0a4d_0000 | u64::from(n);
            let addresses = vec![v4(77), v4(78), v6(0xfd77), v6(0xfd78)];
            Station { port: PortNo(n), mac, addresses, hairpin: n % 2 == 0, ..station() }
        })
        .collect();
    let model = model(&stations);
    let masks = |stations: &[Station]| {
        let mut masks = HashSet::new();
        for station in stations {
            let [a, b, c, d] = [0, 1, 2, 3].map(|n| station.addresses[n]);
            let own = station.link_local();
            let says = [
                format!("tcp,nw_src={a},nw_dst=10.77.9.9,tp_src=1,tp_dst=2"),
                format!("udp,nw_src={b},nw_dst=10.77.9.9,tp_src=1,tp_dst=2"),
                format!("arp,arp_op=1,arp_spa={a},arp_tpa=10.77.9.9,arp_sha={}", mac_text(station.mac)),
                format!("tcp6,ipv6_src={c},ipv6_dst=fd77::9:9,tp_src=1,tp_dst=2"),
                format!("udp6,ipv6_src={d},ipv6_dst=fd77::9:9,tp_src=1,tp_dst=2"),
                format!(
                    "icmp6,ipv6_src={own},ipv6_dst=ff02::1,icmp_type=135,nd_target=fd77::9:9,nd_sll={},nd_options_type=1",
                    mac_text(station.mac)
                ),
                format!(
                    "icmp6,ipv6_src={c},ipv6_dst=ff02::1,icmp_type=136,nd_target={c},nd_tll={},nd_options_type=2",
                    mac_text(station.mac)
                ),
            ];
            for say in &says {
                let packet = format!("dl_src={},dl_dst=02:00:00:00:00:01,{say}", mac_text(station.mac));
                let key = parse_packet(&packet, Names::NONE).unwrap_or_else(|e| panic!("{packet}: {e}"));
                let result = send(&model, station.port, &key);
                assert_eq!(result.verdict, Verdict::Forward, "{packet}");
                masks.insert(result.mask.0);
            }
        }
        masks.len()
    };
    let (one, all) = (masks(&stations[..2]), masks(&stations));
    assert_eq!([one, all], [5, 5]);
}

fn mac_text(mac: u64) -> String {
    mac.to_be_bytes()[2..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}
