use crate::action::PacketInReason;
use crate::bridge::VlanId;
use crate::datapath::DpAction;
use crate::explain::{Options, Report};
use crate::key::slot;
use crate::port::{DpPort, PortNo};
use crate::router::testing::{Router, config, interface, knowing, route, udp};
use crate::router::{InterfaceId, Neighbor, Punt, PuntKind, Route, RouteKind, VrfId};
use crate::text::{Names, parse_packet, show_match};
use crate::translate::NoMacs;
use crate::verdict::{DropReason, Verdict};
use std::collections::BTreeMap;

mod routes;

/// Three links, the second of which is VLAN 20 of its port; a default route by the second.
fn router() -> Router {
    let mut second = interface(2, &["10.0.2.1/24", "2001:db8:2::1/64"]);
    second.vlan = VlanId::new(20);
    let interfaces = vec![
        interface(1, &["10.0.1.1/24", "2001:db8:1::1/64"]),
        second,
        interface(3, &["10.0.3.1/24", "2001:db8:3::1/64"]),
    ];
    let routes = vec![route("0.0.0.0/0", &[(2, "10.0.2.2")]), route("::/0", &[(2, "fe80::2")])];
    let known = [(1, "10.0.1.5"), (1, "2001:db8:1::5"), (1, "fe80::5"), (2, "10.0.2.2"), (2, "fe80::2")];
    Router::new(config(interfaces, routes), knowing(&known))
}

fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

#[test]
fn every_flow_has_an_owner_of_the_router_and_fits_its_table() {
    // Its flows were taken by a bridge, with every check that flows of users get.
    let router = router();
    let bridge = router.model.bridge_named("r1").unwrap();
    let owners: BTreeMap<String, usize> = bridge.tables.iter().fold(BTreeMap::new(), |mut all, rule| {
        *all.entry(rule.spec.owner.to_string()).or_default() += 1;
        all
    });
    assert!(owners.keys().all(|owner| owner == "router:r1" || owner.starts_with("router:r1/")));
    for owner in ["router:r1", "router:r1/eth2", "router:r1/main/0.0.0.0/0", "router:r1/eth2/10.0.2.2"] {
        assert!(owners.contains_key(owner), "{owner} of {owners:?}");
    }
    let names: Vec<&str> = bridge.table_configs.values().filter_map(|table| table.name.as_deref()).collect();
    assert_eq!(names, ["router_admit", "router_local", "router_route", "router_neighbor", "router_egress"]);
}

#[test]
fn a_packet_is_routed_with_new_addresses_ttl_and_tag() {
    let router = router();
    let outcome = router.send(&udp(1, "10.0.1.5", "192.0.2.7"));
    assert_eq!(
        outcome.text(),
        ["2: udp,dl_vlan=20,dl_vlan_pcp=0,vlan_tci1=0x0000,dl_src=02:00:00:00:00:02,dl_dst=0a:00:00:00:02:02,\
          nw_src=10.0.1.5,nw_dst=192.0.2.7,nw_tos=0,nw_ecn=0,nw_ttl=63,nw_frag=no,tp_src=1000,tp_dst=2000"]
        .map(|text| text.replace("2: udp", "2: udp,in_port=1"))
    );
    let outcome = router.send(&udp(1, "2001:db8:1::5", "2001:db8:ffff::1"));
    let (port, packet) = outcome.left[0];
    assert_eq!((port, packet.get(slot::IP_TTL), packet.get(slot::ETH_DST)), (2, 63, 0x0a00_0000_0202));
    assert_eq!(packet.get(slot::VLAN_TCI), 0x1014);
}

#[test]
fn a_trace_names_the_stages_the_owners_and_who_dropped() {
    let router = router();
    let trace = |packet: &str| {
        let key = parse_packet(packet, Names::NONE).unwrap();
        Report::trace(&router.model, &NoMacs, DpPort(1), &key, &Options { names: true, ..Options::default() })
    };
    let routed = trace(&udp(1, "10.0.1.5", "192.0.2.7"));
    assert_eq!((routed.verdict, routed.exits[0].port.no), (Verdict::Forward, PortNo(2)));
    let words = [
        "router_local",
        "router_route",
        "router_neighbor",
        "router_egress",
        "router:r1/eth1",
        "router:r1/main/0.0.0.0/0",
        "router:r1/eth2/10.0.2.2",
        "fragment(mtu=1500,",
    ];
    for word in words {
        assert!(routed.walk.contains(word), "{word} is not in\n{}", routed.walk);
    }
    let expired = trace(&udp(1, "10.0.1.5", "192.0.2.7").replace("nw_ttl=64", "nw_ttl=1"));
    assert_eq!(expired.verdict, dropped(DropReason::TtlExpired));
    assert!(expired.walk.contains("Verdict: drop (ttl_expired) by router:r1: "), "{}", expired.walk);
}

#[test]
fn the_mtu_of_the_link_stands_before_the_tag_and_tells_the_running_side() {
    let outcome = router().send(&udp(1, "10.0.1.5", "192.0.2.7"));
    let [.., DpAction::Fragment { mtu: 1500, too_long }, DpAction::PushVlan { .. }, DpAction::Output(_)] =
        &outcome.translation.actions[..]
    else {
        panic!("{:?}", outcome.translation.actions)
    };
    assert_eq!((too_long.drop, too_long.in_port), (Some(DropReason::MtuExceeded), PortNo(1)));
    assert_eq!(
        Punt::read(too_long),
        Some(Punt {
            kind: PuntKind::TooBig,
            vrf: VrfId(0),
            in_interface: Some(InterfaceId(1)),
            out_interface: Some(InterfaceId(2)),
            next_hop: Some("10.0.2.2".parse().unwrap()),
            to_many: false,
        })
    );
}

#[test]
fn a_tagged_interface_takes_its_tag_only_and_an_untagged_one_a_priority_too() {
    let router = router();
    let tagged = |vlan: u16| {
        let packet = udp(2, "10.0.2.2", "10.0.1.5").replace("udp,", &format!("udp,dl_vlan={vlan},"));
        router.send(&packet).left.iter().map(|(port, packet)| (*port, packet.get(slot::VLAN_TCI))).collect::<Vec<_>>()
    };
    assert_eq!(tagged(20), [(1, 0)]);
    assert_eq!(tagged(21), []);
    assert_eq!(router.send(&udp(2, "10.0.2.2", "10.0.1.5")).verdict(), dropped(DropReason::RuleDrop));
    let priority = udp(1, "10.0.1.5", "10.0.2.2").replace("udp,", "udp,dl_vlan=0,dl_vlan_pcp=5,");
    assert_eq!(router.send(&priority).left[0].1.get(slot::VLAN_TCI), 0x1014);
}

#[test]
fn a_packet_may_leave_by_the_port_it_came_by() {
    let outcome = router().send(&udp(2, "10.0.2.9", "192.0.2.7").replace("udp,", "udp,dl_vlan=20,"));
    assert_eq!(outcome.left.iter().map(|(port, _)| *port).collect::<Vec<_>>(), [2]);
}

#[test]
fn arp_requests_for_own_addresses_are_answered_to_the_sender() {
    let request = |port: u16, tpa: &str| {
        format!(
            "in_port={port},arp,dl_src=0a:00:00:00:00:99,dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa=10.0.2.9,\
             arp_tpa={tpa},arp_sha=0a:00:00:00:00:99"
        )
    };
    let router = router();
    let answer = router.send(&request(2, "10.0.2.1").replace("arp,", "arp,dl_vlan=20,"));
    assert_eq!(
        answer.text(),
        ["2: arp,in_port=2,dl_vlan=20,dl_vlan_pcp=0,vlan_tci1=0x0000,dl_src=02:00:00:00:00:02,\
          dl_dst=0a:00:00:00:00:99,arp_spa=10.0.2.1,arp_tpa=10.0.2.9,arp_op=2,arp_sha=02:00:00:00:00:02,\
          arp_tha=0a:00:00:00:00:99"]
    );
    assert_eq!(answer.owner(), "router:r1/eth2");
    // For the address of another interface nothing is answered, as for that of another host.
    let other = router.send(&request(1, "10.0.2.1"));
    assert_eq!((other.left.len(), other.punts[0].kind), (0, PuntKind::Arp));
    assert_eq!(other.punts[0].in_interface, Some(InterfaceId(1)));
    assert!(other.punts[0].to_many);
}

#[test]
fn proxied_addresses_are_answered_but_not_to_who_probes_for_them() {
    let mut first = interface(1, &["10.0.1.1/24"]);
    first.proxied = vec!["169.254.0.0/16".parse().unwrap(), "2001:db8:9::/48".parse().unwrap()];
    let router = Router::new(config(vec![first], Vec::new()), knowing(&[]));
    let arp = |spa: &str| {
        router.send(&format!(
            "in_port=1,arp,dl_src=0a:00:00:00:00:99,dl_dst=ff:ff:ff:ff:ff:ff,arp_op=1,arp_spa={spa},\
             arp_tpa=169.254.1.1,arp_sha=0a:00:00:00:00:99"
        ))
    };
    let answer = arp("10.0.1.9");
    let packet = answer.left[0].1;
    assert_eq!((packet.get(slot::IP_SRC), packet.get(slot::IP_DST)), (0xa9fe_0101, 0x0a00_0109));
    assert_eq!(packet.get(slot::ARP_SHA), 0x0200_0000_0001);
    assert_eq!(arp("0.0.0.0").verdict(), dropped(DropReason::RuleDrop));
    let solicit = |src: &str| {
        router.send(&format!(
            "in_port=1,icmp6,dl_src=0a:00:00:00:00:99,dl_dst=33:33:ff:00:00:07,ipv6_src={src},ipv6_dst=ff02::1:ff00:7,\
             nw_ttl=255,icmp_type=135,icmp_code=0,nd_target=2001:db8:9::7,nd_sll=0a:00:00:00:00:99,nd_options_type=1"
        ))
    };
    let answer = solicit("fe80::99").left[0].1;
    assert_eq!(answer.get(slot::ND_RESERVED), 0xc000_0000, "a router answers that was asked, for somebody else");
    assert_eq!(answer.get(slot::ND_TARGET), 0x2001_0db8_0009 << 80 | 7);
    assert_eq!(solicit("::").verdict(), dropped(DropReason::RuleDrop));
}

/// A neighbour solicitation that came in by port 1.
fn solicitation(src: &str, target: &str, option: bool) -> String {
    let option = if option { "nd_sll=0a:00:00:00:00:99,nd_options_type=1" } else { "nd_options_type=0" };
    format!(
        "in_port=1,icmp6,dl_src=0a:00:00:00:00:99,dl_dst=33:33:ff:00:00:01,ipv6_src={src},ipv6_dst=ff02::1:ff00:1,\
         nw_ttl=255,icmp_type=135,icmp_code=0,nd_target={target},{option}"
    )
}

#[test]
fn neighbour_solicitations_are_answered_by_flows_where_an_answer_fits() {
    let router = router();
    for (src, target) in [("2001:db8:1::5", "2001:db8:1::1"), ("fe80::5", "fe80::ff:fe00:1")] {
        let answer = router.send(&solicitation(src, target, true));
        assert_eq!(
            answer.text(),
            [format!(
                "1: icmp6,in_port=1,vlan_tci=0x0000,dl_src=02:00:00:00:00:01,dl_dst=0a:00:00:00:00:99,\
                 ipv6_src={target},ipv6_dst={src},ipv6_label=0x00000,nw_tos=0,nw_ecn=0,nw_ttl=255,nw_frag=no,\
                 icmp_type=136,icmp_code=0,nd_target={target},nd_sll=0a:00:00:00:00:99,nd_tll=02:00:00:00:00:01,\
                 nd_reserved=3758096384,nd_options_type=2"
            )]
        );
    }
    // An answer to these has another destination or another length.
    for (src, option) in [("::", false), ("2001:db8:1::5", false)] {
        let punted = router.send(&solicitation(src, "2001:db8:1::1", option));
        assert_eq!((punted.left.len(), punted.punts[0].kind), (0, PuntKind::Nd), "from {src}");
    }
    let other = router.send(&solicitation("2001:db8:1::5", "2001:db8:1::77", true));
    assert_eq!(other.verdict(), dropped(DropReason::RuleDrop), "asked of another host");
    let far = solicitation("2001:db8:1::5", "2001:db8:1::1", true).replace("nw_ttl=255", "nw_ttl=254");
    assert_eq!(router.send(&far).verdict(), dropped(DropReason::RuleDrop), "sent on by a router");
}

#[test]
fn pings_are_answered_along_the_routes_and_link_local_ones_on_their_link() {
    let router = router();
    let ping = |src: &str, dst: &str| {
        let (word, from, to, kind) = match dst.contains(':') {
            false => ("icmp", "nw_src", "nw_dst", 8),
            true => ("icmp6", "ipv6_src", "ipv6_dst", 128),
        };
        let packet = format!(
            "in_port=1,{word},dl_src=0a:00:00:00:00:99,dl_dst=02:00:00:00:00:01,{from}={src},{to}={dst},nw_ttl=1,\
             icmp_type={kind},icmp_code=0"
        );
        let outcome = router.send(&packet);
        let left: Vec<_> =
            outcome.left.iter().map(|(port, p)| (*port, p.get(slot::TP_SRC), p.get(slot::IP_TTL))).collect();
        (left, outcome.punts.iter().map(|punt| (punt.kind, punt.in_interface)).collect::<Vec<_>>())
    };
    assert_eq!(ping("10.0.1.5", "10.0.1.1").0, [(1, 0, 64)]);
    assert_eq!(ping("10.0.1.5", "10.0.3.1").0, [(1, 0, 64)], "an address of another interface");
    assert_eq!(ping("192.0.2.7", "10.0.1.1").0, [(2, 0, 64)], "whoever asks from far away");
    assert_eq!(ping("2001:db8:1::5", "2001:db8:1::1").0, [(1, 129, 64)]);
    assert_eq!(ping("fe80::5", "2001:db8:3::1").0, [(1, 129, 64)]);
    assert_eq!(ping("fe80::5", "fe80::ff:fe00:1").0, [(1, 129, 64)]);
    assert_eq!(ping("10.0.1.6", "10.0.1.1").1, [(PuntKind::Resolve, None)], "the answer is the router's own");
    assert_eq!(ping("fe80::5", "ff02::1").1, [(PuntKind::Local, Some(InterfaceId(1)))]);
    assert_eq!(ping("fe80::5", "fe80::ff:fe00:3"), (vec![], vec![]), "an address of another link");
}

#[test]
fn what_cannot_go_on_is_dropped_for_its_reason_and_told() {
    let mut routes = vec![route("10.0.0.0/8", &[(2, "10.0.2.2")])];
    for (destination, kind) in [
        ("192.0.2.0/26", RouteKind::Blackhole),
        ("192.0.2.64/26", RouteKind::Unreachable),
        ("192.0.2.128/26", RouteKind::Prohibit),
    ] {
        routes.push(Route { kind, next_hops: Vec::new(), ..route(destination, &[]) });
    }
    let mut state = knowing(&[(2, "10.0.2.2")]);
    state.neighbors.insert((InterfaceId(2), "10.0.2.3".parse().unwrap()), Neighbor::Failed);
    let interfaces = vec![interface(1, &["10.0.1.1/24"]), interface(2, &["10.0.2.1/24"])];
    let router = Router::new(config(interfaces, routes), state);
    let from = |dst: &str| udp(1, "10.0.1.5", dst);
    let expired = from("10.9.9.9").replace("nw_ttl=64", "nw_ttl=1");
    let table = [
        (expired, DropReason::TtlExpired, Some(PuntKind::TtlExpired)),
        (from("198.51.100.1"), DropReason::NoRoute, Some(PuntKind::NoRoute)),
        (from("192.0.2.1"), DropReason::RuleDrop, None),
        (from("192.0.2.65"), DropReason::NoRoute, Some(PuntKind::NoRoute)),
        (from("192.0.2.129"), DropReason::PolicyDeny, Some(PuntKind::Prohibited)),
        (from("10.0.2.3"), DropReason::NoNeighbor, Some(PuntKind::NoNeighbor)),
        (udp(1, "127.0.0.1", "10.9.9.9"), DropReason::SpoofGuard, None),
        (udp(1, "224.0.0.9", "10.9.9.9"), DropReason::SpoofGuard, None),
        (from("127.0.0.1"), DropReason::RuleDrop, None),
        (from("224.0.0.5"), DropReason::RuleDrop, None),
        (from("239.1.2.3"), DropReason::RuleDrop, None),
        (from("255.255.255.255"), DropReason::RuleDrop, None),
        (udp(1, "0.0.0.0", "255.255.255.255"), DropReason::RuleDrop, None),
        (from("10.0.2.255"), DropReason::RuleDrop, None),
        (from("10.9.9.9").replace("dl_dst=02", "dl_dst=03"), DropReason::RuleDrop, None),
        (from("10.0.1.1").replace("dl_dst=02", "dl_dst=03"), DropReason::RuleDrop, None),
        (from("10.9.9.9").replace("dl_dst=02", "dl_dst=06"), DropReason::RuleDrop, None),
        (from("10.9.9.9").replace("dl_src=0a", "dl_src=0b"), DropReason::SpoofGuard, None),
        (udp(1, "fe80::5", "2001:db8::1"), DropReason::RuleDrop, None),
        (udp(1, "2001:db8::1", "fe80::5"), DropReason::RuleDrop, None),
        (udp(1, "2001:db8::1", "ff0e::5"), DropReason::RuleDrop, None),
        (udp(1, "2001:db8::1", "2001:db8::2"), DropReason::NoRoute, Some(PuntKind::NoRoute)),
    ];
    for (packet, reason, told) in table {
        let outcome = router.send(&packet);
        assert_eq!(outcome.verdict(), dropped(reason), "{packet}");
        assert_eq!(outcome.punts.first().map(|punt| punt.kind), told, "{packet}");
        assert!(outcome.left.is_empty());
    }
    let unknown = router.send(&from("10.0.2.4"));
    assert_eq!(unknown.verdict(), Verdict::Forward, "the running side keeps it");
    let punt = unknown.punts[0];
    assert_eq!((punt.kind, punt.out_interface), (PuntKind::Resolve, Some(InterfaceId(2))));
    assert_eq!(punt.next_hop, Some("10.0.2.4".parse().unwrap()));
}

#[test]
fn what_the_router_has_to_see_is_handed_over_with_its_kind() {
    let router = router();
    let icmp6 = |kind: u8, dst: &str, ttl: u8| {
        format!(
            "in_port=1,icmp6,dl_src=0a:00:00:00:00:99,dl_dst=33:33:00:00:00:02,ipv6_src=fe80::5,ipv6_dst={dst},\
             nw_ttl={ttl},icmp_type={kind},icmp_code=0"
        )
    };
    let igmp = "in_port=1,ip,dl_src=0a:00:00:00:00:99,dl_dst=01:00:5e:00:00:16,nw_src=10.0.1.5,nw_dst=224.0.0.22,\
                nw_proto=2,nw_ttl=1";
    let table = [
        (icmp6(133, "ff02::2", 255), PuntKind::Ra),
        (icmp6(134, "ff02::1", 255), PuntKind::Ra),
        (icmp6(136, "2001:db8:1::1", 255), PuntKind::Nd),
        (icmp6(137, "2001:db8:1::1", 255), PuntKind::Nd),
        (icmp6(143, "ff02::16", 1), PuntKind::Group),
        (igmp.to_owned(), PuntKind::Group),
        (udp(1, "10.0.1.5", "10.0.3.1"), PuntKind::Local),
        (udp(1, "2001:db8:1::5", "2001:db8:2::1"), PuntKind::Local),
        (udp(1, "fe80::5", "fe80::ff:fe00:1"), PuntKind::Local),
    ];
    for (packet, kind) in table {
        let outcome = router.send(&packet);
        assert_eq!(outcome.punts.iter().map(|punt| punt.kind).collect::<Vec<_>>(), [kind], "{packet}");
        assert_eq!(outcome.verdict(), Verdict::Forward);
        let Some(DpAction::Controller(about)) = outcome.translation.actions.first() else { panic!("{packet}") };
        assert_eq!((about.reason, about.in_port), (PacketInReason::Action, PortNo(1)));
    }
    assert!(router.send(&icmp6(133, "ff02::2", 254)).punts.is_empty(), "sent on by a router");
}

#[test]
fn an_interface_of_layer_3_needs_no_neighbours() {
    let mut tunnel = interface(2, &["10.0.2.1/30"]);
    (tunnel.layer3, tunnel.mac) = (true, 0);
    let interfaces = vec![interface(1, &["10.0.1.1/24"]), tunnel];
    let router =
        Router::new(config(interfaces, vec![route("0.0.0.0/0", &[(2, "10.0.2.2")])]), knowing(&[(1, "10.0.1.5")]));
    let out = router.send(&udp(1, "10.0.1.5", "192.0.2.1"));
    let (port, packet) = out.left[0];
    assert_eq!((port, packet.get(slot::ETH_SRC), packet.get(slot::ETH_DST)), (2, 0, 0));
    let back = udp(2, "192.0.2.1", "10.0.1.5").replace("dl_src=0a:00:00:00:00:99", "dl_src=00:00:00:00:00:00");
    let back = back.replace("dl_dst=02:00:00:00:00:02", "dl_dst=00:00:00:00:00:00");
    assert_eq!(router.send(&back).left[0].0, 1);
}

#[test]
fn a_routed_packet_depends_on_no_port_of_the_transport() {
    let outcome = router().send(&udp(1, "10.0.1.5", "192.0.2.7"));
    let mask = outcome.translation.mask;
    assert_eq!((mask.get(slot::TP_SRC), mask.get(slot::TP_DST)), (0, 0));
    let text = show_match(&crate::Match::new(&Default::default(), &mask), Names::NONE).to_string();
    assert!(!text.contains("reg"), "{text}");
}
